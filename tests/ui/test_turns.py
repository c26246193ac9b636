"""One device, many visitors: equal shares, batches, stopping, leaving."""

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from dit.pipeline import Frame
from dit.speed import Speed
from ui.limits import USUAL, Limits
from ui.opening import open_studio
from ui.request import Request, Wish, parse
from ui.studio import Studio
from ui.tickets import Batch, Loading, Wait, company, together
from ui.turns import Full, Turns


@pytest.fixture(scope="module")
def studio(ladder_files: list[Path]) -> Studio:
    """The two random models, and whatever is bundled."""
    return open_studio(ladder_files, limits=Limits(models=9))


@pytest.fixture
def small(studio: Studio) -> Callable[..., Request]:
    """Makes requests of the small model, eight steps unless told; no two of the same steps go together."""

    def request(
        steps: int = 8, seed: int = 0, label: int = 0, pictures: int = 1, model: str = "small"
    ) -> Request:
        return parse(studio.rungs, Wish(model, label, steps, 1.0, seed, pictures, "ddim"))

    return request


async def collect(turns: Turns, request: Request, session: str, log: list[str]) -> list[Frame]:
    frames = []
    async for event in turns.draw(request, turns.enter(session, 1.0)):
        if isinstance(event, Frame):
            frames.append(event)
            log.append(session)
    return frames


def scene(play: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(play(), 60))


def test_a_short_job_does_not_wait_for_a_long_one(studio: Studio, small: Callable[..., Request]) -> None:
    async def play() -> None:
        turns, log = Turns(studio), []
        long = asyncio.create_task(collect(turns, small(200), "long", log))
        while log.count("long") < 10:
            await asyncio.sleep(0)
        before = len(log)
        frames = await collect(turns, small(8), "short", log)
        assert len(frames) == 8 and not long.done()
        assert Counter(log[before:])["long"] <= 24  # a step of each in turn, but for noise in their time
        assert len(await long) == 200
        assert not turns.line

    scene(play)


