"""A chart of points and lines as inline SVG: hover, keyboard and click show what a point is."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ui.labels import LETTER, Box, Placed, place_labels

CIRCLE = "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0Z"
SQUARE = "M-4.5,-4.5H4.5V4.5H-4.5Z"
TRIANGLE = "M0,-5.5L5.5,4.5H-5.5Z"
DIAMOND = "M0,-6L6,0L0,6L-6,0Z"
PENTAGON = "M0,-6L5.7,-1.9L3.5,4.9H-3.5L-5.7,-1.9Z"
WEDGE = "M0,5.5L5.5,-4.5H-5.5Z"
CROSS = "M-1.9,-5.5H1.9V-1.9H5.5V1.9H1.9V5.5H-1.9V1.9H-5.5V-1.9H-1.9Z"
STAR = "M0,-6.5L1.6,-2.2L6.2,-2L2.6,0.8L3.8,5.3L0,2.7L-3.8,5.3L-2.6,0.8L-6.2,-2L-1.6,-2.2Z"
HOURGLASS = "M-5,-5H5L-5,5H5Z"
FAINT, FIRM, DASHED, DOTTED, BAND = "faint", "firm", "dashed", "dotted", "band"  # lines
WHISKER = "whisker"


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points that look alike, and are shown and hidden together."""

    key: str
    title: str  # in the legend
    tip: str  # what that is, for a reader who has not met it
    path: str  # SVG path around 0, 0; "": a line without points
    colour: str  # one of chart_behaviour.COLOURS
    hollow: bool = False
    line: str = ""  # that joins its points in their order: FAINT, FIRM, ...
    of: tuple[str, ...] = ()  # keys of the series that it is hidden with; it is not in the legend itself

    @property
    def groups(self) -> str:
        """Keys of what the legend hides it with, for `data-family`."""
        return " ".join(self.of or (self.key,))


@dataclass(frozen=True)
class Point:
    """What lies at x, y."""

    series: str  # key
    x: float
    y: float
    label: str  # short; left out where there is no room
    lines: tuple[str, ...]  # of the tooltip, the name first
    pick: str = ""  # what a listener of the event "pick" is told of it
    y_interval: tuple[float, float] | None = None  # in which y surely lies


@dataclass(frozen=True)
class Line:
    """A line of its own, through places that need be no points."""

    series: str  # key
    through: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Axes:
    """Ranges, ticks and titles; the ranges end at the first and last value, those of a log axis above 0."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    x_ticks: tuple[float, ...]
    y_ticks: tuple[float, ...]
    x_title: str
    y_title: str
    summary: str  # for readers who do not see it
    y_log: bool = True


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
        across = _share(x, axes.x_range, log=True) * (plot.right - plot.left)
        return plot.left + across, plot.bottom - _share(y, axes.y_range, axes.y_log) * (
            plot.bottom - plot.top
        )

    def fitted(self, axes: Axes) -> "Canvas":
        """With room for the longest number beside the upright axis."""
        longest = max((len(number(value)) for value in axes.y_ticks), default=0)
        return replace(self, left=max(self.left, math.ceil(BESIDE + longest * self.font * DIGIT)))


BESIDE = 22  # of an upright axis: its title, and the gaps
NIB = 4.0  # width of a line, and what is left free around it
DIGIT = 0.56  # width of a digit, in font sizes

# One is shown, the other hidden, by the width of the page: scaled down, text would be too small to read.
CANVASES = (
    Canvas("wide", 960, 470, 12.5, leaders=True),
    Canvas("narrow", 350, 430, 11.5, leaders=False, left=42),
)


def _share(value: float, bounds: tuple[float, float], log: bool) -> float:
    low, high, value = map(math.log10, (*bounds, value)) if log else (*bounds, value)
    return (value - low) / (high - low)


def number(value: float) -> str:
    """As it stands beside an axis: 0.001, 20, 3,000."""
    return f"{value:,.10f}".rstrip("0").rstrip(".") if abs(value) < 1e-4 else f"{value:,g}"


def log_ticks(low: float, high: float) -> tuple[float, ...]:
    """Round numbers between two bounds above 0: as coarse as they can be and still four, or the finest."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: tuple[float, ...] = ()
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        every = (float(f"{factor}e{exponent}") for exponent in exponents for factor in factors)
        found = tuple(value for value in every if low <= value <= high)
        if len(found) >= 4:
            break
    return found


