"""One measured cell, picked from a chart: its pictures, what is known of it, and its settings for Explore."""

import base64
import binascii
import html
import io
import re
from collections.abc import Sequence
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from dit.measured import Cell, Family
from ui.controls import LAST, PAGE_CACHE, PAGE_GUIDANCE, chosen, position_of
from ui.measured_words import details
from ui.pictures import figure_html
from ui.request import PAGE_STEPS
from ui.studio import Studio
from ui.tables import family_of

KINDS = ("data:image/webp", "data:image/png")
CSS = """
.dl-none { border: 1px dashed var(--border-color-primary); border-radius: 10px; padding: 14px; margin: 0;
  text-align: center; color: var(--body-text-color); overflow-wrap: anywhere; }
.dl-picked h3 { margin: 4px 2px 2px; font-size: 16px; }
.dl-picked > p { margin: 0 2px 10px; max-width: 100ch; font-size: 13.5px; }
.dl-picked .dl-pictures { grid-template-columns: repeat(auto-fill, minmax(84px, 1fr)); max-width: none;
  margin: 0; }
.dl-picked .dl-pictures figure { max-width: 128px; }
"""


def none_html(message: str) -> str:
    """What stands where there is nothing to show."""
    return f'<p class="dl-none">{html.escape(message)}</p>'


def picked(tables: dict[str, Family | str], name: Any, sent: Any) -> tuple[Family, Cell]:
    """The cell that a click is on. sent: what the browser says of it.

    Raises:
        gr.Error: there is no such cell.
    """
    family = family_of(tables, name)
    place = sent.get("pick") if isinstance(sent, dict) else None
    if family and isinstance(place, str) and re.fullmatch("[0-9]{1,9}", place):
        if int(place) < len(family.cells):
            return family, family.cells[int(place)]
    raise gr.Error("no such point; load the page again", print_exception=False)


def unfit(studio: Studio, cell: Cell) -> str:
    """Why Explore cannot be set to a cell's settings; empty if it can."""
    if all(rung.name != cell.model for rung in studio.rungs):
        return f"{cell.model} is not among this page's models; start it with --weights"
    over = [f"{cell.steps} steps"] if cell.steps > PAGE_STEPS else []
    over += [f"a guidance scale of {cell.guidance_scale:g}"] if cell.guidance_scale > PAGE_GUIDANCE else []
    over += [f"caching every {cell.cache_every} steps"] if cell.cache_every > PAGE_CACHE else []
    return f"Explore's sliders do not go to {' and '.join(over)}" if over else ""


def sent(studio: Studio, cell: Cell, values: Sequence[Any]) -> list[Any]:
    """Updates of `Explore.outputs` that set it to a cell. values: what Explore's controls have now."""
    rung = next(rung for rung in studio.rungs if rung.name == cell.model)
    low, high = 0, LAST
    if cell.guidance_interval:
        low, high = (position_of(rung.config.formulation, level) for level in cell.guidance_interval)
    return chosen(
        studio,
        values,
        model=studio.rungs.index(rung),
        steps=cell.steps,
        guidance=cell.guidance_scale,
        sampler=cell.sampler,
        guided_from=low,
        guided_to=high,
        cache=cell.cache_every,
    )


def cell_html(family: Family, cell: Cell, reason: str = "") -> str:
    """A cell's pictures, and all that is known of it. reason: why Explore has not followed."""
    title, *lines = details(family, cell)
    followed = f"Explore has not followed: {reason}." if reason else "Explore is set to these settings."
    text = f"{' · '.join(lines)}. {followed}"
    try:
        pictures = strip(cell.thumbnails)
    except ValueError as error:
        shown = none_html(str(error))
    else:
        names = family.classes if len(family.classes) == len(pictures) else [""] * len(pictures)
        captions = [name.split(",")[0] or f"picture {i + 1}" for i, name in enumerate(names)]
        shown = figure_html(pictures, captions)
    return f'<div class="dl-picked"><h3>{html.escape(title)}</h3><p>{html.escape(text)}</p>{shown}</div>'


def strip(source: str) -> np.ndarray:
    """The square pictures that lie side by side in a data: URL, (N, H, H, 3) uint8.

    Raises:
        ValueError: there are none in it.
    """
    try:
        kind, _, data = source.partition(";base64,")
        if kind not in KINDS:
            raise ValueError(f"they must begin with {' or '.join(KINDS)}")
        file = io.BytesIO(base64.b64decode(data, validate=True))
        pixels = np.asarray(Image.open(file, formats=["PNG", "WEBP"]).convert("RGB"))
        height, width, _ = pixels.shape
        if width % height:
            raise ValueError(f"{width} x {height} pixels are no row of squares")
    except (OSError, ValueError, binascii.Error) as error:
        raise ValueError(f"The table's pictures of this point cannot be read: {error}") from error
    return pixels.reshape(height, width // height, height, 3).swapaxes(0, 1)