def test_visitors_have_equal_shares_however_many_jobs_they_have(
    studio: Studio, small: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock of our own: a step of the modest one takes twice as long."""
    step = Batch.step
    monkeypatch.setattr(
        Batch, "step", lambda batch: (step(batch)[0], 2.0 if batch.settings.steps == 50 else 1.0)
    )

    async def play() -> None:
        turns, log = Turns(studio), []
        greedy = [asyncio.create_task(collect(turns, small(60 + i), "greedy", log)) for i in range(4)]
        await asyncio.sleep(0)
        modest = asyncio.create_task(collect(turns, small(50), "modest", log))
        await modest
        assert 90 <= Counter(log)["greedy"] <= 110  # as much time, so twice the steps; and not 200
        assert [len(frames) for frames in await asyncio.gather(*greedy)] == [60, 61, 62, 63]

    scene(play)


def test_one_who_comes_late_has_no_claim_on_the_time_before(
    studio: Studio, small: Callable[..., Request]
) -> None:
    async def play() -> None:
        turns, log = Turns(studio), []
        first = asyncio.create_task(collect(turns, small(100), "first", log))
        while log.count("first") < 50:
            await asyncio.sleep(0)
        late = asyncio.create_task(collect(turns, small(90), "late", log))
        await first
        assert 25 <= log.count("late") <= 75  # about as many as `first` had left, and not all its own
        await late

    scene(play)


def test_equal_settings_are_drawn_together_and_every_one_gets_its_own(
    studio: Studio, small: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures are those that each would have got alone; a job that came first is on its way already."""
    alone = {
        seed: studio.pipeline(small().rung).generate(small(seed=seed, label=seed % 3, pictures=2).settings).x0
        for seed in (10, 20, 30)
    }
    began, stream = [], studio.stream
    monkeypatch.setattr(
        studio, "stream", lambda rung, settings, used: began.append(settings) or stream(rung, settings, used)
    )
    monkeypatch.setattr(small().rung, "speed", Speed(1.0, 0.1))

    async def play() -> None:
        turns = Turns(studio)
        jobs = {
            seed: asyncio.create_task(
                collect(turns, small(seed=seed, label=seed % 3, pictures=2), str(seed), [])
            )
            for seed in alone
        }
        for seed, job in jobs.items():
            frames = await job
            assert frames[-1].done and np.array_equal(frames[-1].x0, alone[seed])
            assert frames[-1].macs == 2 * 8 * small().rung.macs_per_pass
        assert [len(settings.seeds) for settings in began] in ([6], [2, 4])

    scene(play)


def test_what_is_drawn_together_is_alike_and_faster_so(studio: Studio, small: Callable[..., Request]) -> None:
    class Waiting:
        def __init__(self, request: Request) -> None:
            self.request = request

    rung = small().rung
    rung.speed = Speed(1.0, 0.1)
    first = Waiting(small())
    assert together(first, Waiting(small(seed=9, label=2, pictures=3)))
    assert not together(first, Waiting(small(steps=9)))
    assert not together(first, Waiting(small(model="big")))
    many = [Waiting(small(seed=i, pictures=6)) for i in range(5)]
    assert company(many[0], many, 16) == many[:2]  # 16 pictures at the most
    rung.speed = Speed(0.001, 0.1)  # calls cost next to nothing: nothing is saved
    assert not together(first, Waiting(small(seed=9)))


def test_one_leaves_a_batch_and_the_other_stays(
    studio: Studio, small: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small().rung, "speed", Speed(1.0, 0.1))

    async def play() -> None:
        turns, log = Turns(studio), []
        jobs = [asyncio.create_task(collect(turns, small(40, seed=i), str(i), log)) for i in range(2)]
        while len(log) < 6:
            await asyncio.sleep(0)
        turns.stop("0")
        assert len(await jobs[0]) < 10 and len(await jobs[1]) == 40
        assert not turns.line

    scene(play)


def test_waiting_tells_how_many_share_and_when_it_is_done(studio: Studio) -> None:
    turns = Turns(studio)
    long, short, other = (
        turns.enter(name, seconds) for name, seconds in (("a", 30.0), ("b", 5.0), ("c", 4.0))
    )
    assert turns.wait_of(short) == Wait(2, 5 + 5 + 4)
    assert turns.wait_of(long) == Wait(2, 30 + 5 + 4)
    other.spent = 3.0
    assert turns.wait_of(short) == Wait(2, 5 + 5 + 1)


def test_one_who_waits_is_told_so(studio: Studio, small: Callable[..., Request]) -> None:
    async def play() -> None:
        turns, told, free = Turns(studio), [], threading.Event()
        turns.device.submit(free.wait)  # a long step of somebody
        turns.enter("a", 9.0)
        try:
            async for event in turns.draw(small(), turns.enter("b", 2.0)):
                told.append(event)
                free.set()
        finally:
            free.set()
        assert told[0] == Wait(1, 4.0) and isinstance(told[-1], Frame)

    scene(play)


def test_stop_ends_within_one_step_and_only_ones_own(studio: Studio, small: Callable[..., Request]) -> None:
    async def play() -> None:
        turns = Turns(studio)
        own = turns.enter("a", 1.0)
        other = asyncio.create_task(collect(turns, small(9), "b", []))
        seen = []
        async for event in turns.draw(small(), own):
            seen.append(event)
            if len(seen) == 3:
                assert turns.stop("a") == 1 and turns.stop("nobody") == 0
        assert len(seen) == 3
        assert len(await other) == 9

    scene(play)


def test_a_view_stops_its_own_jobs_and_leaving_stops_all(studio: Studio) -> None:
    turns = Turns(studio)
    grid, budget, other = (
        turns.enter("a", 1.0, "grid"),
        turns.enter("a", 1.0, "budget"),
        turns.enter("b", 1.0),
    )
    assert turns.stop("a", "grid") == 1
    assert (grid.stopped, budget.stopped, other.stopped) == (True, False, False)
    assert turns.stop("a") == 2 and budget.stopped and not other.stopped


def test_a_stop_between_two_requests_reads_no_further_model(
    studio: Studio, small: Callable[..., Request]
) -> None:
    async def play() -> None:
        turns, seen = Turns(studio), []
        second = small(model="big")
        studio.unload(second.rung)
        ticket = turns.enter("a", 2.0)
        async for index, event in turns.draw_all([small(), second], ticket):
            if not isinstance(event, Wait):
                seen.append((index, type(event)))
            if isinstance(event, Frame) and event.done:
                turns.stop("a")
        assert seen == [(0, Frame)] * 8
        assert not turns.line and second.rung.pipeline is None

    scene(play)


def test_a_cancelled_job_frees_the_device(studio: Studio, small: Callable[..., Request]) -> None:
    async def play() -> None:
        turns = Turns(studio)
        log: list[str] = []
        job = asyncio.create_task(collect(turns, small(200), "a", log))
        while not log:
            await asyncio.sleep(0)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert not turns.line
        assert len(await collect(turns, small(), "b", [])) == 8

    scene(play)


def test_what_goes_wrong_is_told_to_whose_it_is(
    studio: Studio, small: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stream(rung, settings, used):  # the real one, but for a device that breaks down
        for frame in type(studio).stream(studio, rung, settings, used):
            if settings.steps == 9 and frame.index == 3:
                raise RuntimeError("out of memory")
            yield frame

    monkeypatch.setattr(studio, "stream", stream)

    async def play() -> None:
        turns = Turns(studio)
        bad = asyncio.create_task(collect(turns, small(9), "a", []))
        good = asyncio.create_task(collect(turns, small(20), "b", []))
        with pytest.raises(RuntimeError, match="out of memory"):
            await bad
        assert len(await good) == 20
        assert not turns.line

    scene(play)


def test_a_model_is_not_put_out_of_memory_under_one_who_draws_with_it(
    ladder_files: list[Path], small: Callable[..., Request]
) -> None:
    """With room for one model, the second job begins when the first is done, and is told to wait."""
    tight = open_studio(ladder_files, limits=Limits(models=1, small_bytes=1))

    def request(model: str, steps: int) -> Request:
        return parse(tight.rungs, Wish(model, 0, steps, 1.0, 0, 1, "ddim"))

    async def play() -> None:
        turns, log = Turns(tight), []
        first = asyncio.create_task(collect(turns, request("small", 30), "a", log))
        await asyncio.sleep(0)
        second = asyncio.create_task(collect(turns, request("big", 30), "b", log))
        await asyncio.gather(first, second)
        assert log == ["a"] * 30 + ["b"] * 30
        assert [rung.name for rung in tight.resident] == ["big"]

    scene(play)


def test_reading_a_model_is_told_first(studio: Studio, small: Callable[..., Request]) -> None:
    async def play() -> None:
        turns, big = Turns(studio), small(model="big")
        studio.unload(big.rung)
        told = [event async for event in turns.draw(big, turns.enter("a", 1.0))]
        events = [event for event in told if not isinstance(event, Wait)]
        assert events[0] == Loading("big") and len(events) == 9

    scene(play)


def test_a_finished_job_corrects_the_expected_seconds(studio: Studio, small: Callable[..., Request]) -> None:
    request = small()
    rung = request.rung
    rung.speed = Speed(100.0, 100.0)
    [last] = asyncio.run(collect(Turns(studio), request, "a", []))[-1:]
    assert rung.seconds(request.settings) == pytest.approx(last.seconds)
    assert rung.speed.overhead == pytest.approx(rung.speed.per_picture)


def test_a_full_line_says_when_to_come_back(studio: Studio) -> None:
    turns = Turns(studio)
    for i in range(USUAL.waiting):
        turns.enter(str(i), 2.0)
    with pytest.raises(Full, match=rf"{USUAL.waiting} jobs are waiting.*about 40 s"):
        turns.enter("late", 1.0)


def test_nobody_fills_the_line_alone(studio: Studio) -> None:
    turns, half = Turns(studio), USUAL.waiting // 2
    for _ in range(half):
        turns.enter("greedy", 2.0)
    with pytest.raises(Full, match=rf"{half} jobs are waiting, and {half} of them are yours; from {half} on"):
        turns.enter("greedy", 2.0)
    for i in range(half):
        turns.enter(str(i), 2.0)
    with pytest.raises(Full, match="takes no more than"):
        turns.enter("late", 1.0)


def test_several_requests_are_one_job(studio: Studio, small: Callable[..., Request]) -> None:
    """Drawn one after the other, each to its end; a stop ends all of them."""

    async def play() -> None:
        turns, log = Turns(studio), []

        async def all_three(session: str, stop_at: int | None = None) -> None:
            ticket = turns.enter(session, 3.0)
            count = 0
            async for index, event in turns.draw_all([small()] * 3, ticket):
                if isinstance(event, Frame):
                    log.append((session, index))
                    count += 1
                    if count == stop_at:
                        turns.stop(session)

        await asyncio.gather(all_three("a"), collect(turns, small(9), "b", []), all_three("c", 11))
        of = {name: [index for session, index in log if session == name] for name in "ac"}
        assert of["a"] == [0] * 8 + [1] * 8 + [2] * 8
        assert of["c"] == [0] * 8 + [1] * 3
        assert not turns.line

    scene(play)
