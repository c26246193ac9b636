"""Curves as inline SVG: raw values faint, smoothed ones over them; colours are the page's."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 560, 260  # units of the drawing; it scales with the page
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 10, 30  # margins
POINTS = 600  # drawn of a curve at the most: means of stretches
SMOOTHING = 0.06  # of the run: the width of the average that the strong line shows
NARROWEST = 1.05  # ratio that a logarithmic axis spans at the least: marks with the same label tell nothing
MARKS = 3  # on an axis, at the least

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """One line: its name, points by step, and which of the page's colours it has."""

    name: str
    points: Points
    colour: int = 0
    smooth: bool = True  # False: it is exact as it is


@dataclass(frozen=True)
class Axis:
    """From values to places: linear or logarithmic."""

    low: float
    high: float
    log: bool = False
    ticks: list[float] = field(default_factory=list)

    def place(self, value: float) -> float:
        """0 at low, 1 at high."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def axis(values: Sequence[float], log: bool = False) -> Axis:
    """An axis with room for all values and some five round ticks.

    log: logarithmic, whatever the range; linear all the same where a value is not above 0.
    """
    low, high = min(values), max(values)
    if log and low > 0:
        pad = max((high / low) ** 0.04, math.sqrt(NARROWEST * low / high))
        low, high = low / pad, high * pad
        return Axis(low, high, True, _log_ticks(low, high))
    if high - low <= 1e-9 * max(abs(high), abs(low)):
        pad = abs(high) * 0.1 or 1.0
        low, high = low - pad, high + pad
    pad = (high - low) * 0.04
    low, high = (0.0 if 0 <= low < 0.3 * high else low - pad), high + pad
    return Axis(low, high, False, _even_ticks(low, high))


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten; where these are too few, 1-2-5, then finer ones, and in a narrow range even steps."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, (last - first) // 5)
    for digits in ((1,), (1, 2, 5), (1, 2, 3, 5, 7)):
        marks = [digit * 10.0**power for power in range(first, last + 1, every) for digit in digits]
        marks = [mark for mark in marks if low <= mark <= high]
        if len(marks) >= MARKS:
            return marks
    return _even_ticks(low, high)


def _even_ticks(low: float, high: float) -> list[float]:
    """Some five multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / 5
    size = 10.0 ** math.floor(math.log10(rough))
    marks: list[float] = []
    for step in (size * digit for digit in (10, 5, 2, 1, 0.5) if size * digit < 2 * rough):  # coarse to fine
        if len(marks) < MARKS:
            first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
            marks = [n * step for n in range(first, last + 1)]
    return marks


def thinned(points: Points, most: int = POINTS) -> list[tuple[float, float]]:
    """No more than so many points: means of equally many neighbours."""
    size = math.ceil(len(points) / most) if points else 1
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def smoothed(points: Points) -> list[tuple[float, float]]:
    """An average over the neighbours within SMOOTHING of the whole range, alike to both sides."""
    if len(points) < 8:
        return list(points)
    first, last = points[0][0], points[-1][0]
    places, sums = [x for x, _ in points], [0.0]
    for _, y in points:
        sums.append(sums[-1] + y)
    out = []
    for x in places:
        near = min(SMOOTHING / 2 * (last - first), x - first, last - x)  # at the ends too
        begin, end = bisect_left(places, x - near), bisect_right(places, x + near)
        out.append((x, (sums[end] - sums[begin]) / (end - begin)))
    return out


def number(value: float) -> str:
    """Short: 0.00012 -> 1.2e-4, 20000 -> 20k."""
    if value == 0:
        return "0"
    size = abs(value)
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if size >= scale * (1 if scale > 1e3 else 10):
            return f"{value / scale:.4g}{unit}"
    if size < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.4g}"


@dataclass(frozen=True)
class Layout:
    """Where everything of a chart is, in units of the drawing."""

    across: Axis
    up: Axis
    lines: list[tuple[Curve, list[tuple[float, float]], list[tuple[float, float]]]]  # raw and smoothed places

    def x(self, step: float) -> float:
        """Of a step."""
        return LEFT + self.across.place(step) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Of a value; small is low."""
        return HEIGHT - BOTTOM - self.up.place(value) * (HEIGHT - TOP - BOTTOM)


def layout(curves: Sequence[Curve], log: bool = False) -> Layout | None:
    """Axes that hold all curves, and their places; None where no curve has a point."""
    many = [(curve, thinned(curve.points)) for curve in curves if curve.points]
    if not many:
        return None
    steps = {x for _, points in many for x, _ in points}
    across = axis([0.0, *steps]) if len(steps) > 1 else Axis(0, 2 * max(steps) or 1, False, list(steps))
    found = Layout(across, axis([y for _, points in many for _, y in points], log), [])
    for curve, points in many:
        raw = [(found.x(x), found.y(y)) for x, y in points]
        # Places are averaged, not values: over a logarithmic axis one high value would lift its neighbours.
        found.lines.append((curve, raw, smoothed(raw) if curve.smooth else raw))
    return found


def chart(
    title: str, curves: Sequence[Curve], log: bool = False, marks: Sequence[float] = (), unit: str = ""
) -> str:
    """A figure of HTML with its SVG, or "" where no curve has a point.

    marks: steps with a vertical line, such as resumptions.
    """
    drawn = layout(curves, log)
    if drawn is None:
        return ""
    parts = []
    for value in drawn.up.ticks:
        y = drawn.y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>')
    for value in drawn.across.ticks:
        x = drawn.x(value)
        end = "end" if x > WIDTH - 40 else "middle"
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 9}" text-anchor="{end}">{number(value)}</text>')
    for step in (step for step in marks if drawn.across.low <= step <= drawn.across.high):
        x = drawn.x(step)
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    for curve, raw, smooth in drawn.lines:
        if len(raw) == 1:
            (x, y) = raw[0]
            parts.append(f'<circle class="c{curve.colour}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>')
            continue
        if raw != smooth:
            parts.append(f'<polyline class="raw c{curve.colour}" points="{_places(raw)}"/>')
        parts.append(f'<polyline class="c{curve.colour}" points="{_places(smooth)}"/>')
    keys = "".join(
        f'<span class="key"><i class="c{curve.colour}"></i>{escape(curve.name)} '
        f"<b>{number(curve.points[-1][1])}</b></span>"
        for curve, _, _ in drawn.lines
    )
    last = ", ".join(f"{curve.name} {number(curve.points[-1][1])}" for curve, _, _ in drawn.lines)
    label = escape(f"{title} over steps; last: {last}", quote=True)
    scale = " (logarithmic)" if drawn.up.log else ""
    return (
        f"<figure><figcaption>{escape(title)}<small>{escape(unit)}{scale}</small></figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
        f'<div class="keys">{keys}</div></figure>'
    )


def _places(points: Points) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
