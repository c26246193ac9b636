"""The page's API for programs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from dit.pictures import with_settings
from dit.pipeline import Frame
from ui.jobs import check, draw
from ui.request import Wish
from ui.studio import Studio
from ui.turns import Turns

KIND = "api"  # of its jobs


def build(studio: Studio, turns: Turns) -> None:
    """Add /generate to the open Blocks; its arguments are those of `Wish`, in their order."""
    first = studio.first
    inputs = [
        gr.Textbox(first.name, label="model", visible=False),
        gr.Textbox(first.titles[0] if first.classes else "0", label="class", visible=False),
        gr.JSON("50", label="steps", visible=False),
        gr.JSON('"auto"', label="guidance_scale", visible=False),
        gr.JSON("0", label="seed", visible=False),
        gr.JSON("1", label="pictures", visible=False),
        gr.Textbox("auto", label="sampler", visible=False),
        gr.JSON('"all"', label="guidance_interval", visible=False),
        gr.JSON("1", label="cache_every", visible=False),
    ]
    outputs = [
        gr.Gallery(label="pictures", format="png", visible=False),
        gr.JSON(label="settings", visible=False),
    ]

    async def endpoint(session: gr.Request, *sent: Any) -> AsyncIterator[tuple]:
        """Draw pictures of one class: PNG files with their settings inside, and what they cost."""
        request = await asyncio.to_thread(check, studio, Wish(*sent), KIND)
        frame = None
        async with contextlib.aclosing(draw(turns, request, session.session_hash, KIND)) as events:
            async for event in events:
                if isinstance(event, Frame):
                    frame = event
                    yield None, {"step": frame.index + 1, "steps": frame.steps}
        if frame is None or not frame.done:
            raise gr.Error("stopped before the last step", print_exception=False)
        described = [request.describe(i) for i in range(len(frame.x0))]
        images = [
            with_settings(pixels, settings) for pixels, settings in zip(frame.x0, described, strict=True)
        ]
        yield images, {"pictures": described, "gmacs": frame.macs / 1e9, "seconds": frame.seconds}

    gr.Button(visible=False).click(endpoint, inputs, outputs, api_name="generate", concurrency_limit=None)
