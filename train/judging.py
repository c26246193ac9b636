"""What judges a model's pictures: the network that looks at them, and the real ones to compare with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import dit
from dit.classifier import DEFAULT
from dit.pipeline import Pipeline
from train import solids
from train.features import ClassifierFeatures, Extractor
from train.reference import SOLIDS_PICTURES, RealPictures, Reference, open_reference


@dataclass(frozen=True, kw_only=True)
class Judging:
    """The choice of both; by default those of the data set that the model learnt."""

    features: Literal["classifier", "inception"] = "classifier"
    """what looks at the pictures; inception: needs torch-fidelity, makes the measures FID, KID, IS, sFID"""
    classifier: Path | None = None
    """file of the classifier; default: that of the model's data set, of a set not known that of solids"""
    reference: str | None = None
    """real pictures: solids (held-out ones), a folder, a data set, an .npz of ADM's suite; default: solids,
    of a model that learnt these"""
    reference_pictures: int = 0
    """how many of them, evenly from the set; 0: all, of solids 5,000"""
    reference_split: str = "train"
    """of a data set"""

    def open(self, pipeline: Pipeline) -> tuple[Extractor, Reference]:
        """Both, on the pipeline's device.

        Raises:
            WeightsError, ValueError, HubError: one is not here, or does not suit the model; the message says
                what to do.
        """
        extractor, real = self.extractor(pipeline), self.real(pipeline)
        check(pipeline.model, extractor, real.side)
        return extractor, open_reference(real, extractor)

    def extractor(self, pipeline: Pipeline) -> Extractor:
        """What looks at the pictures. Raises as `open`."""
        if self.features == "inception":
            from train.inception import InceptionFeatures

            return InceptionFeatures(pipeline.device)
        if self.classifier is not None:
            return ClassifierFeatures(self.classifier, pipeline.device)
        name = _dataset(pipeline.model)
        path = DEFAULT.parent / f"{name}.safetensors"
        if not path.is_file():
            raise ValueError(
                f"no classifier is bundled for {name!r}, which the model learnt; give one: "
                "--classifier FILE, or use --features inception"
            )
        return ClassifierFeatures(path, pipeline.device)

    def real(self, pipeline: Pipeline) -> RealPictures:
        """Which real pictures to compare with. Raises ValueError where that must be said."""
        config, name = pipeline.model.config, self.reference
        if name is None and (name := _dataset(pipeline.model)) != solids.SOLIDS:
            raise ValueError(
                f"the model learnt {name!r}; say what its pictures are compared with: --reference, such as "
                "the folder it was trained on, with --reference-split where there are some"
            )
        pictures = self.reference_pictures or (SOLIDS_PICTURES if name == solids.SOLIDS else 0)
        side = config.input_size * (pipeline.autoencoder.factor if pipeline.autoencoder else 1)
        channels = 1 if config.in_channels == 1 else 3
        return RealPictures(
            name=name, pictures=pictures, split=self.reference_split, side=side, channels=channels
        )


def told(extractor: Extractor, reference: Reference) -> dict[str, Any]:
    """Which they are, as JSON values: two measures can be compared where these are equal."""
    return {"reference": reference.told, "features": extractor.told()}


def _dataset(model: dit.Backbone) -> str:
    return str(model.provenance.get("dataset") or solids.SOLIDS)


def check(model: dit.Backbone, extractor: Extractor, side: int) -> None:
    """Raises ValueError unless the extractor, itself measured, knows the model's classes and size.

    side: of the pictures that the model draws.
    """
    if not isinstance(extractor, ClassifierFeatures):
        return
    known = list(extractor.classes)
    named, classes = model.provenance.get("classes"), model.config.num_classes
    if classes and (named != known or classes != len(known)):
        raise ValueError(
            f"the model has {classes} classes, named {named} in its provenance, but the "
            f"classifier knows {known}; evaluate a model trained on those, or an unconditional one, or give "
            "a classifier of its classes: --classifier FILE; --features inception does without accuracy"
        )
    channels = 3 if model.config.is_latent else model.config.in_channels
    if (channels, side) != (3, extractor.side):
        raise ValueError(
            f"the model draws {channels} channels of side {side}, but the classifier knows 3 of side "
            f"{extractor.side}; evaluate a model of that size, or use --features inception"
        )
    if "held_out" not in extractor.model.provenance:
        raise ValueError(
            "the classifier's provenance has no held_out accuracy to compare with; "
            "make it again with python -m train.classifier"
        )
