"""An axis of a grid: a setting, and the values that were typed for it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dit.classes import find_class
from dit.diffusion import NUM_TIMESTEPS
from dit.samplers import SAMPLERS
from dit.settings import MAX_CACHE, MAX_SEED
from ui.families import samplers_of, spread, titles_of
from ui.limits import USUAL
from ui.request import MAX_GUIDANCE, number, short, whole
from ui.studio import Rung

MAX_TEXT = 2000  # letters of a list of values
SHOWN_MODELS = 5  # in the list that the page begins with
RANGE = re.compile(r"(\d{1,19})\s*(?:-|–|\.\.|to)\s*(\d{1,19})")

# What an axis is called, and which field of a `Wish` it sets.
AXES = {
    "model": "model",
    "steps": "steps",
    "guidance": "guidance_scale",
    "sampler": "sampler",
    "class": "label",
    "seed": "seed",
    "caching": "cache_every",
}
LIMITS = {"steps": (1, NUM_TIMESTEPS), "seed": (0, MAX_SEED - USUAL.pictures), "caching": (1, MAX_CACHE)}


@dataclass(frozen=True)
class Axis:
    """A setting and its values, in the order in which they were typed."""

    name: str  # of `AXES`
    values: tuple[Any, ...]

    @property
    def field(self) -> str:
        """Of a `Wish`."""
        return AXES[self.name]

    @property
    def titles(self) -> tuple[str, ...]:
        """The values as a viewer reads them."""
        return tuple(f"{value:g}" if isinstance(value, float) else str(value) for value in self.values)

    def heading(self, i: int) -> str:
        """Of a row or column: a value that would not speak for itself has the axis' name before it."""
        title = self.titles[i]
        if self.name == "steps":
            return f"{title} step{'' if title == '1' else 's'}"
        if self.name == "caching":
            return "no caching" if title == "1" else f"every {title} steps"
        return f"{self.name} {title}" if self.name in ("guidance", "seed") else title


def usual_values(name: str, family: Sequence[Rung]) -> str:
    """What the page proposes for an axis, as text. family: the models that can be compared."""
    if name == "model":
        return ", ".join(rung.name for rung in spread(family, SHOWN_MODELS))
    if name == "class":
        return ", ".join(titles_of(family)[:5])
    if name == "sampler":
        return ", ".join(samplers_of(family))
    return {"steps": "1, 2, 4, 8, 16, 32", "guidance": "1, 1.5, 2, 4", "seed": "0-4", "caching": "1-4"}[name]


def parse_axis(
    name: Any, text: Any, family: Sequence[Rung], here: Sequence[Rung], cells: int = USUAL.cells
) -> Axis:
    """An axis from what was chosen and typed: "1, 2, 4, 8", "1-8", names, or "all".

    family: the models that "all" means. here: all that may be named. cells: of a grid, at most.

    Raises:
        ValueError: no such axis, no such value, none at all, too many, or one twice.
    """
    if not isinstance(name, str) or name not in AXES:
        raise ValueError(f"an axis is {short(name)}; choose one of {', '.join(AXES)}")
    text = text if isinstance(text, str) else "" if text is None else str(text)
    if len(text) > MAX_TEXT:
        raise ValueError(f"the values of {name} have {len(text)} letters; at most {MAX_TEXT} are read")
    items = [item for item in map(str.strip, re.split(r"[,;\n]", text)) if item]
    if not items:
        raise ValueError(f"the axis {name} has no values; give some, such as {usual_values(name, family)}")
    if name in LIMITS:
        values = [value for item in items for value in _wholes(name, item, cells)]
    elif name == "guidance":
        values = [number("guidance", item, 0, MAX_GUIDANCE) for item in items]
    else:
        values = [value for item in items for value in _named(name, item, family, here)]
    if len(values) > cells:
        raise ValueError(f"the axis {name} has {len(values)} values; a grid has at most {cells} cells")
    if twice := [value for i, value in enumerate(values) if value in values[:i]]:
        raise ValueError(f"{name} {twice[0]} is on its axis twice; give each value once")
    return Axis(name, tuple(values))


def _wholes(name: str, item: str, cells: int) -> Sequence[int]:
    """A whole number, or all from one to another."""
    low, high = LIMITS[name]
    if not (match := RANGE.fullmatch(item)):
        return [whole(name, item, low, high)]
    first, last = (whole(name, bound, low, high) for bound in match.groups())
    if last < first:
        raise ValueError(f"{name} is {short(item)}, which runs backwards; write {last}-{first}")
    if last - first >= cells:
        raise ValueError(
            f"{name} is {short(item)}, which is {last - first + 1} values; a grid has at most {cells} "
            "cells: give a shorter range, or single values"
        )
    return range(first, last + 1)


def _named(name: str, item: str, family: Sequence[Rung], here: Sequence[Rung]) -> Sequence[str]:
    """The value that a name means, or all there are."""
    if item.casefold() == "all":
        if name == "model":
            return [rung.name for rung in family]
        return titles_of(family) if name == "class" else samplers_of(family)
    if name == "class":
        return [_class(item, [*family, *here])]
    known = [rung.name for rung in here] if name == "model" else ["auto", *SAMPLERS]
    for value in known:
        if value.casefold() == item.casefold():
            return [value]
    others = ", ".join(known)
    raise ValueError(f"{name} is {short(item)}, which is not here; choose among {others}, or all")


def _class(item: str, rungs: Sequence[Rung]) -> str:
    """The short name of a class, given by name or number, of the first model that has it."""
    refusal = f"class is {short(item)}, but these models know no classes; choose another axis"
    for rung in (rung for rung in rungs if rung.classes):
        try:
            return rung.titles[
                whole("class", item, 0, len(rung.classes) - 1)
                if item.lstrip("-").isdigit()
                else find_class(rung.classes, item)
            ]
        except ValueError as error:
            shown = ", ".join(rung.titles[:10]) + (", ..." if len(rung.classes) > 10 else "")
            refusal = f"{error}; {rung.name} has {shown}" if refusal.endswith("another axis") else refusal
    raise ValueError(refusal)
