"""Measured trade-offs: what a family's models cost and are worth, at every setting that was tried.

Written by `python -m train.sweep`, read by the page: assets/zoo/FAMILY.json.
"""

import json
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from dit.files import atomic_write

FORMAT = "dit-lab-measured/1"


class MeasuredError(ValueError):
    """A table that cannot be read; the message names the file, what is wrong and the remedy."""


@dataclass(frozen=True, kw_only=True)
class MeasuredModel:
    """A model of a family."""

    name: str  # as the page calls it: DiT-N-4-solids
    preset: str  # DiT-N/4
    network: str  # digest of its config and numbers, in hexadecimal
    macs: int  # of a forward pass of one picture
    parameters: int
    images_seen: int
    seconds: float  # of a forward pass of one picture, in batches, on the machine that the table names
    seconds_reused: float  # the same of a pass that reuses what its blocks gave (see `step_cache`)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One model at one setting: what a picture costs, and what many are worth."""

    model: str
    sampler: str
    steps: int
    guidance_scale: float
    guidance_interval: tuple[float, float] | None
    cache_every: int
    passes: int  # forward passes of a picture
    reused: int  # of these, how many reuse what the blocks gave
    macs: int  # of a picture
    seconds: float  # of a picture
    samples: int  # pictures that the measures are of
    seed: int  # of the first; the next have the next ones
    measures: dict[str, Any]  # frechet, frechet_interval (95 %), kernel, precision, recall, accuracy, ...
    thumbnails: str  # data: URL of a strip of pictures, one of each class, side by side

    @property
    def frechet(self) -> float:
        """Frechet distance to held-out pictures, in the features of the family's classifier."""
        return self.measures["frechet"]

    @property
    def setting(self) -> tuple[Any, ...]:
        """All that was chosen besides model and steps."""
        return self.sampler, self.guidance_scale, self.guidance_interval, self.cache_every

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells a cell from all others of its family."""
        return self.model, self.steps, *self.setting


@dataclass(frozen=True, kw_only=True)
class Family:
    """Models trained alike, and what was measured of them."""

    name: str
    classes: tuple[str, ...]
    models: tuple[MeasuredModel, ...]  # cheapest first
    cells: tuple[Cell, ...]
    about: dict[str, Any] = field(default_factory=dict)  # reference set, features, machine, commit, command

    def model(self, name: str) -> MeasuredModel:
        """A model by its name. Raises KeyError."""
        return {model.name: model for model in self.models}[name]

    def at(self, setting: tuple[Any, ...]) -> list[Cell]:
        """The cells of one combination, model by model, fewest steps first."""
        order = [model.name for model in self.models]
        found = [cell for cell in self.cells if cell.setting == setting]
        return sorted(found, key=lambda cell: (order.index(cell.model), cell.steps))


def frontier(cells: Iterable[Cell], cost: str = "macs") -> list[Cell]:
    """The cells that no other beats: whatever is better than one of them costs more. Cheapest first.

    cost: "macs" or "seconds", of a picture.
    """
    best, kept = math.inf, []
    for cell in sorted(cells, key=lambda cell: (getattr(cell, cost), cell.frechet)):
        if cell.frechet < best:
            best = cell.frechet
            kept.append(cell)
    return kept


def correlation(pairs: Sequence[tuple[float, float]]) -> float:
    """Pearson's, of the logarithm of compute with a distance: what the paper's Fig. 8 prints of FID.

    Raises:
        ValueError: fewer than three pairs, or all alike in one of the two.
    """
    if len(pairs) < 3:
        raise ValueError(f"{len(pairs)} pairs; a correlation needs at least 3")
    try:
        return statistics.correlation([math.log10(x) for x, _ in pairs], [y for _, y in pairs])
    except statistics.StatisticsError:
        raise ValueError(
            "all models cost the same, or are worth the same; there is nothing to correlate"
        ) from None


def load_family(path: Path) -> Family:
    """Read a table.

    Raises:
        MeasuredError: no such file, or not a table of this format; the first cell that is wrong is named.
    """
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise MeasuredError(f"{path}: {error}; make it with python -m train.sweep") from error
    found = values.get("format") if isinstance(values, dict) else type(values).__name__
    if found != FORMAT:
        raise MeasuredError(
            f"{path}: format is {found!r}, not {FORMAT!r}; make it with python -m train.sweep"
        )
    try:
        return _family(values)
    except ValueError as error:
        raise MeasuredError(f"{path}: {error}; make it again with python -m train.sweep") from error


# What a field may hold, by its type: in words, and as a check of a JSON value.
KINDS: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    str: ("a text", lambda value: isinstance(value, str)),
    int: (
        "a whole number, not below 0",
        lambda value: isinstance(value, int) and _is_number(value) and value >= 0,
    ),
    float: ("a finite number, not below 0", lambda value: _is_number(value) and value >= 0),
    list: ("a list", lambda value: isinstance(value, list)),
    dict[str, Any]: ("an object", lambda value: isinstance(value, dict)),
}


def _family(values: dict[str, Any]) -> Family:
    """A table's values, checked. Raises ValueError."""
    heads = {"name": str, "classes": list, "models": list, "cells": list, "about": dict[str, Any]}
    _checked(heads, {name: value for name, value in values.items() if name != "format"}, "the table")
    if not all(isinstance(name, str) for name in values["classes"]):
        raise ValueError("'classes' are not all texts")
    models, cells = [], []
    for i, each in enumerate(values["models"]):
        models.append(MeasuredModel(**_checked(_types(MeasuredModel), each, f"model {i + 1}")))
        if models[-1].macs < 1 or models[-1].name in (other.name for other in models[:-1]):
            raise ValueError(f"model {i + 1} ({models[-1].name}) costs nothing, or is there twice")
    names, keys = {model.name for model in models}, set()
    for i, each in enumerate(values["cells"]):
        cells.append(_cell(each, f"cell {i + 1}", names))
        if cells[-1].key in keys:
            raise ValueError(f"cell {i + 1}{_title(each)} is there twice")
        keys.add(cells[-1].key)
    head = {"name": values["name"], "classes": tuple(values["classes"]), "about": values["about"]}
    return Family(models=tuple(models), cells=tuple(cells), **head)


