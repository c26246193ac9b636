"""The Chart view in the page's address: its toggles, the point that was picked, and what is hidden."""

from collections.abc import Mapping
from typing import Any

import gradio as gr

from dit.measured import Family
from ui.chart_toggles import toggles, visible_in
from ui.chart_view import WAITING, ChartView, known_keys, shown
from ui.clamps import one_of, or_none, several_of
from ui.measured_cell import cell_of, none_html, pick_of, pictured
from ui.measured_chart import keys as legend_keys
from ui.measured_choice import MACS, MODEL, PICTURE, SECONDS, Choice, Options, guidance_text
from ui.share import Share, plain
from ui.studio import Studio
from ui.tables import Tables, family_of, first_of


def fit(tables: Tables, sent: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Updates of the toggles for values from anywhere, each brought to what its table has.

    sent: by their names in `Toggles`; what is left out is as at the start.
    """
    name = sent.get("family")
    name = name if isinstance(name, str) and name in tables else first_of(tables)
    view = MODEL if sent.get("view") == MODEL else PICTURE
    updates = visible_in(view, toggles(tables, name))
    family = family_of(tables, name)
    if family and family.cells:
        choice = Choice.of(family, {**sent, "view": view})
        values = {key: getattr(choice, key) for key in ("cost", "sampler", "steps")}
        values["guidance"] = guidance_text(choice.guidance)
        ticked = sent.get("caches")
        same = isinstance(ticked, list) and sorted(ticked) == list(choice.caches)
        values["caches"] = ticked if same else list(choice.caches)  # in the order in which they were ticked
        updates = {key: update | {"value": values[key]} for key, update in updates.items()}
    return {"family": gr.update(value=name), "view": gr.update(value=view)} | updates


def register(studio: Studio, view: ChartView, share: Share) -> None:
    """Put the view into the page's address; what a table does not have becomes what it has most of."""
    tables = view.shelf.tables
    families = [table for table in tables.values() if isinstance(table, Family)]
    options = [Options.of(family) for family in families]
    steps = {str(count): count for option in options for count in option.steps}
    caches = {str(every): every for option in options for every in option.caches}
    legend = several_of({key for family in families for key in legend_keys(family)})
    clamps = {
        "family": one_of(tables),
        "view": one_of((PICTURE, MODEL)),
        "cost": one_of((MACS, SECONDS)),
        "sampler": or_none(one_of({sampler for option in options for sampler in option.samplers})),
        "guidance": or_none(one_of({text for option in options for text in option.guidances})),
        "caches": lambda text: [caches[item] for item in several_of(caches)(text)],
        "steps": or_none(lambda text: steps[one_of(steps)(text)]),
        "pick": one_of({pick_of(cell) for family in families for cell in family.cells}),
        "hidden": lambda text: ",".join(legend(text)),
    }
    controls = vars(view.toggles) | {"pick": view.pick, "hidden": view.hidden}
    keys = {name: f"chart-{name}" for name in clamps}
    for name, clamp in clamps.items():
        share.add(keys[name], controls[name], clamp)

    def settle(taken: dict[str, Any]) -> dict[str, Any]:
        sent = {name: taken[key] for name, key in keys.items() if key in taken}
        if not sent:
            return {}
        fitted = fit(tables, sent)
        family = family_of(tables, fitted["family"]["value"])
        if "pick" in sent and cell_of(family, sent["pick"]) is None:
            fitted["pick"] = gr.update(value="")
        if "hidden" in sent:
            hidden = sent["hidden"].split(",")
            known = known_keys(family, {"hidden": hidden})
            fitted["hidden"] = gr.update(value=",".join(key for key in hidden if key in known))
        return {keys[name]: update for name, update in fitted.items()}

    def draw(taken: dict[str, Any]) -> dict[Any, Any]:
        if keys["family"] not in taken:  # settled: all of them, or none
            return {}
        values = {name: plain(taken[key]) for name, key in keys.items() if key in taken}
        name, hidden = values["family"], list(filter(None, values.get("hidden", "").split(",")))
        drawn = shown(view.shelf, name, values, hidden)
        pictures = none_html(WAITING) if drawn[0] else ""
        family = family_of(tables, name)
        if cell := cell_of(family, values.get("pick")):
            pictures = pictured(studio, family, cell, view.shelf.differs(name, cell), restored=True)
        found = dict(zip(view.drawn, drawn, strict=True))
        return found | dict(zip(view.picture, (pictures, gr.update(visible=False)), strict=True))

    share.settle(settle)
    share.also((*view.drawn, *view.picture), draw)
