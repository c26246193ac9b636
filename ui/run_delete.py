"""Deleting a run for good: what goes is said first."""

import contextlib

from dit.published import size_of
from ui.run import TrainingRun
from ui.runs import Runs


def size_on_disk(run: TrainingRun) -> int:
    """Bytes of all that a run has written."""
    total = 0
    for path in run.folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # it goes this moment
            total += path.stat().st_size if path.is_file() else 0
    return total


def question(runs: Runs, name: str) -> str:
    """What would go with a run, to be asked before it does.

    Raises:
        ValueError: there is no such run, or it trains.
    """
    run = runs.deletable(name)
    what = "its weights, checkpoints, samples and curves" if run.weights else "its settings and its log"
    return f"Delete {name} and its {size_of(size_on_disk(run))} for good? {what.capitalize()} go."


def delete(runs: Runs, name: str) -> int:
    """`Runs.delete`; returns how many bytes the run had.

    Raises:
        ValueError: there is no such run, or it trains.
        OSError: the folder cannot be removed.
    """
    size = size_on_disk(runs.named(name))
    runs.delete(name)
    return size
