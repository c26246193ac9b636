"""Batches made ahead: in order, by processes or a thread, with errors that arrive."""

import os
import signal
import threading
import time
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from train import loader
from train.loader import load_ahead, workers_for
from train.picture_data import PictureData
from train.pictures import UnreadablePicture


@dataclass
class Item:
    step: int
    x: torch.Tensor
    process: int
    threads: int


class Make:
    """Items of every step but one, at which something happens."""

    def __init__(self, at: int = -1, what: str = "") -> None:
        self.at, self.what = at, what

    def __call__(self, step: int) -> Item:
        if step == self.at:
            if self.what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.what == "signals":
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGTERM)
            if self.what == "memory":
                raise MemoryError("no more")
            if self.what == "picture":
                raise UnreadablePicture("a/b.png: truncated")
            if self.what == "awkward":
                raise Awkward("one", "two")
        time.sleep(0.01 * (step % 2))
        return Item(step, torch.full((2, 3), float(step)), os.getpid(), torch.get_num_threads())


class Awkward(Exception):
    """Cannot be unpickled: its arguments are not those that it was made with."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_items_come_in_order(workers):
    items = list(load_ahead(Make(), 3, 12, workers))
    assert [item.step for item in items] == list(range(3, 12))
    assert all((item.x == item.step).all() and item.x.shape == (2, 3) for item in items)
    processes = {item.process for item in items}
    assert processes == {os.getpid()} if workers == 0 else len(processes - {os.getpid()}) == workers
    assert workers == 0 or {item.threads for item in items} == {1}
    assert list(load_ahead(Make(), 4, 4, workers)) == []


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("what", "kind", "message"),
    [
        ("memory", MemoryError, "^no more$"),
        ("picture", UnreadablePicture, "^a/b.png: truncated$"),
        ("awkward", Exception, "one and two"),
    ],
)
def test_what_is_raised_arrives_in_its_turn_with_its_type(workers, what, kind, message):
    items = load_ahead(Make(2, what), 0, 6, workers)
    assert [next(items).step for _ in range(2)] == [0, 1]
    with pytest.raises(kind, match=message) as caught:
        next(items)
    if workers and what != "awkward":
        assert "in __call__" in str(caught.value.__cause__)  # where it happened


def test_a_killed_process_is_an_error_that_says_so():
    with pytest.raises(RuntimeError, match="was killed .* use fewer with --num-workers, or 0"):
        list(load_ahead(Make(2, "kill"), 0, 6, 1))


def test_signals_to_all_processes_are_left_to_the_first():
    assert [item.step for item in load_ahead(Make(1, "signals"), 0, 4, 1)] == [0, 1, 2, 3]


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "load_ahead"]


def test_the_thread_works_ahead_but_not_far():
    made = []
    items = load_ahead(lambda step: made.append(step) or step, 0, 100, 0)
    assert next(items) == 0
    deadline = time.time() + 200
    while len(made) < loader.AHEAD + 2 and time.time() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert made == list(range(loader.AHEAD + 2))  # handed over, waiting, and one in the hand
    items.close()
    assert threads() == []


def test_the_thread_ends_when_nobody_waits_any_more():
    def consume():
        for step in load_ahead(Make(), 0, 1000, 0):
            if step.step == 3:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        consume()
    assert threads() == []
    with pytest.raises(MemoryError):
        list(load_ahead(Make(5, "memory"), 0, 1000, 0))
    assert threads() == []


@pytest.mark.parametrize("at", [-1, 1])
def test_the_processes_end_when_nobody_waits_any_more(at):
    items = load_ahead(Make(at, "memory"), 0, 1000, 1)
    process = next(items).process
    if at == 1:
        with pytest.raises(MemoryError) as kept:  # the error, and the frames that it refers to, live on
            next(items)
        assert kept
    else:
        items.close()
    deadline = time.time() + 200
    while time.time() < deadline:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError(f"process {process} is still there")


def test_only_what_is_decoded_needs_processes(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    data = PictureData(None, None, np.arange(3))
    assert workers_for(object()) == 0 and workers_for(data) == 5
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert workers_for(data) == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(96)), raising=False)
    assert workers_for(data) == 16
