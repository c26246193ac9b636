"""The Train tab in the page's address: what its form asks for, and the runs that are looked at.

Not in it: an uploaded file, the path of a folder, which is this machine's own business, and a token.
"""

import contextlib
from typing import Any

import gradio as gr

from ui.clamps import Clamp, number, one_of, whole, yes_or_no
from ui.runs import Runs
from ui.runs_view import MOST_BESIDE
from ui.share import Share
from ui.sources import dataset_of
from ui.train_form import MOST_BATCH, MOST_DROPOUT, MOST_IMAGES, MOST_LR, MOST_SEED, PRESETS, SIDES
from ui.train_view import MAX_DATASET, Fields

LEAST_LR = 1e-7  # what an address may hold: a form must have more than 0


def register(share: Share, runs: Runs, fields: Fields, choice: gr.Dropdown, others: gr.Dropdown) -> None:
    """Put the form, the chosen run, and those that it is compared with, into the page's address."""
    sides = {str(side): side for side in SIDES}
    clamps: dict[str, Clamp] = {
        "source": one_of([kind for _, kind in fields.source.choices]),
        "hub": dataset,
        "preset": one_of(PRESETS),
        "image_size": lambda text: sides[one_of(sides)(text)],
        "images": whole(1, MOST_IMAGES),
        "batch_size": whole(1, MOST_BATCH),
        "lr": number(LEAST_LR, MOST_LR),
        "guidance_dropout": number(0, MOST_DROPOUT),
        "seed": whole(0, MOST_SEED),
        "classes": yes_or_no,
        "mirror": yes_or_no,
    }
    keys = {name: getattr(fields, name).elem_id for name in clamps}
    for name, clamp in clamps.items():
        share.add(keys[name], getattr(fields, name), clamp)

    def run(text: str) -> str:
        if text not in (names := runs.names()):
            instead = "; the latest one is shown" if names else ""
            raise ValueError(f"there is no run of this name here{instead}")
        return text

    def compared(text: str) -> list[str]:
        names = list(dict.fromkeys(filter(None, text.split(","))))
        known = runs.names()
        if missing := [name for name in names if name not in known]:
            raise ValueError(f"there is no run called {missing[0][:80]!r} here to compare with")
        if len(names) > MOST_BESIDE:
            raise ValueError(f"{len(names)} runs are named, and {MOST_BESIDE} can be compared with")
        return names

    share.add("run", choice, run)
    share.add("run-others", others, compared)

    def settle(taken: dict[str, Any]) -> dict[str, Any]:
        """A run sees no fewer images than are in a batch."""
        images, batch = (
            taken.get(keys[name], getattr(fields, name).value) for name in ("images", "batch_size")
        )
        return {keys["images"]: batch} if keys["images"] in taken and images < batch else {}

    share.settle(settle)


def dataset(text: str) -> str:
    """A clamp: what the form has room for, and would take."""
    with contextlib.suppress(ValueError):
        if len(text) <= MAX_DATASET:
            return dataset_of(text.strip())
    raise ValueError("it is no dataset on the Hub; give OWNER/NAME")
