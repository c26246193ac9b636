"""Weights that others have published: where they lie, what they are, and on which terms."""

import re
from dataclasses import dataclass
from typing import Any

REPO_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


@dataclass(frozen=True)
class Published:
    """Weights that others have published; never downloaded unasked."""

    name: str
    repo_id: str
    revision: str  # a commit: what it holds cannot change
    side: int  # of the pictures, in pixels
    bytes: int  # of what a download brings
    parameters: int
    licence: str
    terms: str  # the licence in a sentence
    authors_file: str  # the same weights as their authors published them
    results: str  # published, with the settings that they were measured with

    def provenance(self) -> dict[str, Any]:
        """What is known of the weights, for pictures and cards."""
        return {
            "name": self.name,
            "source": f"{self.repo_id}@{self.revision}",
            "licence": self.licence,
            "published": self.results,
            "dataset": "imagenet",
            "classes": "imagenet",
        }


NON_COMMERCIAL = "not for commercial use, and credit must be given to Peebles and Xie"
PUBLISHED = {
    model.name: model
    for model in (
        Published(
            name="DiT-XL/2-256",
            repo_id="facebook/DiT-XL-2-256",
            revision="eab87f77abd5aef071a632f08807fbaab0b704d0",
            side=256,
            bytes=3_334_284_997,
            parameters=675_129_632,
            licence="CC-BY-NC 4.0",
            terms=NON_COMMERCIAL,
            authors_file="https://dl.fbaipublicfiles.com/DiT/models/DiT-XL-2-256x256.pt",
            results="FID-50K 2.27: ImageNet 256, 250 DDPM steps, guidance 1.5 on 3 channels, ft-EMA decoder "
            "(Peebles and Xie 2023)",
        ),
        Published(
            name="DiT-XL/2-512",
            repo_id="facebook/DiT-XL-2-512",
            revision="101a3d462b22d64c4afdd4d0c8c59a2c0b961b99",
            side=512,
            bytes=3_334_284_997,
            parameters=676_014_368,
            licence="CC-BY-NC 4.0",
            terms=NON_COMMERCIAL,
            authors_file="https://dl.fbaipublicfiles.com/DiT/models/DiT-XL-2-512x512.pt",
            results="FID-50K 3.04: ImageNet 512, 250 DDPM steps, guidance 1.5 on 3 channels, ft-EMA decoder "
            "(Peebles and Xie 2023)",
        ),
    )
}

# The autoencoder of the DiT paper in its three published forms, equal but for the decoder, and a small one
# that was distilled from it: name -> repository, commit, folder inside.
AUTOENCODERS = {
    "original": ("CompVis/stable-diffusion-v1-4", "133a221b8aa7292a167afc5127cb63fb5005638b", "vae"),
    "ft-mse": ("stabilityai/sd-vae-ft-mse", "31f26fdeee1355a5c34592e401dd41e45d25a493", ""),
    "ft-ema": ("stabilityai/sd-vae-ft-ema", "f04b2c4b98319346dad8c65879f680b1997b204a", ""),
    "taesd": ("madebyollin/taesd", "614f76814bbe30edbe2e627ace1c2234c81a2c0e", ""),
}


def published(name: str) -> str | None:
    """The name in PUBLISHED that is meant; a dash may stand for the slash."""
    return next((known for known in PUBLISHED if name in (known, known.replace("/", "-"))), None)


def is_repo_id(source: str) -> bool:
    """Whether a text can be the name of a repository on the Hub: OWNER/NAME."""
    return REPO_ID.fullmatch(source) is not None


def command_name(repo_id: str) -> str:
    """What to call a repository on our command line: the published model's name, where it is one."""
    return next((name for name, model in PUBLISHED.items() if model.repo_id == repo_id), repo_id)


def size_of(count: float) -> str:
    """Bytes in words: 3.33 GB."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f} B"
