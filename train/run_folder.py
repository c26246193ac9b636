"""A run's folder: one process at a time, one run for good, and a note of what was set anew."""

import contextlib
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from tqdm import tqdm

from dit import files
from dit.files import atomic_write
from train.changes import note
from train.checkpoint import PARTIAL, checkpoints, step_of
from train.config import RESUMABLE, TrainConfig
from train.data import Data
from train.hardware import Hardware
from train.run_files import LOCK, PROCESS

SAMPLE = 8  # pictures by which data are known again
PATIENCE = 1.0  # seconds that a process waits for the lock of another


@contextlib.contextmanager
def hold(run_dir: Path, hardware: Hardware) -> Iterator[None]:
    """Keep other runs out of a run's folder; the lock ends with the block, or with the main process.

    Raises:
        ValueError: another process trains there.
    """
    # Some patience: the page takes the lock for a moment, to see whether anybody has it.
    lock, taken = FileLock(run_dir / LOCK, timeout=PATIENCE), False
    if hardware.is_main:
        run_dir.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
            (run_dir / PROCESS).unlink(missing_ok=True)  # of one that was killed
        except Timeout:
            taken = True
    if hardware.largest(int(taken)):  # all end alike
        raise ValueError(
            f"{run_dir} is in use by another process; wait for it, stop it, or give another --run-dir"
        )
    try:
        if hardware.is_main:
            discard_partials(run_dir)
            told = json.dumps({"pid": os.getpid()})
            atomic_write(run_dir / PROCESS, lambda temporary: temporary.write_text(told + "\n"))
        yield
    finally:
        if lock.is_locked:  # nobody shall signal a number that another process has by then
            (run_dir / PROCESS).unlink(missing_ok=True)
        lock.release()


def discard_partials(run_dir: Path) -> None:
    """Remove what a killed process left half written, or half deleted."""
    for left in (run_dir / "checkpoints").glob(f".step_*{PARTIAL}"):
        if left.is_dir():
            shutil.rmtree(left)
    files.discard_partials(run_dir)


def claim(run_dir: Path, config: TrainConfig, hardware: Hardware) -> None:
    """Write config.json, or make sure that the one there is of the same run; note what is set anew.

    Every process checks, so that all end alike; the main one writes.

    Raises:
        ValueError: the folder holds another run, and the message names what differs; a longer one; or
            damaged settings.
    """
    path, done = run_dir / "config.json", checkpoints(run_dir)
    settings, changed = json.loads(json.dumps(asdict(config))), {}  # tuples are lists in JSON
    if done and path.exists():  # before the first checkpoint there is nothing to spoil
        before = {
            **json.loads(json.dumps(asdict(TrainConfig()))),
            **_settings(path),
        }  # a setting that is new has had its default
        changed = {name: value for name, value in settings.items() if before[name] != value}
        if foreign := [name for name in changed if name not in RESUMABLE]:
            difference = ", ".join(f"{name} was {before[name]!r}, now {changed[name]!r}" for name in foreign)
            raise ValueError(
                f"{run_dir} holds another run: {difference}; continue it with its own settings, "
                "or give a new folder with --run-dir"
            )
        if config.total_steps < (reached := step_of(done[-1])):
            raise ValueError(
                f"total_steps is {config.total_steps}, but {run_dir} holds {reached} steps already; "
                "give at least as many, or a new folder with --run-dir"
            )
    hardware.wait_for_all()
    if hardware.is_main:
        if changed:
            note(run_dir, {"after": done[-1].name, "set": changed})
        atomic_write(path, lambda temporary: temporary.write_text(json.dumps(settings, indent=1) + "\n"))
    hardware.wait_for_all()


def config_of(run_dir: Path) -> TrainConfig | None:
    """The settings of the run in a folder; None if it holds none.

    Raises:
        ValueError: they are damaged, or those of another version.
    """
    path = run_dir / "config.json"
    if not path.exists():
        return None
    try:
        return TrainConfig(**_settings(path))
    except TypeError as error:
        raise ValueError(
            f"{path}: expected the settings of a run of this version, found {error}; name the recipe and "
            "the settings that it shall go on with"
        ) from error


def claim_data(run_dir: Path, data: Data, hardware: Hardware) -> None:
    """Write data.json, or make sure that the one there is of the same pictures; note it if they differ.

    Raises:
        ValueError: there are more or fewer than before, or other classes.
    """
    path, done = run_dir / "data.json", checkpoints(run_dir)
    now = {"pictures": len(data), "classes": list(data.info.classes), "sample": _sample(data)}
    if done and path.exists():
        before = _settings(path)
        for name in ("pictures", "classes"):
            if before.get(name) != now[name]:
                raise ValueError(
                    f"{run_dir} was trained on other data: {name} of {data.info.name} was "
                    f"{before.get(name)}, now {now[name]}; bring it back to what it was, or give a new "
                    "folder with --run-dir"
                )
        if before.get("sample") != now["sample"] and hardware.is_main:
            told = f"{data.info.name} is not what {run_dir} was trained on so far: its pictures have changed"
            tqdm.write(told, file=sys.stderr)
            note(run_dir, {"after": done[-1].name, "other_pictures": data.info.name})
    hardware.wait_for_all()
    if hardware.is_main:
        atomic_write(path, lambda temporary: temporary.write_text(json.dumps(now, indent=1) + "\n"))


def _sample(data: Data) -> str:
    """A digest of some pictures' contents, from wherever they are read."""
    places = np.array([0]) if data.blocks is not None else np.arange(SAMPLE) * len(data) // SAMPLE
    x0, y = data.fetch(places, np.zeros(len(places), bool), np.zeros(len(places), np.int64))
    return hashlib.sha256(x0.numpy().tobytes() + y.numpy().tobytes()).hexdigest()


def _settings(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(
            f"{path}: expected the settings as JSON, found {error}; mend it, or give a new --run-dir"
        ) from error


def truncate_metrics(run_dir: Path, step: int) -> None:
    """Drop the lines of metrics.jsonl beyond a step, and a half-written last one: they will come again."""
    path = run_dir / "metrics.jsonl"
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (json.JSONDecodeError, KeyError):
            break
    atomic_write(path, lambda temporary: temporary.write_text("".join(kept)))
