"""Equal budget on the page: one slider of compute a picture, and every model side by side."""

import asyncio
import contextlib
import html
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from dit.settings import MAX_SEED
from ui import costs, jobs
from ui.budget import Allowance, allow, budget_at, finding, positions
from ui.clamps import number, one_of, whole, words
from ui.explore import Refresh
from ui.families import families, of_one_design
from ui.grid_html import figure, seconds, source
from ui.grid_view import CELL_PICTURES, Pace, samplers, status_of
from ui.judge import Judge
from ui.pictures import empty_html
from ui.request import MAX_PICTURES, Wish
from ui.several import Several
from ui.share import Share
from ui.studio import Studio
from ui.tables import Tables, family_of, load_tables
from ui.turns import Turns

CSS = """
#budget-at :is(.tab-like-container, .min_value, .max_value) { display: none; }  /* places on a log scale */
.dl-budget { display: flex; flex-wrap: wrap; gap: 14px; padding: 0; margin: 0; list-style: none;
  font-size: 12px; }
.dl-budget li { margin: 0; }
.dl-budget .dl-cell { width: 140px; }
.dl-budget h4 { width: 140px; font-size: 12px; font-weight: 600; margin: 0 0 4px; overflow-wrap: anywhere;
  line-height: 1.25; min-height: 2.5em; display: flex; align-items: end; }
.dl-budget .dl-steps { font-weight: 600; color: inherit; }
.dl-reading { font-size: 20px; font-weight: 600; font-variant-numeric: tabular-nums; }
.dl-finding { font-size: 15px; margin: 2px 0; }
"""
WELCOME = "Every model gets the steps that the budget pays for. Same class and seeds."
SETTINGS = ("family", "at", "class", "guidance", "sampler", "seed", "pictures")


@dataclass(eq=False)
class Shown:
    """A budget while it is drawn, and after."""

    budget: float
    given: list[Allowance]
    job: Several

    @classmethod
    def of(cls, budget: float, given: list[Allowance]) -> "Shown":
        """With nothing drawn yet; those who can afford least are drawn first."""
        able = sorted((each for each in given if each.request), key=lambda each: each.macs)
        return cls(budget, given, Several([each.request for each in able]))

    def html(self) -> str:
        """All models side by side."""
        return f'<ol class="dl-budget">{"".join(map(self._card, self.given))}</ol>'

    def _card(self, each: Allowance) -> str:
        name = html.escape(each.rung.name)
        if each.request is None:
            body = f'<div class="dl-cell"><div class="dl-blank">{html.escape(each.refusal)}</div></div>'
            return f"<li><h4>{name}</h4>{body}</li>"
        place = self.job.requests.index(each.request)
        steps = f'<span class="dl-steps">{costs.count_of("step", each.steps)}</span>'
        frechet = ""
        if cell := each.measured:
            near = "" if cell.steps == each.steps else f" (at {cell.steps} steps)"
            frechet = f"<span>Fréchet {cell.frechet:.3g}{near}</span>"
        cost = f"{costs.gmacs(each.macs)} GMACs"
        if drawn := self.job.drawn.get(place):
            body = figure(drawn, f"{name}, {costs.count_of('step', each.steps)}", steps + frechet)
        elif place == self.job.now and self.job.frame is not None:
            picture = f'<img src="{source(self.job.frame.x0)}" alt="{name}, being drawn" decoding="sync">'
            now = f"<span>step {self.job.frame.index + 1} of {self.job.frame.steps}</span>"
            body = f'<figure class="dl-cell dl-now">{picture}<figcaption>{cost}{now}</figcaption></figure>'
        else:
            blank = '<div class="dl-blank">to be drawn</div>'
            body = f'<figure class="dl-cell">{blank}<figcaption>{cost}{steps}{frechet}</figcaption></figure>'
        return f"<li><h4>{name}</h4>{body}</li>"

    def finding(self) -> str:
        """What is seen, as HTML; nothing before something is."""
        told = finding(self.budget, self.given, list(self.job.drawn.values())) if self.job.drawn else ""
        return f'<p class="dl-finding">{html.escape(told)}</p>' if told else ""


