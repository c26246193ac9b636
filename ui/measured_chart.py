"""Measured cells as drawings: what a picture costs against what it is worth, and the same of a model."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import StatisticsError, linear_regression
from urllib.parse import quote

from dit.measured import Cell, Family, MeasuredModel, frontier
from ui import chart
from ui.chart import Axes, Line, Point, Series
from ui.measured_choice import MACS, PICTURE, Choice
from ui.measured_words import cost_of, details, distance, nothing, short_name

COLOURS = ("blue", "amber", "green", "pink", "violet", "red", "ink", "lime", "brown", "teal")
MARKS = (
    chart.CIRCLE,
    chart.SQUARE,
    chart.TRIANGLE,
    chart.DIAMOND,
    chart.WEDGE,
    chart.CROSS,
    chart.PENTAGON,
    chart.STAR,
    chart.HOURGLASS,
)
LINES = (chart.FIRM, chart.DASHED, chart.DOTTED)
MARGIN = 0.04  # of an axis, beyond the outermost points
FRONTIER = Series(
    key="frontier",
    title="efficient frontier",
    tip="through the points that no other beats: whatever is better than one of them costs more",
    path="",
    colour="slate",
    line=chart.BAND,
)
FIT = Series(
    key="fit",
    title="fitted line",
    tip="least squares of the distance on the logarithm of GMACs",
    path="",
    colour="slate",
    line=chart.DASHED,
)


def drawing(family: Family, choice: Choice, hidden: Sequence[str] | None = None) -> str:
    """The chart of a choice. Raises ValueError if nothing was measured there.

    hidden: see `chart.chart_html`.
    """
    draw = picture_chart if choice.view == PICTURE else model_chart
    return draw(family, choice, hidden)


def picture_chart(family: Family, choice: Choice, hidden: Sequence[str] | None = None) -> str:
    """What a picture costs against what it is worth: a line a model, a point a step count, the frontier."""
    cells = choice.cells(family)
    if not cells:
        raise ValueError(nothing(family, choice))
    best = frontier(cells, choice.cost)
    points = [
        _point(family, cell, cost_of(cell, choice.cost), _series_key(family, cell, choice), cell in best)
        for cell in cells
    ]
    points = _labelled(family, points, cells, choice)
    x_range, y_range = _log_range(p.x for p in points), _log_range(p.y for p in points)
    unit = "GMACs a picture" if choice.cost == MACS else "Seconds a picture"
    axes = Axes(
        x_range=x_range,
        y_range=y_range,
        x_ticks=chart.log_ticks(*x_range),
        y_ticks=chart.log_ticks(*y_range),
        x_title=f"{unit} (log); more steps to the right",
        y_title=f"{distance(family)} (log)",
        summary=f"{len(points)} measured settings of {family.name}, {unit} against Fréchet distance, both "
        "logarithmic. Left and right go along a model's steps, up and down to other models, Enter shows "
        "the pictures.",
    )
    line = Line(FRONTIER.key, tuple((cost_of(cell, choice.cost), cell.frechet) for cell in best))
    series = [*_series(family, cells, choice), FRONTIER]
    return chart.chart_html(series, points, axes, [line], walk_series=True, of=family.name, hidden=hidden)


def model_chart(family: Family, choice: Choice, hidden: Sequence[str] | None = None) -> str:
    """What a pass of a model costs against what its pictures are worth, at one step count, with a line."""
    cells = at_steps(family, choice)
    if not cells:
        raise ValueError(nothing(family, choice))
    points = [
        _point(family, cell, family.model(cell.model).macs / 1e9, _series_key(family, cell, choice), False)
        for cell in cells
    ]
    points = _labelled(family, points, cells, choice)
    first = [cell.cache_every == choice.caches[0] for cell in cells]
    pairs = [(point.x, point.y) for point, plain in zip(points, first, strict=True) if plain]
    x_range = _log_range(point.x for point in points)
    top = 1.12 * max(max(point.y_interval or (point.y,)) for point in points)
    through = fitted_line(pairs, x_range, top)
    axes = Axes(
        x_range=x_range,
        y_range=(0.0, top),
        x_ticks=chart.log_ticks(*x_range),
        y_ticks=chart.linear_ticks(top),
        x_title="GMACs of a forward pass (log)",
        y_title=distance(family),
        summary=f"{len(points)} models of {family.name}, GMACs of a forward pass against Fréchet distance at "
        f"{choice.steps} steps. Arrow keys go from point to point, Enter shows the pictures.",
        y_log=False,
    )
    series = _series(family, cells, choice)
    lines = [Line(FIT.key, through)] if through else []
    series += [FIT] if lines else []
    return chart.chart_html(series, points, axes, lines, of=family.name, hidden=hidden)


def at_steps(family: Family, choice: Choice) -> list[Cell]:
    """One cell a model and cache, at the chosen steps."""
    return [cell for cell in choice.cells(family) if cell.steps == choice.steps]


def fitted_line(
    pairs: Sequence[tuple[float, float]], x_range: tuple[float, float], top: float
) -> tuple[tuple[float, float], ...]:
    """Ends of the least-squares line of y on log10 x, within 0 and `top`; none below two different x."""
    try:
        slope, at_zero = linear_regression([math.log10(x) for x, _ in pairs], [y for _, y in pairs])
    except StatisticsError:
        return ()
    ends = []
    for bound in map(math.log10, x_range):
        y = at_zero + slope * bound
        inside = min(max(y, 0.0), top)
        ends.append((10 ** (bound if inside == y else (inside - at_zero) / slope), inside))
    return tuple(ends)


def _look(family: Family, name: str) -> tuple[str, str]:
    """Colour and mark of a model, the same in both views."""
    place = [model.name for model in family.models].index(name)
    return COLOURS[place % len(COLOURS)], MARKS[place % len(MARKS)]


def key_of(model: str) -> str:
    """Of a model's series: its name, so that what is hidden stays so; without blanks, commas and quotes."""
    return quote(model, safe="")


