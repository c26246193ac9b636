"""One device, many visitors: turns, stopping, leaving."""

import asyncio
from pathlib import Path

import pytest

from dit.pipeline import Frame
from dit.speed import Speed
from ui.request import Request, Wish, parse
from ui.studio import Studio, open_studio
from ui.turns import MAX_WAITING, Full, Turns


@pytest.fixture(scope="module")
def studio(ladder_files: list[Path]) -> Studio:
    """The two random models, and whatever is bundled."""
    return open_studio(ladder_files, limit=9)


@pytest.fixture(scope="module")
def request_small(studio: Studio) -> Request:
    """Eight steps of the small model."""
    return parse(studio.rungs, Wish("small", 0, 8, 1.0, 0, 1, "ddim"))


async def collect(turns: Turns, request: Request, session: str, log: list[str]) -> list[Frame]:
    frames = []
    async for event in turns.draw(request, turns.enter(session, 1.0)):
        if isinstance(event, Frame):
            frames.append(event)
            log.append(session)
    return frames


def test_jobs_run_one_after_the_other_in_order(studio: Studio, request_small: Request) -> None:
    async def scene() -> None:
        turns, log = Turns(studio), []
        jobs = [asyncio.create_task(collect(turns, request_small, name, log)) for name in "abc"]
        drawn = await asyncio.gather(*jobs)
        assert [len(frames) for frames in drawn] == [8, 8, 8]
        assert log == ["a"] * 8 + ["b"] * 8 + ["c"] * 8
        assert not turns.line

    asyncio.run(scene())


def test_waiting_shows_the_seconds_of_those_before(studio: Studio, request_small: Request) -> None:
    async def scene() -> None:
        turns = Turns(studio)
        first, second = turns.enter("a", 30.0), turns.enter("b", 5.0)
        assert turns.ahead(second) == 1 and turns.wait_before(second) == pytest.approx(30.0)
        assert turns.wait_before(None) == pytest.approx(35.0)
        waiting = turns.draw(request_small, second)
        wait = await anext(waiting)
        assert wait.ahead == 1 and wait.seconds == pytest.approx(30.0)
        turns.line.remove(first)
        assert isinstance(await anext(waiting), Frame)
        await waiting.aclose()
        assert not turns.line

    asyncio.run(scene())


def test_stop_ends_within_one_step_and_only_ones_own(studio: Studio, request_small: Request) -> None:
    async def scene() -> None:
        turns = Turns(studio)
        own = turns.enter("a", 1.0)
        other = asyncio.create_task(collect(turns, request_small, "b", []))
        seen = []
        async for event in turns.draw(request_small, own):
            seen.append(event)
            if len(seen) == 3:
                assert turns.stop("a") == 1 and turns.stop("nobody") == 0
        assert len(seen) == 3
        assert len(await other) == 8

    asyncio.run(scene())


def test_a_view_stops_its_own_jobs_and_leaving_stops_all(studio: Studio, request_small: Request) -> None:
    turns = Turns(studio)
    grid, budget, other = (
        turns.enter("a", 1.0, "grid"),
        turns.enter("a", 1.0, "budget"),
        turns.enter("b", 1.0),
    )
    assert turns.stop("a", "grid") == 1
    assert (grid.stopped, budget.stopped, other.stopped) == (True, False, False)
    assert turns.stop("a") == 2 and budget.stopped and not other.stopped


def test_a_stop_between_two_requests_reads_no_further_model(studio: Studio, request_small: Request) -> None:
    async def scene() -> None:
        turns, seen = Turns(studio), []
        second = parse(studio.rungs, Wish("big", 0, 8, 1.0, 0, 1, "ddim"))
        studio.unload(second.rung)
        ticket = turns.enter("a", 2.0)
        async for index, event in turns.draw_all([request_small, second], ticket):
            seen.append((index, type(event)))
            if isinstance(event, Frame) and event.done:
                turns.stop("a")
        assert seen == [(0, Frame)] * 8
        assert not turns.line and second.rung.pipeline is None

    asyncio.run(scene())


def test_stop_while_waiting_leaves_the_line(studio: Studio, request_small: Request) -> None:
    async def scene() -> None:
        turns = Turns(studio)
        turns.enter("a", 1.0)
        waiting = asyncio.create_task(collect(turns, request_small, "b", []))
        await asyncio.sleep(0.05)
        turns.stop("b")
        assert await asyncio.wait_for(waiting, 2) == []
        assert [ticket.session for ticket in turns.line] == ["a"]

    asyncio.run(scene())


def test_a_cancelled_job_frees_the_device(studio: Studio, request_small: Request) -> None:
    async def scene() -> None:
        turns = Turns(studio)
        job = asyncio.create_task(collect(turns, request_small, "a", []))
        await asyncio.sleep(0.02)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert not turns.line
        assert len(await collect(turns, request_small, "b", [])) == 8

    asyncio.run(scene())


def test_a_finished_job_corrects_the_expected_seconds(studio: Studio, request_small: Request) -> None:
    rung, settings = request_small.rung, request_small.settings
    rung.speed = Speed(100.0, 100.0)
    [last] = asyncio.run(collect(Turns(studio), request_small, "a", []))[-1:]
    assert rung.seconds(settings) == pytest.approx(last.seconds)
    assert rung.speed.overhead == pytest.approx(rung.speed.per_picture)


def test_a_full_line_says_when_to_come_back(studio: Studio, request_small: Request) -> None:
    turns = Turns(studio)
    for i in range(MAX_WAITING):
        turns.enter(str(i), 2.0)
    with pytest.raises(Full, match=rf"{MAX_WAITING} jobs are waiting.*about 40 s"):
        turns.enter("late", 1.0)


def test_several_requests_are_one_job(studio: Studio, request_small: Request) -> None:
    """One place in the line for all; others come after the last, and a stop ends all of them."""

    async def scene() -> None:
        turns, log = Turns(studio), []

        async def all_three(session: str, stop_at: int | None = None) -> None:
            ticket = turns.enter(session, 3.0)
            async for index, event in turns.draw_all([request_small] * 3, ticket):
                if isinstance(event, Frame):
                    log.append((session, index))
                    if len(log) == stop_at:
                        turns.stop(session)

        await asyncio.gather(all_three("a"), collect(turns, request_small, "b", []), all_three("c", 35))
        assert log[:24] == [("a", 0)] * 8 + [("a", 1)] * 8 + [("a", 2)] * 8
        assert log[24:] == [("c", 0)] * 8 + [("c", 1)] * 3
        assert not turns.line

    asyncio.run(scene())
