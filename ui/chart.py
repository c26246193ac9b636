"""A scatter chart on two logarithmic axes, as inline SVG: hover, keyboard and click show what a point is."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ui.labels import LETTER, Box, Placed, place_labels

CIRCLE = "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0Z"
SQUARE = "M-4.5,-4.5H4.5V4.5H-4.5Z"
TRIANGLE = "M0,-5.5L5.5,4.5H-5.5Z"
DIAMOND = "M0,-6L6,0L0,6L-6,0Z"
PENTAGON = "M0,-6L5.7,-1.9L3.5,4.9H-3.5L-5.7,-1.9Z"


@dataclass(frozen=True)
class Family:
    """Points that look alike, and are shown and hidden together."""

    key: str
    title: str  # in the legend
    tip: str  # what that is, for a reader who has not met it
    path: str  # SVG path around 0, 0
    colour: str  # one of COLOURS
    hollow: bool = False
    joined: bool = False  # by a faint line, in their order


@dataclass(frozen=True)
class Point:
    """What lies at x, y (both above 0)."""

    family: str  # key
    x: float
    y: float
    label: str  # short; left out where there is no room
    lines: tuple[str, ...]  # of the tooltip, the name first


@dataclass(frozen=True)
class Axes:
    """Ranges, ticks and titles; the ranges end at the first and last value."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    x_ticks: tuple[float, ...]
    y_ticks: tuple[float, ...]
    x_title: str
    y_title: str
    summary: str  # for readers who do not see it


@dataclass(frozen=True)
class Canvas:
    """The size of a drawing in its own units, and what it leaves for the axes."""

    name: str
    width: int
    height: int
    font: float
    leaders: bool  # whether there is room for lines to labels further off
    left: int = 52
    bottom: int = 46

    @property
    def plot(self) -> Box:
        """Where points may lie."""
        return Box(self.left, 10, self.width - 12, self.height - self.bottom)

    def at(self, axes: Axes, x: float, y: float) -> tuple[float, float]:
        """Values to places."""
        plot = self.plot
        across = _share(x, axes.x_range) * (plot.right - plot.left)
        return plot.left + across, plot.bottom - _share(y, axes.y_range) * (plot.bottom - plot.top)


# One is shown, the other hidden, by the width of the page: scaled down, text would be too small to read.
CANVASES = (
    Canvas("wide", 960, 470, 12.5, leaders=True),
    Canvas("narrow", 350, 430, 11.5, leaders=False, left=42),
)


def _share(value: float, bounds: tuple[float, float]) -> float:
    low, high = map(math.log10, bounds)
    return (math.log10(value) - low) / (high - low)


def chart_html(families: Sequence[Family], points: Sequence[Point], axes: Axes) -> str:
    """Legend, drawings for wide and narrow pages, tooltip. Wants `CSS` and, on loading, `SCRIPT`."""
    legend = "".join(
        f'<button type="button" class="dl-key dl-{family.colour}" data-key="{family.key}" '
        f'aria-pressed="true" title="{html.escape(family.tip, quote=True)}">'
        f'<svg width="14" height="14" viewBox="-7 -7 14 14" aria-hidden="true">{_mark(family)}</svg>'
        f"{html.escape(family.title)}</button>"
        for family in families
    )
    drawings = "".join(_drawing(canvas, families, points, axes) for canvas in CANVASES)
    return (
        f'<div class="dl-chart"><div class="dl-legend" role="group" aria-label="show or hide">{legend}</div>'
        f'<div class="dl-plot">{drawings}<div class="dl-tip" role="status" hidden></div></div></div>'
    )


def _mark(family: Family) -> str:
    return f'<path class="dl-mark{" dl-hollow" if family.hollow else ""}" d="{family.path}"/>'


