"""Several requests drawn as one job: what there is of each so far."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dit.pipeline import Frame
from ui.judge import Judge, Verdict
from ui.request import Request
from ui.tickets import Event, Loading, Wait
from ui.turns import Turns


@dataclass(frozen=True)
class Drawn:
    """What came of one request."""

    request: Request
    pictures: np.ndarray  # (N, H, W, 3) uint8
    macs: int  # of a picture, as counted while it was drawn
    seconds: float  # of a picture, as it was drawn: together with its neighbours
    verdict: Verdict | None  # None where no classifier knows the classes

    def describe(self) -> list[dict[str, Any]]:
        """Of each picture, what decides it and what it cost, as plain JSON values."""
        costs = {"gmacs": self.macs / 1e9, "seconds": round(self.seconds, 4)}
        looks = self.verdict.found if self.verdict else [None] * len(self.pictures)
        return [self.request.describe(i) | costs | {"looks_like": look} for i, look in enumerate(looks)]


@dataclass(eq=False)
class Several:
    """Requests in the order in which they are drawn, and how far they are."""

    requests: Sequence[Request]
    drawn: dict[int, Drawn] = field(default_factory=dict)  # by place in `requests`
    now: int | None = None  # which is being drawn
    frame: Frame | None = None  # its latest
    waiting: Wait | Loading | None = None

    @property
    def complete(self) -> bool:
        """Whether all are drawn."""
        return len(self.drawn) == len(self.requests)

    @property
    def seconds(self) -> float:
        """Expected of all together."""
        return sum(request.rung.seconds(request.settings) for request in self.requests)

    async def follow(
        self, events: AsyncIterator[tuple[int, Event]], turns: Turns, judge: Judge
    ) -> AsyncIterator[bool]:
        """Take in a job's events, as `jobs.draw_all` yields them; yields after each whether one is complete.

        The class check runs in the device's thread, so that it takes no time from another's step.
        """
        loop = asyncio.get_running_loop()
        async for index, event in events:
            if not isinstance(event, Frame):
                self.waiting = event
                yield False
                continue
            self.now, self.frame, self.waiting = index, event, None
            if event.done:
                request, count = self.requests[index], len(event.x0)
                verdict = await loop.run_in_executor(turns.device, judge.check, request, event.x0)
                self.drawn[index] = Drawn(
                    request, event.x0, event.macs // count, event.seconds / count, verdict
                )
                self.now, self.frame = None, None
            yield event.done

    def close(self) -> None:
        """Nothing is being drawn any more; what was, stays."""
        self.now, self.frame, self.waiting = None, None, None
