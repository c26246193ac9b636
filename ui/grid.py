"""A grid of pictures over two settings: what is in each cell, what it costs, and which is drawn first."""

from dataclasses import dataclass
from typing import Any

from ui import costs
from ui.axes import AXES, Axis
from ui.families import trained
from ui.request import Request, Wish, parse
from ui.several import Drawn, Several
from ui.studio import Studio


@dataclass(frozen=True)
class Cell:
    """One combination of the two axes."""

    row: int
    column: int
    request: Request | None  # None: it cannot be drawn
    refusal: str = ""  # why not
    macs: int = 0  # of one of its pictures
    seconds: float = 0.0  # expected, of all of them

    @property
    def total(self) -> int:
        """Multiply-accumulates of all its pictures."""
        return self.request.macs if self.request else 0


@dataclass(frozen=True)
class Plan:
    """A grid before it is drawn."""

    down: Axis
    across: Axis
    fixed: Wish  # what the axes do not say
    cells: tuple[Cell, ...]  # row by row

    @property
    def order(self) -> list[Cell]:
        """The cells that can be drawn, cheapest first."""
        return sorted((cell for cell in self.cells if cell.request), key=lambda cell: cell.total)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all pictures together."""
        return sum(cell.total for cell in self.cells)

    @property
    def seconds(self) -> float:
        """Expected for all pictures together."""
        return sum(cell.seconds for cell in self.cells)

    @property
    def pixels(self) -> int:
        """Of all pictures together."""
        return sum(len(cell.request.settings.seeds) * cell.request.rung.side**2 for cell in self.order)

    @property
    def held(self) -> dict[str, str]:
        """What is the same in all cells: name -> value, as a viewer reads it."""
        shown = {"guidance": self.fixed.guidance_scale, "sampler": self.fixed.sampler}
        shown = {"model": self.fixed.model, "class": self.fixed.label, "steps": self.fixed.steps} | shown
        shown |= {"seed": self.fixed.seed, "pictures a cell": self.fixed.pictures}
        if self.fixed.cache_every != 1:
            shown["caching"] = f"every {self.fixed.cache_every} steps"
        words = {"guidance": "each model's usual", "sampler": "each model's first"}
        return {
            name: words[name] if value == "auto" and name in words else _text(value)
            for name, value in shown.items()
            if name not in (self.down.name, self.across.name) and value is not None
        }

    @property
    def notes(self) -> list[str]:
        """What a viewer must know: what is the same in all cells, and which models were not trained alike."""
        held = ", ".join(f"{name} {value}" for name, value in self.held.items())
        rungs = dict.fromkeys(cell.request.rung for cell in self.cells if cell.request)
        told = [f"{rung.name} was {trained(rung)}" for rung in rungs]
        if len({trained(rung) for rung in rungs}) < 2:
            told = []
        return [f"The same in every cell: {held}."] + (
            [f"Not trained alike: {'; '.join(told)}."] if told else []
        )

    @property
    def summary(self) -> str:
        """How much there is to draw."""
        count, left = len(self.order), len(self.cells) - len(self.order)
        refused = f"; {left} cannot be drawn, and say why" if left else ""
        return (
            f"{costs.count_of('cell', count)}, {costs.gmacs(self.macs)} GMACs, about "
            f"{costs.duration(self.seconds)}, the cheapest first{refused}"
        )


@dataclass(eq=False)
class Grid:
    """A grid while it is drawn, and after."""

    plan: Plan
    job: Several
    places: dict[tuple[int, int], int]  # row and column -> place in the job

    @classmethod
    def of(cls, plan: Plan) -> "Grid":
        """With nothing drawn yet."""
        order = plan.order
        places = {(cell.row, cell.column): i for i, cell in enumerate(order)}
        return cls(plan, Several([cell.request for cell in order]), places)

    def drawn(self, cell: Cell) -> Drawn | None:
        """What a cell shows; None while there is nothing."""
        return self.job.drawn.get(self.places.get((cell.row, cell.column)))

    def is_now(self, cell: Cell) -> bool:
        """Whether the cell is being drawn."""
        return self.job.now is not None and self.job.now == self.places.get((cell.row, cell.column))

    def describe(self) -> dict[str, Any]:
        """The whole grid as plain JSON values: axes, what is fixed, and each picture's settings and costs."""
        cells = []
        for cell in self.plan.cells:
            values = {"row": self.plan.down.values[cell.row], "column": self.plan.across.values[cell.column]}
            if drawn := self.drawn(cell):
                values["pictures"] = drawn.describe()
            else:
                values["missing"] = cell.refusal or "not drawn"
            cells.append(values)
        axes = {"down": self.plan.down, "across": self.plan.across}
        return {
            **{side: {"axis": axis.name, "values": list(axis.values)} for side, axis in axes.items()},
            "fixed": self.plan.held,
            "cells": cells,
        }


def plan(studio: Studio, down: Axis, across: Axis, fixed: Wish) -> Plan:
    """Every combination of the axes' values, checked.

    Raises:
        ValueError: both axes are the same; too many cells, pixels, seconds or GMACs; nothing can be drawn.
    """
    limits = studio.limits
    if down.name == across.name:
        others = ", ".join(name for name in AXES if name != down.name)
        raise ValueError(f"both axes are {down.name}; choose another for one of them: {others}")
    count = len(down.values) * len(across.values)
    if count > limits.cells:
        raise ValueError(
            f"{len(down.values)} x {len(across.values)} are {count} cells; a grid has at most "
            f"{limits.cells}: give fewer values of {down.name} or {across.name}"
        )
    cells = [
        _cell(studio, fixed, (row, column), {down.field: below, across.field: right})
        for row, below in enumerate(down.values)
        for column, right in enumerate(across.values)
    ]
    planned = Plan(down, across, fixed, tuple(cells))
    if not planned.order:
        raise ValueError(f"none of the {count} cells can be drawn: {cells[0].refusal}")
    if planned.pixels > limits.pixels:
        raise ValueError(
            f"the pictures have {planned.pixels / 1e6:.1f} megapixels together; a grid has at most "
            f"{limits.pixels / 1e6:.1f}: give fewer cells, or fewer pictures a cell"
        )
    costs.refuse_dear([cell.request for cell in planned.order], limits)
    if planned.seconds > limits.seconds:
        raise ValueError(
            f"the grid is expected to take {costs.duration(planned.seconds)} "
            f"({costs.gmacs(planned.macs)} GMACs); at most {costs.duration(limits.seconds)} are given to "
            "one: choose fewer steps, smaller models, or fewer cells"
        )
    return planned


def _cell(studio: Studio, fixed: Wish, place: tuple[int, int], values: dict[str, Any]) -> Cell:
    """One combination; what its model cannot serve, it says instead of being drawn."""
    try:
        request = parse(studio.rungs, fixed._replace(**values), studio.limits)
    except (TypeError, ValueError) as error:
        return Cell(*place, None, str(error))
    if reason := studio.missing(request.rung):
        return Cell(*place, None, str(reason))
    rung, settings = request.rung, request.settings
    return Cell(*place, request, macs=rung.macs(settings), seconds=rung.seconds(settings))


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
