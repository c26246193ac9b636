"""A line for each job, however it ends; with what it cost, and nothing of whose it was."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from dit.pipeline import Frame
from ui import jobs, log
from ui.limits import Limits
from ui.log import LOGGER, open_log
from ui.opening import open_studio
from ui.request import Request, Wish, parse
from ui.studio import Studio
from ui.tickets import Event, Wait
from ui.turns import TOLD, Turns

FIELDS = [
    "time", "kind", "outcome", "requests", "models", "classes", "steps", "guidance", "samplers",
    "cache_every", "pictures", "gmacs", "gmacs_drawn", "seconds_waited", "seconds_drawn",
]  # fmt: skip
WHO = "visitor-7f3a"  # the session's hash


@pytest.fixture(scope="module")
def studio(ladder_files: list[Path]) -> Studio:
    """The random models and the bundled ones; three jobs at a time."""
    return open_studio(ladder_files, limits=Limits(models=9, waiting=3))


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Reads what has been logged so far, and checks that it says nobody's name."""
    path = tmp_path / "requests.jsonl"
    open_log(path)

    def read() -> list[dict[str, Any]]:
        text = path.read_text()
        assert WHO not in text
        return [json.loads(line) for line in text.splitlines()]

    yield read
    for handler in [*LOGGER.handlers]:
        LOGGER.removeHandler(handler)
        handler.close()


def asked(studio: Studio, **change: Any) -> Request:
    wish = {
        "model": "small", "label": "cone", "steps": 6, "guidance_scale": 2.0, "seed": 5, "pictures": 2,
        "sampler": "ddim",
    }  # fmt: skip
    return parse(studio.rungs, Wish(**wish | change))


def scene(play: Any) -> None:
    asyncio.run(asyncio.wait_for(play(), 60))


async def drain(turns: Turns, requests: list[Request], kind: str = "explore") -> None:
    async for _ in jobs.draw_all(turns, requests, WHO, kind):
        pass


def test_a_finished_job_is_a_line_of_what_it_was_and_cost(studio: Studio, lines: Callable) -> None:
    request = asked(studio)
    scene(lambda: drain(Turns(studio), [request]))
    [told] = lines()
    assert list(told) == FIELDS
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told["time"])
    assert (told["kind"], told["outcome"], told["requests"]) == ("explore", "done", 1)
    assert (told["models"], told["classes"], told["steps"]) == (["small"], 1, [6])
    assert (told["guidance"], told["samplers"], told["cache_every"]) == ([2.0], ["ddim"], [1])
    cost = 2 * 2 * 6 * request.rung.macs_per_pass / 1e9
    assert told["pictures"] == 2
    assert told["gmacs"] == told["gmacs_drawn"] == pytest.approx(cost, abs=1e-3)
    assert 0 <= told["seconds_waited"] < 60 and 0 < told["seconds_drawn"] < 60


def test_a_grid_is_one_line_of_all_its_cells(studio: Studio, lines: Callable) -> None:
    cells = [asked(studio, model=model, steps=steps) for model in ("small", "big") for steps in (1, 2)]
    scene(lambda: drain(Turns(studio), cells, "grid"))
    [told] = lines()
    assert (told["kind"], told["outcome"], told["requests"], told["pictures"]) == ("grid", "done", 4, 8)
    assert (told["models"], told["steps"]) == (["small", "big"], [1, 2])
    assert told["gmacs"] == told["gmacs_drawn"] > 0


async def until_told(events: AsyncIterator[Event], free: asyncio.Event) -> AsyncIterator[Event]:
    """The same events; the first sets `free`."""
    async for event in events:
        free.set()
        yield event


def test_a_job_that_waits_says_how_long(studio: Studio, lines: Callable) -> None:
    """The second comes while the device is at something else, which takes until it has been told to wait."""

    async def play() -> None:
        turns, free = Turns(studio), asyncio.Event()
        loop = asyncio.get_running_loop()
        turns.device.submit(lambda: asyncio.run_coroutine_threadsafe(free.wait(), loop).result())
        events = [event async for event in until_told(jobs.draw(turns, asked(studio), WHO, "api"), free)]
        assert isinstance(events[0], Wait) and isinstance(events[-1], Frame)

    scene(play)
    [told] = lines()
    assert told["outcome"] == "done" and told["seconds_waited"] > 0.8 * TOLD