def linear_ticks(high: float) -> tuple[float, ...]:
    """Round numbers from 0 to a bound, some five of them."""
    step = 10 ** math.floor(math.log10(high / 4))
    step *= next(factor for factor in (5, 2, 1) if high / (step * factor) >= 4)
    return tuple(float(f"{step * count:.6g}") for count in range(int(high / step * (1 + 1e-9)) + 1))


def chart_html(
    series: Sequence[Series],
    points: Sequence[Point],
    axes: Axes,
    lines: Sequence[Line] = (),
    walk_series: bool = False,
    of: str = "",
    hidden: Sequence[str] | None = None,
) -> str:
    """Legend, drawings for wide and narrow pages, tooltip. Wants CSS and SCRIPT of `chart_behaviour`.

    walk_series: arrows right and left go along a series, up and down to the nearest point of another; else
    each to the nearest point that way, whatever it is of.
    of: what it is a chart of. In the next chart of the same, what a reader has hidden stays so.
    hidden: keys of what is hidden at first, instead; the component's event "legend" tells when that changes.
    """
    legend = "".join(
        f'<button type="button" class="dl-key dl-{one.colour}" data-key="{one.key}" '
        f'aria-pressed="true" title="{html.escape(one.tip, quote=True)}">'
        f'<svg width="14" height="14" viewBox="-7 -7 14 14" aria-hidden="true">{_sample(one)}</svg>'
        f"{html.escape(one.title)}</button>"
        for one in series
        if not one.of
    )
    drawings = "".join(_drawing(canvas.fitted(axes), series, points, axes, lines) for canvas in CANVASES)
    walk = (" data-walk" if walk_series else "") + f' data-of="{html.escape(of, quote=True)}"'
    if hidden is not None:
        walk += f' data-hidden="{html.escape(" ".join(hidden), quote=True)}"'
    return (
        f'<div class="dl-chart"{walk}><div class="dl-legend" role="group" aria-label="show or hide">{legend}'
        f'</div><div class="dl-plot">{drawings}<div class="dl-tip" role="status" hidden></div></div></div>'
    )


def _mark(series: Series) -> str:
    return f'<path class="dl-mark{" dl-hollow" if series.hollow else ""}" d="{series.path}"/>'


def _sample(series: Series) -> str:
    return _mark(series) if series.path else f'<path class="dl-line dl-{series.line}" d="M-5,0H5"/>'


def _drawing(
    canvas: Canvas,
    series: Sequence[Series],
    points: Sequence[Point],
    axes: Axes,
    lines: Sequence[Line],
) -> str:
    places = [canvas.at(axes, point.x, point.y) for point in points]
    of = {one.key: one for one in series}
    drawn = [(of[line.series], [canvas.at(axes, x, y) for x, y in line.through]) for line in lines]
    for one in series:
        if one.line and one.path:
            own = [place for point, place in zip(points, places, strict=True) if point.series == one.key]
            drawn.append((one, own))
    parts = [_axes(canvas, axes)] + [_line(one, through) for one, through in drawn]
    whiskers = [(of[point.series], _whisker(canvas, axes, point)) for point in points if point.y_interval]
    covered = [box for one, through in drawn if one.line != FAINT for box in _along(through)]
    covered += [box for _, through in whiskers for box in _along(through)]
    names = [point.label for point in points]
    labels = place_labels(places, names, canvas.plot, canvas.font, canvas.leaders, covered)
    parts += [_line(replace(one, line=WHISKER), through) for one, through in whiskers]
    marks = []
    for i, (point, (x, y), label) in enumerate(zip(points, places, labels, strict=True)):
        one = of[point.series]
        name = html.escape("; ".join(point.lines), quote=True)
        tip = html.escape("\n".join(point.lines), quote=True).replace("\n", "&#10;")
        pick = f' data-pick="{html.escape(point.pick, quote=True)}"' if point.pick else ""
        marks.append(
            f'<g class="dl-point dl-{one.colour}" data-family="{one.groups}" data-series="{one.key}" '
            f'data-tip="{tip}"{pick} role="button" aria-pressed="false" aria-label="{name}" '
            f'tabindex="{-1 if i else 0}" transform="translate({x:.1f} {y:.1f})">{_mark(one)}</g>'
        )
        if label:
            parts.append(_label(canvas, point, one, (x, y), label))
    return (
        f'<svg class="dl-{canvas.name}" viewBox="0 0 {canvas.width} {canvas.height}" role="group" '
        f'aria-label="{html.escape(axes.summary, quote=True)}" font-size="{canvas.font}">'
        f"{''.join(parts)}{''.join(marks)}</svg>"
    )


