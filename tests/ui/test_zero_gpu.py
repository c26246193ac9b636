"""Jobs on lent GPUs: by an imitation of the package that a ZeroGPU Space brings, with forked processes."""

import asyncio
import math
import multiprocessing
import pickle
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from dit.settings import SampleSettings
from tests.run_folders import write_run
from ui.opening import open_studio
from ui.request import Wish, parse
from ui.studio import Studio
from ui.tickets import Loading
from ui.turns import Turns
from ui.zero_gpu import LONGEST, READING, SPARE, borrow, is_zero_gpu, seconds_for

VISITOR: ContextVar[str] = ContextVar("VISITOR", default="nobody")


class Lender(ModuleType):
    """`spaces`, as far as it is used: a call goes to a forked process, arguments and results are pickled."""

    def __init__(self) -> None:
        super().__init__("spaces")
        self.asked: list[int] = []
        self.visitors: list[str] = []
        self.stopped = multiprocessing.get_context("fork").Value("i", 0)

    def GPU(self, duration: Callable[..., int]) -> Callable:
        context = multiprocessing.get_context("fork")

        def decorate(task: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
            def work(sent: bytes, results: Any, stop: Any) -> None:
                torch.set_num_threads(1)  # a fork has none of its parent's
                for result in task(*pickle.loads(sent)):
                    if stop.is_set():
                        self.stopped.value = 1
                        break
                    results.put(pickle.dumps(result))
                results.put(None)

            def call(*args: Any) -> Iterator[Any]:
                self.asked.append(duration(*args))
                self.visitors.append(VISITOR.get())
                results, stop = context.Queue(2), context.Event()
                process = context.Process(target=work, args=(pickle.dumps(args), results, stop))
                process.start()
                try:
                    while (result := results.get(timeout=120)) is not None:
                        yield pickle.loads(result)
                finally:
                    stop.set()
                    while process.is_alive():
                        while not results.empty():
                            results.get()
                        process.join(0.05)

            return call

        return decorate


@pytest.fixture
def lender(monkeypatch: pytest.MonkeyPatch) -> Lender:
    made = Lender()
    monkeypatch.setitem(sys.modules, "spaces", made)
    return made


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    weights = write_run(tmp_path, "mine")
    return open_studio([weights], timed=False)


def pictures(studio: Studio, steps: int, session: str, end_after: int = 999) -> list[Any]:
    """The events of a job, until so many frames have come."""
    request = parse(studio.rungs, Wish("mine", 0, steps, 1.5, 3, 2, "ddim"))

    async def draw() -> list[Any]:
        VISITOR.set(session)
        turns, found = Turns(studio), []
        ticket = turns.enter(session, 1.0)
        async for event in turns.draw(request, ticket):
            found.append(event)
            if sum(not isinstance(one, Loading) for one in found) >= end_after:
                turns.stop(session)
        await turns._task  # which closes what was stopped
        return found

    return asyncio.run(draw())


def test_pictures_are_the_same_and_each_job_asks_for_its_time(studio: Studio, lender: Lender) -> None:
    own = pictures(studio, 3, "a")[-1]
    studio.unload(studio.rungs[0])
    for rung in studio.rungs:
        rung.pipeline = None
    borrow(studio)
    *events, last = pictures(studio, 3, "a")
    assert np.array_equal(last.x0, own.x0) and last.done
    assert sum(isinstance(event, Loading) for event in events) == 1
    assert all(rung.pipeline is None for rung in studio.rungs)  # nothing was read here
    request = parse(studio.rungs, Wish("mine", 0, 3, 1.5, 3, 2, "ddim"))
    assert 10 <= lender.asked[0] <= 20 and lender.visitors == ["a"]
    corrected = math.ceil(READING + SPARE * last.seconds)  # by what the job took
    assert seconds_for(studio, "mine", request.settings) == corrected


def test_more_work_asks_for_more_time_and_never_too_long(studio: Studio, lender: Lender) -> None:
    borrow(studio)

    def asked(steps: int, count: int) -> int:
        wish = SampleSettings(classes=[0] * count, seeds=range(count), steps=steps, guidance_scale=2.0)
        return seconds_for(studio, "DiT-XL/2-256", wish)

    assert asked(10, 1) < asked(50, 1) < asked(50, 4) < asked(1000, 16) == LONGEST


def test_a_stopped_job_gives_the_gpu_back(studio: Studio, lender: Lender) -> None:
    borrow(studio)
    pictures(studio, 250, "a", end_after=2)
    assert lender.stopped.value == 1
    assert pictures(studio, 2, "b")[-1].done and lender.visitors == ["a", "b"]


@pytest.mark.parametrize(("value", "is_one"), [("true", True), ("1", True), ("", False), ("0", False)])
def test_a_space_says_whether_it_is_one(monkeypatch: pytest.MonkeyPatch, value: str, is_one: bool) -> None:
    monkeypatch.setenv("SPACES_ZERO_GPU", value)
    assert is_zero_gpu() is is_one
