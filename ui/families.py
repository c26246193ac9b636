"""Models that learned from the same data: what can be compared with what, fixed when the page is built."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dit import weights
from dit.measured import Family
from dit.samplers import OF_FORMULATION
from ui.studio import Rung
from ui.tables import Tables

UNKNOWN = "unknown data"


@dataclass(frozen=True)
class Group:
    """The models of one dataset and side: those on this machine, and those that may yet come to it."""

    name: str
    rungs: tuple[Rung, ...]  # cheapest first
    table: Family | None = None  # what was measured of them

    @property
    def compared(self) -> tuple[Rung, ...]:
        """What "all" means: the models that were measured together, else those of one design."""
        names = {model.name for model in self.table.models} if self.table else set()
        together = tuple(rung for rung in self.rungs if rung.name in names)
        return together if len(together) > 1 else of_one_design(self.rungs)

    @property
    def titles(self) -> tuple[str, ...]:
        """Short names of the classes of the first model that has some."""
        return titles_of(self.compared)


def groups_of(rungs: Sequence[Rung], first: Rung, tables: Tables) -> dict[str, Group]:
    """Groups by their names; the first is that of the model `first`.

    Depends on nothing that changes while the page is up, such as which models are in memory. A group is
    called as its dataset, with the side where the dataset has models of several.
    """
    sides: dict[str, set[int]] = {}
    for rung in rungs:
        sides.setdefault(dataset_of(rung), set()).add(rung.side)
    found: dict[str, list[Rung]] = {}
    for rung in sorted(rungs, key=lambda rung: rung is not first):
        dataset = dataset_of(rung)
        name = dataset if len(sides[dataset]) == 1 else f"{dataset} {rung.side} x {rung.side}"
        found.setdefault(name, []).append(rung)
    return {name: _group(name, members, tables) for name, members in found.items()}


def _group(name: str, rungs: Sequence[Rung], tables: Mapping[str, Family | str]) -> Group:
    """With the table that most of the models are in, whatever it is called."""
    names = {rung.name for rung in rungs}
    best, most = None, 0
    for table in tables.values():
        shared = 0 if isinstance(table, str) else len(names & {model.name for model in table.models})
        if shared > most:
            best, most = table, shared
    return Group(name, tuple(sorted(rungs, key=lambda rung: rung.macs_per_pass)), best)


def joined(group: Group, rungs: Sequence[Rung]) -> tuple[Rung, ...]:
    """What a group compares, and what has been trained in the page on its data meanwhile."""
    first = group.rungs[0]
    own = [rung for rung in rungs if rung.in_training and dataset_of(rung) == dataset_of(first)]
    together = [*group.compared, *(rung for rung in own if rung.side == first.side)]
    return tuple(sorted(together, key=lambda rung: rung.macs_per_pass))


def dataset_of(rung: Rung) -> str:
    """The name of the data that a model was trained on, as its file says."""
    return str(rung.provenance.get("dataset") or UNKNOWN)


def trained(rung: Rung) -> str:
    """How long a model was trained, as its file says."""
    seen = rung.provenance.get("images_seen")
    known = isinstance(seen, int) and not isinstance(seen, bool)
    return f"trained on {seen:,} pictures" if known else "trained on nobody says how many pictures"


def titles_of(rungs: Sequence[Rung]) -> tuple[str, ...]:
    """Short names of the classes of the first model that has some."""
    return next((rung.titles for rung in rungs if rung.classes), ())


def samplers_of(rungs: Sequence[Rung]) -> list[str]:
    """All that serve one of the models."""
    return list(dict.fromkeys(name for rung in rungs for name in OF_FORMULATION[rung.config.formulation]))


def of_one_design(rungs: Sequence[Rung]) -> tuple[Rung, ...]:
    """Without the bundled models that differ in their design alone; all, if there are no others."""
    return tuple(rung for rung in rungs if Path(rung.source).parent != weights.BACKBONES) or tuple(rungs)


def spread(rungs: Sequence[Rung], count: int) -> Sequence[Rung]:
    """At most so many of the models, from the cheapest to the dearest."""
    if len(rungs) <= count:
        return rungs
    return [rungs[round(i * (len(rungs) - 1) / (count - 1))] for i in range(count)]
