"""The measured tables that the page has: one a family, each read once until it changes."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from dit.measured import Family, MeasuredError, load_family

Tables = dict[str, Family | str]  # by the families' names; in place of one that cannot be read, why


def load_tables(folder: Path) -> Tables:
    """Families by the names of their files, in order; in place of one that cannot be read, what is wrong."""
    return {path.stem: _read(path, _stamp(path)) for path in sorted(folder.glob("*.json"))}


def _stamp(path: Path) -> tuple[int, ...]:
    """What tells two versions of a file apart; the time alone does not where the clock ticks slowly."""
    told = path.stat()
    return told.st_mtime_ns, told.st_size, told.st_ino


@lru_cache(maxsize=32)
def _read(path: Path, stamp: tuple[int, ...]) -> Family | str:
    """A table, or what is wrong with it; once for all views, whose thumbnails make it large."""
    try:
        return load_family(path)
    except MeasuredError as error:
        return str(error).replace(str(path), path.name)  # where it lies is no visitor's


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
