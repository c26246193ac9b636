"""The Chart view of the Trade-off tab: what was measured of a family, drawn; a click shows the pictures."""

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

import gradio as gr

from dit.measured import Family
from ui import chart_behaviour, measured_cell
from ui.clamps import one_of, several_of
from ui.explore import Explore
from ui.measured_cell import cell_html, none_html, picked, sent, unfit
from ui.measured_chart import drawing
from ui.measured_choice import MACS, MODEL, PICTURE, SECONDS, Choice, Options, cache_text, guidance_text
from ui.measured_words import behind, seen
from ui.share import Share
from ui.studio import Studio
from ui.tables import Tables, family_of, load_tables, no_table

HOW = (
    "Point at a mark, or press Tab and then the arrow keys. A click or Enter shows the pictures behind it, "
    "and sets Explore to its settings. The legend hides and shows. 1 GMAC is 10⁹ multiply-accumulates; "
    "guidance, and what caching saves, are counted."
)
WAITING = "The pictures of a point appear here, once one is clicked."
CSS = (
    measured_cell.CSS
    + """
.dl-seen p, .dl-behind p { margin: 6px 2px; max-width: 100ch; }
.dl-name { white-space: nowrap; }
.dl-behind p { font-size: 12.5px; color: color-mix(in srgb, var(--body-text-color) 75%, transparent); }
#measured-chart .html-container { padding: 10px 0; }
#chart-toggles .wrap { gap: 5px; }
#chart-toggles .wrap label { padding: 4px 8px; font-size: 13px; }
@media (max-width: 760px) {
  #measured-chart { width: calc(100% + 40px); margin: 0 -20px; overflow: visible; }
}
"""
)


@dataclass(frozen=True)
class Toggles:
    """The controls of the view; but for the family, they are called as `Choice.of` takes their values."""

    family: gr.Radio
    view: gr.Radio
    cost: gr.Radio
    sampler: gr.Radio
    guidance: gr.Radio
    caches: gr.CheckboxGroup
    steps: gr.Radio

    def inputs(self) -> list[gr.components.Component]:
        """All of them, in order."""
        return [getattr(self, item.name) for item in fields(self)]


NAMES = [item.name for item in fields(Toggles) if item.name != "family"]


