"""A job as Gradio wants it: what goes wrong becomes an error message, for the page and for the API."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from dit.weights import WeightsError
from ui.request import Request, parse
from ui.studio import Studio
from ui.turns import Event, Full, Turns


def check(studio: Studio, *values: Any) -> Request:
    """`parse`, and whether the model is here; complaints become the page's and the API's error message."""
    try:
        request = parse(studio.rungs, *values)
    except (TypeError, ValueError) as error:
        raise gr.Error(str(error), print_exception=False) from error
    if reason := studio.missing(request.rung):
        raise gr.Error(str(reason), print_exception=False)
    return request


async def draw(turns: Turns, request: Request, session: str) -> AsyncIterator[Event]:
    """`Turns.draw` with a place taken; a full line becomes an error message. Closing it leaves the line."""
    try:
        ticket = turns.enter(session, request.rung.seconds(request.settings))
    except Full as error:
        raise gr.Error(str(error), print_exception=False) from error
    async with contextlib.aclosing(turns.draw(request, ticket)) as events:
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
