"""The report as one picture, for a message or a README: curves, and the last grid of samples."""

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from train.curves import BOTTOM, HEIGHT, LEFT, RIGHT, WIDTH, Curve, layout, number
from train.history import History

COLUMNS, GAP, HEAD, KEYS = 3, 16, 96, 42  # charts in a row; pixels: between them, above all, under each
TITLE = 24  # pixels above each chart
GRID_SIDE = 700  # longest side of the samples, pixels
FINE = 2  # drawn so many times larger and reduced: smooth lines
PAPER, CARD, INK, FAINT, LINE = "#ffffff", "#f6f6f8", "#1c1c22", "#63636e", "#dcdce2"
COLOURS = ("#4f46e5", "#0d9488", "#c2410c", "#be185d", "#4d7c0f", "#0369a1")
PALE = ("#ccc9f7", "#badcda", "#eac7b7", "#e9bfd2", "#cbd7bc", "#b7cddc")  # the same, as raw values have them


def draw(
    history: History, facts: Mapping[str, str], figures: Sequence[tuple[str, list[Curve], bool, str]]
) -> Image.Image:
    """A run's name, facts, charts in rows, and its last grid, on white."""
    rows = -(-len(figures) // COLUMNS)
    cell = TITLE + HEIGHT + KEYS
    width = COLUMNS * (WIDTH + GAP) + GAP
    grid = _last_grid(history)
    height = HEAD + rows * (cell + GAP) + (grid.height + TITLE + GAP if grid else 0)
    image = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(image)
    pen.text((GAP, 12), history.name, INK, ImageFont.load_default(26))
    about = f"{history.settings.get('model')} on {history.settings.get('data')}"
    known = "   ".join(f"{name}: {value}" for name, value in facts.items())
    pen.text((GAP, 46), _fitting(about, width - 2 * GAP, 15), FAINT, ImageFont.load_default(15))
    pen.text((GAP, 68), _fitting(known, width - 2 * GAP, 14), INK, ImageFont.load_default(14))
    for i, (title, curves, log, unit) in enumerate(figures):
        corner = (GAP + i % COLUMNS * (WIDTH + GAP), HEAD + i // COLUMNS * (cell + GAP))
        image.paste(_chart(title, curves, log, unit), corner)
    if grid:
        top = HEAD + rows * (cell + GAP)
        pen.text((GAP, top), f"after step {history.samples[-1][0]:,}", INK, ImageFont.load_default(15))
        image.paste(grid, (GAP, top + TITLE))
    return image


def _last_grid(history: History) -> Image.Image | None:
    if not history.samples:
        return None
    try:
        with Image.open(history.samples[-1][1]) as image:
            grid = image.convert("RGB")
    except OSError:  # being written, or broken: the curves are still worth a picture
        return None
    grid.thumbnail((GRID_SIDE, GRID_SIDE), Image.Resampling.LANCZOS)
    return grid


def _chart(title: str, curves: Sequence[Curve], log: bool, unit: str) -> Image.Image:
    image = Image.new("RGB", (WIDTH * FINE, (TITLE + HEIGHT + KEYS) * FINE), CARD)
    pen = ImageDraw.Draw(image)
    font, bold = (ImageFont.load_default(size * FINE) for size in (12, 15))
    drawn = layout(curves, log)
    assert drawn is not None  # `figures` are of curves with points
    notes = ", ".join(filter(None, [unit, "logarithmic" if drawn.up.log else ""]))
    pen.text((10 * FINE, 4 * FINE), title + (f"  ({notes})" if notes else ""), INK, bold)

    def at(place: tuple[float, float]) -> tuple[float, float]:
        return place[0] * FINE, (place[1] + TITLE) * FINE

    for value in drawn.up.ticks:
        y = drawn.y(value)
        pen.line([at((LEFT, y)), at((WIDTH - RIGHT, y))], LINE, FINE)
        pen.text(at((LEFT - 6, y)), number(value), FAINT, font, anchor="rm")
    for value in drawn.across.ticks:
        pen.text(at((drawn.x(value), HEIGHT - BOTTOM + 6)), number(value), FAINT, font, anchor="ma")
    for curve, raw, _ in drawn.lines:
        pen.line([at(place) for place in raw], PALE[curve.colour], FINE)
    for curve, raw, smooth in drawn.lines:
        pen.line([at(place) for place in smooth], COLOURS[curve.colour], 2 * FINE, joint="curve")
        if len(raw) == 1:
            pen.circle(at(raw[0]), 4 * FINE, COLOURS[curve.colour])
    x, y = 10.0, TITLE + HEIGHT + 2.0
    for curve, _, _ in drawn.lines:
        text = _fitting(f"{curve.name} {number(curve.points[-1][1])}", WIDTH - 40, 12)
        wide = font.getlength(text) / FINE + 34
        if x > 10 and x + wide > WIDTH:
            x, y = 10.0, y + 18
        pen.line(
            [(x * FINE, (y + 7) * FINE), ((x + 12) * FINE, (y + 7) * FINE)], COLOURS[curve.colour], 3 * FINE
        )
        pen.text(((x + 17) * FINE, y * FINE), text, INK, font)
        x += wide
    return image.resize((WIDTH, image.height // FINE), Image.Resampling.LANCZOS)


def _fitting(text: str, width: float, size: int) -> str:
    """As much of a text as fits into so many pixels."""
    font = ImageFont.load_default(size)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
