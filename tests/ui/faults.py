"""Runs that something happens to, and what they must come to all the same."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.ui.waiting import SECONDS, until
from ui.run import RUNNING, TrainingRun
from ui.runs import Runs

STEPS, EVERY = 200, 10  # of a run; steps between two checkpoints
SPEEDS = ("images_per_second", "mfu", "memory_gb")  # of a line of metrics: differ from run to run
EXACT = [f"--total-steps={STEPS}", f"--checkpoint-every={EVERY}", "--log-every=1", "--sample-every=1000000"]
EXACT += ["--batch-size=8", "--image-size=16", "--device=cpu", "--compile=no", "--tracker=none"]


def arguments(data: Path) -> list[str]:
    """Of a run of seconds on a folder of pictures."""
    return ["solids", "--model=DiT-E/4", f"--data={data}", *EXACT]


def ended(runs: Runs, name: str) -> TrainingRun:
    """The run once nobody trains it any more."""
    until(lambda: runs.named(name).state != RUNNING)
    return runs.named(name)


def trainer_of(runs: Runs, name: str) -> int:
    """The process that trains, once it has told its number."""
    return until(lambda: runs.process_of(runs.folder / name))


def written(run_dir: Path) -> bool:
    """Whether a checkpoint is being written just now."""
    return next(run_dir.glob("checkpoints/.step_*.partial"), None) is not None


def stands_still(process: int) -> bool:
    """Whether all threads of a process have stopped: one may first come to the end of a system call."""
    try:
        threads = [path.read_text() for path in Path(f"/proc/{process}/task").glob("*/stat")]
    except OSError:  # one has ended meanwhile
        return False
    return all(thread.rpartition(")")[2].split()[0] in "Tt" for thread in threads)


@contextmanager
def frozen(runs: Runs, name: str, when: Callable[[Path], bool]) -> Iterator[int]:
    """The process of a run, stopped at a moment of one's choice; it goes on with the end of the block."""
    folder, process = runs.folder / name, trainer_of(runs, name)

    def caught() -> bool:
        assert runs.process_of(folder), runs.named(name).said
        if not when(folder):
            return False
        os.kill(process, signal.SIGSTOP)
        until(lambda: stands_still(process))
        if when(folder):
            return True
        os.kill(process, signal.SIGCONT)
        return False

    end = time.monotonic() + SECONDS
    while not caught():
        assert time.monotonic() < end, "there was no such moment"
        time.sleep(0.003)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):  # it was killed
            os.kill(process, signal.SIGCONT)


def saved(run_dir: Path) -> int:
    """Steps of the last whole checkpoint."""
    names = (path.parent.name for path in run_dir.glob("checkpoints/step_*/state.json"))
    return max((int(name.removeprefix("step_")) for name in names), default=0)


def same_end(run_dir: Path, other: Path) -> None:
    """Fails unless two runs have come to the same: weights, checkpoints and numbers, each step once."""
    names = ["weights.safetensors"]
    names += sorted(str(path.relative_to(other)) for path in other.glob("checkpoints/step_*/*.safetensors"))
    assert len(names) == 3 and saved(run_dir) == saved(other) == STEPS
    for name in names:
        mine, theirs = load_file(run_dir / name), load_file(other / name)
        assert mine.keys() == theirs.keys()
        assert all(mine[key].equal(theirs[key]) for key in mine), name
    assert numbers(run_dir) == numbers(other)
    assert [row["step"] for row in numbers(run_dir)] == [*range(1, STEPS + 1)]
    left = {path.name for path in run_dir.rglob("*") if path.name.endswith(".partial")}
    assert not left


def numbers(run_dir: Path) -> list[dict[str, float]]:
    """Lines of metrics.jsonl but for what depends on the machine."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in SPEEDS} for row in rows]


class Visitor:
    """A page that is open in somebody's browser, on the run "a"."""

    def __init__(self, address: str) -> None:
        self.address = address
        with urllib.request.urlopen(f"{address}/config", timeout=SECONDS) as answer:
            config = json.load(answer)
        self._ids = {one["props"].get("elem_id"): one["id"] for one in config["components"]}
        [self._timer] = [one["id"] for one in config["components"] if one["type"] == "timer"]
        self._events = {tuple(at): one for one in config["dependencies"] for at in one["targets"]}

    def press(self, name: str, *values: Any) -> list[Any]:
        """A button. Raises ValueError with what pops up."""
        return self._ask(self._events[self._ids[name], "click"], values or ([], 1, 0))

    def sees(self) -> str:
        """What is said of the run, as HTML."""
        return self._ask(self._events[self._timer, "tick"], ([], 1, 0))[2]

    def _ask(self, event: dict[str, Any], values: Sequence[Any]) -> list[Any]:
        data = ["a", *values][: len(event["inputs"])]
        asked = {"data": data, "fn_index": event["id"], "session_hash": "visitor"}
        headers = {"Content-Type": "application/json"}
        address = f"{self.address}/gradio_api/run/predict"
        request = urllib.request.Request(address, json.dumps(asked).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error)["error"]) from error


@contextmanager
def disk(folder: Path, size: str) -> Iterator[Path]:
    """A disk of its own, so small that it can be filled; where none may be mounted the test is skipped."""
    folder.mkdir()
    if not shutil.which("mount"):
        pytest.skip("no disk can be mounted here: there is no mount")
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no disk can be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(place: Path, left: int) -> Path:
    """A file that leaves so many bytes of a disk, rounded up to whole blocks."""
    filler, told = place / "filler", os.statvfs(place)
    blocks = told.f_bavail - -(-left // told.f_frsize)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, blocks * told.f_frsize)
    return filler