def keys(family: Family) -> list[str]:
    """Of all that the legend can hide in one of a family's charts."""
    caches = sorted({cell.cache_every for cell in family.cells})
    return [*(key_of(model.name) for model in family.models), *(f"c{every}" for every in caches),
            FRONTIER.key, FIT.key]  # fmt: skip


def _series_key(family: Family, cell: Cell, choice: Choice) -> str:
    plain = cell.cache_every == choice.caches[0]
    return key_of(cell.model) if plain else f"{key_of(cell.model)}:c{cell.cache_every}"


def _series(family: Family, cells: Sequence[Cell], choice: Choice) -> list[Series]:
    """One a model, and further ones, hollow, of those caches that are drawn beside the first."""
    measured = {(cell.model, cell.cache_every) for cell in cells}
    models = [model for model in family.models if any(name == model.name for name, _ in measured)]
    series = []
    for model in models:
        key, (colour, mark) = key_of(model.name), _look(family, model.name)
        plain = Series(
            key=key, title=short_name(family, model.name), tip=_about(model), path=mark, colour=colour,
            line=chart.FIRM,
        )  # fmt: skip
        series.append(plain)
        series += [
            replace(
                plain, key=f"{key}:c{every}", hollow=True, line=LINES[i % len(LINES)], of=(key, f"c{every}")
            )
            for i, every in enumerate(choice.caches)
            if i and (model.name, every) in measured
        ]
    caches = [every for every in choice.caches[1:] if any(cached == every for _, cached in measured)]
    return series + [
        Series(
            key=f"c{every}",
            title=f"caching every {every} steps",
            tip=f"hollow marks: attention and MLPs are computed every {every} steps; between, what they gave "
            "before is used again",
            path=chart.CIRCLE,
            colour="slate",
            hollow=True,
        )
        for every in caches
    ]


def _about(model: MeasuredModel) -> str:
    return (
        f"{model.macs / 1e9:.3g} GMACs a pass, {model.parameters / 1e6:.3g} M parameters, trained on "
        f"{model.images_seen:,} pictures"
    )


def _point(family: Family, cell: Cell, x: float, series: str, best: bool) -> Point:
    pick = next(i for i, other in enumerate(family.cells) if other is cell)
    interval = cell.measures.get("frechet_interval")
    return Point(
        series=series,
        x=x,
        y=cell.frechet,
        label="",
        lines=details(family, cell, best),
        pick=str(pick),
        y_interval=tuple(interval) if interval else None,
    )


def _labelled(family: Family, points: list[Point], cells: list[Cell], choice: Choice) -> list[Point]:
    """With the model's name at the last point of its first line."""
    last = {cell.model: i for i, cell in enumerate(cells) if cell.cache_every == choice.caches[0]}
    return [
        replace(point, label=short_name(family, cell.model)) if last.get(cell.model) == i else point
        for i, (point, cell) in enumerate(zip(points, cells, strict=True))
    ]


def _log_range(values: Iterable[float]) -> tuple[float, float]:
    """Of an axis on which all of them fit."""
    logs = [math.log10(value) for value in values]
    margin = max(MARGIN * (max(logs) - min(logs)), 0.05)
    return 10 ** (min(logs) - margin), 10 ** (max(logs) + margin)
