"""The Train tab: a diffusion transformer learns before one's eyes, from one's own pictures."""

import gradio as gr

from ui import run_html, runs_view, train_view
from ui.limits import Limits
from ui.runs import Runs

CSS = train_view.CSS + run_html.CSS
ABOUT = """Choose pictures and a model, and **watch it learn**: the same noise becomes clearer pictures as
training goes on. It runs in a process of its own: close the page, and it goes on."""
OFF = """**Training is off on this public page**: it would take the machine from everybody else. Duplicate the
Space, or run `make demo` on your own machine, and train here."""


def build(runs: Runs | None, limits: Limits, tab: gr.Tab) -> None:
    """Lay out the tab and wire it, inside the Blocks that is open."""
    if runs is None:
        gr.Markdown(OFF, elem_id="train-off")
        gr.DuplicateButton(elem_id="duplicate")
        return
    gr.Markdown(ABOUT, elem_id="train-about")
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            start, started = train_view.build(runs, limits)
        with gr.Column(scale=3, min_width=300):
            runs_view.build(runs, tab, started, start)
