"""The grid on the page: two axes, what stays the same, a table that fills, and downloads of it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache

from ui import costs, jobs
from ui.another import on_other_choice
from ui.axes import AXES, MAX_TEXT, Axis, parse_axis, usual_values
from ui.clamps import one_of, whole, words
from ui.controls import PAGE_CACHE
from ui.explore import Refresh
from ui.families import Group
from ui.fixed import clamps, class_box, guidance_slider, pictures_slider, sampler_box, seed_box
from ui.grid import Grid, Plan, plan
from ui.grid_html import SCRIPT, GridPage
from ui.grid_picture import grid_png, grid_zip
from ui.judge import Judge
from ui.pictures import empty_html
from ui.progress import Pace, ended, status_of
from ui.request import PAGE_STEPS, Wish
from ui.settled import on_settled
from ui.share import Share
from ui.studio import Studio
from ui.turns import Turns

KIND = "grid"  # of its jobs
WELCOME = "Choose two settings to vary, and fill the grid: the same seed in every cell, the cheapest first."
# What the fixed controls set, in their order.
FIXED = ("model", "class", "steps", "guidance", "sampler", "seed", "pictures", "caching")
# Takes the file that has just been made, and saves it as a click on a link would.
SAVE = """
(file) => {
  if (!file) return;
  const link = document.createElement('a');
  link.href = file.url;
  link.download = file.orig_name;
  document.body.append(link);
  link.click();
  link.remove();
}
"""


def build(studio: Studio, turns: Turns, judge: Judge, share: Share, home: Group) -> Refresh:
    """Lay out the grid and wire it, inside the Blocks that is open; returns how to follow an event.

    home: the models that it compares at first, and that "all" means.
    """
    family, first = home.compared, studio.first
    with gr.Row(elem_id="grid-axes"):
        with gr.Column(min_width=300):
            down = gr.Dropdown(list(AXES), value="model", label="Down", elem_id="grid-down")
            down_values = gr.Textbox(
                usual_values("model", family), label="Its values", elem_id="grid-down-values", max_lines=3,
                info="With commas between; all for every one", max_length=MAX_TEXT,
            )  # fmt: skip
        with gr.Column(min_width=300):
            across = gr.Dropdown(list(AXES), value="steps", label="Across", elem_id="grid-across")
            across_values = gr.Textbox(
                usual_values("steps", family), label="Its values", elem_id="grid-across-values", max_lines=3,
                info="With commas between; 1-8 for all from 1 to 8", max_length=MAX_TEXT,
            )  # fmt: skip
    with gr.Accordion("The same in every cell", open=True, elem_id="grid-fixed"):
        with gr.Row():
            model = gr.Dropdown(
                studio.names, value=first.name, label="Model", elem_id="grid-model", min_width=200,
                interactive=False, allow_custom_value=True,
            )  # fmt: skip
            label = class_box("grid", first.titles)
            sampler = sampler_box("grid", studio)
            seed = seed_box("grid")
        with gr.Row():
            steps = gr.Slider(
                1, PAGE_STEPS, 16, step=1, label="Steps", elem_id="grid-steps", min_width=140, buttons=[],
                interactive=False,
            )  # fmt: skip
            guidance = guidance_slider("grid", first.guidance_scale)
            pictures = pictures_slider("grid", "Pictures a cell")
            caching = gr.Slider(
                1, PAGE_CACHE, 1, step=1, label="Caching (steps)", elem_id="grid-caching",
                info="Blocks compute every so many steps, and serve again between; 1: no caching",
                min_width=140, buttons=[],
            )  # fmt: skip
    fixed = [model, label, steps, guidance, sampler, seed, pictures, caching]
    with gr.Row():
        fill = gr.Button("Fill the grid", variant="primary", elem_id="grid-fill", min_width=120)
        stop = gr.Button("Stop", variant="stop", elem_id="grid-stop", interactive=False, min_width=120)
        picture = gr.Button("PNG with legend", elem_id="grid-png", interactive=False, min_width=120)
        archive = gr.Button("Zip of all", elem_id="grid-zip", interactive=False, min_width=120)
        file = gr.File(visible="hidden", elem_id="grid-file")
    price = gr.HTML(elem_id="grid-price")
    status = gr.Markdown(WELCOME, elem_id="grid-status")
    canvas = gr.HTML(empty_html("Nothing drawn yet"), elem_id="grid-canvas", js_on_load=SCRIPT)
    kept = gr.State(None, time_to_live=3600)
    choices = [down, down_values, across, across_values, *fixed]
    # With each update: of several that come at once, a busy browser shows the last alone.
    running = {fill: gr.update(interactive=False), stop: gr.update(interactive=True)}
    running |= {button: gr.update(interactive=False) for button in (picture, archive)}
    idle = {fill: gr.update(interactive=True), stop: gr.update(interactive=False)}

    def show_price(*values: Any) -> str:
        try:
            return f"<p>{planned(studio, home, values).summary}.</p>"
        except (TypeError, ValueError) as error:
            return costs.complaint_html(str(error))

    def on_axis(chosen: str) -> list[str | dict]:
        return [usual_values(chosen, family) if chosen in AXES else gr.skip()]

    def on_axes(first: str, second: str) -> list[dict]:
        return [gr.update(interactive=name not in (first, second)) for name in FIXED]

    def on_model(name: str, chosen: str | None) -> dict:
        titles = next((rung.titles for rung in studio.rungs if rung.name == name), ())
        if not titles or chosen in titles:
            return gr.update(choices=list(titles))
        return gr.update(choices=list(titles), value=titles[0])

    async def on_fill(session: gr.Request, *values: Any) -> AsyncIterator[dict]:
        try:
            grid = Grid.of(await asyncio.to_thread(planned, studio, home, values))
        except (TypeError, ValueError) as error:
            yield {price: costs.complaint_html(str(error)), status: "Nothing was drawn: see above."}
            return
        page, pace = GridPage(grid), Pace()
        yield running | {kept: grid, canvas: page.html(), status: "Starting …"}
        events = jobs.draw_all(turns, grid.job.requests, session.session_hash, KIND)
        async with contextlib.aclosing(events), contextlib.aclosing(
            grid.job.follow(events, turns, judge)
        ) as following:  # fmt: skip
            async for _ in following:
                if pace.due():
                    shown = await asyncio.to_thread(page.html)
                    yield running | {canvas: shown, status: status_of(grid.job, "cell")}
                    pace.sent(len(shown))
        grid.job.close()
        yield after(grid) | {canvas: await asyncio.to_thread(page.html)}

    def after(grid: Grid | None) -> dict:
        have = gr.update(interactive=bool(grid and grid.job.drawn))
        said = ended(grid.job, "cell") if grid else WELCOME
        return idle | {picture: have, archive: have, status: said}

    def on_failure(grid: Grid | None) -> dict:
        if grid:
            grid.job.close()
        return after(grid) | ({canvas: GridPage(grid).html()} if grid else {})

    async def on_stop(session: gr.Request) -> None:  # async, to stay in the thread of `turns`
        turns.stop(session.session_hash, KIND)

    quick = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    on_settled(choices, show_price, choices, price)
    chosen = {
        name: on_other_choice(axis, on_axis, [], [values])
        for name, axis, values in (("down", down, down_values), ("across", across, across_values))
    }
    on_settled([down, across], on_axes, [down, across], fixed)
    on_settled([model], on_model, [model, label], label)
    outputs = [kept, canvas, status, price, fill, stop, picture, archive]
    job = fill.click(
        on_fill, choices, outputs, concurrency_limit=None, show_progress="hidden", api_visibility="private"
    )
    job.then(show_price, choices, price, **quick)  # its seconds are corrected by what the job took
    job.failure(on_failure, kept, outputs, **quick)
    stop.click(on_stop, None, None, **quick)
    for button, make, name in ((picture, grid_png, "grid.png"), (archive, grid_zip, "grid.zip")):
        made = button.click(saver(make, f"dit-lab-{name}", file), kept, file, **quick)
        made.then(None, file, None, js=SAVE, **quick)
    register(
        studio,
        share,
        dict(zip(("down", "down-values", "across", "across-values", *FIXED), choices, strict=True)),
        chosen,
    )

    def refresh(event: Any) -> Any:
        offered = event.then(lambda: gr.update(choices=studio.names), None, model, **quick)
        return offered.then(show_price, choices, price, **quick)

    return refresh


def register(
    studio: Studio,
    share: Share,
    controls: dict[str, gr.components.Component],
    chosen: Mapping[str, gr.State],
) -> None:
    """Put the grid's controls into the page's address. chosen: what remembers which axes are."""
    bounds = {"down": one_of(AXES), "across": one_of(AXES), "down-values": words(MAX_TEXT)}
    bounds |= {"across-values": words(MAX_TEXT), "model": lambda text: one_of(studio.names)(text)}
    bounds |= {"steps": whole(1, PAGE_STEPS), "caching": whole(1, PAGE_CACHE)} | clamps(studio)
    for name, control in controls.items():
        share.add(f"grid-{name}", control, bounds[name], mirrors=[chosen[name]] if name in chosen else ())


def saver(make: Callable[[Grid], bytes], name: str, file: gr.File) -> Callable[[Grid | None], str | dict]:
    """A function that writes a grid's file where the page serves it from."""

    def save(grid: Grid | None) -> str | dict:
        if grid is None or not grid.job.drawn:
            return gr.skip()
        return save_bytes_to_cache(make(grid), name, file.GRADIO_CACHE)

    return save


def planned(studio: Studio, home: Group, values: Any) -> Plan:
    """The grid that the controls' values, in their order, ask for. Raises TypeError, ValueError.

    home: the models that "all" means.
    """
    down, down_values, across, across_values, *fixed = values
    family, here = home.compared, [rung for rung in studio.rungs if not studio.missing(rung)]
    axes: list[Axis] = [
        parse_axis(name, text, family, here, studio.limits.cells)
        for name, text in ((down, down_values), (across, across_values))
    ]
    given = dict(zip(FIXED, fixed, strict=True))
    wish = Wish(
        model=given["model"], label=given["class"], steps=given["steps"], guidance_scale=given["guidance"],
        seed=given["seed"], pictures=given["pictures"], sampler=given["sampler"],
        cache_every=given["caching"],
    )  # fmt: skip
    return plan(studio, *axes, wish)
