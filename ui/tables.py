"""The measured tables that the page has: one a family, read once at the start."""

from pathlib import Path
from typing import Any

from dit.measured import Family, MeasuredError, load_family

Tables = dict[str, Family | str]  # by the names of their files; in place of one that cannot be read, why


def load_tables(folder: Path) -> Tables:
    """Families by the names of their files, in order; in place of one that cannot be read, what is wrong."""
    tables: Tables = {}
    for path in sorted(folder.glob("*.json")):
        try:
            tables[path.stem] = load_family(path)
        except MeasuredError as error:
            tables[path.stem] = str(error).replace(str(path), path.name)  # where it lies is no visitor's
    return tables


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
