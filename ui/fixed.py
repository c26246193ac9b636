"""What a grid and an equal budget keep the same in all pictures: class, guidance, sampler, seed, how many."""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from ui.clamps import Clamp, number, one_of, whole, words
from ui.controls import PAGE_GUIDANCE
from ui.families import samplers_of
from ui.request import PAGE_SEED
from ui.studio import Studio

CELL_PICTURES = 4  # with one setting, at most
CLASS_LETTERS = 200  # of what may be typed for a class


def class_box(view: str, titles: Sequence[str]) -> gr.Dropdown:
    """The class by its short name. view: begins the names of the page's elements."""
    return gr.Dropdown(
        list(titles), value=titles[0] if titles else None, label="Class", info="What to draw",
        elem_id=f"{view}-class", min_width=140, allow_custom_value=True,
    )  # fmt: skip


def guidance_slider(view: str, scale: float) -> gr.Slider:
    """The guidance scale."""
    return gr.Slider(
        1, PAGE_GUIDANCE, min(max(scale, 1), PAGE_GUIDANCE), step=0.1, label="Guidance scale",
        info="How strongly the class pulls; above 1, each look costs two passes",
        elem_id=f"{view}-guidance", min_width=140, buttons=[],
    )  # fmt: skip


def sampler_box(view: str, studio: Studio, name: str = "auto") -> gr.Dropdown:
    """The sampler; of `samplers`, those that do not serve a model are refused by it."""
    return gr.Dropdown(
        samplers(studio), value=name, label="Sampler", info="auto: the first that each model has",
        elem_id=f"{view}-sampler", min_width=140,
    )  # fmt: skip


def seed_box(view: str) -> gr.Number:
    """The first picture's seed; the next have the next ones."""
    return gr.Number(
        0, precision=0, minimum=0, maximum=PAGE_SEED, label="Seed", info="Of the noise to begin with",
        elem_id=f"{view}-seed", min_width=140,
    )  # fmt: skip


def pictures_slider(view: str, label: str) -> gr.Slider:
    """How many pictures with one setting, each of a seed of its own."""
    return gr.Slider(
        1, CELL_PICTURES, 1, step=1, label=label, info="With seeds that follow each other",
        elem_id=f"{view}-pictures", min_width=140, buttons=[],
    )  # fmt: skip


def clamps(studio: Studio) -> dict[str, Clamp]:
    """What of an address may become a value of these controls, by the names that they have there."""
    return {
        "class": words(CLASS_LETTERS),
        "guidance": number(1, PAGE_GUIDANCE),
        "sampler": one_of(samplers(studio)),
        "seed": whole(0, PAGE_SEED),
        "pictures": whole(1, CELL_PICTURES),
    }


def samplers(studio: Studio) -> list[Any]:
    """ "auto", and all that serve one of the page's models."""
    return ["auto", *samplers_of(studio.rungs)]
