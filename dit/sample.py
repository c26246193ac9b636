"""`python -m dit.sample`: pictures from any model, as one PNG with every setting inside."""

import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import tyro
from tqdm import tqdm

from dit.classes import class_names, find_class
from dit.command import exit_status
from dit.files import atomic_write
from dit.pictures import png, sheet_of
from dit.pipeline import Pipeline, find_device, usual_guidance
from dit.settings import SampleSettings

# What the DiT authors' sample.py draws: golden retriever, otter, lesser panda, geyser, macaw, valley, ...
# (its order; balloon and arctic fox come last)
SHOWN = (207, 360, 387, 974, 88, 979, 417, 279)
BATCH = 16  # pictures drawn together: each has its own seed, so that this changes memory and speed alone
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Sample:
    """Draw pictures, one a class unless told otherwise, and save them side by side."""

    model: str
    """bundled or published name (DiT-XL/2-256), weights file, diffusers folder, or OWNER/NAME on the Hub"""
    out: Path
    """the PNG to write"""
    classes: str | None = None
    """numbers or names with commas between: 207,360 or goldfish,otter; default: the DiT authors' eight, or
    the first sixteen of a model with other classes"""
    pictures: int | None = None
    """how many; the classes take turns. Default: one a class, 4 of an unconditional model"""
    steps: int = 50
    """of the sampler, 1 to 1000; each is one network call, of heun two"""
    guidance: float | None = None
    """guidance scale; default: what the model was evaluated at, else 4 for latents, 2 for pixels"""
    seed: int = 0
    """of the first picture; the next have the next ones"""
    guidance_schedule: Literal["auto", "constant", "power-cosine"] = "auto"
    """how guidance depends on the noise level; auto: power-cosine for latent DiffiT up to side 32"""
    guidance_interval: tuple[float, float] | None = None
    """lowest and highest guided timestep (0 to 999), sigma (EDM) or time (flow, 0 to 1); default: all"""
    sampler: str = "auto"
    """ddim, dpm-solver++ or ddpm; of an EDM model heun; of a flow euler, heun or sde; auto: the first"""
    eta: float = 0.0
    """noise of the ddim sampler, from 0 (none) to 1 (as much as ddpm)"""
    spacing: Literal["auto", "even", "leading", "linspace"] = "auto"
    """of the timesteps: even, as the DiT authors, leading or linspace, as diffusers' DDIM and DPM-Solver++"""
    guided_channels: int | None = None
    """how many channels are guided: 3 as the DiT authors, default all"""
    cache_every: int = 1
    """compute attention and MLPs at every so many steps only, and reuse them between (FORA); 1: at each"""
    autoencoder: str | None = None
    """decodes latents: ft-mse, ft-ema, original, taesd, a folder or OWNER/NAME; default: the model's own"""
    tiling: bool = False
    """decode in tiles: 512 x 512 on little memory"""
    columns: int = 4
    """pictures in a row"""
    device: str = "auto"
    """auto (a CUDA GPU if there is one, then Apple's, else the CPU), cpu, cuda, ..."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """of the weights; half precision takes half the memory"""


def draw(command: Sample) -> Path:
    """Load, draw with a progress bar, and write the PNG; returns its path.

    Raises:
        ValueError: a setting that is out of range, or that this model cannot serve.
        WeightsError: no such model, or it cannot be loaded.
    """
    out = command.out
    if out.suffix.lower() != ".png" or out.is_dir() or not out.parent.is_dir():
        raise ValueError(
            f"out is {out}; it must be a .png in a folder that exists"
        )  # now, not after the work
    for name in ("columns", "pictures"):
        if (value := getattr(command, name)) is not None and value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    pipeline = Pipeline.load(
        command.model,
        find_device(command.device),
        dtype=DTYPES[command.dtype],
        autoencoder=command.autoencoder,
        tiling=command.tiling,
    )
    config, provenance = pipeline.model.config, pipeline.model.provenance
    names = class_names(provenance, config.num_classes)
    labels = labels_of(command.classes, command.pictures, names)
    settings = SampleSettings(
        classes=labels,
        seeds=range(command.seed, command.seed + len(labels)),
        steps=command.steps,
        guidance_scale=usual_guidance(pipeline.model) if command.guidance is None else command.guidance,
        sampler=command.sampler,
        eta=command.eta,
        spacing=command.spacing,
        guided_channels=command.guided_channels,
        guidance_interval=command.guidance_interval,
        guidance_schedule=command.guidance_schedule,
        cache_every=command.cache_every,
    ).resolved(config)
    batches = [
        replace(settings, classes=labels[i : i + BATCH], seeds=settings.seeds[i : i + BATCH])
        for i in range(0, len(labels), BATCH)
    ]
    frames = settings.steps * len(batches)
    frames += len(labels) if pipeline.autoencoder else 0  # decoding a picture is one too
    drawn = []
    with tqdm(total=frames, desc=command.model, unit="step") as bar:
        for batch in batches:
            for frame in pipeline.stream(batch):
                last = frame
                bar.update()
            drawn += list(last.x0)
    described = [
        {
            "model": command.model,
            "class": names[y] if names else None,
            **settings.describe(i),
            "dtype": command.dtype,
            "autoencoder": command.autoencoder,  # None: the model's own
            "tiling": command.tiling,
            "source": provenance.get("source"),
            "commit": provenance.get("commit"),
        }
        for i, y in enumerate(labels)
    ]
    image = sheet_of(drawn, min(command.columns, len(labels)))
    written = png(image, {"pictures": described, "columns": min(command.columns, len(labels))})
    atomic_write(out, lambda temporary: temporary.write_bytes(written))
    return out


def labels_of(classes: str | None, pictures: int | None, names: tuple[str, ...]) -> list[int]:
    """A label a picture; the classes take turns. names: the model's classes, empty if it is unconditional.

    Raises:
        ValueError: no such class, or classes for an unconditional model.
    """
    if not names and classes is not None:
        raise ValueError(
            f"classes is {classes!r}, but this model is unconditional; leave it out "
            "(pictures says how many are drawn)"
        )
    labels = parse_classes(classes, names) if names else [0] * 4
    return labels if pictures is None else [labels[i % len(labels)] for i in range(pictures)]


def parse_classes(text: str | None, names: tuple[str, ...]) -> list[int]:
    """Labels from numbers or names with commas between. None: what shows a model off.

    Raises:
        ValueError: no such class, or several of that name.
    """
    if text is None:
        return list(SHOWN) if len(names) == 1000 else list(range(min(len(names), 16)))
    labels = []
    for word in text.split(","):
        if re.fullmatch(r"\s*-?[0-9]+\s*", word):
            if not 0 <= int(word) < len(names):
                raise ValueError(f"class is {int(word)}; this model has classes 0 to {len(names) - 1}")
            labels.append(int(word))
        else:
            labels.append(find_class(names, word))
    return labels


if __name__ == "__main__":
    wish = tyro.cli(Sample, prog="python -m dit.sample", description=Sample.__doc__)
    sys.exit(exit_status(lambda: print(draw(wish)), "stopped; nothing was written"))
