"""Training runs as the page sees them: folders, and a child process that trains in one of them.

The page and the trainer know each other by a run's folder alone, so that neither can harm the other: a run
goes on where the page ends, and is found again where it begins.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dit.files import PARTIAL, atomic_write, filling, remove
from ui.run import (
    FINISHED,
    LOG,
    NOTE,
    PAUSED,
    RUNNING,
    START,
    STOPPED,
    TrainingRun,
    holder_of,
    object_of,
    touched,
)

ROOT = Path(__file__).resolve().parent.parent  # where the trainer is found
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")
PATIENCE = 60.0  # seconds that a trainer has for its checkpoint when the page ends


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
        return [self.read(path) for path in sorted(self._folders(), key=touched, reverse=True)]

    def names(self) -> list[str]:
        """Of every run, without a look into it."""
        return [folder.name for folder in self._folders()]

    def named(self, name: str) -> TrainingRun:
        """One of them. Raises ValueError where there is none of that name."""
        for folder in self._folders():
            if folder.name == name:
                return self.read(folder)
        raise ValueError(f"there is no run called {str(name)[:80]!r}; look at the list again")

    def weights(self) -> list[Path]:
        """The files of averaged weights that there are."""
        return sorted(path for path in self.folder.glob("*/weights.safetensors"))

    def plain(self, message: str) -> str:
        """A message of the trainer without where on this machine the runs lie, which is no visitor's."""
        return message.replace(f"{self.folder}{os.sep}", "")

    def _folders(self) -> list[Path]:
        return sorted(
            {path.parent for name in (NOTE, "config.json") for path in self.folder.glob(f"*/{name}")}
        )

    def read(self, folder: Path) -> TrainingRun:
        """The run in a folder."""
        run = TrainingRun.of(folder, self.process_of(folder) is not None)
        return replace(run, said=self.plain(run.said))

    def process_of(self, folder: Path) -> int | None:
        """The process that trains in a folder; None if there is none. Pid 0: it has not told its own yet."""
        child = self._children.get(folder.name)
        if child is not None and child.poll() is None:
            return child.pid
        return holder_of(folder)

    def start(self, name: str, arguments: Sequence[str]) -> TrainingRun:
        """Begin a run in a new folder. arguments: of `python -m train`, without --run-dir.

        Raises:
            ValueError: there is one of that name, the name cannot be one, or too many train already.
            OSError: its folder cannot be written.
        """
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(
                f"a run is called {str(name)[:80]!r}; use letters, digits, dots, hyphens and underscores, at "
                "most 64"
            )
        folder = self.folder / name
        with self._lock:
            if not _is_free(folder):
                raise ValueError(
                    f"there is a run called {name!r} already; give another name, or resume that one"
                )
            self._check_room()
            folder.mkdir(parents=True, exist_ok=True)
            try:
                self._spawn(folder, arguments)
            except BaseException:  # of a full disk: nothing that would take the name stays
                shutil.rmtree(folder, ignore_errors=True)
                raise
        return self.read(folder)

    def resume(self, name: str) -> TrainingRun:
        """Continue a run with its own settings.

        Raises:
            ValueError: it trains already, is finished, or too many others train.
            OSError: its folder cannot be written.
        """
        with self._lock:
            run = self.named(name)
            if run.state in (RUNNING, FINISHED):
                raise ValueError(f"{name} is {run.state}: there is nothing to resume")
            self._check_room()
            # Before the trainer has written its settings there is only what it was started with.
            known = [] if run.settings else object_of(run.folder / NOTE).get("arguments", [])
            self._spawn(run.folder, known)
        return self.read(run.folder)

    def deletable(self, name: str) -> TrainingRun:
        """A run that may be deleted now.

        Raises:
            ValueError: there is no such run, or it trains.
        """
        run = self.named(name)
        if run.state == RUNNING:
            raise ValueError(f"{name} is training; stop it first, and delete it when it has ended")
        return run

    def delete(self, name: str) -> None:
        """Remove a run's folder, and with it what it has learned.

        Raises:
            ValueError: there is no such run, or it trains.
            OSError: the folder cannot be removed.
        """
        with self._lock:
            remove(self.deletable(name).folder)

    def pause(self, name: str) -> None:
        """Let a run's trainer write a checkpoint and end; returns at once.

        Raises:
            ValueError: none trains there.
            OSError: its folder cannot be written.
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
        with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
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
        with filling(folder / LOG), (folder / LOG).open("ab") as log:
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


def _is_free(folder: Path) -> bool:
    """Whether a folder is not there, or holds no more than a page that was killed had begun to write."""
    return not folder.exists() or (
        folder.is_dir() and all(path.name.endswith(PARTIAL) for path in folder.iterdir())
    )


def command_of(folder: Path, arguments: Sequence[str]) -> list[str]:
    """What trains in a folder: the same that anybody can give on a terminal."""
    return [sys.executable, "-m", "train", *arguments, "--run-dir", str(folder)]


def _note(folder: Path, values: dict[str, Any]) -> None:
    told = json.dumps(object_of(folder / NOTE) | values, indent=1) + "\n"
    atomic_write(folder / NOTE, lambda temporary: temporary.write_text(told))