@pytest.mark.parametrize(("kind", "outcome"), [("explore", "stopped"), (None, "left")])
def test_who_stops_and_who_leaves_are_told_apart(
    kind: str | None, outcome: str, studio: Studio, lines: Callable
) -> None:
    async def play() -> None:
        turns = Turns(studio)
        async for event in jobs.draw(turns, asked(studio, steps=100), WHO, "explore"):
            if isinstance(event, Frame) and event.index >= 2:
                turns.stop(WHO, kind)

    scene(play)
    [told] = lines()
    assert told["outcome"] == outcome and 0 < told["gmacs_drawn"] < told["gmacs"]


def test_one_who_takes_no_more_events_has_left(studio: Studio, lines: Callable) -> None:
    async def play() -> None:
        turns = Turns(studio)
        events = jobs.draw_all(turns, [asked(studio, steps=100)], WHO, "api")
        await anext(events)
        await events.aclose()
        job = asyncio.create_task(drain(turns, [asked(studio, steps=200)]))
        while not turns.line:
            await asyncio.sleep(0)
        job.cancel()
        await asyncio.wait([job])

    scene(play)
    assert [told["outcome"] for told in lines()] == ["left", "left"]


def test_what_is_refused_is_told_with_what_is_known_of_it(studio: Studio, lines: Callable) -> None:
    async def play() -> None:
        turns = Turns(studio)
        with pytest.raises(gr.Error, match="no class is called 'a secret'"):
            jobs.check(studio, Wish("small", "a secret", 6, 2.0, 5, 2, "ddim"), "api")
        with pytest.raises(gr.Error, match="not on this machine|HF_HUB_OFFLINE"):
            jobs.check(studio, Wish("DiT-XL/2-512", 0, 6, 2.0, 5, 2, "ddim"), "explore")
        with pytest.raises(gr.Error, match="this server gives at most"):
            await drain(turns, [asked(studio, model="DiT-XL/2-512", label=0, steps=1000, pictures=16)])
        for another in "abc":
            turns.enter(another, 1.0)
        with pytest.raises(gr.Error, match="3 jobs are waiting"):
            await drain(turns, [asked(studio)], "grid")

    scene(play)
    told = lines()
    assert [one["outcome"] for one in told] == ["refused"] * 4
    assert [one["kind"] for one in told] == ["api", "explore", "explore", "grid"]
    assert [one["models"] for one in told] == [[], ["DiT-XL/2-512"], ["DiT-XL/2-512"], ["small"]]
    assert "secret" not in json.dumps(told) and told[2]["gmacs"] > 1e7
    assert all(one["gmacs_drawn"] == one["seconds_drawn"] == 0 for one in told)


def test_what_fails_is_told(studio: Studio, lines: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def stream(rung: Any, settings: Any, used: Any) -> Iterator[Frame]:
        raise RuntimeError("out of memory")
        yield

    monkeypatch.setattr(studio, "stream", stream)

    async def play() -> None:
        with pytest.raises(gr.Error, match="not enough memory for this job"):
            await drain(Turns(studio), [asked(studio)])

    scene(play)
    assert [one["outcome"] for one in lines()] == ["failed"]


def test_without_a_file_lines_go_to_stderr(capsys: pytest.CaptureFixture) -> None:
    open_log()
    try:
        log.Record("api").write(log.REFUSED)
    finally:
        LOGGER.removeHandler(LOGGER.handlers[-1])
    said = capsys.readouterr()
    assert json.loads(said.err)["outcome"] == "refused" and not said.out
    assert not LOGGER.propagate  # nor to anybody who logs all there is


def test_a_log_that_is_moved_away_is_begun_anew(lines: Callable, tmp_path: Path) -> None:
    log.Record("api").write(log.REFUSED)
    (tmp_path / "requests.jsonl").rename(tmp_path / "old")
    log.Record("grid").write(log.REFUSED)
    assert [one["kind"] for one in lines()] == ["grid"]
