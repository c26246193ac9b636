"""What supervision is told, while the device draws, stands still, and stops."""

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from dit.pipeline import Frame
from ui import health as module
from ui.health import Health
from ui.opening import open_studio
from ui.request import Wish, parse
from ui.studio import Studio
from ui.turns import Turns


@pytest.fixture(scope="module")
def studio(ladder_files: list[Path]) -> Studio:
    """The two random models, and whatever is bundled."""
    return open_studio(ladder_files)


def scene(play: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(play(), 60))


def test_an_idle_server_is_well(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SOON", 60)  # seconds until its thread counts as busy

    async def play() -> None:
        told = await Health(Turns(studio)).told()
        assert 0 <= told.pop("seconds_up") < 60
        assert told == {
            "status": "ok", "models_resident": len(studio.resident), "jobs_drawing": 0, "jobs_waiting": 0,
            "drawing_thread_answers": True, "drawing_thread_busy_seconds": 0.0,
        }  # fmt: skip

    scene(play)


def test_jobs_are_counted_and_the_answer_comes_while_one_is_drawn(studio: Studio) -> None:
    async def play() -> None:
        turns = Turns(studio)
        health = Health(turns)
        request = parse(studio.rungs, Wish("big", 0, 1000, 2.0, 0, 16, "ddim"))
        turns.enter("another", 1.0)
        async for event in turns.draw(request, turns.enter("a", 1.0)):
            if isinstance(event, Frame):
                told = await health.told()
                assert (told["jobs_drawing"], told["jobs_waiting"]) == (1, 1)
                assert told["drawing_thread_answers"]
                break

    scene(play)


def test_a_thread_that_does_not_come_back_is_told(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        turns, free = Turns(studio), threading.Event()
        health = Health(turns)
        turns.device.submit(free.wait)
        try:
            told = await health.told()
            assert told["drawing_thread_answers"] and told["drawing_thread_busy_seconds"] >= 0.1
            monkeypatch.setattr(module, "PATIENCE", 0.01)
            again = await health.told()
            assert not again["drawing_thread_answers"]
            assert again["drawing_thread_busy_seconds"] > told["drawing_thread_busy_seconds"]
            assert turns.device._work_queue.qsize() == 1  # however often it is asked
        finally:
            free.set()
        while not (told := await health.told())["drawing_thread_answers"]:
            await asyncio.sleep(0)
        assert told["drawing_thread_busy_seconds"] == 0

    scene(play)


def test_a_stopping_server_says_so(studio: Studio) -> None:
    async def play() -> None:
        turns = Turns(studio)
        health = Health(turns)
        before = await health.answer(None)
        turns.close()
        after = await health.answer(None)
        assert (before.status_code, after.status_code) == (200, 503)
        assert json.loads(after.body)["status"] == "stopping"
        assert after.headers["cache-control"] == "no-store"

    scene(play)
