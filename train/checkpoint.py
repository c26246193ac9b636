"""Checkpoints: everything that a run needs to go on as if it had never stopped.

A checkpoint is a folder of safetensors, written by all processes together and read by any other number of
them (torch.distributed.checkpoint), and a state.json that says how far the run is and what bytes belong to
it. The folder gets its name when it is whole, so what has a name can be read, or was damaged later.
"""

import itertools
import json
import os
import shutil
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dit.files import atomic_write, sha256
from dit.published import size_of
from train.changes import note
from train.hardware import Hardware
from train.state import Counters, TrainState
from train.together import Copy

FORMAT = 2  # 1 was one pickled file
STATE = "state.json"
PARTIAL, DAMAGED = ".partial", "damaged"


def checkpoints(run_dir: Path) -> list[Path]:
    """The run's checkpoints, oldest first."""
    return sorted(path.parent for path in (run_dir / "checkpoints").glob(f"step_*/{STATE}"))


def step_of(checkpoint: Path) -> int:
    """How many optimizer steps were done when a checkpoint was written."""
    return int(checkpoint.name.removeprefix("step_"))


class Checkpoints:
    """Writes a run's checkpoints while it goes on, keeps the last few, and finds the last good one."""

    def __init__(self, run_dir: Path, hardware: Hardware, keep: int, keep_every: int = 0) -> None:
        """keep: how many of the last stay; of the others, those at multiples of keep_every steps, if any."""
        self.run_dir, self.hardware = run_dir, hardware
        self.keep, self.keep_every = keep, keep_every
        self._writing: threading.Thread | None = None
        self._failure: Exception | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        """Nothing is being written any more, also after an error, which an error in there must not hide."""
        if kind is None:
            self.wait()
        elif self._writing:
            self._writing.join()

    def save(self, state: TrainState) -> None:
        """Copy the state, and write it in a thread; an error in there is raised by the next call of `wait`.

        Raises:
            OSError: the last checkpoint could not be written, or there is no room for this one.
        """
        self.wait()
        folder = self.run_dir / "checkpoints" / f"step_{state.step:08d}"
        if folder.exists():  # continued from it, and nothing has happened since
            return
        partial = folder.with_name(f".{folder.name}{PARTIAL}")
        header = {"format": FORMAT, **asdict(state.counters), "config": state.model.config.to_dict()}
        tensors = state.tensors()
        if self.hardware.is_main:
            shutil.rmtree(partial, ignore_errors=True)
            self._check_room(sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()))
            partial.mkdir(parents=True)
        self.hardware.wait_for_all()
        copy = self.hardware.copy(tensors)
        self._writing = threading.Thread(
            target=self._write, args=(copy, partial, folder, header), name="checkpoint", daemon=False
        )
        self._writing.start()

    def _check_room(self, needed: int) -> None:
        free = shutil.disk_usage(self.run_dir).free
        if free < needed:
            raise OSError(
                f"a checkpoint needs {size_of(needed)}, but the disk of {self.run_dir} has {size_of(free)} "
                "left; make room, and give the same command again: it goes on from the last checkpoint"
            )

    def _write(self, copy: Copy, partial: Path, folder: Path, header: dict[str, Any]) -> None:
        try:
            self.hardware.write(copy, partial)
            if self.hardware.is_main:
                files = {path.name: sha256(path) for path in sorted(partial.glob("*.safetensors"))}
                text = json.dumps(header | {"files": files}, indent=1) + "\n"
                atomic_write(partial / STATE, lambda temporary: temporary.write_text(text))
                _sync(partial)
                partial.rename(folder)
                _sync(folder.parent)
        except Exception as error:
            shutil.rmtree(partial, ignore_errors=True)
            self._failure = error
        else:
            if self.hardware.is_main:
                self._prune()

    def _prune(self) -> None:
        for old in checkpoints(self.run_dir)[: -self.keep]:
            if not self.keep_every or step_of(old) % self.keep_every:
                try:
                    doomed = old.rename(old.with_name(f".{old.name}{PARTIAL}"))  # half of it is no checkpoint
                    shutil.rmtree(doomed)
                except OSError as error:  # nothing is lost by it but room
                    tqdm.write(f"an old checkpoint stays, in part: {error}", file=sys.stderr)

    def wait(self) -> None:
        """Return when nothing is being written any more.

        Raises:
            OSError: the last checkpoint could not be written.
        """
        if self._writing:
            self._writing.join()
            self._writing = None
        if self._failure:
            failure, self._failure = self._failure, None
            raise OSError(
                f"could not write a checkpoint into {self.run_dir / 'checkpoints'}: {failure}; make sure "
                "that the disk has room and, with several machines, is the same for all; the same command "
                "then goes on from the last checkpoint"
            ) from failure

    def restore(self, state: TrainState) -> bool:
        """Read the last good checkpoint into the state; returns whether there is one.

        One that is damaged is put aside, and said so, on the terminal and among the run's changes.

        Raises:
            ValueError: a checkpoint of an older or newer version, or all that there are are damaged.
        """
        self.wait()
        hardware, damaged = self.hardware, {}
        while True:
            named = (self.run_dir / "checkpoints").glob("step_*") if hardware.is_main else ()
            last = sorted(path for path in named if path.is_dir())[-1:]  # also one without its state
            step = hardware.largest(step_of(last[0]) if last else -1)
            if step < 0:
                break
            folder = self.run_dir / "checkpoints" / f"step_{step:08d}"
            header = _header(folder)
            reason = _damage(folder, header) if hardware.is_main or not header else ""
            if hardware.largest(int(bool(reason))):
                if hardware.is_main:
                    aside = folder.rename(_free(folder.with_name(f"{DAMAGED}_{folder.name}")))
                    damaged[folder.name] = reason
                    tqdm.write(f"{folder}: {reason}; put aside as {aside.name}", file=sys.stderr)
                continue
            _check_network(folder, header, state)
            hardware.read(state.tensors(), folder)
            state.restored(Counters(**{name: header[name] for name in asdict(Counters())}))
            for name, reason in damaged.items():
                note(self.run_dir, {"after": folder.name, "put_aside": name, "why": reason})
            return True
        hardware.wait_for_all()
        if next((self.run_dir / "checkpoints").glob(f"{DAMAGED}_step_*"), None):
            raise ValueError(
                f"{self.run_dir / 'checkpoints'}: all checkpoints are damaged, and were put aside; restore "
                "them from a copy, or delete the run folder to start again"
            )
        if next((self.run_dir / "checkpoints").glob("step_*.pt"), None):
            raise ValueError(
                f"{self.run_dir} holds checkpoints of an older version, which this one cannot go on from; "
                "its weights can be used as before, but train in a new folder with --run-dir"
            )
        return False


