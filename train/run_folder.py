"""A run's folder: one process at a time, one run for good, and a note of what was set anew."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dit.weights import atomic_write
from train.checkpoint import checkpoints
from train.config import RESUMABLE, TrainConfig


@contextlib.contextmanager
def hold(run_dir: Path) -> Iterator[None]:
    """Keep other processes out of a run's folder; the lock ends with the block, or with the process.

    Raises:
        ValueError: another process trains there.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run_dir / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"{run_dir} is in use by another process; wait for it, stop it, or give another --run-dir"
        ) from None
    try:
        for orphan in (run_dir / "checkpoints").glob(".step_*"):  # of a process killed while it wrote
            orphan.unlink()
        yield
    finally:
        lock.release()


def claim(run_dir: Path, config: TrainConfig) -> None:
    """Write config.json, or make sure that the one there is of the same run; note what is set anew.

    Raises:
        ValueError: the folder holds another run, and the message names what differs; or damaged settings.
    """
    path, settings = run_dir / "config.json", asdict(config)
    if path.exists():
        try:
            before = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(
                f"{path}: expected the settings as JSON, found {error}; mend it, or give a new --run-dir"
            ) from error
        changed = {name: value for name, value in settings.items() if before.get(name) != value}
        if foreign := [name for name in changed if name not in RESUMABLE]:
            difference = ", ".join(
                f"{name} was {before.get(name)!r}, now {changed[name]!r}" for name in foreign
            )
            raise ValueError(
                f"{run_dir} holds another run: {difference}; continue it with its own settings, "
                "or give a new folder with --run-dir"
            )
        if changed:
            done = checkpoints(run_dir)
            history = changes_of(run_dir)
            change = {"after": done[-1].stem if done else "step_00000000", "set": changed}
            if history[-1:] != [change]:  # it is there already after a kill before the line below
                history.append(change)
            lines = "".join(json.dumps(line) + "\n" for line in history)
            atomic_write(run_dir / "changes.jsonl", lambda temporary: temporary.write_text(lines))
    atomic_write(path, lambda temporary: temporary.write_text(json.dumps(settings, indent=1) + "\n"))


def changes_of(run_dir: Path) -> list[dict[str, Any]]:
    """What was set anew when the run was continued, and after which checkpoint.

    Raises:
        ValueError: changes.jsonl is damaged.
    """
    path = run_dir / "changes.jsonl"
    try:
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    except ValueError as error:
        raise ValueError(
            f"{path}: expected a line of JSON a change, found {error}; mend it, or give a new --run-dir"
        ) from error
