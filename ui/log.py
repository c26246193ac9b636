"""The log of requests: a line of JSON for each job that a visitor wanted drawn, once it has ended.

It holds settings, costs and times. Who asked, what was typed and what files are called is in none of them.
"""

import json
import logging
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

from dit.pipeline import Frame
from ui.request import Request
from ui.tickets import Event, Ticket

DONE, STOPPED, LEFT = "done", "stopped", "left"
REFUSED, FAILED, SHUTDOWN = "refused", "failed", "shutdown"
LOGGER = logging.getLogger("dit_lab.requests")


def open_log(file: Path | None = None) -> None:
    """Have lines written: to a file's end, or to stderr. The file may be moved away while it is open.

    Raises:
        OSError: the file cannot be written.
    """
    handler = WatchedFileHandler(file, encoding="utf-8") if file else logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False


@dataclass(eq=False)
class Record:
    """One job, from when it is asked for; of requests that were refused unread there are none."""

    kind: str  # explore, grid, budget, api
    requests: Sequence[Request] = ()
    asked: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    _macs: dict[int, int] = field(default_factory=dict)  # spent so far, by place in `requests`
    _done: set[int] = field(default_factory=set)

    def see(self, index: int, event: Event) -> None:
        """Note how far a request is."""
        if isinstance(event, Frame):
            self._macs[index] = event.macs
            if event.done:
                self._done.add(index)

    @property
    def complete(self) -> bool:
        """Whether all are drawn."""
        return len(self._done) == len(self.requests)

    def write(self, outcome: str, ticket: Ticket | None = None) -> None:
        """The line. ticket: the job's place; None where it got none."""
        waited, drawn = (ticket.waited(time.monotonic()), ticket.spent) if ticket else (0.0, 0.0)
        told = {
            "time": self.asked.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "kind": self.kind,
            "outcome": outcome,
            **self._settings(),
            "gmacs_drawn": round(sum(self._macs.values()) / 1e9, 3),
            "seconds_waited": round(waited, 3),
            "seconds_drawn": round(drawn, 3),
        }
        LOGGER.info(json.dumps(told))

    def _settings(self) -> dict[str, Any]:
        """Of all requests: each value that occurs once, in their order; pictures and GMACs together."""
        settings = [request.settings for request in self.requests]
        return {
            "requests": len(self.requests),
            "models": _each(request.rung.name for request in self.requests),
            "classes": len({label for one in settings for label in one.classes}),
            "steps": _each(one.steps for one in settings),
            "guidance": _each(one.guidance_scale for one in settings),
            "samplers": _each(one.sampler for one in settings),
            "cache_every": _each(one.cache_every for one in settings),
            "pictures": sum(len(one.seeds) for one in settings),
            "gmacs": round(sum(request.macs for request in self.requests) / 1e9, 3),
        }


def _each(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))