def _header(folder: Path) -> dict[str, Any]:
    try:
        header = json.loads((folder / STATE).read_text())
        version = header["format"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    if version != FORMAT:
        raise ValueError(
            f"{folder} is of format {version}, but this version writes format {FORMAT}; continue the run "
            "with the version that began it, or train in a new folder with --run-dir"
        )
    return header


def _check_network(folder: Path, header: dict[str, Any], state: TrainState) -> None:
    now, before = state.model.config.to_dict(), header["config"]
    if differing := [name for name in now if before.get(name) != now[name]]:
        said = ", ".join(f"{name} was {before.get(name)}, now {now[name]}" for name in differing)
        raise ValueError(
            f"{folder} is of another network: {said}; has the data changed? Bring it back to what it was, or "
            "train in a new folder with --run-dir"
        )


def _free(path: Path) -> Path:
    """The path, or if there is something already, with a number behind it."""
    others = (path.with_name(f"{path.name}-{i}") for i in itertools.count(2))
    return next(other for other in itertools.chain([path], others) if not other.exists())


def _damage(folder: Path, header: dict[str, Any]) -> str:
    """What is wrong with the files of a checkpoint; nothing if it is good."""
    if not set(asdict(Counters())) | {"files", "config"} <= set(header):
        return f"{STATE} is damaged or missing"
    for name, expected in header["files"].items():
        try:
            if sha256(folder / name) != expected:
                return f"{name} is damaged: its bytes are not those that were written"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror or error}"
    return ""


def _sync(folder: Path) -> None:
    """Make a folder's new names outlast a loss of power."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
