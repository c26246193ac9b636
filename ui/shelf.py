"""What the chart can show: tables of the page's models and others, and whose weights have changed."""

from collections.abc import Mapping
from dataclasses import dataclass

from dit import weights
from dit.digest import digest_of
from dit.measured import Cell, Family
from ui.families import UNKNOWN, Group
from ui.studio import Studio
from ui.tables import Tables, load_tables, no_table


def offered(studio: Studio, groups: Mapping[str, Group]) -> Tables:
    """The tables of the page's own families, then the others; where a family has none, how to make it."""
    tables = load_tables(studio.tables)
    measured = {
        model.name for table in tables.values() if isinstance(table, Family) for model in table.models
    }
    own: Tables = {}
    for name, group in groups.items():
        here = {rung.name for rung in group.rungs if not studio.missing(rung)}
        if name in tables:
            own[name] = tables[name]
        elif here and name != UNKNOWN and not measured & here:
            own[name] = (
                f"There is no table for {name}: its models have not been measured. Make one with "
                "python -m train.sweep, and start the page again. The grid and equal budgets do without."
            )
    return own | tables


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
    def of(cls, studio: Studio, groups: Mapping[str, Group]) -> "Shelf":
        """Of the page. Reads the weights of all models that were measured."""
        tables = offered(studio, groups)
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
