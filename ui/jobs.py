"""A job as Gradio wants it: what goes wrong becomes an error message, for the page and for the API."""

import contextlib
from collections.abc import AsyncIterator, Sequence

import gradio as gr

from dit.weights import WeightsError
from ui import costs
from ui.request import Request, Wish, parse
from ui.studio import Studio
from ui.tickets import Event
from ui.turns import Full, Turns


def check(studio: Studio, wish: Wish) -> Request:
    """`parse`, and whether the model is here; complaints become the page's and the API's error message."""
    try:
        request = parse(studio.rungs, wish, studio.limits)
    except (TypeError, ValueError) as error:
        raise gr.Error(str(error), print_exception=False) from error
    if reason := studio.missing(request.rung):
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
    seconds = sum(request.rung.seconds(request.settings) for request in requests)
    try:
        costs.refuse_dear(requests, turns.studio.limits)
        ticket = turns.enter(session, seconds, kind)
    except (ValueError, Full) as error:
        raise gr.Error(str(error), print_exception=False) from error
    async with contextlib.aclosing(turns.draw_all(requests, ticket)) as events:
        try:
            async for event in events:
                yield event
        except (WeightsError, OSError) as error:  # while a model is read
            raise gr.Error(str(error), print_exception=False) from error
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            raise gr.Error(
                "not enough memory for this job; ask for fewer pictures, or free memory in the Models tab",
                print_exception=False,
            ) from error
