"""The Chart view of the Trade-off tab: what was measured of a family, drawn; a click shows the pictures."""

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import gradio as gr

from dit.measured import Family
from ui import chart_behaviour, measured_cell
from ui.chart_toggles import NAMES, Toggles, build_toggles, toggles, visible_in
from ui.explore import Explore
from ui.measured_cell import (
    cell_of,
    chosen_picture,
    none_html,
    pick_of,
    picked,
    pictured,
    sent,
    unfit,
)
from ui.measured_chart import drawing, keys
from ui.measured_choice import Choice
from ui.measured_words import behind, seen
from ui.settled import on_settled
from ui.shelf import Shelf
from ui.studio import Studio
from ui.tables import family_of, first_of

HOW = (
    "Point at a mark, or press Tab and then the arrow keys. A click or Enter shows the pictures behind it, "
    "and sets Explore to draw them again. The legend hides and shows. 1 GMAC is 10⁹ multiply-accumulates; "
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
class ChartView:
    """What others need of this view: to keep its state elsewhere, and to set it from there."""

    toggles: Toggles
    shelf: Shelf
    drawn: tuple[gr.components.Component, ...]  # sentences, chart, and what stands behind its numbers
    picture: tuple[gr.components.Component, ...]  # the pictures of a point, and the button that follows them
    pick: gr.Textbox  # the point, as `pick_of` names it; empty: none
    hidden: gr.Textbox  # keys of what the legend has hidden, with commas between


def build(studio: Studio, explore: Explore, tabs: gr.Tabs, shelf: Shelf) -> ChartView:
    """Lay out the view and wire it. tabs: those of the page, of which Explore can be opened."""
    tables, first = shelf.tables, first_of(shelf.tables)
    controls = build_toggles(tables, first, toggles(tables, first))
    said, drawn, told = shown(shelf, first)
    plot = gr.HTML(drawn, js_on_load=chart_behaviour.SCRIPT, elem_id="measured-chart")
    pictures = gr.HTML(
        none_html(WAITING) if said else "", js_on_load=measured_cell.SCRIPT, elem_id="cell-pictures"
    )
    opened = gr.Button("Open in Explore", visible=False, elem_id="open-explore")
    words = gr.HTML(said, elem_id="chart-seen")
    notes = gr.HTML(told, elem_id="chart-notes")
    pick = gr.Textbox("", visible="hidden", label="Point", elem_id="chart-pick")
    hidden = gr.Textbox("", visible="hidden", label="Hidden", elem_id="chart-hidden")
    quick = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    latest = quick | {"trigger_mode": "always_last"}

    def on_choice(family: str | None, *values: Any) -> tuple:
        chosen = dict(zip(NAMES, values, strict=True))
        updates = visible_in(chosen["view"], toggles(tables, family))
        seen_now = (gr.update(visible=updates[name]["visible"]) for name in ("cost", "steps"))
        ticked = gr.skip() if chosen["caches"] else updates["caches"]  # something is always drawn
        return *shown(shelf, family, chosen), *seen_now, ticked

    def on_family(family: str | None, view: str) -> tuple:
        updates = visible_in(view, toggles(tables, family))
        offered_now = (updates[name] for name in ("cost", "sampler", "guidance", "caches", "steps"))
        said, *drawn = shown(shelf, family, {"view": view})
        empty = none_html(WAITING) if said else ""
        return said, *drawn, empty, gr.update(visible=False), "", "", *offered_now

    def on_pick(family: str | None, event: gr.EventData, *values: Any) -> tuple:
        measured, cell = picked(tables, family, event._data)
        follows = not unfit(studio, cell)
        settings = sent(studio, cell, values) if follows else [gr.skip()] * len(explore.outputs())
        shown_now = pictured(studio, measured, cell, shelf.differs(family, cell))
        return shown_now, gr.update(visible=follows), pick_of(cell), *settings

    def on_picture(family: str | None, pick: str, event: gr.EventData, *values: Any) -> tuple:
        cell = cell_of(family_of(tables, family), pick)
        if cell is None or unfit(studio, cell):
            raise gr.Error("no such point; load the page again", print_exception=False)
        picture = chosen_picture(cell, event._data)
        return gr.update(visible=True), *sent(studio, cell, values, picture)

    def on_legend(family: str | None, event: gr.EventData) -> str:
        return ",".join(known_keys(family_of(tables, family), event._data))

    drawn_anew = [words, plot, notes, controls.cost, controls.steps, controls.caches]
    on_settled(controls.inputs(), on_choice, controls.inputs(), drawn_anew)
    controls.family.input(
        on_family,
        [controls.family, controls.view],
        [words, plot, notes, pictures, opened, pick, hidden, *controls.inputs()[2:]],
        **latest,
    )
    plot.legend(on_legend, controls.family, hidden, **latest)
    explore.refresh(
        plot.pick(
            on_pick,
            [controls.family, *explore.controls.inputs()],
            [pictures, opened, pick, *explore.outputs()],
            **latest,
        )
    )
    explore.refresh(
        pictures.choose(
            on_picture,
            [controls.family, pick, *explore.controls.inputs()],
            [opened, *explore.outputs()],
            **latest,
        )
    )
    opened.click(
        lambda: gr.Tabs(selected="explore"), None, tabs, js="() => { window.scrollTo(0, 0); }", **quick
    )

    return ChartView(controls, shelf, (words, plot, notes), (pictures, opened), pick, hidden)


def known_keys(family: Family | None, sent: Any) -> list[str]:
    """Of what the browser says is hidden, what a family's charts can hide."""
    wanted = sent.get("hidden") if isinstance(sent, dict) else None
    return [key for key in keys(family) if key in wanted] if family and isinstance(wanted, list) else []


def shown(
    shelf: Shelf,
    name: Any,
    sent: Mapping[str, Any] = MappingProxyType({}),
    hidden: Sequence[str] | None = None,
) -> tuple[str, str, str]:
    """What is seen, the chart, and what stands behind its numbers.

    sent: as `Choice.of` takes it. hidden: keys of what is, if it is not to stay as it was.
    """
    family = family_of(shelf.tables, name)
    if family is None:
        known = isinstance(name, str) and name in shelf.tables
        return "", none_html(shelf.tables[name] if known else shelf.missing), ""
    try:
        choice = Choice.of(family, sent)
        drawn = drawing(family, choice, hidden)
    except ValueError as error:
        return "", none_html(str(error)), ""
    sentences = [*seen(family, choice), *shelf.warning(name)]
    said = "".join(f"<p>{unbroken(sentence)}</p>" for sentence in sentences)
    told = html.escape(behind(family, choice.cells(family)))
    return (
        f'<div class="dl-seen">{said}</div>',
        drawn,
        f'<div class="dl-behind"><p>{HOW}</p><p>{told}</p></div>',
    )


def unbroken(text: str) -> str:
    """Text as HTML, names with hyphens each on one line."""
    return re.sub(r"[\w+]+(?:-[\w+]+)+", r'<span class="dl-name">\g<0></span>', html.escape(text))
