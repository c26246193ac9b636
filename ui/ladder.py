"""The models that the page offers, ordered by compute: each loaded, timed on this machine, and described."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dit import weights
from dit.config import ModelConfig
from dit.pipeline import Pipeline, SampleSettings, Speed, measure_speed


@dataclass
class Rung:
    """One model of the ladder."""

    name: str
    pipeline: Pipeline
    speed: Speed
    classes: tuple[str, ...]  # names of its classes, in label order
    parameters: int  # all of them, the fixed position table included, as the paper's files count
    provenance: dict

    @property
    def config(self) -> ModelConfig:
        """The model's config."""
        return self.pipeline.model.config

    @property
    def guidance_scale(self) -> float:
        """The scale that the model was evaluated at, as its provenance says; 1 if it was not."""
        return float(self.provenance.get("results", {}).get("guidance_scale", 1.0))

    def seconds(self, settings: SampleSettings) -> float:
        """Expected seconds on this machine for these settings."""
        return self.speed.seconds(self.pipeline.passes(settings), len(settings.seeds), settings.steps)

    def correct_speed(self, settings: SampleSettings, seconds: float) -> None:
        """Correct the expectation by a finished job: the timing at start may have met a busy machine."""
        ratio = seconds / self.seconds(settings)
        self.speed = Speed(self.speed.overhead * ratio, self.speed.per_picture * ratio)


def unused(name: str, rungs: Sequence[Rung]) -> str:
    """The name, with a number behind if another model has it: the page and the API tell models by name."""
    taken, number = {rung.name for rung in rungs}, 2
    if name not in taken:
        return name
    while f"{name} ({number})" in taken:
        number += 1
    return f"{name} ({number})"


def open_ladder(extra: Sequence[Path | str] = (), device: str = "cpu") -> list[Rung]:
    """Load and time the bundled models and any further weights files, cheapest first.

    Raises:
        WeightsError: a file cannot be used, or there is no model at all.
    """
    rungs = []
    for source in [*weights.zoo().values(), *extra]:
        model = weights.load(source)
        try:
            pipeline = Pipeline(model, device)
        except ValueError as error:
            raise weights.WeightsError(f"{source}: {error}") from error
        labels = range(model.config.num_classes)
        names = tuple(model.provenance.get("classes") or (f"class {y}" for y in labels))
        name = unused(model.provenance.get("name") or weights.locate(source).stem, rungs)
        count = sum(parameter.numel() for parameter in model.parameters())
        rungs.append(Rung(name, pipeline, measure_speed(pipeline), names, count, model.provenance))
    if not rungs:
        raise weights.WeightsError(
            f"no weights in {weights.ZOO}, and none were given; train some with `python -m train solids` "
            "and start with `python app.py --weights runs/solids/weights.safetensors`"
        )
    return sorted(rungs, key=lambda rung: rung.pipeline.macs_per_pass)
