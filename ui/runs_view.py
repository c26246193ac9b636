"""The Train tab's right side: runs, live; paused, resumed, stopped, compared, downloaded, deleted."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.processing_utils import save_file_to_cache

from ui import delete_view
from ui.grid_view import SAVE
from ui.pictures import empty_html
from ui.run import FAILED, INTERRUPTED, PAUSED, RUNNING, STOPPED
from ui.run_html import curves_html, samples_html, state_html
from ui.settled import unless_sent
from ui.trained import Trained
from ui.turns import Turns

MOST_BESIDE = 5  # runs that one is compared with
EVERY = 1.5  # seconds between two looks at a run
TICKS = "() => ({__type__: 'update', active: %s})"  # of the timer
NONE = empty_html("No run yet: start one, and watch it learn here")
CONTINUED = (PAUSED, STOPPED, INTERRUPTED, FAILED)  # states that Resume is for


@dataclass(frozen=True)
class RunsView:
    """What the rest of the tab needs of this."""

    choice: gr.Dropdown  # of the run
    others: gr.Dropdown  # that it is compared with
    draw: gr.Button  # asks to draw with it
    deleted: Any  # the event of a deletion
    watch: Callable[[Sequence[gr.Tab]], None]  # wires that it is looked at while the tab is open, not others


def build(trained: Trained, turns: Turns, tab: gr.Tab, started: gr.Textbox, start: Any) -> RunsView:
    """Lay out the view and wire it; `watch` is to be called after the address is wired, for see `ui.page`.

    started: has the name of a new run after the event `start`.
    """
    runs = trained.runs
    with gr.Row():
        # Any value is let through to `look`: the choices that a reloaded page sends may be news to Gradio.
        choice = gr.Dropdown(
            [], label="Run", elem_id="run-choice", min_width=180, scale=2, allow_custom_value=True
        )
        others = gr.Dropdown(
            [], multiselect=True, label="Compare with", elem_id="run-others", min_width=180, scale=2,
            max_choices=MOST_BESIDE, allow_custom_value=True,
        )  # fmt: skip
    with gr.Row():
        pause = gr.Button("Pause", elem_id="run-pause", interactive=False, min_width=90)
        resume = gr.Button("Resume", elem_id="run-resume", interactive=False, min_width=90)
        stop = gr.Button("Stop", variant="stop", elem_id="run-stop", interactive=False, min_width=90)
        draw = gr.Button("Draw", elem_id="run-draw", interactive=False, min_width=90)
        weights = gr.Button("Weights", elem_id="run-weights", interactive=False, min_width=90)
        delete = gr.Button("Delete", elem_id="run-delete", interactive=False, min_width=90)
        file = gr.File(visible="hidden", elem_id="run-file")
    deleted = delete_view.build(runs, trained, turns, choice, delete)
    page = gr.HTML(NONE, elem_id="run-page")
    over_time = gr.Slider(
        1, 2, 1, step=1, label="Samples over time", info="The same noise at every step: see the picture form",
        interactive=False, elem_id="run-time", buttons=[],
    )  # fmt: skip
    samples = gr.HTML(elem_id="run-samples")
    curves = gr.HTML(elem_id="run-curves")
    timer = gr.Timer(EVERY, active=False)
    quick = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    latest = quick | {"trigger_mode": "always_last"}
    last = gr.State(0)  # how many samples there were when the slider was drawn: at its end it follows
    seen = [choice, others, over_time, last]
    shown = [choice, others, page, pause, resume, stop, draw, weights, delete]
    shown += [over_time, samples, curves, last]

    def look(name: str | None, compared: list[str] | None, position: float, before: int) -> list[Any]:
        """All that is shown, for what there is now."""
        found = runs.found()
        run = next((run for run in found if run.name == name), found[0] if found else None)
        if run is None:
            locked = gr.update(interactive=False)
            nothing = [gr.update(choices=[], value=None), gr.update(choices=[], value=[]), NONE]
            return [*nothing, *[locked] * 7, "", "", 0]
        beside = [other for other in found if other is not run and other.name in (compared or ())]
        count = len(run.history.samples) if run.history else 0
        at = count if position >= before or run.name != name else int(position)
        trains = run.state == RUNNING and run.wanted not in (PAUSED, STOPPED)
        names, compared_now = [other.name for other in found], [other.name for other in beside]
        offered = [other for other in names if other != run.name]
        return [
            unless_sent(name, gr.update(value=run.name, choices=names)),
            unless_sent(compared or [], gr.update(value=compared_now, choices=offered)),
            state_html(run),
            gr.update(interactive=trains),
            gr.update(interactive=run.state in CONTINUED),
            gr.update(interactive=trains),
            gr.update(interactive=run.weights is not None),
            gr.update(interactive=run.weights is not None),
            gr.update(interactive=run.state != RUNNING),
            unless_sent(position, gr.update(value=max(1, at), maximum=max(2, count), interactive=count > 1)),
            samples_html(run, at),
            curves_html(run, beside),
            count,
        ]

    def acting(act: Callable[[str], Any]) -> Callable[..., list[Any]]:
        """Does something to the chosen run, and looks again."""

        def on_click(name: str | None, *rest: Any) -> list[Any]:
            try:
                act(name or "")
            except (ValueError, OSError) as error:
                raise gr.Error(runs.plain(str(error)), print_exception=False) from error
            return look(name, *rest)

        return on_click

    def on_time(name: str | None, position: float) -> str:
        try:
            return samples_html(runs.named(name or ""), int(position))
        except ValueError:  # its folder is gone
            return ""

    def on_weights(name: str | None) -> str:
        try:
            run = runs.named(name or "")
        except ValueError as error:
            raise gr.Error(runs.plain(str(error)), print_exception=False) from error
        if run.weights is None:
            said = "this run has no weights yet; wait for its first checkpoint"
            raise gr.Error(said, print_exception=False)
        try:
            return save_file_to_cache(run.weights, file.GRADIO_CACHE)
        except OSError as error:
            raise gr.Error(runs.plain(str(error)), print_exception=False) from error

    timer.tick(look, seen, shown, **latest)
    for event in (choice.input, others.input):
        event(look, seen, shown, **latest)
    start.then(lambda name: (name, 0), started, [choice, last], **quick).then(look, seen, shown, **quick)
    deleted.then(look, seen, shown, **quick)
    for button, act in ((pause, runs.pause), (resume, runs.resume), (stop, runs.stop)):
        button.click(acting(act), seen, shown, **quick)
    over_time.input(on_time, [choice, over_time], samples, **latest)
    weights.click(on_weights, choice, file, **quick).then(None, file, None, js=SAVE, **quick)

    def watch(others: Sequence[gr.Tab]) -> None:
        for one in (tab, *others):  # in the page itself, where one switch cannot overtake another
            one.select(None, None, timer, js=TICKS % json.dumps(one is tab), **quick)
        tab.select(look, seen, shown, **quick)

    return RunsView(choice, others, draw, deleted, watch)
