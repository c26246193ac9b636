"""Training runs as the page sees them: folders, and a child process that trains in one of them.

The page and the trainer know each other by a run's folder alone, so that neither can harm the other: a run
goes on where the page ends, and is found again where it begins.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dit.files import atomic_write
from train.history import History

RUNNING, PAUSED, STOPPED = "running", "paused", "stopped"
INTERRUPTED, FINISHED, FAILED = "interrupted", "finished", "failed"
STATES = (RUNNING, PAUSED, STOPPED, INTERRUPTED, FINISHED, FAILED)
ROOT = Path(__file__).resolve().parent.parent  # where the trainer is found
LOG = "train.log"  # what the trainer says, of every start
NOTE = "page.json"  # what a visitor wanted last
START = "--- started: "  # first line of each start in the log
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")
PATIENCE = 60.0  # seconds that a trainer has for its checkpoint when the page ends
TAIL = 4000  # bytes of the log that are looked at


@dataclass(frozen=True)
class TrainingRun:
    """A run as its folder tells it at a moment."""

    folder: Path
    state: str  # one of STATES
    wanted: str  # what a visitor wanted last: RUNNING, PAUSED or STOPPED; "" of a run that nobody began here
    settings: dict[str, Any]  # config.json; empty before the trainer has written it
    history: History | None  # its lines and grids; None before the first line
    said: str  # the last line of the trainer, or why it failed

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
    def weights(self) -> Path | None:
        """The averaged weights, once there are some."""
        path = self.folder / "weights.safetensors"
        return path if path.exists() else None

    @property
    def seconds_left(self) -> float | None:
        """By the speed of late; None before the first line, or where it does not run."""
        speed = self.history.rows[-1].get("images_per_second") if self.history else None
        if self.state != RUNNING or not speed:
            return None
        return (self.total_steps - self.step) * self.settings.get("batch_size", 0) / speed


class Runs:
    """All runs below a folder. Starts, pauses, stops and continues them, so many at a time."""

    def __init__(self, folder: Path, most: int = 1) -> None:
        """most: that may train at the same time on this machine."""
        self.folder, self.most = folder, most
        self._children: dict[str, subprocess.Popen] = {}  # those that this page has started
        self._lock = threading.Lock()
        self._closed = False

    def found(self) -> list[TrainingRun]:
        """Every run, the one that was touched last first."""
        return [self.read(path) for path in sorted(self._folders(), key=_touched, reverse=True)]

    def named(self, name: str) -> TrainingRun:
        """One of them. Raises ValueError where there is none of that name."""
        for folder in self._folders():
            if folder.name == name:
                return self.read(folder)
        raise ValueError(f"there is no run called {str(name)[:80]!r}; look at the list again")

    def weights(self) -> list[Path]:
        """The files of averaged weights that there are."""
        return sorted(path for path in self.folder.glob("*/weights.safetensors"))

    def trained_on(self, data: str) -> bool:
        """Whether a run was started with some data, as its arguments name it."""
        return any(
            data == _object(folder / "config.json").get("data")
            or data in _object(folder / NOTE).get("arguments", [])
            for folder in self._folders()
        )

    def plain(self, message: str) -> str:
        """A message of the trainer without where on this machine the runs lie, which is no visitor's."""
        return message.replace(f"{self.folder}{os.sep}", "")

    def _folders(self) -> list[Path]:
        return sorted(
            {path.parent for name in (NOTE, "config.json") for path in self.folder.glob(f"*/{name}")}
        )

    def read(self, folder: Path) -> TrainingRun:
        """A run's folder, forgiving of what is half-written."""
        settings, note = _object(folder / "config.json"), _object(folder / NOTE)
        said = _last_start(folder / LOG)
        try:
            history = History.of(folder)
        except (ValueError, OSError):  # nothing told yet
            history = None
        wanted = note.get("wanted") if note.get("wanted") in (RUNNING, PAUSED, STOPPED) else ""
        state = self._state(folder, settings, wanted, said)
        return TrainingRun(folder, state, wanted, settings, history, self.plain(_summary(said)))

    def _state(self, folder: Path, settings: dict[str, Any], wanted: str, said: list[str]) -> str:
        if self.process_of(folder) is not None:
            return RUNNING
        done = max(
            (int(path.name[5:]) for path in folder.glob("checkpoints/step_*") if path.name[5:].isdigit()),
            default=0,
        )
        if (
            settings
            and done >= settings.get("total_steps", 0) > 0
            and (folder / "weights.safetensors").exists()
        ):
            return FINISHED
        if wanted in (PAUSED, STOPPED):
            return wanted
        return FAILED if any(line.startswith("error:") for line in said) else INTERRUPTED

    def process_of(self, folder: Path) -> int | None:
        """The process that trains in a folder; None if there is none. Pid 0: it has not told its own yet."""
        child = self._children.get(folder.name)
        if child is not None and child.poll() is None:
            return child.pid
        lock = FileLock(folder / ".lock", timeout=0)
        if not Path(lock.lock_file).exists():
            return None
        try:
            with lock:
                return None
        except Timeout:  # the trainer has it, and keeps it while it lives
            return int(_object(folder / "process.json").get("pid", 0))

    def start(self, name: str, arguments: Sequence[str]) -> TrainingRun:
        """Begin a run in a new folder. arguments: of `python -m train`, without --run-dir.

        Raises:
            ValueError: there is one of that name, the name cannot be one, or too many train already.
        """
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(
                f"a run is called {str(name)[:80]!r}; use letters, digits, dots, hyphens and underscores, at "
                "most 64"
            )
        folder = self.folder / name
        with self._lock:
            if folder.exists():
                raise ValueError(
                    f"there is a run called {name!r} already; give another name, or resume that one"
                )
            self._check_room()
            folder.mkdir(parents=True)
            self._spawn(folder, arguments)
        return self.read(folder)

    def resume(self, name: str) -> TrainingRun:
        """Continue a run with its own settings.

        Raises:
            ValueError: it trains already, is finished, or too many others train.
        """
        run = self.named(name)
        if run.state in (RUNNING, FINISHED):
            raise ValueError(f"{name} is {run.state}: there is nothing to resume")
        with self._lock:
            self._check_room()
            # Before the trainer has written its settings there is only what it was started with.
            known = [] if run.settings else _object(run.folder / NOTE).get("arguments", [])
            self._spawn(run.folder, known)
        return self.read(run.folder)

    def pause(self, name: str) -> None:
        """Let a run's trainer write a checkpoint and end; returns at once.

        Raises:
            ValueError: none trains there.
        """
        self._end(name, PAUSED)

    def stop(self, name: str) -> None:
        """As `pause`, for good: nobody is expected to resume it, though one can."""
        self._end(name, STOPPED)

    def close(self, seconds: float = PATIENCE) -> None:
        """Let the trainers that this page has started write their checkpoints, and start none any more.

        seconds: to wait for that; one that takes longer goes on with it, and is found again.
        """
        end = time.monotonic() + seconds
        with self._lock:
            self._closed = True
            children = [child for child in self._children.values() if child.poll() is None]
        for child in children:
            child.terminate()
        for child in children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, end - time.monotonic()))

    def _end(self, name: str, wanted: str) -> None:
        run = self.named(name)
        process = self.process_of(run.folder)
        if process == 0:
            raise ValueError(f"{name} is just beginning; try again in a moment")
        if process is None:
            raise ValueError(f"{name} is {run.state}: it does not train now")
        _note(run.folder, {"wanted": wanted})
        os.kill(process, signal.SIGTERM)

    def _check_room(self) -> None:
        if self._closed:
            raise ValueError("the server is stopping; train when it is back")
        busy = [run.name for run in self.found() if run.state == RUNNING]
        if len(busy) >= self.most:
            at_once = "one run" if self.most == 1 else f"{self.most} runs"
            raise ValueError(
                f"{', '.join(busy)} is training, and this machine takes {at_once} at a time; pause or stop "
                "it, or wait until it is finished"
            )

    def _spawn(self, folder: Path, arguments: Sequence[str]) -> None:
        command = command_of(folder, arguments)
        noted = {"wanted": RUNNING} | ({"arguments": list(arguments)} if arguments else {})
        _note(folder, noted)
        with (folder / LOG).open("ab") as log:
            log.write(f"{START}{' '.join(command[1:])}\n".encode())
            log.flush()
            # In a session of its own: a Ctrl-C on the terminal is for the page, which ends it by `close`.
            self._children[folder.name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                start_new_session=True,
            )


def command_of(folder: Path, arguments: Sequence[str]) -> list[str]:
    """What trains in a folder: the same that anybody can give on a terminal."""
    return [sys.executable, "-m", "train", *arguments, "--run-dir", str(folder)]


def _note(folder: Path, values: dict[str, Any]) -> None:
    told = json.dumps(_object(folder / NOTE) | values, indent=1) + "\n"
    atomic_write(folder / NOTE, lambda temporary: temporary.write_text(told))


def _touched(folder: Path) -> float:
    """When a run was last written to."""
    times = [
        path.stat().st_mtime
        for name in (NOTE, "metrics.jsonl", "config.json")
        if (path := folder / name).exists()
    ]
    return max(times, default=0.0)


def _object(path: Path) -> dict[str, Any]:
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