@dataclass(frozen=True)
class ChartView:
    """What others need of this view: to keep its state elsewhere, and to set it from there."""

    toggles: Toggles
    tables: Tables
    drawn: tuple[gr.components.Component, ...]  # sentences, chart, and what stands behind its numbers
    missing: str  # what is said where there is no table at all

    def fit(self, sent: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Updates of the toggles for values from anywhere, each brought to what its table has.

        sent: by their names in `Toggles`; what is left out is as at the start.
        """
        name = sent.get("family")
        name = name if family_of(self.tables, name) else next(iter(self.tables), None)
        view = MODEL if sent.get("view") == MODEL else PICTURE
        updates = _visible(toggles(self.tables, name), view)
        family = family_of(self.tables, name)
        if family and family.cells:
            rest = ("cost", "sampler", "guidance", "caches", "steps")
            choice = Choice.of(family, {"view": view} | {key: sent[key] for key in rest if key in sent})
            values = {key: getattr(choice, key) for key in ("cost", "sampler", "steps")}
            values |= {"guidance": guidance_text(choice.guidance), "caches": list(choice.caches)}
            updates = {key: update | {"value": values[key]} for key, update in updates.items()}
        return {"family": gr.update(value=name), "view": gr.update(value=view)} | updates


def build(studio: Studio, explore: Explore, tabs: gr.Tabs) -> ChartView:
    """Lay out the view and wire it. tabs: those of the page, of which Explore can be opened."""
    tables = load_tables(studio.tables)
    first = next(iter(tables), None)
    start = toggles(tables, first)
    controls = _controls(tables, first, start)
    missing = no_table(studio.tables)
    said, drawn, told = shown(tables, missing, first)
    plot = gr.HTML(drawn, js_on_load=chart_behaviour.SCRIPT, elem_id="measured-chart")
    pictures = gr.HTML(none_html(WAITING) if drawn and said else "", elem_id="cell-pictures")
    opened = gr.Button("Open in Explore", visible=False, elem_id="open-explore")
    words = gr.HTML(said, elem_id="chart-seen")
    notes = gr.HTML(told, elem_id="chart-notes")
    quick = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    latest = quick | {"trigger_mode": "always_last"}

    def on_choice(family: str | None, *values: Any) -> tuple:
        updates = _visible(toggles(tables, family), values[0])
        seen_now = (gr.update(visible=updates[name]["visible"]) for name in ("cost", "steps"))
        return *shown(tables, missing, family, dict(zip(NAMES, values, strict=True))), *seen_now

    def on_family(family: str | None, view: str) -> tuple:
        updates = _visible(toggles(tables, family), view)
        offered = (updates[name] for name in ("cost", "sampler", "guidance", "caches", "steps"))
        return *shown(tables, missing, family, {"view": view}), none_html(WAITING), *offered

    def on_pick(family: str | None, event: gr.EventData, *values: Any) -> tuple:
        measured, cell = picked(tables, family, event._data)
        reason = unfit(studio, cell)
        settings = [gr.skip()] * len(explore.outputs()) if reason else sent(studio, cell, values)
        return cell_html(measured, cell, reason), gr.update(visible=not reason), *settings

    drawn_anew = [words, plot, notes, controls.cost, controls.steps]
    gr.on(
        [control.change for control in controls.inputs()], on_choice, controls.inputs(), drawn_anew, **latest
    )
    controls.family.input(
        on_family,
        [controls.family, controls.view],
        [words, plot, notes, pictures, *controls.inputs()[2:]],
        **latest,
    )
    explore.refresh(
        plot.pick(
            on_pick,
            [controls.family, *explore.controls.inputs()],
            [pictures, opened, *explore.outputs()],
            **latest,
        )
    )
    opened.click(
        lambda: gr.Tabs(selected="explore"), None, tabs, js="() => { window.scrollTo(0, 0); }", **quick
    )

    return ChartView(controls, tables, (words, plot, notes), missing)


def register(view: ChartView, share: Share) -> None:
    """Put the toggles into the page's address; what a table does not have becomes what it has most of."""
    options = [Options.of(table) for table in view.tables.values() if isinstance(table, Family)]
    steps = {str(count): count for option in options for count in option.steps}
    caches = {str(every): every for option in options for every in option.caches}
    clamps = {
        "family": one_of(view.tables),
        "view": one_of((PICTURE, MODEL)),
        "cost": one_of((MACS, SECONDS)),
        "sampler": one_of({sampler for option in options for sampler in option.samplers}),
        "guidance": one_of({text for option in options for text in option.guidances}),
        "caches": lambda text: [caches[item] for item in several_of(caches)(text)],
        "steps": lambda text: steps[one_of(steps)(text)],
    }
    keys = {name: f"chart-{name}" for name in clamps}
    for name, clamp in clamps.items():
        share.add(keys[name], getattr(view.toggles, name), clamp)

    def settle(taken: dict[str, Any]) -> dict[str, Any]:
        sent = {name: taken[key] for name, key in keys.items() if key in taken}
        return {keys[name]: update for name, update in view.fit(sent).items()} if sent else {}

    def draw(taken: dict[str, Any]) -> dict[Any, Any]:
        if keys["family"] not in taken:  # settled: all of them, or none
            return {}
        values = {name: taken[keys[name]]["value"] for name in clamps}
        drawn = shown(view.tables, view.missing, values["family"], values)
        return dict(zip(view.drawn, drawn, strict=True))

    share.settle(settle)
    share.also(view.drawn, draw)


def _controls(tables: Tables, first: str | None, start: dict[str, dict]) -> Toggles:
    """The row above the chart; what there is no choice of is not shown."""
    start = _visible(start, PICTURE)
    with gr.Row(visible=bool(tables), elem_id="chart-toggles"):
        family = gr.Radio(
            list(tables), value=first, label="Family", visible=len(tables) > 1, elem_id="chart-family",
            min_width=140,
        )  # fmt: skip
        view = gr.Radio(
            [("a picture", PICTURE), ("a model", MODEL)], value=PICTURE, label="Compute of",
            elem_id="chart-view", min_width=160,
        )  # fmt: skip
        cost = gr.Radio(
            [("GMACs", MACS), ("seconds", SECONDS)], value=MACS, label="Counted in", elem_id="chart-cost",
            min_width=160,
        )  # fmt: skip
        steps = gr.Radio(label="Steps", elem_id="chart-steps", min_width=220, **_given(start["steps"]))
        sampler = gr.Radio(
            label="Sampler", elem_id="chart-sampler", min_width=160, **_given(start["sampler"])
        )
        guidance = gr.Radio(
            label="Guidance scale", elem_id="chart-guidance", min_width=160, **_given(start["guidance"])
        )
        caches = gr.CheckboxGroup(
            label="Reuse between steps (caching)", elem_id="chart-caches", min_width=260,
            info="Attention and MLPs are computed at some steps only; between, what they gave is used again",
            **_given(start["caches"]),
        )  # fmt: skip
    return Toggles(family, view, cost, sampler, guidance, caches, steps)


def _given(update: dict[str, Any]) -> dict[str, Any]:
    return {name: update[name] for name in ("choices", "value", "visible")}


def toggles(tables: Tables, name: str | None) -> dict[str, dict[str, Any]]:
    """What each toggle offers for a family, as updates; nothing where its table is missing or empty."""
    family = family_of(tables, name)
    if family is None or not family.cells:
        empty = gr.update(choices=[], value=None, visible=False)
        return dict.fromkeys(("sampler", "guidance", "steps"), empty) | {
            "cost": gr.update(value=MACS, visible=False),
            "caches": empty | {"value": []},
        }
    options, usual = Options.of(family), Choice.of(family)
    guidance = next(text for text, pair in options.guidances.items() if pair == usual.guidance)
    return {
        "cost": gr.update(value=MACS, visible=True),
        "sampler": _offer(list(options.samplers), usual.sampler),
        "guidance": _offer(list(options.guidances), guidance),
        "caches": _offer([(cache_text(every), every) for every in options.caches], list(usual.caches)),
        "steps": _offer([(str(steps), steps) for steps in options.steps], usual.steps),
    }


def _offer(choices: list, value: Any) -> dict[str, Any]:
    return gr.update(choices=choices, value=value, visible=len(choices) > 1)


def _visible(updates: dict[str, dict[str, Any]], view: str) -> dict[str, dict[str, Any]]:
    """Without the toggles that mean nothing in a view."""
    cost, steps = updates["cost"], updates["steps"]
    return updates | {
        "cost": cost | {"visible": cost["visible"] and view != MODEL},
        "steps": steps | {"visible": steps["visible"] and view == MODEL},
    }


def shown(
    tables: Tables, missing: str, name: Any, sent: Mapping[str, Any] = MappingProxyType({})
) -> tuple[str, str, str]:
    """What is seen, the chart, and what stands behind its numbers. sent: as `Choice.of` takes it.

    missing: what to say where there is no table at all.
    """
    family = family_of(tables, name)
    if family is None:
        return "", none_html(tables[name] if isinstance(name, str) and name in tables else missing), ""
    try:
        choice = Choice.of(family, sent)
        drawn = drawing(family, choice)
    except ValueError as error:
        return "", none_html(str(error)), ""
    said = "".join(f"<p>{unbroken(sentence)}</p>" for sentence in seen(family, choice))
    told = html.escape(behind(family, choice.cells(family)))
    return (
        f'<div class="dl-seen">{said}</div>',
        drawn,
        f'<div class="dl-behind"><p>{HOW}</p><p>{told}</p></div>',
    )


def unbroken(text: str) -> str:
    """Text as HTML, names with hyphens each on one line."""
    return re.sub(r"[\w+]+(?:-[\w+]+)+", r'<span class="dl-name">\g<0></span>', html.escape(text))
