"""What of a measured family is drawn: the settings that its table has, and those that were chosen."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from dit.measured import Cell, Family

PICTURE, MODEL = "picture", "model"  # views: what a picture costs; what a pass of the model costs
MACS, SECONDS = "macs", "seconds"
FEWEST = 3  # models between which a relation can be seen

Guidance = tuple[float, tuple[float, float] | None]  # scale, and the noise levels at which it acts


@dataclass(frozen=True)
class Options:
    """All that a family's cells let one choose, as texts and numbers that a control can show."""

    samplers: tuple[str, ...]
    guidances: dict[str, Guidance]
    caches: tuple[int, ...]
    steps: tuple[int, ...]

    @classmethod
    def of(cls, family: Family) -> "Options":
        """In the table's order; numbers in their own."""
        pairs = sorted(
            {(cell.guidance_scale, cell.guidance_interval) for cell in family.cells},
            key=lambda pair: (pair[0], pair[1] is not None, pair[1] or ()),
        )
        return cls(
            samplers=tuple(dict.fromkeys(cell.sampler for cell in family.cells)),
            guidances={guidance_text(pair): pair for pair in pairs},
            caches=tuple(sorted({cell.cache_every for cell in family.cells})),
            steps=tuple(sorted({cell.steps for cell in family.cells})),
        )


@dataclass(frozen=True)
class Choice:
    """The values of the chart's controls, each one that the family's table has."""

    view: str
    cost: str
    sampler: str
    guidance: Guidance
    caches: tuple[int, ...]  # drawn beside each other, fewest steps between first
    steps: int  # of the view of models

    @classmethod
    def of(cls, family: Family, sent: Mapping[str, Any] = MappingProxyType({})) -> "Choice":
        """What was sent, checked; what the family does not have becomes what it has most of.

        sent: by the names above; guidance as `guidance_text` has it, caches a list. Raises ValueError for a
        family without cells.
        """
        if not family.cells:
            raise ValueError(
                f"the table of {family.name} has no cells; let python -m train.sweep go on with it"
            )
        options, (sampler, guidance, cache) = Options.of(family), _usual(family)

        def one(name: str, known: Sequence[Any], otherwise: Any) -> Any:
            """A list of what is known: what was sent need not be hashable."""
            return sent[name] if name in sent and sent[name] in list(known) else otherwise

        wanted = sent.get("caches")
        caches = [every for every in options.caches if isinstance(wanted, list | tuple) and every in wanted]
        texts = {pair: text for text, pair in options.guidances.items()}
        return cls(
            view=one("view", (PICTURE, MODEL), PICTURE),
            cost=one("cost", (MACS, SECONDS), MACS),
            sampler=one("sampler", options.samplers, sampler),
            guidance=options.guidances[one("guidance", texts.values(), texts[guidance])],
            caches=tuple(caches) or (cache,),
            steps=one("steps", options.steps, _usual_steps(family)),
        )

    def setting(self, cache: int) -> tuple[Any, ...]:
        """As a cell has it."""
        return self.sampler, *self.guidance, cache

    def cells(self, family: Family, cache: int | None = None) -> list[Cell]:
        """The cells that can be drawn, model by model, fewest steps first; of one cache, or of all chosen."""
        caches = self.caches if cache is None else (cache,)
        return [cell for every in caches for cell in drawable(family.at(self.setting(every)))]


def _usual(family: Family) -> tuple[str, Guidance, int]:
    """Sampler, guidance and cache of the setting that most cells have; without caching if there are such."""
    counts = Counter(cell.setting for cell in family.cells)
    sampler, scale, interval, cache = max(counts, key=lambda setting: (setting[3] == 1, counts[setting]))
    return sampler, (scale, interval), cache


def _usual_steps(family: Family) -> int:
    """The steps at which most models were measured, and of several the most steps."""
    models: dict[int, set[str]] = {}
    for cell in family.cells:
        models.setdefault(cell.steps, set()).add(cell.model)
    return max(models, key=lambda steps: (len(models[steps]), steps))


def drawable(cells: Iterable[Cell]) -> list[Cell]:
    """Those whose cost and distance have logarithms."""
    return [
        cell
        for cell in cells
        if all(math.isfinite(value) and value > 0 for value in (cell.frechet, cell.macs, cell.seconds))
    ]


def guidance_text(guidance: Guidance) -> str:
    """As a control shows it: none, 1.5, 1.5 at levels 100–700."""
    scale, interval = guidance
    if scale == 1 and interval is None:
        return "none"
    return f"{scale:g}" + (f" at levels {interval[0]:g}–{interval[1]:g}" if interval else "")


def cache_text(every: int) -> str:
    """As a control shows it."""
    return "none" if every == 1 else f"compute every {every} steps"
