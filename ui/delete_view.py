"""The Train tab's way to delete a run: a button, and a second step that says what goes."""

import asyncio
import contextlib
import html
from typing import Any

import gradio as gr

from dit.published import size_of
from ui.run_delete import delete, question
from ui.runs import Runs
from ui.trained import Trained
from ui.turns import Full, Turns


def build(runs: Runs, trained: Trained, turns: Turns, choice: gr.Dropdown, button: gr.Button) -> Any:
    """Lay out the second step and wire it, inside the Blocks that is open; returns the event of a deletion.

    choice: of the run. button: asks for the second step.
    """
    named = gr.State("")  # the run that is asked about, whatever is chosen meanwhile
    with gr.Column(visible=False, elem_id="run-delete-step") as step:
        asked = gr.HTML(elem_id="run-delete-asked")
        with gr.Row():
            sure = gr.Button("Delete for good", variant="stop", elem_id="run-delete-sure", min_width=140)
            cancel = gr.Button("Cancel", elem_id="run-delete-cancel", min_width=140)
    quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

    def on_ask(name: str | None) -> list[Any]:
        try:
            return [gr.update(visible=True), f"<p>{html.escape(question(runs, name or ''))}</p>", name]
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    async def on_sure(name: str) -> dict:
        try:
            freed = await asyncio.to_thread(delete, runs, name)
        except (ValueError, OSError) as error:
            raise gr.Error(runs.plain(str(error)), print_exception=False) from error
        for rung in [rung for rung in trained.studio.resident if trained.studio.missing(rung)]:
            with contextlib.suppress(Full):  # then it goes when its memory is needed
                await turns.unload(rung)
        gr.Info(f"{name} is deleted; {size_of(freed)} are free.")
        return gr.update(visible=False)

    button.click(on_ask, choice, [step, asked, named], **quick)
    gr.on([cancel.click, choice.change], lambda: gr.update(visible=False), None, step, **quick)
    # Queued: a message of what was done comes to the page that way alone.
    return sure.click(on_sure, named, step, show_progress="hidden", api_visibility="private")
