"""The figures of docs/findings.md, from a measured table: `python -m benchmarks.figures [--family solids]`.

Charts are the page's own, as SVG that follows the reader's light or dark; pictures are those that the sweep
kept.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import tyro
from PIL import Image, ImageDraw

from benchmarks.findings import DOCS, PLAIN, common_steps, compared, measured_models, of_model, three
from dit.files import atomic_write
from dit.measured import Cell, Family, load_family
from dit.weights import ZOO
from ui.chart_behaviour import COLOURS, DRAWING_CSS
from ui.grid_picture import FAINT, INK, font
from ui.measured_cell import strip
from ui.measured_chart import drawing
from ui.measured_choice import MACS, MODEL, PICTURE, Choice
from ui.measured_words import short_name

SVG = "http://www.w3.org/2000/svg"
GROUNDS = {  # variables of the page's theme -> on light, on dark
    "--background-fill-primary": ("#ffffff", "#0d1117"),
    "--body-text-color": ("#1f2937", "#f3f4f6"),
    "--body-text-color-subdued": ("#6b7280", "#9ca3af"),
    "--border-color-primary": ("#e5e7eb", "#30363d"),
}
SIDE, GAP, MARGIN, TEXT = 64, 6, 16, 14  # pixels: a picture, between rows, around, letters
BUDGETS = 3  # that are compared in pictures


def standalone(chart: str) -> str:
    """The wide drawing of a chart in the page as an SVG file: without what only the page's script reads."""
    found = re.search(r'<svg class="dl-wide".*?</svg>', chart, re.DOTALL)
    assert found is not None  # every chart has one
    root = ElementTree.fromstring(found[0])
    for element in root.iter():
        element.tag = f"{{{SVG}}}{element.tag}"
        for name in [*element.attrib]:
            if name.startswith("data-") or name in ("role", "tabindex", "aria-pressed"):
                del element.attrib[name]
    root.set("font-family", "system-ui, sans-serif")
    style = ElementTree.Element(f"{{{SVG}}}style")
    style.text = _style(0) + DRAWING_CSS + f"@media (prefers-color-scheme: dark) {{\n{_style(1)}}}\n"
    width, height = root.attrib["viewBox"].split()[2:]
    ground = ElementTree.Element(
        f"{{{SVG}}}rect", width=width, height=height, fill="var(--background-fill-primary)"
    )
    root[:0] = [style, ground]
    ElementTree.register_namespace("", SVG)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _style(place: int) -> str:
    """The page's variables and colours; place: 0 on light, 1 on dark."""
    grounds = "; ".join(f"{name}: {values[place]}" for name, values in GROUNDS.items())
    inks = (f".dl-{name} {{ --dl-ink: {values[place]}; }}\n" for name, values in COLOURS.items())
    return f"svg {{ {grounds}; }}\n{''.join(inks)}"


def charts(family: Family) -> dict[str, str]:
    """File name -> SVG: the trade-off, models at equal steps, and what reuse costs."""
    plain = Choice(PICTURE, MACS, PLAIN[0], (PLAIN[1], PLAIN[2]), (1,), max(common_steps(family)))
    drawn = {
        "trade-off": drawing(family, plain),
        "models": drawing(family, Choice(**vars(plain) | {"view": MODEL})),
    }
    if reused := compared(family, 3):
        caches = tuple(sorted({cell.cache_every for cell in reused}))
        drawn["caching"] = drawing(family, Choice(**vars(plain) | {"caches": caches}))
    return {f"{name}.svg": standalone(chart) for name, chart in drawn.items()}


def equal_budgets(family: Family) -> list[tuple[float, list[Cell]]]:
    """A few budgets in MACs a picture, each with every model's cell that comes nearest below it.

    The dearest model comes first. A budget is what some model's picture costs; those are taken of which most
    models can spend at least half, and that lie furthest apart.
    """
    models = [model.name for model in measured_models(family)][::-1]
    costs = sorted({cell.macs for name in models for cell in of_model(family, name)})
    rows = {cost: [cell for name in models if (cell := _within(family, name, cost))] for cost in costs}
    most = max(map(len, rows.values()))
    full = [cost for cost in costs if len(rows[cost]) == most]
    wanted = [full[0] * (full[-1] / full[0]) ** (i / (BUDGETS - 1)) for i in range(BUDGETS)]
    chosen = dict.fromkeys(min(full, key=lambda cost: abs(math.log(cost / budget))) for budget in wanted)
    return [(cost, rows[cost]) for cost in chosen]


def _within(family: Family, name: str, budget: float) -> Cell | None:
    """A model's dearest cell within a budget, if that is not less than half of it."""
    cells = [cell for cell in of_model(family, name) if budget / 2 <= cell.macs <= budget]
    return max(cells, key=lambda cell: cell.macs, default=None)


def pictures(family: Family, groups: Sequence[tuple[str, Sequence[Cell]]]) -> Image.Image:
    """Cells below each other: what each is on the left, one picture a class on the right; with headings."""
    names = [short_name(family, cell.model) for _, cells in groups for cell in cells]
    left = MARGIN + max(map(font(TEXT).getlength, [*names, "0.000 GMACs, 250 steps"])) + 3 * GAP
    row, head = SIDE + GAP, 3 * TEXT
    width = int(left) + len(family.classes) * SIDE + MARGIN
    height = 2 * MARGIN + sum(head + len(cells) * row for _, cells in groups)
    image = Image.new("RGB", (width, height), "white")
    draw, y = ImageDraw.Draw(image), MARGIN
    for title, cells in groups:
        draw.text((MARGIN, y + TEXT / 2), title, INK, font(TEXT + 2))
        y += head
        for cell in cells:
            said = [
                short_name(family, cell.model),
                f"{three(cell.macs / 1e9)} GMACs, {cell.steps} step{'s' * (cell.steps > 1)}",
                f"Frechet {three(cell.frechet)}",  # Pillow's own font has no é
            ]
            for i, text in enumerate(said):
                draw.text((MARGIN, y + 4 + i * (TEXT + 5)), text, FAINT if i else INK, font(TEXT))
            for i, pixels in enumerate(strip(cell.thumbnails)):
                one = Image.fromarray(pixels).resize((SIDE - 1, SIDE - 1), Image.Resampling.NEAREST)
                image.paste(one, (int(left) + i * SIDE, y))
            y += row
    return image


def main(family: str = "solids", out: Path = DOCS.parent) -> None:
    """Write the figures.

    Args:
        family: whose table in assets/zoo.
        out: folder.
    """
    measured = load_family(ZOO / f"{family}.json")
    out.mkdir(parents=True, exist_ok=True)
    for name, text in charts(measured).items():
        atomic_write(out / name, lambda temporary, text=text: temporary.write_text(text))
        print(out / name)
    groups = [(f"{three(budget / 1e9)} GMACs a picture", cells) for budget, cells in equal_budgets(measured)]
    path = out / "equal-budget.png"
    image = pictures(measured, groups)
    atomic_write(path, lambda temporary: image.save(temporary, "png", optimize=True))
    print(path)


if __name__ == "__main__":
    tyro.cli(main)
