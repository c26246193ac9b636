"""Serving until a signal: then visitors are told, training is saved, and the process ends."""

import asyncio
import concurrent.futures
import contextlib
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from starlette.middleware import Middleware

from ui.gate import Gate
from ui.health import Health
from ui.page import Page, serving
from ui.runs import Runs

SIGNALS = (signal.SIGTERM, signal.SIGINT)
SECONDS = 9.0  # from the signal to the end, at most, whatever is still being drawn or saved
TELLING = 4.0  # of these, until the last job has ended and its visitor knows
GRACE = 1.5  # after that, in which pages and programs fetch what they are told
LEAVING = 1.0  # at the end, for the interpreter; a step that is being drawn then is not waited for
ONE = 0.5  # seconds in which several signals are one: some senders reach a process twice


def serve(page: Page, runs: Runs | None) -> None:
    """Serve until SIGTERM or SIGINT, and end in order; a second signal ends at once. Main thread only."""
    closing, limits = Closing(page, runs), page.turns.studio.limits
    closing.listen()
    page.demo.launch(
        prevent_thread_lock=True,
        app_kwargs={
            "routes": [Health(page.turns).route()],
            "lifespan": closing.lifespan,
            "middleware": [Middleware(Gate, limits)],
        },
        **serving(limits),
    )
    closing.wait()


@dataclass(eq=False)
class Closing:
    """The way from a signal to the end of the process."""

    page: Page
    runs: Runs | None
    _loop: asyncio.AbstractEventLoop | None = None  # of the server, once there is one
    _began: float | None = None  # when the first signal came
    _ended: threading.Event = field(default_factory=threading.Event)

    def listen(self) -> None:
        """Take the signals. Main thread only."""
        for number in SIGNALS:
            signal.signal(number, self._signalled)

    def wait(self) -> None:
        """Until there is nothing left to do but to leave."""
        self._ended.wait()

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncIterator[None]:
        """Of the server: it says which event loop is its own, and has uploads expire while it is up."""
        self._loop = asyncio.get_running_loop()
        expiring = asyncio.create_task(uploads.keep_expiring()) if (uploads := self.page.uploads) else None
        try:
            yield
        finally:
            if expiring:
                expiring.cancel()

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if self._began is None:
            self._began = time.monotonic()
            threading.Thread(target=self._close, name="closing", daemon=True).start()
        elif time.monotonic() - self._began > ONE:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def _close(self) -> None:
        _leave_within(SECONDS + LEAVING)  # whatever hangs
        print("Stopping: jobs and training end, then the server.", flush=True)
        deadline = self._began + SECONDS
        saving = threading.Thread(target=self._save, args=(deadline,), daemon=True)
        saving.start()
        try:
            if self._loop:
                told = asyncio.run_coroutine_threadsafe(self._tell(), self._loop)
                with contextlib.suppress(concurrent.futures.TimeoutError):
                    told.result(TELLING)
            self.page.demo.close(verbose=False)
            saving.join(max(0.0, deadline - time.monotonic()))
        finally:  # whatever went wrong
            _leave_within(LEAVING)
            self._ended.set()

    async def _tell(self) -> None:
        """End all jobs and downloads with a word to whose they are, and leave time to fetch it."""
        self.page.turns.close()
        self.page.downloads.close()
        while self.page.turns.line:
            await asyncio.sleep(0.05)
        await asyncio.sleep(GRACE)

    def _save(self, deadline: float) -> None:
        """Have the trainers write their checkpoints; one that takes longer goes on with it by itself."""
        if self.runs:
            self.runs.close(deadline - time.monotonic())


def _leave_within(seconds: float) -> None:
    """End the process by then if it has not ended: with status 0, since it was asked to."""
    leave = threading.Timer(seconds, os._exit, (0,))
    leave.daemon = True
    leave.start()
