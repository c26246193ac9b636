"""From what a visitor sends to checked settings: the page and the API both go through here."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from dit.classes import find_class
from dit.diffusion import NUM_TIMESTEPS
from dit.samplers import SAMPLERS
from dit.settings import MAX_CACHE, MAX_SEED, SampleSettings
from ui.limits import USUAL, Limits
from ui.studio import Rung

MAX_GUIDANCE = 20
PAGE_SEED = 2**53 - 1 - USUAL.pictures  # a browser's numbers are doubles; the API goes on to 2**63
PAGE_STEPS = 250  # the slider's end: the paper's number; the API goes on to 1000


class Wish(NamedTuple):
    """What was sent, unchecked, in the order of the API's arguments."""

    model: Any  # name, or position on the ladder
    label: Any  # class index, or its name
    steps: Any
    guidance_scale: Any  # "auto": the model's usual one
    seed: Any
    pictures: Any
    sampler: Any
    guidance_interval: Any = "all"  # or lowest and highest noise level
    cache_every: Any = 1


@dataclass(frozen=True)
class Request:
    """A checked wish: which model, and what it shall draw."""

    rung: Rung
    settings: SampleSettings

    @property
    def label(self) -> int:
        """The class, the same for all pictures."""
        return self.settings.classes[0]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the transformer for all its pictures."""
        return self.rung.macs(self.settings) * len(self.settings.seeds)

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


def parse(ladder: Sequence[Rung], wish: Wish, limits: Limits = USUAL) -> Request:
    """Check what was sent.

    Raises:
        ValueError: something is not what it must be; the message says value and limit.
    """
    rung = find_rung(ladder, wish.model)
    label = _label(rung, wish.label)
    seed = whole("seed", wish.seed, 0, MAX_SEED - limits.pictures)
    pictures = whole("pictures", wish.pictures, 1, limits.pictures)
    scale = rung.guidance_scale if wish.guidance_scale in ("auto", None) else wish.guidance_scale
    if wish.sampler not in (known := ["auto", *SAMPLERS]):  # a list: what was sent need not be hashable
        raise ValueError(f"sampler is {short(wish.sampler)}; it must be one of {', '.join(known)}")
    settings = SampleSettings(
        classes=[label] * pictures,
        seeds=range(seed, seed + pictures),
        steps=whole("steps", wish.steps, 1, min(limits.steps, NUM_TIMESTEPS)),
        guidance_scale=number("guidance_scale", scale, 0, MAX_GUIDANCE),
        sampler=wish.sampler,
        guidance_interval=_interval(wish.guidance_interval),
        cache_every=whole("cache_every", wish.cache_every, 1, MAX_CACHE),
    ).resolved(rung.config)
    rung.cost(settings)  # what this model cannot serve, it says here
    return Request(rung, settings)


def short(value: Any) -> str:
    """A value as a message quotes it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def number(name: str, value: Any, low: float, high: float) -> float:
    """A number, or the text of one. Raises ValueError, which says name, value and limits."""
    return float(_within(name, value, low, high, whole=False))


def whole(name: str, value: Any, low: int, high: int) -> int:
    """A whole number, or the text of one. Raises ValueError, which says name, value and limits."""
    return int(_within(name, value, low, high, whole=True))


def _within(name: str, value: Any, low: float, high: float, whole: bool) -> Decimal:
    """A number, or the text of one, exactly: large seeds do not survive a float."""
    kind = "whole number" if whole else "number"
    refused = ValueError(f"{name} is {short(value)}; it must be a {kind} from {low} to {high}")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise refused
    try:
        number = Decimal(value if isinstance(value, int) else str(value))
    except InvalidOperation:
        raise refused from None
    if not (number.is_finite() and Decimal(str(low)) <= number <= Decimal(str(high))):
        raise refused
    if whole and number != int(number):
        raise refused
    return number


def _interval(value: Any) -> tuple[float, float] | None:
    """Of noise levels; None for all."""
    if value in ("all", None):
        return None
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError(
            f"guidance_interval is {short(value)}; it must be 'all', or lowest and highest noise level: "
            "[100, 700]"
        )
    low, high = (number("guidance_interval", bound, 0, NUM_TIMESTEPS) for bound in value)
    return low, high


def find_rung(ladder: Sequence[Rung], model: Any) -> Rung:
    """A model by its name or its place. Raises ValueError, which says what there is."""
    for rung in ladder:
        if rung.name == model:
            return rung
    if isinstance(model, int | float) and not isinstance(model, bool):
        if model == model and model in range(len(ladder)):
            return ladder[int(model)]
    raise ValueError(
        f"model is {short(model)}; it must be one of {', '.join(rung.name for rung in ladder)}, "
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
        return whole("class", label, 0, len(rung.classes) - 1)
    except ValueError as error:
        raise ValueError(f"{error}, or a name such as {', '.join(rung.titles[:5])}") from None


def _range_of(rung: Rung) -> str:
    shown = ", ".join(rung.titles[:10]) + (", ..." if len(rung.classes) > 10 else "")
    return f"{rung.name} has classes 0 to {len(rung.classes) - 1}: {shown}"