def build(studio: Studio, turns: Turns, judge: Judge, share: Share) -> Refresh:
    """Lay out the view and wire it, inside the Blocks that is open; returns how to follow an event."""
    tables = load_tables(studio.tables)
    groups, first = families(studio) or {"none": [studio.first]}, studio.first
    begin = next(iter(groups))
    low, high = positions(groups[begin], 2.0)
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            at = gr.Slider(
                low, high, (low + high) // 2, step=1, label="Compute a picture", elem_id="budget-at",
                buttons=[],
                info="From one step of the cheapest model to 250 of the dearest, on a logarithmic scale",
            )  # fmt: skip
        with gr.Column(scale=2, min_width=240):
            reading = gr.HTML(elem_id="budget-reading", min_height=40)
    with gr.Row():
        family = gr.Dropdown(
            list(groups), value=begin, label="Models trained on", elem_id="budget-family", min_width=140
        )
        label = gr.Dropdown(
            list(first.titles), value=first.titles[0] if first.classes else None, label="Class",
            elem_id="budget-class", min_width=140, allow_custom_value=True,
        )  # fmt: skip
        guidance = gr.Slider(
            1, 8, first.guidance_scale, step=0.1, label="Guidance scale", elem_id="budget-guidance",
            min_width=140, buttons=[],
        )  # fmt: skip
    with gr.Row():
        sampler = gr.Dropdown(
            ["auto", *samplers(studio)],
            value="auto",
            label="Sampler",
            elem_id="budget-sampler",
            min_width=140,
        )
        seed = gr.Number(0, precision=0, minimum=0, label="Seed", elem_id="budget-seed", min_width=140)
        pictures = gr.Slider(
            1, CELL_PICTURES, 1, step=1, label="Pictures a model", elem_id="budget-pictures", min_width=140,
            buttons=[],
        )  # fmt: skip
    with gr.Row():
        go = gr.Button("Draw with every model", variant="primary", elem_id="budget-draw", min_width=120)
        stop = gr.Button("Stop", variant="stop", elem_id="budget-stop", interactive=False, min_width=120)
    status = gr.Markdown(WELCOME, elem_id="budget-status")
    told = gr.HTML(elem_id="budget-finding")
    canvas = gr.HTML(empty_html("Nothing drawn yet"), elem_id="budget-canvas")
    kept = gr.State(None, time_to_live=3600)
    choices = [family, at, label, guidance, sampler, seed, pictures]
    idle = {go: gr.update(interactive=True), stop: gr.update(interactive=False)}

    def on_change(*values: Any) -> tuple[Any, ...]:
        """The new plan takes the old pictures' place at once: they were of another budget."""
        try:
            shown = planned(studio, tables, values)
        except (TypeError, ValueError) as error:
            return costs.complaint_html(str(error)), gr.skip(), gr.skip()
        return reading_html(shown), shown.html(), ""

    def on_family(name: str, chosen: str | None) -> tuple[dict, dict]:
        rungs = families(studio).get(name, [first])
        titles = next((rung.titles for rung in rungs if rung.classes), ())
        low, high = positions(rungs, 2.0)
        value = chosen if chosen in titles else (titles[0] if titles else None)
        return gr.update(minimum=low, maximum=high, value=(low + high) // 2), gr.update(
            choices=list(titles), value=value
        )

    async def on_draw(session: gr.Request, *values: Any) -> AsyncIterator[dict]:
        try:
            shown = await asyncio.to_thread(planned, studio, tables, values)
        except (TypeError, ValueError) as error:
            yield {reading: costs.complaint_html(str(error)), status: "Nothing was drawn: see above."}
            return
        pace = Pace()
        yield {go: gr.update(interactive=False), stop: gr.update(interactive=True), kept: shown} | {
            canvas: shown.html(), told: "", status: "Starting …" if shown.job.requests else "",
        }  # fmt: skip
        if shown.job.requests:
            events = jobs.draw_all(turns, shown.job.requests, session.session_hash)
            async with contextlib.aclosing(events), contextlib.aclosing(
                shown.job.follow(events, turns, judge)
            ) as following:  # fmt: skip
                async for _ in following:
                    if pace.due():
                        page = await asyncio.to_thread(shown.html)
                        yield {canvas: page, status: status_of(shown.job, "model")}
                        pace.sent(len(page))
        shown.job.close()
        yield ended(shown)

    def ended(shown: Shown | None) -> dict:
        if shown is None:
            return idle | {status: WELCOME}
        if not shown.job.requests:
            said = "No model can afford one step; choose a larger budget."
        else:
            said = ("" if shown.job.complete else "**Stopped.** ") + status_of(shown.job, "model")
        return idle | {status: said, canvas: shown.html(), told: shown.finding()}

    def on_failure(shown: Shown | None) -> dict:
        if shown:
            shown.job.close()
        return ended(shown)

    async def on_stop(session: gr.Request) -> None:  # async, to stay in the thread of `turns`
        turns.stop(session.session_hash)

    quick = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    latest = quick | {"trigger_mode": "always_last"}
    plan_outputs = [reading, canvas, told]
    gr.on([item.change for item in choices], on_change, choices, plan_outputs, **latest)
    family.input(on_family, [family, label], [at, label], **latest)
    outputs = [kept, canvas, status, told, reading, go, stop]
    job = go.click(
        on_draw, choices, outputs, concurrency_limit=None, show_progress="hidden", api_visibility="private"
    )
    job.failure(on_failure, kept, outputs, **quick)
    stop.click(on_stop, None, None, **quick)
    register(studio, share, dict(zip(SETTINGS, choices, strict=True)))
    return lambda event: event.then(on_change, choices, plan_outputs, **quick)


