"""One device, many visitors: who draws the next step, how long it will take, and who has been told to stop.

Visitors share the device in equal parts, step by step (start-time fair queueing, Goyal et al., SIGCOMM 1996:
who has had the least of its time comes next), so a job of seconds does not wait for one of minutes. Requests
of equal settings that wait at the same time are drawn as one batch where that is faster: a picture does not
depend on its neighbours.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ui.request import Request
from ui.studio import Rung, Studio
from ui.tickets import Batch, Closed, Event, Loading, Part, Ticket, Wait, company, merged, parts_of
from ui.tidy import hand_back

LEAST_TIMED = 0.5  # seconds from which on one of many requests says how fast the machine is
IDLE = 5.0  # seconds without a job after which freed memory goes back to the system
TOLD = 0.25  # seconds between two words to one who waits


class Full(RuntimeError):
    """Too many are waiting already; the message says when to come back."""


@dataclass(eq=False)
class Turns:
    """Shares one device among visitors. For the event loop alone: it has no lock."""

    studio: Studio
    line: list[Ticket] = field(default_factory=list)
    closed: bool = False
    # One thread for the device: each further thread that computes would bring its own pool of OpenMP threads.
    device: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="device")
    )
    _waiting: list[Part] = field(default_factory=list)
    _drawn: list[Batch] = field(default_factory=list)
    _used: dict[str, float] = field(default_factory=dict)  # virtual time up to which each visitor was served
    _clock: float = 0.0  # virtual time of what is being served
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _changed: asyncio.Event | None = None
    _task: asyncio.Task | None = None

    def enter(self, session: str, seconds: float, kind: str = "") -> Ticket:
        """Take a place. The last half of the line is for those who have none: nobody fills it alone.

        Raises:
            Full: as many are there as may be, or half as many and one is the visitor's.
            Closed: the server is stopping.
        """
        if self.closed:
            raise Closed
        if len(self.line) >= (most := self.studio.limits.waiting):
            raise Full(
                f"{len(self.line)} jobs are waiting, and the line takes no more than {most}; "
                f"try again in about {sum(ticket.left for ticket in self.line):.0f} s"
            )
        own = sum(ticket.session == session for ticket in self.line)
        if own and 2 * len(self.line) >= most:
            raise Full(
                f"{len(self.line)} jobs are waiting, and {own} of them {'is' if own == 1 else 'are'} yours; "
                f"from {-(-most // 2)} on, the line takes one of each visitor: wait until yours are done"
            )
        ticket = Ticket(session, seconds, kind)
        self.line.append(ticket)
        return ticket

    def wait_of(self, ticket: Ticket) -> Wait:
        """How many share the device with a job, and when it will be done.

        Each of them takes as much time as it, or all that it needs.
        """
        others = [other.left for other in self.line if other is not ticket]
        return Wait(len(others), ticket.left + sum(min(left, ticket.left) for left in others))

    def stop(self, session: str, kind: str | None = None) -> int:
        """Tell the jobs of one session to stop, and nobody else's; returns how many there were.

        kind: only those of one view; None: all, as when the visitor leaves.
        """
        own = [ticket for ticket in self.line if ticket.session == session and kind in (None, ticket.kind)]
        for ticket in own:
            ticket.stopped, ticket.gone = True, kind is None
        self._wake()
        return len(own)

    def close(self) -> None:
        """End all jobs, with a word to those whose they are, and take none any more."""
        self.closed = True
        for part in self._parts():
            part.end(Closed())
        self._wake()

    async def unload(self, rung: Rung) -> None:
        """Give a model's memory back, between the steps of jobs but never under one that draws with it.

        Raises:
            Full: a job that draws or waits.
        """
        if self.line:
            raise Full("a job is being drawn; wait until it is done, or stop it")
        await asyncio.get_running_loop().run_in_executor(self.device, self.studio.unload, rung)

    async def draw(self, request: Request, ticket: Ticket) -> AsyncIterator[Event]:
        """`draw_all` of one request."""
        async with contextlib.aclosing(self.draw_all([request], ticket)) as events:
            async for _, event in events:
                yield event

    async def draw_all(self, requests: Sequence[Request], ticket: Ticket) -> AsyncIterator[tuple[int, Event]]:
        """Draw one request after the other, under one ticket, and leave.

        Yields how long it will take while it has not begun, whether a model is read, then frames; each with
        its request's index. Ends early, within one step, when the ticket is stopped or the caller closes the
        iterator.

        Raises:
            Closed: the server is stopping; at once, whatever the device is at.
        """
        try:
            ticket.single = len(requests) == 1
            for index, request in enumerate(requests):
                if ticket.stopped:
                    return
                if self.closed:
                    raise Closed
                part = self._offer(request, ticket)
                async with contextlib.aclosing(self._events(part)) as events:
                    async for event in events:
                        yield index, event
        finally:
            ticket.stopped = True
            self.line.remove(ticket)
            self._wake()

    async def _events(self, part: Part) -> AsyncIterator[Event]:
        """What comes of a part; until it begins, from time to time how long it will take."""
        begun = False
        coming = asyncio.ensure_future(part.next())
        try:
            while True:
                done, _ = await asyncio.wait([coming], timeout=None if begun else TOLD)
                if not done:
                    yield self.wait_of(part.ticket)
                    continue
                event, begun = coming.result(), True
                if event is None:
                    return
                self._wake()  # there is room for the next frame
                yield event
                coming = asyncio.ensure_future(part.next())
        finally:
            coming.cancel()

    def _offer(self, request: Request, ticket: Ticket) -> Part:
        """Have a request drawn. A visitor begins where those are who are served now, whatever was before."""
        part = Part(ticket, request, next(self._numbers))
        self._used[ticket.session] = max(self._used.get(ticket.session, 0.0), self._clock)
        self._waiting.append(part)
        if self._task is None or self._task.done():
            self._changed = asyncio.Event()
            self._task = asyncio.ensure_future(self._serve())
        self._wake()
        return part

    def _wake(self) -> None:
        if self._changed:
            self._changed.set()

    async def _serve(self) -> None:
        """Draw step after step, until nobody is left; and tidy up, unless somebody comes soon."""
        try:
            while await self._drop_stopped():
                batch = self._next()
                if batch is None:  # all have a frame that they have not fetched
                    self._changed.clear()
                    await self._changed.wait()
                    continue
                await self._step(batch)
        except Exception as error:  # of ours: nobody shall wait for what never comes
            for part in self._parts():
                part.end(error)
            self._waiting, self._drawn = [], []
            raise
        asyncio.get_running_loop().call_later(IDLE, self._tidy)

    def _tidy(self) -> None:
        if not self.line and not self.closed:
            self.device.submit(hand_back)

    def _parts(self) -> list[Part]:
        return [*self._waiting, *(part for batch in self._drawn for part in batch.parts)]

    async def _drop_stopped(self) -> bool:
        """Forget those who have left; returns whether anybody stays."""
        for part in self._parts():
            if part.ticket.stopped:
                part.end()
        self._waiting = [part for part in self._waiting if not part.ended]
        # A batch goes on for those who stay in it.
        left = [batch for batch in self._drawn if all(part.ended for part in batch.parts)]
        self._drawn = [batch for batch in self._drawn if batch not in left]
        for batch in left:  # in its thread: a lent GPU is given back, which takes a moment
            await asyncio.get_running_loop().run_in_executor(self.device, batch.frames.close)
        present = {ticket.session for ticket in self.line}
        self._used = {name: at for name, at in self._used.items() if name in present or at > self._clock}
        return bool(self._waiting or self._drawn)

    def _next(self) -> Batch | None:
        """What comes next: a step of a batch that is being drawn, or the first of a new one."""
        ready = [batch for batch in self._drawn if any(part.wants for part in batch.parts)]
        fresh = [part for part in self._waiting if self._has_room(part.request.rung)]
        if not ready and not fresh:
            return None
        first = min(
            [*ready, *fresh],
            key=lambda one: (min(self._used[part.ticket.session] for part in parts_of(one)), one.number),
        )
        return first if isinstance(first, Batch) else self._begin(first)

    def _has_room(self, rung: Rung) -> bool:
        """Whether a model may be read into memory now: none that is being drawn with has to go for it."""
        used = {batch.rung for batch in self._drawn}
        return not used or rung in used or self.studio.fits({*used, rung})

    def _company(self, part: Part) -> list[Part]:
        return company(part, self._waiting, self.studio.limits.pictures)

    def _begin(self, part: Part) -> Batch:
        """A batch of a part, and of all that can be drawn with it."""
        chosen = self._company(part)
        self._waiting = [other for other in self._waiting if other not in chosen]
        settings = merged(chosen)
        rung, in_use = part.request.rung, [batch.rung for batch in self._drawn]
        batch = Batch(chosen, self.studio.stream(rung, settings, in_use), settings)
        self._drawn.append(batch)
        return batch

    async def _step(self, batch: Batch) -> None:
        """One frame, made in the device's thread and handed to those whose it is."""
        if batch.rung.pipeline is None and not batch.begun:
            for part in batch.parts:
                part.put(Loading(batch.rung.name))
        self._clock = min(self._used[part.ticket.session] for part in batch.parts if not part.ended)
        try:
            frame, seconds = await asyncio.get_running_loop().run_in_executor(self.device, batch.step)
        except Exception as error:  # of the device or of a file: told to those who wait for it alone
            self._end(batch, error)
            return
        if frame is None:  # no stream ends without a last frame; but nobody shall wait if one does
            self._end(batch)
            return
        spent = seconds / len(batch.settings.seeds)
        for part in batch.parts:
            own = spent * len(part.request.settings.seeds)
            part.ticket.spent += own
            self._used[part.ticket.session] = self._used.get(part.ticket.session, self._clock) + own
        if frame.done and (frame.seconds > LEAST_TIMED or all(part.ticket.single for part in batch.parts)):
            batch.rung.correct_speed(batch.settings, frame.seconds)
        for part, share in batch.shares(frame):
            if not part.ended:
                part.put(share)
        if frame.done:  # not at the next turn: that may be long in coming
            self._end(batch)

    def _end(self, batch: Batch, failure: Exception | None = None) -> None:
        self._drawn.remove(batch)
        batch.frames.close()
        for part in batch.parts:
            part.end(failure)
