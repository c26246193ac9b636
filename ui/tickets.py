"""Who shares the device, and what is drawn for them: tickets, the parts that they consist of, and batches."""

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from contextvars import Context, copy_context
from dataclasses import dataclass, field, replace

from dit.pipeline import Frame
from dit.settings import SampleSettings
from ui.request import Request
from ui.studio import Rung

WORTH = 0.1  # share of the time that drawing together must save


class Closed(RuntimeError):
    """The server is stopping: what is under way ends, and nothing new begins."""

    def __init__(self) -> None:
        super().__init__("the server is stopping; ask again in a moment")


@dataclass(frozen=True)
class Wait:
    """What one who waits is told."""

    others: int  # jobs that share the machine
    seconds: float  # expected, until one's own is done


@dataclass(frozen=True)
class Loading:
    """A model is being read into memory; the first step comes after it."""

    name: str


Event = Frame | Wait | Loading


@dataclass(eq=False)
class Ticket:
    """A place among those who share the device."""

    session: str
    seconds: float  # how long the job would take alone, by its GMACs and the measured speed
    kind: str = ""  # which of the page's views it is for, each of which stops its own
    single: bool = True  # whether it is for one request alone
    spent: float = 0.0  # seconds of the device's time
    stopped: bool = False
    gone: bool = False  # its visitor has left
    entered: float = field(default_factory=time.monotonic)
    began: float | None = None  # when the device first worked on it

    @property
    def left(self) -> float:
        """Seconds of the device's time that it still needs, by expectation."""
        return max(0.0, self.seconds - self.spent)

    def waited(self, now: float) -> float:
        """Seconds until the device began with it, or until now."""
        return (now if self.began is None else self.began) - self.entered


@dataclass(eq=False)
class Part:
    """One request of a ticket, as it is being drawn."""

    ticket: Ticket
    request: Request
    number: int  # in the order of coming
    # Of who asked: a lent GPU is lent to a visitor, whom Gradio keeps there.
    context: Context = field(default_factory=copy_context)
    # Of frames that nobody has fetched yet the latest alone: one who reads slowly holds up nobody.
    outbox: deque = field(default_factory=lambda: deque(maxlen=1))
    filled: asyncio.Event = field(default_factory=asyncio.Event)
    ended: bool = False
    failure: Exception | None = None

    @property
    def wants(self) -> bool:
        """Whether somebody waits for its next frame."""
        return not (self.ended or self.ticket.stopped or self.outbox)

    def put(self, event: Event) -> None:
        """Hand over an event."""
        self.outbox.append(event)
        self.filled.set()

    def end(self, failure: Exception | None = None) -> None:
        """Nothing comes any more. The first to say so says why."""
        if not self.ended:
            self.ended, self.failure = True, failure
            self.filled.set()

    async def next(self) -> Event | None:
        """The next event; None at the end. Raises what went wrong in the device's thread."""
        while True:
            if self.failure:
                raise self.failure
            if self.ticket.stopped:
                return None
            if self.outbox:
                return self.outbox.popleft()
            if self.ended:
                return None
            self.filled.clear()
            await self.filled.wait()


@dataclass(eq=False)
class Batch:
    """Parts of equal settings, drawn together."""

    parts: list[Part]
    frames: Iterator[Frame]
    settings: SampleSettings
    begun: bool = False  # whether there has been a frame

    @property
    def rung(self) -> Rung:
        """The model."""
        return self.parts[0].request.rung

    @property
    def number(self) -> int:
        """Of the first to come."""
        return self.parts[0].number

    def step(self) -> tuple[Frame | None, float]:
        """The next frame, and the seconds that it took. In the device's thread."""
        began = time.monotonic()
        for part in self.parts:
            if part.ticket.began is None:
                part.ticket.began = began
        frame = self.parts[0].context.run(next, self.frames, None)
        self.begun = True
        return frame, time.monotonic() - began

    def shares(self, frame: Frame) -> Iterator[tuple[Part, Frame]]:
        """Of each part its own pictures, and its share of what they cost."""
        start, total = 0, len(frame.x0)
        for part in self.parts:
            count = len(part.request.settings.seeds)
            rows = slice(start, start + count)
            yield (
                part,
                replace(
                    frame,
                    x0=frame.x0[rows],
                    x_t=frame.x_t[rows],
                    macs=frame.macs * count // total,
                    seconds=frame.seconds * count / total,
                    finished=min(max(frame.finished - start, 0), count),
                ),
            )
            start += count


def parts_of(one: Batch | Part) -> list[Part]:
    """Those of a batch who are still there, or the part itself."""
    return [part for part in one.parts if not part.ended] if isinstance(one, Batch) else [one]


def together(first: Part, other: Part) -> bool:
    """Whether two requests can be drawn as one batch, and are drawn faster so."""
    one, two = first.request, other.request
    if one.rung is not two.rung:
        return False
    neutral = {"classes": [0], "seeds": [0]}
    if replace(one.settings, **neutral) != replace(two.settings, **neutral):
        return False
    seconds = one.rung.seconds(one.settings)
    return one.rung.calls(one.settings) * one.rung.speed.overhead >= WORTH * seconds


def merged(parts: list[Part]) -> SampleSettings:
    """Settings of one batch of parts that differ in classes and seeds alone."""
    every = [part.request.settings for part in parts]
    return replace(
        every[0],
        classes=[label for settings in every for label in settings.classes],
        seeds=[seed for settings in every for seed in settings.seeds],
    )


def company(first: Part, others: list[Part], most: int) -> list[Part]:
    """A part, and as many of others as can be drawn with it, in their order. most: pictures together."""
    chosen, pictures = [first], len(first.request.settings.seeds)
    for other in others:
        count = len(other.request.settings.seeds)
        if other is not first and pictures + count <= most and together(first, other):
            chosen.append(other)
            pictures += count
    return chosen
