"""Equal budget on the page: one slider of compute a picture, and every model side by side.

What stands there belongs together: the budget that is said, the models' cards and pictures, and the sentence
are always written at once, of what the controls say. A change of them stops what is drawn of something else.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import gradio as gr

from ui import costs, jobs
from ui.another import on_other_choice
from ui.budget import allow, budget_at, positions, usual
from ui.budget_html import SCRIPT, Shown, reading_html
from ui.clamps import one_of, whole
from ui.explore import Refresh
from ui.families import Group, joined
from ui.fixed import clamps, class_box, guidance_slider, pictures_slider, sampler_box, seed_box
from ui.judge import Judge
from ui.pictures import empty_html
from ui.progress import Pace, ended, status_of
from ui.request import PAGE_STEPS, Wish
from ui.settled import on_settled
from ui.share import Share
from ui.studio import Studio
from ui.turns import Turns

WELCOME = "Every model gets the steps that the budget pays for. Same class and seeds."
REFUSED = "Nothing can be drawn: see above."
KIND = "budget"  # of its jobs
SETTINGS = ("family", "at", "class", "guidance", "sampler", "seed", "pictures")


def build(studio: Studio, turns: Turns, judge: Judge, share: Share, groups: Mapping[str, Group]) -> Refresh:
    """Lay out the view and wire it, inside the Blocks that is open; returns how to follow an event."""
    begin = next(iter(groups.values()))
    last = max(_places(group) for group in groups.values())  # fixed: a slow page may send a place of before
    scale, name = usual(begin)
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            at = gr.Slider(
                0, last, _places(begin) // 2, step=1, label="Compute a picture", elem_id="budget-at",
                buttons=[], info=f"From one step of the cheapest model to {PAGE_STEPS} of the dearest, on a "
                "logarithmic scale",
            )  # fmt: skip
        with gr.Column(scale=2, min_width=240):
            reading = gr.HTML(elem_id="budget-reading", min_height=40, js_on_load=SCRIPT)
    with gr.Row():
        family = gr.Dropdown(
            list(groups), value=begin.name, label="Models trained on", info="Compared with each other",
            elem_id="budget-family", min_width=140,
        )  # fmt: skip
        label = class_box("budget", begin.titles)
        guidance = guidance_slider("budget", scale)
    with gr.Row():
        sampler = sampler_box("budget", studio, name)
        seed = seed_box("budget")
        pictures = pictures_slider("budget", "Pictures a model")
    with gr.Row():
        go = gr.Button("Draw with every model", variant="primary", elem_id="budget-draw", min_width=120)
        stop = gr.Button("Stop", variant="stop", elem_id="budget-stop", interactive=False, min_width=120)
    status = gr.Markdown(WELCOME, elem_id="budget-status")
    told = gr.HTML(elem_id="budget-finding")
    canvas = gr.HTML(empty_html("Nothing drawn yet"), elem_id="budget-canvas")
    kept = gr.State(None, time_to_live=3600)
    choices = [family, at, label, guidance, sampler, seed, pictures]
    page = [reading, canvas, told, status]
    # With each update: of several that come at once, a busy browser shows the last alone.
    running = {go: gr.update(interactive=False), stop: gr.update(interactive=True), told: ""}
    idle = {go: gr.update(interactive=True), stop: gr.update(interactive=False)}

    def page_of(before: Shown | None, values: tuple[Any, ...]) -> dict:
        """What belongs to the controls: the pictures, where these are of the same values, else the plan."""
        same = before is not None and before.values == values
        try:
            shown = planned(studio, groups, values)
        except (TypeError, ValueError) as error:
            if same and before.running:
                return {}
            empty = empty_html("Nothing to draw")
            return {reading: costs.complaint_html(str(error)), canvas: empty, told: "", status: REFUSED}
        said = {reading: reading_html(shown)}
        if not same:
            return said | {canvas: shown.html(), told: "", status: WELCOME}
        if before.running:
            return said
        if not before.job.requests:
            line = "No model can afford one step; choose a larger budget."
        else:
            line = ended(before.job, "model")
        return said | {canvas: before.html(), told: before.finding(), status: line}

    async def on_change(session: gr.Request, before: Shown | None, *values: Any) -> dict:
        if before and before.running and before.values != values:
            before.dropped = True
            turns.stop(session.session_hash, KIND)
        return await asyncio.to_thread(page_of, before, values)

    def on_family(name: str, chosen: str | None) -> list[dict]:
        if name not in groups:
            return [gr.skip()] * 4
        titles, (scale, sampler) = groups[name].titles, usual(groups[name])
        label = chosen if chosen in titles else next(iter(titles), None)
        return [
            _places(groups[name]) // 2,
            gr.update(choices=list(titles), value=label),
            gr.update(value=scale),
            gr.update(value=sampler),
        ]

    async def on_draw(session: gr.Request, *values: Any) -> AsyncIterator[dict]:
        try:
            shown = await asyncio.to_thread(planned, studio, groups, values)
        except (TypeError, ValueError) as error:
            yield {reading: costs.complaint_html(str(error))}
            return
        shown.running, pace = True, Pace()
        try:
            yield running | {
                kept: shown,
                reading: reading_html(shown),
                canvas: shown.html(),
                status: "Starting …",
            }
            if not shown.job.requests:
                return
            events = jobs.draw_all(turns, shown.job.requests, session.session_hash, KIND)
            async with contextlib.aclosing(events), contextlib.aclosing(
                shown.job.follow(events, turns, judge)
            ) as following:  # fmt: skip
                async for _ in following:
                    if pace.due() and not shown.dropped:
                        drawn = await asyncio.to_thread(shown.html)
                        if not shown.dropped:
                            yield running | {canvas: drawn, status: status_of(shown.job, "model")}
                            pace.sent(len(drawn))
        finally:
            shown.job.close()
            shown.running = False

    def on_end(before: Shown | None, *values: Any) -> dict:
        """However it ended: the pictures and the sentence, or what the controls say by now."""
        return page_of(before, values) | idle

    async def on_stop(session: gr.Request) -> None:  # async, to stay in the thread of `turns`
        turns.stop(session.session_hash, KIND)

    quick = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    on_settled(choices, on_change, [kept, *choices], page)
    chosen = on_other_choice(family, on_family, [label], [at, label, guidance, sampler])
    job = go.click(
        on_draw,
        choices,
        [kept, *page, go, stop],
        concurrency_limit=None,
        show_progress="hidden",
        api_visibility="private",
    )
    for follow in (job.success, job.failure):
        follow(on_end, [kept, *choices], [*page, go, stop], **quick)
    stop.click(on_stop, None, None, **quick)
    register(studio, share, groups, dict(zip(SETTINGS, choices, strict=True)), chosen)
    return lambda event: event.then(on_change, [kept, *choices], page, **quick)


def _places(group: Group) -> int:
    """How many places the slider has for a family: they count from one step of its cheapest model."""
    low, high = positions(group.compared)
    return high - low


def register(
    studio: Studio,
    share: Share,
    groups: Mapping[str, Group],
    controls: dict[str, gr.components.Component],
    chosen: gr.State,
) -> None:
    """Put the view's controls into the page's address; the slider's end is that of the chosen family.

    chosen: what remembers the family.
    """
    bounds = {"family": one_of(groups), "at": whole(0, controls["at"].maximum)} | clamps(studio)
    for name, control in controls.items():
        share.add(f"budget-{name}", control, bounds[name], mirrors=[chosen] if name == "family" else ())

    def settle(taken: dict[str, Any]) -> dict[str, Any]:
        if not {"budget-family", "budget-at"} & set(taken):
            return {}
        group = groups[taken.get("budget-family", controls["family"].value)]
        fitted = {"budget-at": min(taken.get("budget-at", _places(group) // 2), _places(group))}
        if "budget-family" in taken:
            label = taken.get("budget-class", controls["class"].value)
            if "budget-class" not in taken and label not in group.titles:
                label = next(iter(group.titles), None)
            fitted["budget-class"] = gr.update(choices=list(group.titles), value=label)
        return fitted

    share.settle(settle)


def planned(studio: Studio, groups: Mapping[str, Group], values: tuple[Any, ...]) -> Shown:
    """What the controls' values, in their order, ask for. Raises TypeError, ValueError."""
    name, position, label, guidance, sampler, seed, pictures = values
    if name not in groups:
        raise ValueError(f"no models trained on {name!r} are here; choose one of {', '.join(groups)}")
    group = groups[name]
    low, high = positions(group.compared)
    budget = budget_at(min(low + position, high))
    wish = Wish(
        model=None, label=label, steps=1, guidance_scale=guidance, seed=seed, pictures=pictures,
        sampler=sampler,
    )  # fmt: skip
    together = joined(group, studio.rungs)
    return Shown.of(budget, group, allow(studio, together, budget, wish, group.table), values)
