"""One device, many visitors: who draws now, who waits, for how long, and who has been told to stop."""

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from dit.pipeline import Frame
from ui.request import Request
from ui.studio import Rung, Studio

MAX_WAITING = 20


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

    def enter(self, session: str, seconds: float) -> Ticket:
        """Take the last place. Raises Full when MAX_WAITING are there before."""
        if len(self.line) >= MAX_WAITING:
            raise Full(
                f"{len(self.line)} jobs are waiting, and the line takes no more than {MAX_WAITING}; "
                f"try again in about {self.wait_before(None):.0f} s"
            )
        ticket = Ticket(session, seconds)
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

    def stop(self, session: str) -> int:
        """Tell the jobs of one session to stop, and nobody else's; returns how many there were."""
        own = [ticket for ticket in self.line if ticket.session == session]
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
        """Wait for the turn, then draw: yields how long it will take, whether a model is read, then frames.

        Ends early, within one step, when the ticket is stopped or the caller closes the iterator.
        """
        loop = asyncio.get_running_loop()
        try:
            while self.ahead(ticket) and not ticket.stopped:
                yield Wait(self.ahead(ticket), self.wait_before(ticket))
                await asyncio.sleep(0.25)
            ticket.started = time.monotonic()
            if request.rung.pipeline is None and not ticket.stopped:
                yield Loading(request.rung.name)
                ticket.started = time.monotonic()
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
                if frame.done:
                    request.rung.correct_speed(request.settings, frame.seconds)
                yield frame
        finally:
            self.line.remove(ticket)