def _drawing(canvas: Canvas, families: Sequence[Family], points: Sequence[Point], axes: Axes) -> str:
    places = [canvas.at(axes, point.x, point.y) for point in points]
    labels = place_labels(places, [point.label for point in points], canvas.plot, canvas.font, canvas.leaders)
    of = {family.key: family for family in families}
    parts = [_axes(canvas, axes)]
    for family in families:
        if family.joined:
            own = [place for point, place in zip(points, places, strict=True) if point.family == family.key]
            for (x1, y1), (x2, y2) in pairwise(own):
                parts.append(
                    f'<line class="dl-join dl-{family.colour}" data-family="{family.key}" '
                    f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
                )
    marks = []
    for i, (point, (x, y), label) in enumerate(zip(points, places, labels, strict=True)):
        family = of[point.family]
        name = html.escape("; ".join(point.lines), quote=True)
        tip = html.escape("\n".join(point.lines), quote=True).replace("\n", "&#10;")
        marks.append(
            f'<g class="dl-point dl-{family.colour}" data-family="{family.key}" data-tip="{tip}" '
            f'role="button" aria-pressed="false" aria-label="{name}" tabindex="{-1 if i else 0}" '
            f'transform="translate({x:.1f} {y:.1f})">{_mark(family)}</g>'
        )
        if label:
            parts.append(_label(canvas, point, (x, y), label))
    return (
        f'<svg class="dl-{canvas.name}" viewBox="0 0 {canvas.width} {canvas.height}" role="group" '
        f'aria-label="{html.escape(axes.summary, quote=True)}" font-size="{canvas.font}">'
        f"{''.join(parts)}{''.join(marks)}</svg>"
    )


def _label(canvas: Canvas, point: Point, at: tuple[float, float], label: Placed) -> str:
    lead = ""
    if label.leader:
        (of_x, of_y), (end_x, end_y) = at, label.leader
        lead = f'<line x1="{of_x:.1f}" y1="{of_y:.1f}" x2="{end_x:.1f}" y2="{end_y:.1f}"/>'
    x = {1: label.box.left, 0: (label.box.left + label.box.right) / 2, -1: label.box.right}[label.side]
    anchor = {1: "start", 0: "middle", -1: "end"}[label.side]
    baseline = label.box.bottom - canvas.font * 0.26
    text = html.escape(point.label)
    return (
        f'<g class="dl-label" data-family="{point.family}" aria-hidden="true">{lead}'
        f'<text x="{x:.1f}" y="{baseline:.1f}" text-anchor="{anchor}">{text}</text></g>'
    )


def _axes(canvas: Canvas, axes: Axes) -> str:
    plot, parts = canvas.plot, []
    written = 0.0  # up to where the numbers beneath the axis reach
    for value in axes.x_ticks:
        x, text = canvas.at(axes, value, axes.y_range[0])[0], f"{value:,g}"
        parts.append(f'<line x1="{x:.1f}" y1="{plot.top}" x2="{x:.1f}" y2="{plot.bottom}"/>')
        half = len(text) * canvas.font * LETTER / 2
        if x - half > written:
            parts.append(f'<text x="{x:.1f}" y="{plot.bottom + 16}" text-anchor="middle">{text}</text>')
            written = x + half + 4
    for value in axes.y_ticks:
        y = canvas.at(axes, axes.x_range[0], value)[1]
        parts.append(f'<line x1="{plot.left}" y1="{y:.1f}" x2="{plot.right}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{plot.left - 6}" y="{y + 4:.1f}" text-anchor="end">{value:,g}</text>')
    across, down = (plot.left + plot.right) / 2, (plot.top + plot.bottom) / 2
    parts.append(
        f'<text x="{across:.1f}" y="{canvas.height - 8}" text-anchor="middle">'
        f"{html.escape(axes.x_title)}</text>"
        f'<text transform="translate(13 {down:.1f}) rotate(-90)" text-anchor="middle">'
        f"{html.escape(axes.y_title)}</text>"
    )
    return f'<g class="dl-axes" aria-hidden="true">{"".join(parts)}</g>'