def _along(places: Sequence[tuple[float, float]]) -> list[Box]:
    """Small boxes that together cover a line."""
    boxes = []
    for (x1, y1), (x2, y2) in pairwise(places):
        count = math.ceil(math.hypot(x2 - x1, y2 - y1) / NIB) or 1
        for i in range(count + 1):
            x, y = x1 + (x2 - x1) * i / count, y1 + (y2 - y1) * i / count
            boxes.append(Box(x - NIB / 2, y - NIB / 2, x + NIB / 2, y + NIB / 2))
    return boxes


def _whisker(canvas: Canvas, axes: Axes, point: Point) -> list[tuple[float, float]]:
    """Ends of the upright line over a point's interval, as far as the drawing goes."""
    least, most = axes.y_range
    return [canvas.at(axes, point.x, min(max(y, least), most)) for y in point.y_interval or ()]


def _line(series: Series, places: Sequence[tuple[float, float]]) -> str:
    through = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return (
        f'<polyline class="dl-line dl-{series.line} dl-{series.colour}" data-family="{series.groups}" '
        f'points="{through}"/>'
    )


def _label(canvas: Canvas, point: Point, series: Series, at: tuple[float, float], label: Placed) -> str:
    lead = ""
    if label.leader:
        (of_x, of_y), (end_x, end_y) = at, label.leader
        lead = f'<line x1="{of_x:.1f}" y1="{of_y:.1f}" x2="{end_x:.1f}" y2="{end_y:.1f}"/>'
    x = {1: label.box.left, 0: (label.box.left + label.box.right) / 2, -1: label.box.right}[label.side]
    anchor = {1: "start", 0: "middle", -1: "end"}[label.side]
    baseline = label.box.bottom - canvas.font * 0.26
    text, own = html.escape(point.label), " dl-own" if series.line == FIRM else ""
    return (
        f'<g class="dl-label dl-{series.colour}{own}" data-family="{series.groups}" aria-hidden="true">{lead}'
        f'<text x="{x:.1f}" y="{baseline:.1f}" text-anchor="{anchor}">{text}</text></g>'
    )


def _axes(canvas: Canvas, axes: Axes) -> str:
    plot, parts = canvas.plot, []
    written = 0.0  # up to where the numbers beneath the axis reach
    for value in axes.x_ticks:
        x, text = canvas.at(axes, value, axes.y_range[0])[0], number(value)
        parts.append(f'<line x1="{x:.1f}" y1="{plot.top}" x2="{x:.1f}" y2="{plot.bottom}"/>')
        half = len(text) * canvas.font * LETTER / 2
        if x - half > written:
            parts.append(f'<text x="{x:.1f}" y="{plot.bottom + 16}" text-anchor="middle">{text}</text>')
            written = x + half + 4
    for value in axes.y_ticks:
        y = canvas.at(axes, axes.x_range[0], value)[1]
        parts.append(f'<line x1="{plot.left}" y1="{y:.1f}" x2="{plot.right}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{plot.left - 6}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>')
    across, down = (plot.left + plot.right) / 2, (plot.top + plot.bottom) / 2
    parts.append(
        f'<text x="{across:.1f}" y="{canvas.height - 8}" text-anchor="middle">'
        f"{html.escape(axes.x_title)}</text>"
        f'<text transform="translate(13 {down:.1f}) rotate(-90)" text-anchor="middle">'
        f"{html.escape(axes.y_title)}</text>"
    )
    return f'<g class="dl-axes" aria-hidden="true">{"".join(parts)}</g>'
