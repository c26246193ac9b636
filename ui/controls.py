"""What decides a picture: the sliders, lists and boxes of the Explore tab, and how they keep in step."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import gradio as gr

from dit import edm
from dit.diffusion import NUM_TIMESTEPS
from dit.flops import CACHEABLE
from dit.samplers import OF_FORMULATION, SAMPLERS
from ui import costs
from ui.clamps import number, one_of, whole
from ui.request import PAGE_SEED, PAGE_STEPS, Wish
from ui.settled import on_settled, unless_sent
from ui.share import Share
from ui.studio import Studio

RANDOM_SEEDS = 2**31
LAST = NUM_TIMESTEPS - 1  # the noisiest level of the page's sliders
PAGE_CACHE = 5  # the slider's end; the API goes on to 10
PAGE_GUIDANCE = 8  # the slider's end


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
    guided_from: gr.Slider
    guided_to: gr.Slider
    cache: gr.Slider

    def inputs(self) -> list[gr.components.Component]:
        """All of them, in order."""
        return [getattr(self, item.name) for item in fields(self)]


NAMES = [item.name for item in fields(Controls)]


def build_controls(studio: Studio) -> tuple[Controls, gr.Dropdown, gr.Checkbox, gr.HTML]:
    """The left column; also the class list by name, the lock of the seed, and the ladder."""
    top, first = len(studio.rungs) - 1, studio.first
    names = list(first.classes)
    model = gr.Slider(
        0, max(top, 1), studio.rungs.index(first), step=1, label="Model size", interactive=top > 0,
        elem_id="model", info="From little compute a step to much; what was trained here comes last",
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
        1, PAGE_GUIDANCE, first.guidance_scale, step=0.1, label="Guidance scale", elem_id="guidance",
        info="How strongly the class pulls; above 1, each look costs two passes", buttons=[],
        interactive=first.config.has_null_class,
    )  # fmt: skip
    with gr.Row():
        most = studio.limits.pictures
        pictures = gr.Slider(
            1, most, min(4, most), step=1, label="Pictures", elem_id="pictures", min_width=140
        )
        samplers = list(OF_FORMULATION[first.config.formulation])
        # Any value is let through to `parse`: one that is sent while the choices change would be an error.
        sampler = gr.Dropdown(
            samplers, value=samplers[0], label="Sampler", elem_id="sampler", min_width=140,
            allow_custom_value=True,
        )  # fmt: skip
    with gr.Row():
        seed = gr.Number(
            0, precision=0, minimum=0, maximum=PAGE_SEED, label="Seed", elem_id="seed", min_width=140
        )
        lock = gr.Checkbox(True, label="Keep this seed", elem_id="lock", min_width=140)
    with gr.Accordion("Free speed: spend less on the same steps", open=False, elem_id="free-speed"):
        with gr.Row():
            guided_from = gr.Slider(
                0, LAST, 0, step=1, label="Guide from noise level", elem_id="guided-from", min_width=140,
                info="of 999; below it the class pulls no more", buttons=[],
            )  # fmt: skip
            guided_to = gr.Slider(
                0, LAST, LAST, step=1, label="up to", elem_id="guided-to", min_width=140,
                info="above it the class does not pull yet", buttons=[],
            )  # fmt: skip
        cache = gr.Slider(
            1, PAGE_CACHE, 1, step=1, label="Compute attention and MLPs every … steps", elem_id="cache",
            info="and reuse between (FORA); 1: at every step", buttons=[],
            interactive=first.config.backbone in CACHEABLE,
        )  # fmt: skip
    controls = Controls(model, label, steps, guidance, seed, pictures, sampler, guided_from, guided_to, cache)
    return controls, name, lock, ladder


def with_random_seed(values: Sequence[Any]) -> list[Any]:
    """The controls' values, in their order, with a seed drawn anew."""
    position = NAMES.index("seed")
    return [*values[:position], random.randrange(RANDOM_SEEDS), *values[position + 1 :]]


def fitted(studio: Studio, values: Sequence[Any]) -> list[Any]:
    """The controls' values, in their order, with guidance and sampler that the chosen model can have.

    For what is shown while the page still follows a change of model.
    """
    given = dict(zip(NAMES, values, strict=True))
    rung = studio.at(given["model"])
    if rung is None:
        return list(values)
    config, own = rung.config, OF_FORMULATION[rung.config.formulation]
    if given["sampler"] not in own:
        given["sampler"] = own[0]
    if not config.has_null_class:
        given["guidance"] = 1
    if config.backbone not in CACHEABLE or given["sampler"] == "heun":
        given["cache"] = 1
    return list(given.values())


def wish_of(studio: Studio, values: Sequence[Any]) -> Wish:
    """What the controls' values, in their order, ask for.

    The page counts noise levels as timesteps, 0 to 999: of a flow as many thousandths of its time, of an EDM
    model as that share of its sigmas' logarithms.
    """
    *plain, low, high, cache = values
    rung, interval = studio.at(plain[0]), "all"
    if rung and (low > 0 or high < LAST):
        interval = [level_at(rung.config.formulation, bound) for bound in (low, high)]
    return Wish(*plain, interval, cache)


def level_at(formulation: str, position: float) -> float:
    """The noise level of a formulation at a place from 0 to 999."""
    if formulation == "ddpm":
        return position
    if formulation == "flow":
        return position / LAST
    return edm.SIGMA_MIN * (edm.SIGMA_MAX / edm.SIGMA_MIN) ** (position / LAST)