COLOURS = {  # name -> on light, on dark; each at least 3:1 against the ground
    "blue": ("#0369a1", "#38bdf8"),
    "amber": ("#b45309", "#fbbf24"),
    "green": ("#047857", "#34d399"),
    "violet": ("#7c3aed", "#a78bfa"),
    "pink": ("#be185d", "#f472b6"),
    "slate": ("#475569", "#cbd5e1"),
}
CSS = """
.dl-chart { border: 1px solid var(--border-color-primary); border-radius: 10px; padding: 10px;
  background: var(--background-fill-primary); color: var(--body-text-color); max-width: 1216px; }
.dl-chart .dl-legend { display: flex; flex-wrap: wrap; gap: 6px; margin-bottom: 6px; }
.dl-chart .dl-legend .dl-key { display: inline-flex; align-items: center; gap: 5px; margin: 0; height: 26px;
  padding: 0 10px; border: 1px solid var(--border-color-primary); border-radius: 999px; background: none;
  box-shadow: none; color: var(--body-text-color); font-size: 12.5px; font-weight: 500; line-height: 1;
  cursor: pointer; }
.dl-chart .dl-legend .dl-key[aria-pressed=false] { opacity: .5; text-decoration: line-through; }
.dl-chart .dl-key:focus-visible { outline: 2px solid var(--color-accent); outline-offset: 2px; }
.dl-chart .dl-key svg { flex: none; overflow: visible; }
.dl-chart .dl-plot { position: relative; }
.dl-chart .dl-plot > svg { display: block; width: 100%; height: auto; touch-action: pan-y; }
.dl-chart .dl-plot > .dl-narrow { display: none; }
.dl-axes line { stroke: var(--border-color-primary); stroke-width: 1; }
.dl-axes text { fill: var(--body-text-color-subdued); }
.dl-mark { fill: var(--dl-ink); stroke: var(--background-fill-primary); stroke-width: 1; }
.dl-mark.dl-hollow { fill: var(--background-fill-primary); stroke: var(--dl-ink); stroke-width: 1.8; }
.dl-join { stroke: var(--dl-ink); stroke-width: 1.5; opacity: .35; }
.dl-label text { fill: var(--body-text-color); stroke: var(--background-fill-primary); stroke-width: 3px;
  paint-order: stroke; stroke-linejoin: round; }
.dl-label line { stroke: var(--body-text-color-subdued); stroke-width: .8; }
.dl-point { cursor: pointer; outline: none; }
.dl-point.dl-shown .dl-mark, .dl-point:focus .dl-mark { stroke: var(--body-text-color); stroke-width: 2.5; }
.dl-chart .dl-off { display: none; }
.dl-tip { position: absolute; z-index: 5; max-width: min(300px, calc(100% - 8px)); width: max-content;
  padding: 8px 10px; border-radius: 8px; font-size: 12.5px; line-height: 1.45; pointer-events: none;
  background: var(--background-fill-secondary); color: var(--body-text-color);
  border: 1px solid var(--border-color-primary); box-shadow: 0 4px 14px rgb(0 0 0 / .25); }
.dl-tip[hidden] { display: none; }
.dl-tip.dl-pinned { border-color: var(--color-accent); border-width: 2px; }
.dl-tip b, .dl-tip span { display: block; }
@media (max-width: 760px) {
  .dl-chart { padding: 8px 4px; }
  .dl-chart .dl-legend { gap: 5px; }
  .dl-chart .dl-legend .dl-key { font-size: 11.5px; padding: 0 8px; }
  .dl-chart .dl-plot > .dl-wide { display: none; }
  .dl-chart .dl-plot > .dl-narrow { display: block; }
}
""" + "".join(
    f".dl-chart .dl-{name} {{ --dl-ink: {light}; }} .dark .dl-chart .dl-{name} {{ --dl-ink: {dark}; }}\n"
    for name, (light, dark) in COLOURS.items()
)

