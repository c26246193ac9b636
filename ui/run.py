"""A training run as its folder tells it: how far it is, what it said last, and who trains there."""

import contextlib
import json
import re
import shutil
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from train.history import History
from train.run_files import LOCK, PROCESS

RUNNING, PAUSED, STOPPED = "running", "paused", "stopped"
INTERRUPTED, FINISHED, FAILED = "interrupted", "finished", "failed"
STATES = (RUNNING, PAUSED, STOPPED, INTERRUPTED, FINISHED, FAILED)
LOG = "train.log"  # what the trainer says, of every start
NOTE = "page.json"  # what a visitor wanted last
START = "--- started: "  # first line of each start in the log
GLANCE = 0.02  # seconds until a lock counts as the trainer's
LATE = 3  # lines of metrics whose median tells the speed
TAIL = 4000  # bytes of the log that are looked at
LITTLE = 2**18  # bytes of a disk on which a trainer cannot even say what is wrong


@dataclass(frozen=True)
class TrainingRun:
    """A run as its folder tells it at a moment."""

    folder: Path
    state: str  # one of STATES
    wanted: str  # what a visitor wanted last: RUNNING, PAUSED or STOPPED; "" of a run that nobody began here
    settings: dict[str, Any]  # config.json; empty before the trainer has written it
    history: History | None  # its lines and grids; None before the first line
    said: str  # the last line of the trainer, or why it failed

    @classmethod
    def of(cls, folder: Path, trains: bool) -> "TrainingRun":
        """Read a run's folder, forgiving of what is half-written. trains: whether a process does so there."""
        settings, note = object_of(folder / "config.json"), object_of(folder / NOTE)
        said = _last_start(folder / LOG)
        try:
            history = History.of(folder)
        except (ValueError, OSError):  # nothing told yet
            history = None
        wanted = note.get("wanted") if note.get("wanted") in (RUNNING, PAUSED, STOPPED) else ""
        state = RUNNING if trains else _left_in(folder, settings, history, wanted, said)
        if state in (INTERRUPTED, FAILED) and _is_full(folder):  # what was said may be cut short there
            return cls(folder, FAILED, wanted, settings, history, f"the disk of {folder} is full; make room")
        return cls(folder, state, wanted, settings, history, _summary(said))

    @property
    def name(self) -> str:
        """The folder's."""
        return self.folder.name

    @property
    def step(self) -> int:
        """Optimizer steps done, as far as is logged."""
        return self.history.steps if self.history else 0

    @property
    def total_steps(self) -> int:
        """Of the whole run; 0 where that is not known yet."""
        return int(self.settings.get("total_steps", 0))

    @property
    def saved(self) -> int:
        """Steps that are done in its last checkpoint; 0 if there is none."""
        return _saved(self.folder)

    @property
    def weights(self) -> Path | None:
        """The averaged weights, once there are some."""
        path = self.folder / "weights.safetensors"
        return path if path.exists() else None

    @property
    def seconds_left(self) -> float | None:
        """By the speed of late; None where it does not run, or has only begun: the first steps are slow."""
        rows = self.history.rows[-LATE:] if self.history else []
        speeds = [row["images_per_second"] for row in rows if row.get("images_per_second")]
        if self.state != RUNNING or len(speeds) < LATE:
            return None
        speed = statistics.median(speeds)
        return (self.total_steps - self.step) * self.settings.get("batch_size", 0) / speed


def holder_of(folder: Path) -> int | None:
    """The process that trains in a folder; None if there is none. Pid 0: it has not told its own yet."""
    # Some patience: another page may have it for a moment, to see the same.
    lock = FileLock(folder / LOCK, timeout=GLANCE, poll_interval=GLANCE / 10)
    if not Path(lock.lock_file).exists():
        return None
    try:
        with lock:
            return None
    except Timeout:  # the trainer has it, and keeps it while it lives
        return int(object_of(folder / PROCESS).get("pid", 0))


def _left_in(
    folder: Path, settings: dict[str, Any], history: History | None, wanted: str, said: list[str]
) -> str:
    """The state of a run that nobody trains."""
    drawable = history.provenance if history else (folder / "weights.safetensors").exists()
    if drawable and _saved(folder) >= settings.get("total_steps", 0) > 0:
        return FINISHED
    if wanted in (PAUSED, STOPPED):
        return wanted
    return FAILED if any(line.startswith("error:") for line in said) else INTERRUPTED


def _saved(folder: Path) -> int:
    names = (path.parent.name[5:] for path in folder.glob("checkpoints/step_*/state.json"))
    return max((int(name) for name in names if name.isdigit()), default=0)


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < LITTLE
    except OSError:  # it has gone
        return False


def touched(folder: Path) -> float:
    """When a run was last written to."""
    times = [0.0]
    for name in (NOTE, "metrics.jsonl", "config.json"):
        with contextlib.suppress(OSError):  # it is not there yet, or no more
            times.append((folder / name).stat().st_mtime)
    return max(times)


def object_of(path: Path) -> dict[str, Any]:
    """A file's JSON; {} where there is none, or none yet."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _last_start(path: Path) -> list[str]:
    """What the trainer has said since it was started last, a progress bar's states as lines."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    starts = [i for i, line in enumerate(lines) if line.startswith(START)]
    return lines[starts[-1] + 1 :] if starts else lines


def _summary(said: list[str]) -> str:
    """An error's line, or else the last."""
    errors = [line for line in said if line.startswith("error:")]
    return (errors or said or [""])[-1][:500]
