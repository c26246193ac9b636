"""Curves: round ticks, all points inside, the average alike to both sides."""

import math
import random
import re

import pytest

from train.curves import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Curve,
    axis,
    chart,
    number,
    smoothed,
    thinned,
)


@pytest.mark.parametrize(
    "values", [[0.3, 0.4], [5.0, 5.0], [0.0, 0.0], [-3.0, 40.0], [1e-4, 3e-4], [1e6, 9e6]]
)
def test_a_linear_axis_has_some_round_ticks_and_room_for_all(values):
    found = axis(values)
    assert not found.log and 3 <= len(found.ticks) <= 7
    assert all(0 <= found.place(value) <= 1 for value in [*values, *found.ticks])
    steps = {round(b - a, 12) for a, b in zip(found.ticks, found.ticks[1:], strict=False)}
    assert len(steps) == 1 or max(steps) - min(steps) < 1e-6 * max(steps)
    assert float(f"{steps.pop():.6e}"[0]) in (1, 2, 5)


@pytest.mark.parametrize("low", [2e-5, 0.00999, 0.0213, 0.3, 0.55, 1.0, 9.7, 23_456.0])
@pytest.mark.parametrize("ratio", [1.0, 1.001, 1.07, 1.3, 1.99, 3.7, 8.9, 31.0, 250.0, 1e5, 1e12])
def test_a_logarithmic_axis_has_marks_that_differ_over_any_range(low, ratio):
    values = [low, low * ratio]
    found = axis(values, True)
    shown = [number(mark) for mark in found.ticks]
    assert found.log and 3 <= len(shown) <= 8 and len(set(shown)) == len(shown)
    assert all(0 < found.place(value) < 1 for value in values)
    assert all(0 <= found.place(mark) <= 1 for mark in found.ticks)
    # None of it is bare: from an end, or a mark, to the next one it is never half of the axis.
    places = [0.0, *map(found.place, found.ticks), 1.0]
    assert max(b - a for a, b in zip(places, places[1:], strict=False)) < 0.5


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.004, 2.0], ["0.01", "0.1", "1"]),
        ([0.03, 2.0], ["0.05", "0.1", "0.2", "0.5", "1", "2"]),
        ([0.1, 0.9], ["0.1", "0.2", "0.5"]),
        ([0.25, 0.7], ["0.3", "0.5", "0.7"]),
        ([0.31, 0.42], ["0.32", "0.34", "0.36", "0.38", "0.4", "0.42"]),
    ],
)
def test_marks_of_a_loss_are_as_coarse_as_can_be(values, shown):
    assert [number(mark) for mark in axis(values, True).ticks] == shown


def test_equal_ratios_are_equal_ways_on_a_logarithmic_axis():
    for found in (axis([0.004, 2.0], True), axis([0.31, 0.42], True)):
        assert found.place(0.4) - found.place(0.36) == pytest.approx(found.place(0.36) - found.place(0.324))
    assert not axis([0.0, 9.0], True).log and not axis([1, 99]).log  # nothing of 0 has a place on one


def test_numbers():
    shown = [number(value) for value in (0, 1e-4, 2.5e-5, 0.0012345, 0.25, 1500, 20_000, 3.2e6, -0.5)]
    assert shown == ["0", "1e-4", "2.5e-5", "0.001234", "0.25", "1500", "20k", "3.2M", "-0.5"]


def test_thinning_keeps_the_mean_and_few_curves_whole():
    points = [(float(i), float(i % 7)) for i in range(6000)]
    few = thinned(points, 600)
    assert len(few) == 600
    assert sum(y for _, y in few) / 600 == pytest.approx(sum(y for _, y in points) / 6000)
    assert thinned(points[:50], 600) == points[:50] and thinned([]) == []


def test_smoothing_leaves_a_straight_line_and_quietens_noise():
    """Alike to both sides: a line stays where it is, also at its ends."""
    line = [(float(i), 3.0 * i + 1) for i in range(200)]
    assert [y for _, y in smoothed(line)] == pytest.approx([y for _, y in line])
    random.seed(0)
    noisy = smoothed([(float(i), random.gauss(0, 1)) for i in range(1000)])
    middle = [y for _, y in noisy[100:900]]
    assert math.sqrt(sum(y * y for y in middle) / len(middle)) < 0.25
    assert smoothed(line[:5]) == line[:5]


def test_a_chart_draws_inside_its_margins():
    points = [(float(i), 2.0 + math.sin(i / 5)) for i in range(100)]
    svg = chart(
        "A < B", [Curve("one", points), Curve("none", []), Curve('"two"', points[:1], 3)], marks=[50, 999]
    )
    assert "A &lt; B" in svg and "A < B" not in svg and "&quot;two&quot;" in svg and "none" not in svg
    assert svg.count("<polyline") == 2 and svg.count("<circle") == 1 and svg.count('class="mark"') == 1
    for places in re.findall(r'points="([^"]+)"', svg):
        for place in places.split():
            x, y = map(float, place.split(","))
            assert LEFT - 0.1 <= x <= WIDTH - RIGHT + 0.1 and TOP - 0.1 <= y <= HEIGHT - BOTTOM + 0.1
    assert len(re.findall("<polyline", chart("lr", [Curve("lr", points, smooth=False)]))) == 1


def test_what_has_no_point_is_not_drawn():
    assert chart("nothing", [Curve("one", [])]) == ""
