"""What decides a picture: the sliders, lists and boxes of the Explore tab, and how they keep in step."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import gradio as gr

from dit.samplers import OF_FORMULATION
from ui import costs
from ui.request import MAX_PICTURES, PAGE_STEPS
from ui.studio import Studio

RANDOM_SEEDS = 2**31


@dataclass(frozen=True)
class Controls:
    """The widgets whose values decide a picture, in the order in which `parse` takes them."""

    model: gr.Slider
    label: gr.Slider
    steps: gr.Slider
    guidance: gr.Slider
    seed: gr.Number
    pictures: gr.Slider
    sampler: gr.Dropdown

    def inputs(self) -> list[gr.components.Component]:
        """All of them, in order."""
        return [getattr(self, item.name) for item in fields(self)]


def build_controls(studio: Studio) -> tuple[Controls, gr.Dropdown, gr.Checkbox, gr.HTML]:
    """The left column; also the class list by name, the lock of the seed, and the ladder."""
    top, first = len(studio.rungs) - 1, studio.first
    names = list(first.classes)
    model = gr.Slider(
        0, max(top, 1), studio.rungs.index(first), step=1, label="Model size", interactive=top > 0,
        elem_id="model", info="From little compute a step to much",
    )  # fmt: skip
    ladder = gr.HTML(costs.ladder_html(studio, first), js_on_load=costs.LADDER_SCRIPT, elem_id="ladder")
    with gr.Row():
        label = gr.Slider(
            0, max(len(names) - 1, 1), 0, step=1, label="Class", info="What to draw", elem_id="class",
            min_width=140, interactive=bool(names), buttons=[],
        )  # fmt: skip
        name = gr.Dropdown(
            names, value=names[0] if names else None, label="Class by name", info="Type to search",
            filterable=True, elem_id="class-name", min_width=140,
        )  # fmt: skip
    steps = gr.Slider(
        1, PAGE_STEPS, 50, step=1, label="Steps", elem_id="steps",
        info="From noise to picture; Heun's sampler looks twice a step, the others once",
    )  # fmt: skip
    guidance = gr.Slider(
        1, 8, first.guidance_scale, step=0.1, label="Guidance scale", elem_id="guidance", buttons=[],
        info="How strongly the class pulls; above 1, each look costs two passes",
        interactive=first.config.has_null_class,
    )  # fmt: skip
    with gr.Row():
        pictures = gr.Slider(1, MAX_PICTURES, 4, step=1, label="Pictures", elem_id="pictures", min_width=140)
        samplers = list(OF_FORMULATION[first.config.formulation])
        # Any value is let through to `parse`: one that is sent while the choices change would be an error.
        sampler = gr.Dropdown(
            samplers, value=samplers[0], label="Sampler", elem_id="sampler", min_width=140,
            allow_custom_value=True,
        )  # fmt: skip
    with gr.Row():
        seed = gr.Number(0, precision=0, minimum=0, label="Seed", elem_id="seed", min_width=140)
        lock = gr.Checkbox(True, label="Keep this seed", elem_id="lock", min_width=140)
    return Controls(model, label, steps, guidance, seed, pictures, sampler), name, lock, ladder


def with_random_seed(values: Sequence[Any]) -> list[Any]:
    """The controls' values, in their order, with a seed drawn anew."""
    position = [item.name for item in fields(Controls)].index("seed")
    return [*values[:position], random.randrange(RANDOM_SEEDS), *values[position + 1 :]]


def fitted(studio: Studio, values: Sequence[Any]) -> list[Any]:
    """The controls' values, in their order, with guidance and sampler that the chosen model can have.

    For what is shown while the page still follows a change of model.
    """
    model, label, steps, guidance, seed, pictures, sampler = values
    rung = studio.at(model)
    if rung is None:
        return list(values)
    config, own = rung.config, OF_FORMULATION[rung.config.formulation]
    sampler = sampler if sampler in own else own[0]
    return [model, label, steps, guidance if config.has_null_class else 1, seed, pictures, sampler]


def wire_model(studio: Studio, controls: Controls, name: gr.Dropdown, quick: dict[str, Any]) -> None:
    """Keep both lists of classes in step with each other, and they and the samplers with the model.

    quick: how all listeners listen. Of several events at once the last must count.
    """

    def names_of(position: float | None) -> Sequence[str]:
        rung = studio.at(position)
        return rung.classes if rung else ()

    def on_model(wished: float, *values: Any) -> tuple[dict, ...]:
        rung = studio.at(values[0])
        if rung is None:
            return (gr.skip(),) * 4
        names, config = rung.classes, rung.config
        _, label, _, _, _, _, sampler = fitted(studio, values)
        chosen = min(int(label or 0), max(len(names) - 1, 0))
        return (
            gr.update(value=wished if config.has_null_class else 1, interactive=config.has_null_class),
            gr.update(choices=list(OF_FORMULATION[config.formulation]), value=sampler),
            gr.update(maximum=max(len(names) - 1, 1), value=chosen, interactive=bool(names)),
            gr.update(choices=list(names), value=names[chosen] if names else None),
        )

    def on_label(position: float | None, label: float | None) -> str | dict:
        names = names_of(position)
        return names[int(label)] if label in range(len(names)) else gr.skip()

    def on_name(position: float | None, chosen: str | None) -> int | dict:
        names = names_of(position)
        return names.index(chosen) if chosen in names else gr.skip()

    wished = gr.State(studio.first.guidance_scale)  # comes back after a model that cannot be guided
    controls.guidance.input(lambda value: value, controls.guidance, wished, **quick)
    controls.model.change(
        on_model,
        [wished, *controls.inputs()],
        [controls.guidance, controls.sampler, controls.label, name],
        **quick,
    )
    controls.label.change(on_label, [controls.model, controls.label], name, **quick)
    name.input(on_name, [controls.model, name], controls.label, **quick)
