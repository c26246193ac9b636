"""The controls above the chart: what a family's table offers to choose from, and what of it is shown."""

from dataclasses import dataclass, fields
from typing import Any

import gradio as gr

from dit.measured import Family
from ui.measured_choice import MACS, MODEL, PICTURE, SECONDS, Choice, Options, cache_text
from ui.tables import Tables, family_of


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


def build_toggles(tables: Tables, first: str | None, start: dict[str, dict]) -> Toggles:
    """The row above the chart; what there is no choice of is not shown."""
    start = visible_in(PICTURE, start)
    readable = any(isinstance(table, Family) for table in tables.values())
    with gr.Row(visible=readable or len(tables) > 1, elem_id="chart-toggles"):
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
    return {name: update[name] for name in ("choices", "value", "visible") if name in update}


def toggles(tables: Tables, name: str | None) -> dict[str, dict[str, Any]]:
    """What each toggle offers for a family, as updates; nothing where its table is missing or empty."""
    family = family_of(tables, name)
    if family is None or not family.cells:
        # Choices and values stay: those that are under way would be refused if there was nothing to choose.
        return dict.fromkeys(("cost", "sampler", "guidance", "caches", "steps"), gr.update(visible=False))
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


def visible_in(view: str, updates: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Without the toggles that mean nothing in a view."""
    cost, steps = updates["cost"], updates["steps"]
    return updates | {
        "cost": cost | {"visible": cost["visible"] and view != MODEL},
        "steps": steps | {"visible": steps["visible"] and view == MODEL},
    }
