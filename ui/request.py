"""From what a visitor sends to checked settings: the page and the API both go through here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dit.pipeline import MAX_SEED, SampleSettings
from dit.samplers import SAMPLERS
from ui.ladder import Rung

MAX_PICTURES = 16
MAX_GUIDANCE = 20.0
PAGE_STEPS = 250  # the slider's end: the paper's number; the API goes on to 1000


@dataclass(frozen=True)
class Request:
    """A checked wish: which model, and what it shall draw."""

    rung: Rung
    settings: SampleSettings

    @property
    def label(self) -> int:
        """The class, the same for all pictures."""
        return self.settings.classes[0]

    def describe(self, picture: int) -> dict[str, Any]:
        """All that is needed to draw one of the pictures again, as plain JSON values."""
        return {
            "model": self.rung.name,
            "class": self.rung.classes[self.label] if self.rung.classes else None,
            "steps": self.settings.steps,
            "guidance_scale": self.settings.guidance_scale,
            "seed": self.settings.seeds[picture],
            "sampler": self.settings.sampler,
            "eta": self.settings.eta,
            "images_seen": self.rung.provenance.get("images_seen"),
            "commit": self.rung.provenance.get("commit"),
        }


def parse(
    ladder: Sequence[Rung],
    model: Any,
    label: Any,
    steps: Any,
    guidance_scale: Any,
    seed: Any,
    pictures: Any,
    sampler: Any,
) -> Request:
    """Check what was sent, in the order of the API's arguments.

    model: name, or position on the ladder. label: class index, or its name.

    Raises:
        ValueError: something is not what it must be; the message says value and limit.
    """
    rung = _rung(ladder, model)
    label = _label(rung, label)
    steps = _whole("steps", steps, 1, 1000)
    seed = _whole("seed", seed, 0, MAX_SEED - MAX_PICTURES)
    pictures = _whole("pictures", pictures, 1, MAX_PICTURES)
    scale = _number("guidance_scale", guidance_scale, 0, MAX_GUIDANCE)
    if sampler not in list(SAMPLERS):  # a list: what was sent need not be hashable
        raise ValueError(f"sampler is {_short(sampler)}; it must be one of {', '.join(SAMPLERS)}")
    settings = SampleSettings(
        classes=[label] * pictures,
        seeds=range(seed, seed + pictures),
        steps=steps,
        guidance_scale=scale,
        sampler=sampler,
    )
    rung.pipeline.denoiser(settings)  # what this model cannot serve, it says here
    return Request(rung, settings)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _number(name: str, value: Any, low: float, high: float) -> float:
    limits = f"it must be a number from {low:g} to {high:g}"
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise ValueError(f"{name} is {_short(value)}; {limits}") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} is {_short(value)}; {limits}")
    if not low <= value <= high:
        raise ValueError(f"{name} is {value:g}; {limits}")
    return float(value)


def _whole(name: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value  # as it is: large seeds do not survive a float
    number = _number(name, value, low, high)
    if number != int(number):
        raise ValueError(f"{name} is {number:g}; it must be a whole number from {low} to {high}")
    return int(number)


def _rung(ladder: Sequence[Rung], model: Any) -> Rung:
    for rung in ladder:
        if rung.name == model:
            return rung
    if isinstance(model, int | float) and not isinstance(model, bool):
        if model == model and model in range(len(ladder)):
            return ladder[int(model)]
    raise ValueError(
        f"model is {_short(model)}; it must be one of {', '.join(rung.name for rung in ladder)}, "
        f"or a position from 0 to {len(ladder) - 1}"
    )


def _label(rung: Rung, label: Any) -> int:
    if not rung.classes:
        return 0  # an unconditional model draws whatever it likes
    if isinstance(label, str) and label.strip().lower() in rung.classes:
        return rung.classes.index(label.strip().lower())
    try:
        return _whole("class", label, 0, len(rung.classes) - 1)
    except ValueError as error:
        raise ValueError(f"{error}, or one of {', '.join(rung.classes)}") from None
