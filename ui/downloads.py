"""Published models on their way here: each in a process of its own, to be watched and cancelled."""

import asyncio
import atexit
import html
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from dit import remote
from dit.published import size_of
from ui import costs
from ui.studio import Rung
from ui.tickets import Closed

CSS = """
.dl-progress { height: 10px; border-radius: 5px; background: var(--background-fill-secondary);
  overflow: hidden; border: 1px solid var(--border-color-primary); }
.dl-progress div { height: 100%; background: var(--color-accent); }
"""
PROJECT = Path(remote.__file__).resolve().parent.parent  # where `python -m dit.hub` is found


@dataclass(eq=False)
class Download:
    """One model on its way, in a process of its own, so that it can be stopped at any byte."""

    rung: Rung
    session: str | None  # of the visitor who may cancel it; None: who has left, so anyone may
    process: asyncio.subprocess.Process
    log: IO[str]
    before: int  # bytes that an earlier download has brought
    began: float = field(default_factory=time.monotonic)
    cancelled: bool = False

    @classmethod
    async def start(cls, rung: Rung, session: str) -> "Download":
        """Begin, or go on from where an earlier one stopped."""
        log, before = tempfile.TemporaryFile("w+"), remote.arrived(rung.published.repo_id)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "dit.hub", "pull", rung.name,
            stdout=asyncio.subprocess.DEVNULL, stderr=log, cwd=PROJECT,
        )  # fmt: skip
        job = cls(rung, session, process, log, before)
        atexit.register(job.kill)
        return job

    def cancel(self) -> None:
        """Stop at once; what has come is kept."""
        self.cancelled = True
        self.kill()

    def kill(self) -> None:
        """End the process, if it has not ended."""
        if self.process.returncode is None:
            self.process.kill()

    def close(self) -> None:
        """Give back what the process needed, once it has ended."""
        atexit.unregister(self.kill)
        self.log.close()

    def progress_html(self) -> str:
        """A bar, bytes, pace and the expected wait."""
        total, done = self.rung.published.bytes, remote.arrived(self.rung.published.repo_id)
        pace = (done - self.before) / max(time.monotonic() - self.began, 1e-3)
        left = f", about {costs.duration((total - done) / pace)} left" if pace > 0 and done < total else ""
        share = min(100.0, 100 * done / total)
        return (
            f'<div class="dl-progress" role="progressbar" aria-valuenow="{share:.0f}" aria-valuemin="0" '
            f'aria-valuemax="100"><div style="width: {share:.1f}%"></div></div>'
            f"<p>{html.escape(self.rung.name)}: {size_of(done)} of {size_of(total)}, "
            f"{size_of(pace)}/s{left}</p>"
        )

    def outcome(self) -> str:
        """What came of it, once the process has ended."""
        if self.process.returncode == 0:
            return f"{self.rung.name} is here. Choose it in Explore."
        if self.cancelled:
            return "Cancelled. What has come is kept; Download goes on from it."
        self.log.seek(0)
        lines = [line for line in self.log.read().splitlines() if line.startswith("error: ")]
        return lines[-1] if lines else f"The download ended with exit status {self.process.returncode}."


@dataclass(eq=False)
class Downloads:
    """All downloads of the page, one a model. For the event loop alone."""

    under_way: dict[str, Download] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    closed: bool = False

    async def follow(self, rung: Rung, session: str) -> AsyncIterator[tuple[Download, str]]:
        """Start a download, or watch the one that somebody else has started: yields it and its progress.

        Raises:
            Closed: the server is stopping.
        """
        async with self.lock:  # starting takes a moment, in which a second visitor may ask for the same
            if self.closed:
                raise Closed
            job = self.under_way.get(rung.name)
            if job is None or job.process.returncode is not None:
                if job:
                    job.close()
                job = self.under_way[rung.name] = await Download.start(rung, session)
                if self.closed:  # meanwhile
                    job.cancel()
        ended = asyncio.ensure_future(job.process.wait())
        while not ended.done():
            yield job, await asyncio.to_thread(job.progress_html)
            await asyncio.wait([ended], timeout=0.5)
        yield job, f"<p>{html.escape(job.outcome())}</p>"
        if self.under_way.get(rung.name) is job:
            del self.under_way[rung.name]
            job.close()

    def cancel(self, session: str) -> None:
        """Stop what a visitor has started, and what was started by those who have left."""
        for job in self.under_way.values():
            if job.session in (session, None):
                job.cancel()

    def close(self) -> None:
        """Stop all, and begin none any more."""
        self.closed = True
        for job in self.under_way.values():
            job.cancel()

    def leave(self, session: str) -> None:
        """A visitor has left: the download goes on, and others may cancel it."""
        for job in self.under_way.values():
            job.session = None if job.session == session else job.session