def position_of(formulation: str, level: float) -> int:
    """The place from 0 to 999 that is nearest to a noise level: the other way round from `level_at`."""
    if formulation == "ddpm":
        place = level
    elif formulation == "flow":
        place = level * LAST
    else:
        place = LAST * math.log(level / edm.SIGMA_MIN) / math.log(edm.SIGMA_MAX / edm.SIGMA_MIN)
    return min(max(round(place), 0), LAST)


def following(studio: Studio, wished: float, values: Sequence[Any]) -> tuple[dict, ...]:
    """What follows from the model: updates of guidance, sampler, cache, label, and of the classes by name.

    wished: the guidance for a model that can be guided. values: of the controls, in their order.
    """
    rung = studio.at(values[0])
    if rung is None:
        return (gr.skip(),) * 5
    names, config = rung.classes, rung.config
    given = dict(zip(NAMES, fitted(studio, values), strict=True))
    chosen = min(int(given["label"] or 0), max(len(names) - 1, 0))
    return (
        gr.update(value=wished if config.has_null_class else 1, interactive=config.has_null_class),
        gr.update(choices=list(OF_FORMULATION[config.formulation]), value=given["sampler"]),
        gr.update(value=given["cache"], interactive=config.backbone in CACHEABLE),
        gr.update(maximum=max(len(names) - 1, 1), value=chosen, interactive=bool(names)),
        gr.update(choices=list(names), value=names[chosen] if names else None),
    )


def at_position(studio: Studio, position: int) -> dict:
    """An update of the model slider, whose end may lie further on than when the page was made."""
    return gr.update(value=position, maximum=max(len(studio.rungs) - 1, 1))


def chosen(studio: Studio, values: Sequence[Any], **wanted: Any) -> list[Any]:
    """Updates that set some controls, and all that follows from the model: of all, of `name`, of `wished`.

    values: what the controls have now, in their order. wanted: by their names in `Controls`.
    """
    given = dict(zip(NAMES, values, strict=True)) | wanted
    guidance, sampler, cache, label, name = following(studio, given["guidance"], list(given.values()))
    if "model" in wanted:
        given["model"] = at_position(studio, wanted["model"])
    given |= {"guidance": guidance, "sampler": sampler, "cache": cache, "label": label}
    return [*given.values(), name, wanted.get("guidance", gr.skip())]


def wire_model(studio: Studio, controls: Controls, name: gr.Dropdown, quick: dict[str, Any]) -> gr.State:
    """Keep both lists of classes in step with each other, and they and the samplers with the model.

    quick: how those of the classes listen. Of several events at once the last must count. Returns the
    guidance that comes back after a model that cannot be guided.
    """

    def names_of(position: float | None) -> Sequence[str]:
        rung = studio.at(position)
        return rung.classes if rung else ()

    def on_label(position: float | None, label: float | None) -> str | dict:
        names = names_of(position)
        return names[int(label)] if label in range(len(names)) else gr.skip()

    def on_name(position: float | None, chosen: str | None) -> int | dict:
        names = names_of(position)
        return names.index(chosen) if chosen in names else gr.skip()

    wished = gr.State(studio.first.guidance_scale)
    controls.guidance.input(lambda value: value, controls.guidance, wished, **quick)

    def on_model(wished: float, *values: Any) -> list[dict]:
        given, updates = dict(zip(NAMES, values, strict=True)), following(studio, wished, values)
        return [*map(unless_sent, (given[key] for key in led), updates), *updates[len(led) :]]

    led = {key: getattr(controls, key) for key in ("guidance", "sampler", "cache")}
    on_settled(
        [controls.model], on_model, [wished, *controls.inputs()], [*led.values(), controls.label, name]
    )
    controls.label.change(on_label, [controls.model, controls.label], name, **quick)
    name.input(on_name, [controls.model, name], controls.label, **quick)
    return wished


def register(studio: Studio, share: Share, controls: Controls, wished: gr.State) -> None:
    """Put the controls into the page's address, models by name; values of one must fit those of another."""
    most = max(len(rung.classes) for rung in studio.rungs) - 1
    clamps = {
        "label": whole(0, max(most, 0)),
        "steps": whole(1, PAGE_STEPS),
        "guidance": number(1, PAGE_GUIDANCE),
    }
    clamps |= {"seed": whole(0, PAGE_SEED), "pictures": whole(1, studio.limits.pictures)}
    clamps |= {"sampler": one_of(SAMPLERS), "guided_from": whole(0, LAST), "guided_to": whole(0, LAST)}
    clamps |= {"cache": whole(1, PAGE_CACHE)}
    keys = {name: "class" if name == "label" else name.replace("_", "-") for name in NAMES}
    share.add("model", controls.model, None, lambda: studio.names)
    for name in NAMES[1:]:
        mirrors = (wished,) if name == "guidance" else ()
        share.add(keys[name], getattr(controls, name), clamps[name], mirrors=mirrors)

    def settle(taken: dict[str, Any]) -> dict[str, Any]:
        given = [taken.get(keys[name], getattr(controls, name).value) for name in NAMES]
        if not set(keys.values()) & set(taken):
            return {}
        fit = dict(zip(NAMES, fitted(studio, given), strict=True))
        last = max(len(studio.at(fit["model"]).classes) - 1, 0)
        changed = {keys[name]: fit[name] for name in ("guidance", "sampler", "cache") if keys[name] in taken}
        if "model" in taken:
            changed["model"] = at_position(studio, fit["model"])
        if "class" in taken:
            changed["class"] = gr.update(value=min(taken["class"], last), maximum=max(last, 1))
        return changed

    share.settle(settle)
