"""A job as Gradio wants it: what goes wrong becomes an error message, for the page and for the API."""

import contextlib
from collections.abc import AsyncIterator, Sequence

import gradio as gr

from dit.weights import WeightsError
from ui import costs, log
from ui.log import Record
from ui.request import Request, Wish, parse
from ui.studio import Studio
from ui.tickets import Closed, Event
from ui.turns import Full, Turns


def check(studio: Studio, wish: Wish, kind: str) -> Request:
    """`parse`, and whether the model is here; complaints become the page's and the API's error message.

    kind: which view the job is for.
    """
    try:
        request = parse(studio.rungs, wish, studio.limits)
    except (TypeError, ValueError) as error:
        Record(kind).write(log.REFUSED)
        raise gr.Error(str(error), print_exception=False) from error
    if reason := studio.missing(request.rung):
        Record(kind, [request]).write(log.REFUSED)
        raise gr.Error(str(reason), print_exception=False)
    return request


async def draw(turns: Turns, request: Request, session: str, kind: str) -> AsyncIterator[Event]:
    """`draw_all` of one request."""
    async with contextlib.aclosing(draw_all(turns, [request], session, kind)) as events:
        async for _, event in events:
            yield event


async def draw_all(
    turns: Turns, requests: Sequence[Request], session: str, kind: str
) -> AsyncIterator[tuple[int, Event]]:
    """`Turns.draw_all` with a place taken; a full line and too high a cost become error messages.

    Several requests are one job: each event comes with the index of its request. Closing it leaves the line.
    kind: which view the job is for; `Turns.stop` tells by it what a view's own button stops.
    """
    record = Record(kind, requests)
    seconds = sum(request.rung.seconds(request.settings) for request in requests)
    try:
        costs.refuse_dear(requests, turns.studio.limits)
        ticket = turns.enter(session, seconds, kind)
    except (ValueError, Full, Closed) as error:
        record.write(log.REFUSED)
        raise gr.Error(str(error), print_exception=False) from error
    outcome = log.LEFT  # where nobody takes the events any more, that is how it ends
    try:
        async with contextlib.aclosing(turns.draw_all(requests, ticket)) as events:
            async for index, event in events:
                record.see(index, event)
                yield index, event
        outcome = log.LEFT if ticket.gone else log.STOPPED
    except Exception as error:
        outcome = log.SHUTDOWN if isinstance(error, Closed) else log.FAILED
        if said := _told(error):
            raise gr.Error(said, print_exception=False) from error
        raise
    finally:
        record.write(log.DONE if record.complete else outcome, ticket)


def _told(error: Exception) -> str:
    """What is said of an error while drawing; nothing of one that is a mistake of ours."""
    if isinstance(error, Closed | WeightsError | OSError):  # the last two while a model is read
        return str(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error)):
        return "not enough memory for this job; ask for fewer pictures, or free memory in the Models tab"
    return ""
