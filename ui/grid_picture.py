"""A grid to take away: one picture with a legend, and an archive of all pictures, settings inside both."""

import io
import json
import re
import zipfile
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dit.pictures import png, sheet_of
from ui import costs
from ui.grid import Cell, Grid
from ui.grid_html import seconds
from ui.several import Drawn

TEXT, HEAD = 13, 15  # sizes of letters, in pixels
LEAST, MOST = 160, 256  # pixels that a cell's pictures take across
GAP, MARGIN = 12, 20
LINES = 3  # of text below a picture: costs, then the class check
INK, FAINT, RIGHT, WRONG, EMPTY = "#111827", "#4b5563", "#15803d", "#b91c1c", "#f3f4f6"


def grid_png(grid: Grid) -> bytes:
    """The whole grid as one PNG: its axes, what is fixed, and below each cell what it cost and looks like."""
    return png(grid_image(grid), grid.describe())


def grid_image(grid: Grid) -> Image.Image:
    """The picture of `grid_png`."""
    plan = grid.plan
    small = {(cell.row, cell.column): _enlarged(drawn) for cell in plan.cells if (drawn := grid.drawn(cell))}
    side = max([LEAST, *(image.width for image in small.values())])
    tall = max((image.height for image in small.values()), default=LEAST)
    left = 150
    width = max(2 * MARGIN + left + len(plan.across.values) * (side + GAP), 520)
    title = f"{plan.down.name} (down) against {plan.across.name} (across)"
    told = [line for note in plan.notes for line in wrapped(note, TEXT, width - 2 * MARGIN)]
    notes = [*told, "GMACs: 10^9 multiply-accumulates of a picture. Made with DiT Lab."]
    line, below = TEXT + 4, LINES * (TEXT + 4) + 4
    heads = [wrapped(plan.across.heading(i), HEAD, side) for i in range(len(plan.across.values))]
    top = MARGIN + 2 * HEAD + 8 + max(map(len, heads)) * (HEAD + 4)
    row = tall + below + GAP
    height = top + len(plan.down.values) * row + len(notes) * line + MARGIN
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    draw.text((MARGIN, MARGIN), cut(title, HEAD + 3, width - 2 * MARGIN), INK, font(HEAD + 3))
    for i, lines in enumerate(heads):
        for j, text in enumerate(reversed(lines)):
            place = MARGIN + left + i * (side + GAP), top - (j + 1) * (HEAD + 4)
            draw.text(place, text, INK, font(HEAD))
    for i in range(len(plan.down.values)):
        for j, text in enumerate(wrapped(plan.down.heading(i), HEAD, left - GAP)[:6]):
            draw.text((MARGIN, top + i * row + j * (HEAD + 4)), text, INK, font(HEAD))
    for cell in plan.cells:
        x, y = MARGIN + left + cell.column * (side + GAP), top + cell.row * row
        picture = small.get((cell.row, cell.column))
        if picture:
            image.paste(picture, (x, y))
        else:
            draw.rectangle((x, y, x + side - 1, y + tall - 1), EMPTY)
        _write_below(draw, cell, grid.drawn(cell), (x, y, side, tall))
    for i, text in enumerate(notes):
        draw.text((MARGIN, top + len(plan.down.values) * row + i * line), text, FAINT, font(TEXT))
    return image


def _write_below(
    draw: ImageDraw.ImageDraw, cell: Cell, drawn: Drawn | None, place: tuple[int, int, int, int]
) -> None:
    """The text of a cell. place: left and top of its picture, its width and height."""
    x, y, side, tall = place
    if drawn is None:
        lines = wrapped(cell.refusal or "not drawn", TEXT, side - 12)
        for i, text in enumerate(lines[: (tall - 12) // (TEXT + 4)]):
            draw.text((x + 6, y + 6 + i * (TEXT + 4)), text, FAINT, font(TEXT))
        return
    cost = f"{costs.gmacs(drawn.macs)} GMACs, {seconds(drawn.seconds)}"
    written = [(cut(cost, TEXT, side), INK)]
    if drawn.verdict:
        word = "" if drawn.verdict.passed or len(drawn.pictures) > 1 else f"no {drawn.verdict.wanted}: "
        colour = RIGHT if drawn.verdict.passed else WRONG
        lines = wrapped(word + drawn.verdict.text, TEXT, side)
        kept = lines[: LINES - 1]
        if len(lines) > len(kept):
            kept[-1] = cut(kept[-1] + " ...", TEXT, side)
        written += [(text, colour) for text in kept]
    for i, (text, colour) in enumerate(written):
        draw.text((x, y + tall + 4 + i * (TEXT + 4)), text, colour, font(TEXT))


def _enlarged(drawn: Drawn) -> Image.Image:
    """A cell's pictures as one, each pixel enlarged by a whole number; larger ones made smaller."""
    columns = 1 if len(drawn.pictures) == 1 else 2
    across = columns * drawn.pictures.shape[2]
    image = sheet_of(list(drawn.pictures), columns, -(-LEAST // across))
    if max(image.size) > MOST + columns:
        image = image.resize([MOST * side // max(image.size) for side in image.size], Image.Resampling.BOX)
    return image


@lru_cache(8)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own."""
    return ImageFont.load_default(size)


def cut(text: str, size: int, width: float) -> str:
    """The text, or its beginning with dots, no wider than so many pixels."""
    if font(size).getlength(text) <= width:
        return text
    while text and font(size).getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def wrapped(text: str, size: int, width: float) -> list[str]:
    """The text in lines no wider than so many pixels; broken at spaces, else after a dash, else anywhere."""
    lines = [""]
    for part in re.findall(r"[^\s-]+-?|-|\s+", text):
        if font(size).getlength((lines[-1] + part).rstrip()) > width:
            lines.append("")
            part = part.lstrip()
        while font(size).getlength(part) > width:
            fits = max(n for n in range(1, len(part)) if n == 1 or font(size).getlength(part[:n]) <= width)
            lines[-1], part = part[:fits], part[fits:]
            lines.append("")
        lines[-1] += part
    return [line.rstrip() for line in lines if line.strip()] or [""]


def grid_zip(grid: Grid) -> bytes:
    """Every picture as a PNG with its settings inside, and settings.json with those of all."""
    file, described = io.BytesIO(), grid.describe()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:  # PNG is compressed already
        for cell, values in zip(grid.plan.cells, described["cells"], strict=True):
            if (drawn := grid.drawn(cell)) is None:
                continue
            names = []
            for i, (pixels, settings) in enumerate(zip(drawn.pictures, values["pictures"], strict=True)):
                titles = grid.plan.down.heading(cell.row), grid.plan.across.heading(cell.column)
                words = "-".join(re.sub(r"[^\w.+-]+", "_", title) for title in titles)
                number = f"{cell.row + 1:02}-{cell.column + 1:02}"
                names.append(f"{number}-{words[:80]}-seed-{drawn.request.settings.seeds[i]}.png")
                archive.writestr(names[-1], png(np.ascontiguousarray(pixels), settings))
            values["files"] = names
        archive.writestr("settings.json", json.dumps(described, indent=1))
    return file.getvalue()