def register(studio: Studio, share: Share, controls: dict[str, gr.components.Component]) -> None:
    """Put the view's controls into the page's address; the slider's ends are those of the chosen family."""
    groups = families(studio)
    clamps = {"family": one_of(groups), "at": whole(-200, 400), "class": words(200), "guidance": number(1, 8)}
    clamps |= {"sampler": one_of(["auto", *samplers(studio)]), "seed": whole(0, MAX_SEED - MAX_PICTURES)}
    clamps |= {"pictures": whole(1, CELL_PICTURES)}
    for name, control in controls.items():
        share.add(f"budget-{name}", control, clamps[name])

    def settle(taken: dict[str, Any]) -> dict[str, Any]:
        name = taken.get("budget-family", controls["family"].value)
        if name not in groups or not {"budget-family", "budget-at"} & set(taken):
            return {}
        low, high = positions(groups[name], 2.0)
        wished = taken.get("budget-at", (low + high) // 2)
        titles = next((rung.titles for rung in groups[name] if rung.classes), ())
        fitted = {"budget-at": gr.update(minimum=low, maximum=high, value=min(max(wished, low), high))}
        if "budget-family" in taken:
            label = taken.get("budget-class", titles[0] if titles else None)
            fitted["budget-class"] = gr.update(choices=list(titles), value=label)
        return fitted

    share.settle(settle)


def planned(studio: Studio, tables: Tables, values: Sequence[Any]) -> Shown:
    """What the controls' values, in their order, ask for. Raises TypeError, ValueError."""
    name, position, label, guidance, sampler, seed, pictures = values
    groups = families(studio)
    if name not in groups:
        raise ValueError(f"no models trained on {name!r} are here; choose one of {', '.join(groups)}")
    low, high = positions(groups[name], 2.0)
    budget = budget_at(min(max(position, low), high))
    wish = Wish(None, label, 1, guidance, seed, pictures, sampler)
    rungs = of_one_design(groups[name])
    return Shown.of(budget, allow(studio, rungs, budget, wish, family_of(tables, name)))


def reading_html(shown: Shown) -> str:
    """The budget in numbers, and what drawing will take."""
    expected = seconds(shown.job.seconds)
    able = f"{len(shown.job.requests)} of {costs.count_of('model', len(shown.given))}"
    return (
        f'<div aria-live="polite"><span class="dl-reading">{costs.gmacs(shown.budget)} GMACs</span> a picture'
        f"<br>{able} can afford a step; about {expected} for all</div>"
    )