def _cell(values: Any, where: str, models: set[str]) -> Cell:
    """A cell, checked. Raises ValueError, which begins with `where`."""
    values = _checked(_types(Cell), values, where)
    where += _title(values)
    if values["model"] not in models:
        raise ValueError(f"{where}: its model is not in 'models'")
    for name in ("steps", "cache_every", "samples"):
        if values[name] < 1:
            raise ValueError(f"{where}: {name} is {values[name]}; it must be at least 1")
    interval, measures = values["guidance_interval"], values["measures"]
    if "frechet" not in measures:
        raise ValueError(f"{where}: 'frechet' is not among its measures")
    if interval is not None and not _is_interval(interval):
        raise ValueError(f"{where}: guidance_interval is {_short(interval)}; it must be two numbers or null")
    for name, value in measures.items():
        if name.endswith("_interval") and not _is_interval(value):
            raise ValueError(f"{where}: {name} is {_short(value)}; it must be two numbers, the lower first")
        if not name.endswith("_interval") and not _is_number(value):
            raise ValueError(f"{where}: {name} is {_short(value)}; it must be a finite number")
    return Cell(**values | {"guidance_interval": tuple(interval) if interval else None})


def _checked(wanted: dict[str, Any], values: Any, where: str) -> dict[str, Any]:
    """An object of JSON, which must have these fields. Raises ValueError, which begins with `where`.

    wanted: types by the fields' names; those that KINDS does not know are not looked at.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{where} is {_short(values)}; it must be an object")
    where = f"{where}{_title(values)}"
    if missing := wanted.keys() - values.keys():
        raise ValueError(f"{where}: {min(missing)!r} is missing")
    if more := values.keys() - wanted.keys():
        raise ValueError(f"{where}: {min(more)!r} is not known")
    for name, kind in wanted.items():
        words, fits = KINDS.get(kind, ("", lambda value: True))
        if not fits(values[name]):
            raise ValueError(f"{where}: {name} is {_short(values[name])}; it must be {words}")
    return values


def _types(kind: type) -> dict[str, Any]:
    """Of a dataclass's fields, by their names."""
    return {item.name: item.type for item in fields(kind)}


def _is_number(value: Any) -> bool:
    """Whether a JSON value is a number that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max  # neither of nan and inf is


def _is_interval(value: Any) -> bool:
    """Whether a JSON value is two numbers, the lower first."""
    return (
        isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)) and value[0] <= value[1]
    )


def _title(values: dict[str, Any]) -> str:
    """What tells a reader which cell is meant; empty of what is none."""
    if "model" not in values:
        return ""
    return f" ({_short(values['model'])} in {_short(values.get('steps'))} steps)"


def _short(value: Any) -> str:
    """A value as a message quotes it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def save_family(path: Path, family: Family) -> None:
    """Write a table, a line a cell, atomically."""
    head = {item.name: getattr(family, item.name) for item in fields(Family) if item.name != "cells"}
    head = {"format": FORMAT} | head | {"models": [asdict(model) for model in family.models]}
    cells = ",\n  ".join(json.dumps(asdict(cell)) for cell in family.cells)
    text = json.dumps(head, indent=1).removesuffix("\n}") + f',\n "cells": [\n  {cells}\n ]\n}}\n'
    atomic_write(path, lambda temporary: temporary.write_text(text))
