"""A job as Gradio wants it: what goes wrong becomes an error message, for the page and for the API."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import gradio as gr

from dit.pipeline import Frame
from ui.ladder import Rung
from ui.request import Request, parse
from ui.turns import Full, Turns, Wait


def check(ladder: Sequence[Rung], *values: Any) -> Request:
    """`parse`, with its complaint as the page's and the API's error message."""
    try:
        return parse(ladder, *values)
    except (TypeError, ValueError) as error:
        raise gr.Error(str(error), print_exception=False) from error


async def draw(turns: Turns, request: Request, session: str) -> AsyncIterator[Frame | Wait]:
    """`Turns.draw` with a place taken; a full line becomes an error message. Closing it leaves the line."""
    try:
        ticket = turns.enter(session, request.rung.seconds(request.settings))
    except Full as error:
        raise gr.Error(str(error), print_exception=False) from error
    async with contextlib.aclosing(turns.draw(request, ticket)) as events:
        async for event in events:
            yield event
