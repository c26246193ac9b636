"""The measured tables that the page has: one a family, read once at the start."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from dit import weights
from dit.digest import digest_of
from dit.measured import Cell, Family, MeasuredError, load_family
from ui.families import UNKNOWN, families
from ui.studio import Studio

Tables = dict[str, Family | str]  # by the families' names; in place of one that cannot be read, why


def load_tables(folder: Path) -> Tables:
    """Families by the names of their files, in order; in place of one that cannot be read, what is wrong."""
    return {path.stem: _read(path, path.stat().st_mtime_ns) for path in sorted(folder.glob("*.json"))}


@lru_cache(maxsize=32)
def _read(path: Path, changed: int) -> Family | str:
    """A table, or what is wrong with it; once for all views, whose thumbnails make it large."""
    try:
        return load_family(path)
    except MeasuredError as error:
        return str(error).replace(str(path), path.name)  # where it lies is no visitor's


def offered(studio: Studio) -> Tables:
    """The tables of the page's own families, then the others; where a family has none, how to make it."""
    tables = load_tables(studio.tables)
    measured = {
        model.name for table in tables.values() if isinstance(table, Family) for model in table.models
    }
    own: Tables = {}
    for name, rungs in families(studio).items():
        if name in tables:
            own[name] = tables[name]
        elif name != UNKNOWN and not measured & {rung.name for rung in rungs}:
            own[name] = (
                f"There is no table for {name}: its models have not been measured. Make one with "
                "python -m train.sweep, and start the page again. The grid and equal budgets do without."
            )
    return own | tables


def first_of(tables: Tables) -> str | None:
    """What the page opens on: the first that has something to show, else the first; None if there is none."""
    shown = (name for name, table in tables.items() if isinstance(table, Family) and table.cells)
    return next(shown, next(iter(tables), None))


def family_of(tables: Tables, name: Any) -> Family | None:
    """A family by its name, whatever is sent as one; None if there is none, or its table cannot be read."""
    found = tables.get(name) if isinstance(name, str) else None
    return found if isinstance(found, Family) else None


def no_table(folder: Path) -> str:
    """What to say where there is none."""
    place = "/".join(folder.parts[-2:])
    return (
        f"No family of models has been measured: there is no table in {place}. Make one with "
        "python -m train.sweep, and start the page again."
    )


def other_weights(studio: Studio, family: Family) -> tuple[str, ...]:
    """Names of the models that the page has with other weights than were measured. Reads their files."""
    here = {rung.name: rung for rung in studio.rungs if rung.published is None}
    return tuple(
        model.name
        for model in family.models
        if model.name in here and digest_of(weights.load(here[model.name].source)) != model.network
    )


@dataclass(frozen=True)
class Shelf:
    """What was measured, and of which models the page has other weights."""

    tables: Tables
    changed: dict[str, tuple[str, ...]]  # models of each table, by its name
    missing: str  # what is said where there is no table at all

    @classmethod
    def of(cls, studio: Studio) -> "Shelf":
        """Of the page. Reads the weights of all models that were measured."""
        tables = offered(studio)
        read = {name: table for name, table in tables.items() if isinstance(table, Family)}
        changed = {name: other_weights(studio, table) for name, table in read.items()}
        return cls(tables, changed, no_table(studio.tables))

    def warning(self, name: str) -> list[str]:
        """What is to be said of a table whose models are here with other weights, in a sentence."""
        models = self.changed.get(name)
        if not models:
            return []
        return [
            f"Other weights of {', '.join(models)} were measured than this page has: what it draws may be "
            "better or worse than these points. python -m train.sweep measures them anew."
        ]

    def differs(self, name: str, cell: Cell) -> bool:
        """Whether the page has other weights of a cell's model."""
        return cell.model in self.changed.get(name, ())
