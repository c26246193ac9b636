"""Processes that are there at once: forked from one that has imported the trainer, and does nothing else."""

import os
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
SECONDS = 200  # until a process counts as stuck


def start(main: Callable[[Any], int | None], argument: Any, log: Path, **environment: str) -> BaseProcess:
    """main(argument) in a process of its own, which writes what it has to say to `log`."""
    process = get_context("forkserver").Process(target=_work, args=(main, argument, log, environment))
    process.start()
    return process


def command(words: list[str], log: Path, **environment: str) -> BaseProcess:
    """python WORDS: nothing of the process that it is forked from is left."""
    return start(_become, words, log, **environment)


def ended(process: BaseProcess) -> int | None:
    """Its exit status, -9 if it was killed; also if it had to be now."""
    process.join(SECONDS)
    process.kill()
    process.join()
    return process.exitcode


def wait_until(condition: Callable[[], object], process: BaseProcess, log: Path) -> None:
    """Fails if the process ends before, and says what it said."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert process.is_alive() and time.monotonic() < deadline, log.read_text()
        time.sleep(0.002)


def _work(main: Callable[[Any], int | None], argument: Any, log: Path, environment: dict[str, str]) -> None:
    assert "tests.train.preloaded" in sys.modules  # else each process would import all of it
    os.environ |= environment
    with log.open("w") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    sys.exit(main(argument))


def _become(words: list[str]) -> None:
    os.chdir(PROJECT)
    os.execv(sys.executable, [sys.executable, *words])
