"""`GET /health`: how the server does, for whoever supervises it. Says nothing of visitors."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from ui.turns import Turns

SOON = 0.2  # seconds in which an idle thread answers
PATIENCE = 600.0  # seconds that a step, or the reading of a model, may take


@dataclass(eq=False)
class Health:
    """What is told. For the event loop alone, which goes on while the device draws."""

    turns: Turns
    began: float = field(default_factory=time.monotonic)
    _asked: asyncio.Future | None = None  # comes back once the device's thread has time for it
    _since: float = 0.0

    def route(self) -> Route:
        """Where it is asked."""
        return Route("/health", self.answer, methods=["GET"])

    async def answer(self, request: Request) -> JSONResponse:
        """Status 200, and 503 while the server is stopping."""
        status = 503 if self.turns.closed else 200
        return JSONResponse(await self.told(), status, {"Cache-Control": "no-store"})

    async def told(self) -> dict[str, Any]:
        """Plain JSON values."""
        line = self.turns.line
        busy = await self._busy()
        return {
            "status": "stopping" if self.turns.closed else "ok",
            "seconds_up": round(time.monotonic() - self.began, 1),
            "models_resident": len(self.turns.studio.resident),
            "jobs_drawing": sum(ticket.began is not None for ticket in line),
            "jobs_waiting": sum(ticket.began is None for ticket in line),
            "drawing_thread_answers": busy < PATIENCE,
            "drawing_thread_busy_seconds": round(busy, 1),
        }

    async def _busy(self) -> float:
        """For how long the device's thread has been at one thing; 0 if it answers at once."""
        if self._asked is None or self._asked.done():
            self._asked = asyncio.get_running_loop().run_in_executor(self.turns.device, bool)
            self._since = time.monotonic()
        await asyncio.wait([self._asked], timeout=SOON)
        return 0.0 if self._asked.done() else time.monotonic() - self._since
