"""What the page hears of a job of several while it is drawn: how often, and in which words."""

import time

from ui import costs
from ui.grid_html import seconds
from ui.several import Several
from ui.tickets import Loading, Wait

BYTES_A_SECOND = 1e6  # of updates: a large page is sent less often


class Pace:
    """When the next update of the page is due: a few a second, fewer when they are large."""

    def __init__(self) -> None:
        self.next = 0.0

    def due(self) -> bool:
        """Whether one may be sent now."""
        return time.monotonic() >= self.next

    def sent(self, size: int) -> None:
        """Note that one of so many bytes was."""
        self.next = time.monotonic() + max(0.2, size / BYTES_A_SECOND)


def status_of(job: Several, noun: str) -> str:
    """One line on how far a job of several is, and what the class check says."""
    if isinstance(job.waiting, Wait):
        return costs.waiting(job.waiting)
    checked = [drawn.verdict for drawn in job.drawn.values() if drawn.verdict]
    spent = sum(drawn.seconds * len(drawn.pictures) for drawn in job.drawn.values())
    parts = [f"**{len(job.drawn)} of {costs.count_of(noun, len(job.requests))}** drawn in {seconds(spent)}"]
    if checked:
        right = sum(verdict.passed for verdict in checked)
        parts.append(f"{right} of {len(checked)} pass the class check")
    if isinstance(job.waiting, Loading):
        parts.append(f"reading {job.waiting.name} into memory …")
    elif job.now is not None and job.frame is not None:
        request = job.requests[job.now]
        parts.append(f"drawing with {request.rung.name}, step {job.frame.index + 1} of {job.frame.steps} …")
    return " · ".join(parts)


def ended(job: Several, noun: str) -> str:
    """The same line once nothing is being drawn any more."""
    return ("" if job.complete else "**Stopped.** ") + status_of(job, noun)
