"""One measured cell, picked from a chart: its pictures, what is known of it, and its settings for Explore.

Picture i of a cell shows class i, and starts from the cell's seed + i.
"""

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

from dit.classes import titles
from dit.measured import Cell, Family
from ui.controls import LAST, PAGE_CACHE, PAGE_GUIDANCE, chosen, position_of
from ui.measured_choice import guidance_text
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
.dl-picked .dl-pictures { grid-template-columns: repeat(auto-fill, minmax(100px, 1fr)); max-width: none;
  margin: 0; }
.dl-picked .dl-pictures figure { max-width: 150px; padding: 3px; border-radius: 10px; }
.dl-picked figure[role=button] { cursor: pointer; }
.dl-picked figure[role=button]:hover { box-shadow: 0 0 0 1px var(--border-color-primary); }
.dl-picked figure[role=button][aria-pressed=true] { box-shadow: 0 0 0 2px var(--color-accent); }
.dl-picked figure:focus-visible { outline: 2px solid var(--color-accent); outline-offset: 2px; }
"""

# Pictures of a model that is here are buttons. `choose` is told the number of the one that was pressed.
SCRIPT = """
const figures = () => [...element.querySelectorAll('.dl-picked[data-chosen] figure')];
const press = (chosen) => {
  for (const figure of figures()) figure.setAttribute('aria-pressed', String(figure === chosen));
};
const prepare = () => {
  const pictures = figures();
  for (const figure of pictures) {
    figure.tabIndex = 0;
    figure.setAttribute('role', 'button');
    figure.setAttribute('aria-label', `${figure.querySelector('img').alt}: draw it again in Explore`);
  }
  press(pictures[Number(pictures[0]?.closest('.dl-picked').dataset.chosen || -1)]);
};
const choose = (event) => {
  const figure = event.target.closest('figure[role=button]');
  if (!figure) return;
  event.preventDefault();
  press(figure);
  trigger('choose', { picture: figures().indexOf(figure) });
};
element.addEventListener('click', choose);
element.addEventListener('keydown', (event) => {
  if (event.key === 'Enter' || event.key === ' ') choose(event);
});
watch('value', prepare);
prepare();
"""
FOLLOWED = (
    "Explore is set to draw the first of these again, if its seed is kept; press another one to draw that."
)
WAITS = "Press a picture to draw it again in Explore."


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


def pick_of(cell: Cell) -> str:
    """A cell as the page's address names it, within its family."""
    guidance = guidance_text((cell.guidance_scale, cell.guidance_interval))
    return f"{cell.model},{cell.steps},{cell.sampler},{guidance},{cell.cache_every}"


def cell_of(family: Family | None, pick: Any) -> Cell | None:
    """The cell that is named so, whatever is sent as a name; None if there is none."""
    return next((cell for cell in (family.cells if family else ()) if pick_of(cell) == pick), None)


def chosen_picture(cell: Cell, sent: Any) -> int:
    """Which of a cell's pictures was pressed. sent: what the browser says of it.

    Raises:
        gr.Error: there is no such picture.
    """
    number = sent.get("picture") if isinstance(sent, dict) else None
    if type(number) is int and number in range(len(strip(cell.thumbnails))):
        return number
    raise gr.Error("no such picture; press the point again", print_exception=False)


def sent(studio: Studio, cell: Cell, values: Sequence[Any], picture: int = 0) -> list[Any]:
    """Updates of `Explore.outputs` that set it to draw one of a cell's pictures first.

    values: what Explore's controls have now.
    """
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
        label=picture % max(len(rung.classes), 1),
        seed=cell.seed + picture,
    )


def cell_html(family: Family, cell: Cell, told: str = FOLLOWED, chosen: int | None = 0) -> str:
    """A cell's pictures, and all that is known of it.

    told: whether Explore has followed. chosen: which picture it has; -1 if none yet, None if it cannot.
    """
    title, *lines = details(family, cell)
    text = f"{' · '.join(lines)}. {told}"
    try:
        pictures = strip(cell.thumbnails)
    except ValueError as error:
        shown = none_html(str(error))
    else:
        names = titles(family.classes) if len(family.classes) >= len(pictures) else ()
        captions = [
            f"{names[i] if names else f'picture {i + 1}'} · seed {cell.seed + i}"
            for i in range(len(pictures))
        ]
        shown = figure_html(pictures, captions)
    live = "" if chosen is None else f' data-chosen="{chosen}"'
    head = f"<h3>{html.escape(title)}</h3><p>{html.escape(text)}</p>"
    return f'<div class="dl-picked"{live}>{head}{shown}</div>'


def pictured(studio: Studio, family: Family, cell: Cell, differs: bool, restored: bool = False) -> str:
    """A picked point as the page shows it, and whether Explore follows.

    differs: the page has other weights of its model. restored: it was picked by an address, which sets
    Explore too.
    """
    if reason := unfit(studio, cell):
        return cell_html(family, cell, f"Explore has not followed: {reason}.", None)
    told = WAITS if restored else FOLLOWED
    if differs:
        told = (
            f"The page has other weights of {cell.model} than drew these: Explore, set to the same, draws "
            "other pictures."
        )
    return cell_html(family, cell, told, -1 if restored else 0)


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