# Points lie close together: not the one that is hit is meant, but the nearest.
SCRIPT = """
const root = element.querySelector('.dl-chart'), plot = root.querySelector('.dl-plot');
const tip = root.querySelector('.dl-tip'), NEAR = 26;
let pinned = null;
const centre = (point) => {
  const box = point.querySelector('.dl-mark').getBoundingClientRect();
  return [box.left + box.width / 2, box.top + box.height / 2];
};
const visible = () => [...root.querySelectorAll('.dl-point')].filter((point) => point.getClientRects().length)
  .sort((a, b) => centre(a)[0] - centre(b)[0] || centre(a)[1] - centre(b)[1]);
const nearest = (event) => {
  let best = null, least = NEAR;
  for (const point of visible()) {
    const [x, y] = centre(point), distance = Math.hypot(x - event.clientX, y - event.clientY);
    if (distance < least) { best = point; least = distance; }
  }
  return best;
};
const show = (point) => {
  for (const other of root.querySelectorAll('.dl-shown')) other.classList.remove('dl-shown');
  tip.hidden = !point;
  if (!point) return;
  point.classList.add('dl-shown');
  tip.replaceChildren(...point.dataset.tip.split('\\n').map((line, i) => {
    const part = document.createElement(i ? 'span' : 'b');
    part.textContent = line;
    return part;
  }));
  tip.classList.toggle('dl-pinned', point === pinned);
  const frame = plot.getBoundingClientRect(), [x, y] = centre(point);
  const left = x - frame.left - tip.offsetWidth / 2, above = y - frame.top - tip.offsetHeight - 14;
  tip.style.left = `${Math.max(2, Math.min(left, frame.width - tip.offsetWidth - 2))}px`;
  tip.style.top = `${above < 0 ? y - frame.top + 14 : above}px`;
};
const pin = (point) => {
  if (pinned) pinned.setAttribute('aria-pressed', 'false');
  pinned = point && point !== pinned ? point : null;
  if (pinned) pinned.setAttribute('aria-pressed', 'true');
  show(pinned);
};
const rove = (point) => {  // one stop of the Tab key, from which arrows go on
  for (const other of root.querySelectorAll('.dl-point')) other.tabIndex = -1;
  if (point) point.tabIndex = 0;
};
plot.addEventListener('pointermove', (event) => {
  if (!pinned && event.pointerType === 'mouse') show(nearest(event));
});
plot.addEventListener('pointerleave', () => { if (!pinned) show(null); });
plot.addEventListener('click', (event) => pin(nearest(event)));
root.addEventListener('focusin', (event) => {
  const point = event.target.closest('.dl-point');
  if (point && !pinned && point.matches(':focus-visible')) show(point);
});
root.addEventListener('focusout', () => { if (!pinned) show(null); });
root.addEventListener('keydown', (event) => {
  const point = event.target.closest('.dl-point'), points = visible();
  if (event.key === 'Escape') pin(null);
  if (!point) return;
  const at = points.indexOf(point), last = points.length - 1;
  const to = {
    ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: last,
  };
  if (event.key === 'Enter' || event.key === ' ') { pin(point); if (!pinned) show(point); }
  else if (event.key in to) {
    const next = points[Math.max(0, Math.min(last, to[event.key]))];
    if (pinned) pin(null);
    rove(next);
    next.focus();
    show(next);
  } else return;
  event.preventDefault();
});
root.querySelector('.dl-legend').addEventListener('click', (event) => {
  const key = event.target.closest('.dl-key');
  if (!key) return;
  const on = key.getAttribute('aria-pressed') !== 'true';
  key.setAttribute('aria-pressed', String(on));
  for (const part of plot.querySelectorAll(`[data-family="${key.dataset.key}"]`)) {
    part.classList.toggle('dl-off', !on);
  }
  if (pinned && !pinned.getClientRects().length) pin(null);
  rove(visible()[0]);
});
new ResizeObserver(() => { if (!tip.hidden && pinned) show(pinned); rove(visible()[0]); }).observe(plot);
"""
