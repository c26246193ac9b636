"""Models that learned from the same data: what can be compared with what."""

from collections.abc import Sequence
from pathlib import Path

from dit import weights
from ui.studio import Rung, Studio

UNKNOWN = "unknown data"


def families(studio: Studio) -> dict[str, list[Rung]]:
    """Name -> the models on this machine of one dataset and side, cheapest first.

    The first is the family of the model that the page opens on. A family is called as its dataset, with the
    side where the dataset has models of several.
    """
    here = [rung for rung in studio.rungs if not studio.missing(rung)]
    sides: dict[str, set[int]] = {}
    for rung in here:
        sides.setdefault(dataset_of(rung), set()).add(rung.side)
    found: dict[str, list[Rung]] = {}
    for rung in sorted(here, key=lambda rung: rung is not studio.first):
        dataset = dataset_of(rung)
        name = dataset if len(sides[dataset]) == 1 else f"{dataset} {rung.side} x {rung.side}"
        found.setdefault(name, []).append(rung)
    return {name: sorted(rungs, key=lambda rung: rung.macs_per_pass) for name, rungs in found.items()}


def dataset_of(rung: Rung) -> str:
    """The name of the data that a model was trained on, as its file says."""
    return str(rung.provenance.get("dataset") or UNKNOWN)


def of_one_design(rungs: Sequence[Rung]) -> list[Rung]:
    """Without the bundled models that differ in their design alone; all, if there are no others."""
    return [rung for rung in rungs if Path(rung.source).parent != weights.BACKBONES] or list(rungs)


def spread(rungs: Sequence[Rung], count: int) -> list[Rung]:
    """At most so many of the models of one design, from the cheapest to the dearest."""
    main = of_one_design(rungs)
    if len(main) <= count:
        return main
    return [main[round(i * (len(main) - 1) / (count - 1))] for i in range(count)]
