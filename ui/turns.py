"""One device, many visitors: who draws now, who waits, for how long, and who has been told to stop."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from dit.pipeline import Frame
from ui.request import Request
from ui.studio import Rung, Studio

MAX_WAITING = 20
LEAST_TIMED = 0.5  # seconds from which on one of many requests says how fast the machine is


class Full(RuntimeError):
    """Too many are waiting already; the message says when to come back."""


@dataclass(frozen=True)
class Wait:
    """What one who waits is told."""

    ahead: int  # jobs before
    seconds: float  # expected, until the turn comes


@dataclass(frozen=True)
class Loading:
    """A model is being read into memory; the first step comes after it."""

    name: str


Event = Frame | Wait | Loading


@dataclass(eq=False)
class Ticket:
    """A place in the line."""

    session: str
    seconds: float  # how long the job is expected to take
    kind: str = ""  # which of the page's views it is for, each of which stops its own
    started: float | None = None
    stopped: bool = False


@dataclass(eq=False)
class Turns:
    """A first-come, first-served line in front of one device. For the event loop alone: it has no lock."""

    studio: Studio
    line: list[Ticket] = field(default_factory=list)
    # One thread for the device: each further thread that computes would bring its own pool of OpenMP threads.
    device: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="device")
    )

    def enter(self, session: str, seconds: float, kind: str = "") -> Ticket:
        """Take the last place. Raises Full when MAX_WAITING are there before."""
        if len(self.line) >= MAX_WAITING:
            raise Full(
                f"{len(self.line)} jobs are waiting, and the line takes no more than {MAX_WAITING}; "
                f"try again in about {self.wait_before(None):.0f} s"
            )
        ticket = Ticket(session, seconds, kind)
        self.line.append(ticket)
        return ticket

    def ahead(self, ticket: Ticket) -> int:
        """How many jobs come before this one."""
        return self.line.index(ticket)

    def wait_before(self, ticket: Ticket | None) -> float:
        """Expected seconds until this ticket's turn; for None, until the whole line is done."""
        wait, now = 0.0, time.monotonic()
        for other in self.line:
            if other is ticket:
                break
            wait += (
                other.seconds if other.started is None else max(0.0, other.seconds - (now - other.started))
            )
        return wait

    def stop(self, session: str, kind: str | None = None) -> int:
        """Tell the jobs of one session to stop, and nobody else's; returns how many there were.

        kind: only those of one view; None: all, as when the visitor leaves.
        """
        own = [ticket for ticket in self.line if ticket.session == session and kind in (None, ticket.kind)]
        for ticket in own:
            ticket.stopped = True
        return len(own)

    async def unload(self, rung: Rung) -> None:
        """Give a model's memory back, between the steps of jobs but never under one that draws with it.

        Raises:
            Full: a job that draws or waits.
        """
        if self.line:
            raise Full("a job is being drawn; wait until the line is empty, or stop it")
        await asyncio.get_running_loop().run_in_executor(self.device, self.studio.unload, rung)

    async def draw(self, request: Request, ticket: Ticket) -> AsyncIterator[Event]:
        """`draw_all` of one request."""
        async with contextlib.aclosing(self.draw_all([request], ticket)) as events:
            async for _, event in events:
                yield event

    async def draw_all(self, requests: Sequence[Request], ticket: Ticket) -> AsyncIterator[tuple[int, Event]]:
        """Wait for the turn, then draw one request after the other, under one ticket.

        Yields how long it will take, whether a model is read, then frames; each with its request's index.
        Ends early, within one step, when the ticket is stopped or the caller closes the iterator.
        """
        try:
            while self.ahead(ticket) and not ticket.stopped:
                yield 0, Wait(self.ahead(ticket), self.wait_before(ticket))
                await asyncio.sleep(0.25)
            ticket.started = time.monotonic()
            for index, request in enumerate(requests):
                if ticket.stopped:
                    return
                if request.rung.pipeline is None:
                    before = time.monotonic()
                    yield index, Loading(request.rung.name)
                    ticket.started += time.monotonic() - before
                async with contextlib.aclosing(self._frames(request, ticket)) as frames:
                    async for frame in frames:
                        if frame.done and (len(requests) == 1 or frame.seconds > LEAST_TIMED):
                            request.rung.correct_speed(request.settings, frame.seconds)
                        yield index, frame
        finally:
            self.line.remove(ticket)

    async def _frames(self, request: Request, ticket: Ticket) -> AsyncIterator[Frame]:
        """The frames of one request, each made in the device's thread, until the ticket is stopped."""
        loop = asyncio.get_running_loop()
        frames = self.studio.stream(request.rung, request.settings)
        while not ticket.stopped:
            step = asyncio.ensure_future(loop.run_in_executor(self.device, next, frames, None))
            try:
                frame = await asyncio.shield(step)
            except asyncio.CancelledError:
                await asyncio.wait([step])  # the turn is over only when the device is free
                raise
            if frame is None:
                return
            yield frame
