"""Deleting a run for good: its folder goes, and with it what it has learned."""

from dit.files import remove
from dit.published import size_of
from ui.run import RUNNING, TrainingRun
from ui.runs import Runs


def size_on_disk(run: TrainingRun) -> int:
    """Bytes of all that a run has written."""
    return sum(path.stat().st_size for path in run.folder.rglob("*") if path.is_file())


def question(runs: Runs, name: str) -> str:
    """What would go with a run, to be asked before it does.

    Raises:
        ValueError: there is no such run, or it trains.
    """
    run = _deletable(runs, name)
    what = "its weights, checkpoints, samples and curves" if run.weights else "its settings and its log"
    return f"Delete {name} and its {size_of(size_on_disk(run))} for good? {what.capitalize()} go."


def delete(runs: Runs, name: str) -> int:
    """Remove a run's folder, and return how many bytes it had.

    Raises:
        ValueError: there is no such run, or it trains.
        OSError: the folder cannot be removed.
    """
    run = _deletable(runs, name)
    size = size_on_disk(run)
    remove(run.folder)
    return size


def _deletable(runs: Runs, name: str) -> TrainingRun:
    run = runs.named(name)
    if run.state == RUNNING:
        raise ValueError(f"{name} is training; stop it first, and delete it when it has ended")
    return run
