"""The Train tab: a diffusion transformer learns before one's eyes, from one's own pictures."""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from ui import deliver_view, run_html, runs_view, train_address, train_view
from ui.controls import chosen
from ui.explore import Explore
from ui.share import Share
from ui.trained import Trained
from ui.turns import Turns
from ui.upload_store import UploadStore

CSS = train_view.CSS + run_html.CSS
ABOUT = """Choose pictures and a model, and **watch it learn**: the same noise becomes clearer pictures as
training goes on. It runs in a process of its own: close the page, and it goes on."""
OFF = """**Training is off on this public page**: it would take the machine from everybody else. Run
`make demo` on your own machine, or duplicate the Space, make it private, and give it the variable
`DITLAB_FLAGS` with the value `--training on` (Settings, Variables and secrets): there you train here."""


def build(
    trained: Trained,
    turns: Turns,
    uploads: UploadStore | None,
    tab: gr.Tab,
    explore: Explore,
    tabs: gr.Tabs,
    share: Share,
) -> Callable[[Sequence[gr.Tab]], None]:
    """Lay out the tab and wire it, inside the Blocks that is open; what is returned is to be called with the
    page's other tabs after the address is wired.

    uploads: None where nobody trains. tabs: those of the page.
    """
    runs = trained.runs
    if runs is None or uploads is None:
        gr.Markdown(OFF, elem_id="train-off")
        gr.DuplicateButton(elem_id="duplicate")
        return lambda others: None
    gr.Markdown(ABOUT, elem_id="train-about")
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            fields, start, started = train_view.build(runs, uploads)
            share.button()
        with gr.Column(scale=3, min_width=300):
            view = runs_view.build(trained, turns, tab, started, start)
            deliver_view.build(runs, view.choice)
    train_address.register(share, runs, fields, view.choice, view.others)
    quick = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

    def on_draw(name: str | None, *values: Any) -> list[Any]:
        try:
            position = trained.position(name or "")
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error
        scale = trained.studio.rungs[position].guidance_scale
        return [gr.Tabs(selected="explore"), *chosen(trained.studio, values, model=position, guidance=scale)]

    explore.refresh(view.deleted)
    asked = [view.choice, *explore.controls.inputs()]
    explore.refresh(view.draw.click(on_draw, asked, [tabs, *explore.outputs()], **quick))
    return view.watch
