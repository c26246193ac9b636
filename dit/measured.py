"""Measured trade-offs: what a family's models cost and are worth, at every setting that was tried.

Written by `python -m train.sweep`, read by the page: assets/zoo/FAMILY.json.
"""

import json
import math
from collections.abc import Iterable, Sequence
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

    def settings(self) -> list[tuple[Any, ...]]:
        """All combinations of sampler, guidance scale, interval and caching of which there are cells."""
        return list(dict.fromkeys(cell.setting for cell in self.cells))

    def at(self, setting: tuple[Any, ...]) -> list[Cell]:
        """The cells of one combination, model by model, fewest steps first."""
        order = [model.name for model in self.models]
        found = [cell for cell in self.cells if cell.setting == setting]
        return sorted(found, key=lambda cell: (order.index(cell.model), cell.steps))


def frontier(cells: Iterable[Cell], cost: str = "macs") -> list[Cell]:
    """The cells that no other beats: none is at most as dear and better. Cheapest first.

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
    xs, ys = [math.log10(x) for x, _ in pairs], [y for _, y in pairs]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    along = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    spread = math.sqrt(sum((x - mean_x) ** 2 for x in xs) * sum((y - mean_y) ** 2 for y in ys))
    if spread == 0:
        raise ValueError("all models cost the same, or are worth the same; there is nothing to correlate")
    return along / spread


def load_family(path: Path) -> Family:
    """Read a table.

    Raises:
        MeasuredError: no such file, or not a table of this format.
    """
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise MeasuredError(f"{path}: {error}; make it with python -m train.sweep") from error
    found = values.get("format") if isinstance(values, dict) else type(values).__name__
    if found != FORMAT:
        raise MeasuredError(
            f"{path}: format is {found!r}, not {FORMAT!r}; make it with python -m train.sweep"
        )
    try:
        return Family(
            name=values["name"],
            classes=tuple(values["classes"]),
            models=tuple(MeasuredModel(**model) for model in values["models"]),
            cells=tuple(_cell(cell) for cell in values["cells"]),
            about=values["about"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise MeasuredError(f"{path}: {error!r}; make it again with python -m train.sweep") from error


def _cell(values: dict[str, Any]) -> Cell:
    interval = values["guidance_interval"]
    return Cell(**values | {"guidance_interval": tuple(interval) if interval else None})


def save_family(path: Path, family: Family) -> None:
    """Write a table, a line a cell, atomically."""
    head = {item.name: getattr(family, item.name) for item in fields(Family) if item.name != "cells"}
    head = {"format": FORMAT} | head | {"models": [asdict(model) for model in family.models]}
    cells = ",\n  ".join(json.dumps(asdict(cell)) for cell in family.cells)
    text = json.dumps(head, indent=1).removesuffix("\n}") + f',\n "cells": [\n  {cells}\n ]\n}}\n'
    atomic_write(path, lambda temporary: temporary.write_text(text))
