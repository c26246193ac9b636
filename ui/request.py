"""From what a visitor sends to checked settings: the page and the API both go through here."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from dit.classes import find_class
from dit.diffusion import NUM_TIMESTEPS
from dit.samplers import SAMPLERS
from dit.settings import MAX_SEED, SampleSettings
from ui.studio import Rung

MAX_PICTURES = 16
MAX_GUIDANCE = 20
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
            **self.settings.describe(picture),
            "images_seen": self.rung.provenance.get("images_seen"),
            "commit": self.rung.provenance.get("commit"),
            "source": self.rung.provenance.get("source"),
            "autoencoder": self.rung.autoencoder,  # None: the model's own
            "tiling": self.rung.tiling,
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

    model: name, or position on the ladder. label: class index, or its name. guidance_scale: "auto" for
    the model's usual one.

    Raises:
        ValueError: something is not what it must be; the message says value and limit.
    """
    rung = _rung(ladder, model)
    label = _label(rung, label)
    steps = _whole("steps", steps, 1, NUM_TIMESTEPS)
    seed = _whole("seed", seed, 0, MAX_SEED - MAX_PICTURES)
    pictures = _whole("pictures", pictures, 1, MAX_PICTURES)
    if guidance_scale in ("auto", None):
        guidance_scale = rung.guidance_scale
    scale = _number("guidance_scale", guidance_scale, 0, MAX_GUIDANCE)
    if sampler not in (known := ["auto", *SAMPLERS]):  # a list: what was sent need not be hashable
        raise ValueError(f"sampler is {_short(sampler)}; it must be one of {', '.join(known)}")
    settings = SampleSettings(
        classes=[label] * pictures,
        seeds=range(seed, seed + pictures),
        steps=steps,
        guidance_scale=scale,
        sampler=sampler,
    ).resolved(rung.config)
    rung.passes(settings)  # what this model cannot serve, it says here
    return Request(rung, settings)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _number(name: str, value: Any, low: int, high: int) -> float:
    return float(_within(name, value, low, high, whole=False))


def _whole(name: str, value: Any, low: int, high: int) -> int:
    return int(_within(name, value, low, high, whole=True))


def _within(name: str, value: Any, low: int, high: int, whole: bool) -> Decimal:
    """A number, or the text of one, exactly: large seeds do not survive a float."""
    kind = "whole number" if whole else "number"
    refused = ValueError(f"{name} is {_short(value)}; it must be a {kind} from {low} to {high}")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise refused
    try:
        number = Decimal(value if isinstance(value, int) else str(value))
    except InvalidOperation:
        raise refused from None
    if not (number.is_finite() and low <= number <= high):
        raise refused
    if whole and number != int(number):
        raise refused
    return number


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
    if isinstance(label, str) and not label.strip().lstrip("-").replace(".", "", 1).isdigit():
        try:
            return find_class(rung.classes, label)
        except ValueError as error:
            raise ValueError(f"{error}; {_range_of(rung)}") from None
    try:
        return _whole("class", label, 0, len(rung.classes) - 1)
    except ValueError as error:
        raise ValueError(f"{error}, or a name such as {', '.join(rung.titles[:5])}") from None


def _range_of(rung: Rung) -> str:
    shown = ", ".join(rung.titles[:10]) + (", ..." if len(rung.classes) > 10 else "")
    return f"{rung.name} has classes 0 to {len(rung.classes) - 1}: {shown}"
