"""A grid as the page shows it: a table of pictures, each with what it cost and what it looks like."""

import html

import numpy as np
from PIL import Image

from dit.pictures import png, sheet_of
from ui import costs
from ui.grid import Cell, Grid
from ui.judge import Verdict
from ui.pictures import data_url
from ui.several import Drawn

SHOWN = 256  # pixels across of the picture of a cell, at most: the page gets the whole grid with each update

CSS = """
#grid-canvas .prose { overflow-x: auto; padding-bottom: 4px; }
#grid-canvas .prose:focus-visible { outline: 2px solid var(--color-accent); outline-offset: 2px; }
.dl-grid { border-collapse: separate; border-spacing: 6px; margin: 0; font-size: 12px; border: 0; }
.dl-grid + p { position: sticky; left: 0; margin: 4px 2px; font-size: 12px;
  color: var(--dl-faint); }
.dl-grid th, .dl-grid td { border: 0; padding: 0; vertical-align: top; background: none; }
.dl-grid thead th { text-align: center; font-weight: 600; padding: 2px 4px; }
.dl-grid tbody th, .dl-grid thead th:first-child { position: sticky; left: 0; z-index: 1; text-align: left;
  background: var(--body-background-fill); width: 84px; min-width: 84px; max-width: 84px;
  padding: 4px 6px 0 0; font-weight: 600; overflow-wrap: anywhere; vertical-align: top; }
.dl-grid thead th:first-child { font-weight: 400; color: var(--dl-faint); }
.dl-cell { margin: 0; width: clamp(140px, calc((min(100vw, 1280px) - 240px) / var(--columns, 9)), 220px); }
.dl-cell .dl-blank { width: 100%; aspect-ratio: 1; }
.dl-cell img { width: 100%; height: auto; display: block; border-radius: 6px;
  image-rendering: pixelated; background: var(--background-fill-secondary); }
.dl-smooth .dl-cell img { image-rendering: auto; }
.dl-cell .dl-blank { border: 1px dashed var(--border-color-primary); display: grid; place-items: center;
  text-align: center; padding: 6px; overflow: hidden; font-size: 11px; line-height: 1.3;
  color: var(--dl-faint); background: none; box-sizing: border-box; overflow-wrap: anywhere; }
.dl-cell .dl-refused { border-style: solid; place-items: start; text-align: left; overflow-y: auto; }
.dl-cell.dl-now img, .dl-cell.dl-now .dl-blank { outline: 2px solid var(--color-accent); }
.dl-cell figcaption { line-height: 1.35; padding-top: 3px; font-variant-numeric: tabular-nums; }
.dl-cell figcaption span { display: block; color: var(--dl-faint); }
.dl-check b { font-weight: 700; }
.dl-cell figcaption .dl-right b { color: #15803d; }
.dl-cell figcaption .dl-wrong b { color: #b91c1c; }
.dark .dl-cell figcaption .dl-right b { color: #4ade80; }
.dark .dl-cell figcaption .dl-wrong b { color: #f87171; }
"""

# On the component that stays when the table in it is set anew, so that a scrolled table stays where it is.
SCRIPT = """
element.tabIndex = 0;
element.setAttribute('role', 'region');
element.setAttribute('aria-label', 'grid of pictures, scrolls sideways');
"""


class GridPage:
    """A grid's table, with the cells that are done kept as text: each is made once."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.done: dict[tuple[int, int], str] = {}  # by row and column

    def html(self) -> str:
        """The table as it is now."""
        plan = self.grid.plan
        heads = "".join(
            f'<th scope="col">{html.escape(plan.across.heading(i))}</th>'
            for i in range(len(plan.across.values))
        )
        rows, width = [], len(plan.across.values)
        for i in range(len(plan.down.values)):
            cells = "".join(f"<td>{self.cell(cell)}</td>" for cell in plan.cells[i * width : (i + 1) * width])
            rows.append(f'<tr><th scope="row">{html.escape(plan.down.heading(i))}</th>{cells}</tr>')
        notes = "<br>".join(map(html.escape, plan.notes))
        corner = f"{html.escape(plan.down.name)} ↓<br>{html.escape(plan.across.name)} →"
        soft = " dl-smooth" if any(cell.request.rung.latent for cell in plan.order) else ""
        return (
            f'<table class="dl-grid{soft}" style="--columns: {width}">'
            f'<thead><tr><th scope="col">{corner}</th>{heads}</tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table><p>{notes}</p>"
        )

    def cell(self, cell: Cell) -> str:
        """One cell: drawn, being drawn, still to be drawn, or why it cannot be."""
        place = cell.row, cell.column
        if place in self.done:
            return self.done[place]
        plan, job = self.grid.plan, self.grid.job
        where = html.escape(f"{plan.down.heading(cell.row)}, {plan.across.heading(cell.column)}", quote=True)
        if drawn := self.grid.drawn(cell):
            self.done[place] = figure(drawn, where)
            return self.done[place]
        if cell.request is None:
            why = html.escape(cell.refusal)
            return f'<div class="dl-cell"><div class="dl-blank dl-refused">{why}</div></div>'
        cost = f"{costs.gmacs(cell.macs)} GMACs"
        if self.grid.is_now(cell) and job.frame is not None:
            step = f"step {job.frame.index + 1} of {job.frame.steps}"
            picture = f'<img src="{source(job.frame.x0)}" alt="{where}, {step}" decoding="sync">'
            return (
                f'<figure class="dl-cell dl-now">{picture}<figcaption>{cost}'
                f"<span>{step}</span></figcaption></figure>"
            )
        return (
            '<figure class="dl-cell"><div class="dl-blank">to be drawn</div>'
            f"<figcaption>{cost}<span>about {costs.duration(cell.seconds)}</span></figcaption></figure>"
        )


def figure(drawn: Drawn, where: str, more: str = "") -> str:
    """A request's pictures, their costs and the class check. where: escaped. more: HTML of further lines."""
    looks = html.escape(drawn.verdict.text, quote=True) if drawn.verdict else ""
    alt = f"{where}: {looks}" if looks else where
    cost = f"{costs.gmacs(drawn.macs)} GMACs · {seconds(drawn.seconds).replace(' ', '&nbsp;')}"
    return (
        f'<figure class="dl-cell"><img src="{source(drawn.pictures)}" alt="{alt}" decoding="sync">'
        f"<figcaption>{cost}{more}{check_html(drawn.verdict)}</figcaption></figure>"
    )


def check_html(verdict: Verdict | None) -> str:
    """The class check, in a line; nothing where there is none."""
    if verdict is None:
        return ""
    kind = "right" if verdict.passed else "wrong"
    return f'<span class="dl-check dl-{kind}"><b>{verdict.mark}</b> {html.escape(verdict.text)}</span>'


def seconds(value: float) -> str:
    """Seconds as 9 ms, 0.25 s, 8.6 s or 13 min."""
    if value < 0.0995:
        return f"{1000 * value:.0f} ms"
    return f"{value:.2f} s" if value < 0.995 else costs.duration(value)


def source(pictures: np.ndarray) -> str:
    """Pictures (N, H, W, 3) uint8 as one small picture in a data: URL; several stand in a square."""
    image = sheet_of(list(pictures), columns=1 if len(pictures) == 1 else 2)
    if max(image.size) > SHOWN:
        image = image.resize([SHOWN * side // max(image.size) for side in image.size], Image.Resampling.BOX)
    return data_url(png(image))
