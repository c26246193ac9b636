"""The chart of published results: places, labels, what each point says."""

import math
import re
from itertools import combinations
from xml.etree import ElementTree

import pytest

from dit import papers as records
from ui import chart, papers
from ui.chart import CANVASES, Axes, Canvas, Point
from ui.labels import RADIUS, Box, place_labels

SVG = re.compile(r'<svg class="dl-(wide|narrow)".*?</svg>', re.DOTALL)


@pytest.fixture(scope="module")
def drawings() -> dict[str, ElementTree.Element]:
    return {match[1]: ElementTree.fromstring(match[0]) for match in SVG.finditer(papers.drawing())}


def marks(drawing: ElementTree.Element) -> list[ElementTree.Element]:
    return [part for part in drawing.iter("g") if "dl-point" in part.get("class", "")]


def place(mark: ElementTree.Element) -> tuple[float, float]:
    x, y = re.fullmatch(r"translate\((\S+) (\S+)\)", mark.get("transform")).groups()
    return float(x), float(y)


@pytest.mark.parametrize("name", ["wide", "narrow"])
def test_every_result_with_gflops_and_fid_is_a_point_once(drawings, name):
    expected = [result for result in records.RESULTS if result.gflops and result.fid]
    tips = [mark.get("data-tip").split("\n") for mark in marks(drawings[name])]
    assert len(tips) == len(expected) == 32
    for result in expected:
        title, compute, *others = papers.tooltip(result)
        assert [title, compute, *others] in tips
        assert title == f"{result.name}, {result.resolution} px"


def test_a_point_says_everything_and_to_everybody(drawings):
    mark = next(m for m in marks(drawings["wide"]) if m.get("data-tip").startswith("DiT-S/2,"))
    lines = mark.get("data-tip").split("\n")
    assert lines == [
        "DiT-S/2, 256 px",
        "6.06 Gflops a forward pass",
        "33 M parameters",
        "FID-50K 68.40, without guidance",
        "400K training steps, 250 DDPM steps",
        "DiT, Table 4",
    ]
    for each in marks(drawings["wide"]):
        assert each.get("aria-label") == each.get("data-tip").replace("\n", "; ")
        assert each.get("role") == "button"
    stops = [each for each in marks(drawings["wide"]) if each.get("tabindex") == "0"]
    assert len(stops) == 1  # from which arrow keys go on


@pytest.mark.parametrize("name", ["wide", "narrow"])
def test_points_lie_where_their_numbers_say(drawings, name):
    by_title = {mark.get("data-tip").split("\n")[0]: place(mark) for mark in marks(drawings[name])}
    x1, y1 = by_title["DiT-S/8, 256 px"]
    x2, y2 = by_title["DiT-S/2, 256 px"]
    x3, y3 = by_title["ADM-U, 512 px"]
    assert x1 < x2 < x3 and y1 < y2 < y3  # more compute to the right, lower FID further down
    assert (x2 - x1) / (x3 - x1) == pytest.approx(math.log(6.06 / 0.36) / math.log(2813 / 0.36), abs=0.002)
    assert (y2 - y1) / (y3 - y1) == pytest.approx(math.log(153.6 / 68.4) / math.log(153.6 / 9.96), abs=0.002)


def test_guided_points_are_hollow_and_no_others(drawings):
    for mark in marks(drawings["wide"]):
        hollow = "dl-hollow" in mark.find("path").get("class")
        assert hollow == (", with guidance" in mark.get("data-tip"))
    for family, results in papers.FAMILIES.items():
        assert len({result.guided for result in results}) == 1, family.key


@pytest.mark.parametrize("canvas", CANVASES, ids=lambda canvas: canvas.name)
def test_labels_cover_nothing(canvas):
    axes = Axes((0.25, 5500), (1.4, 200), (), (), "", "", "")
    points = papers.points()
    places = [canvas.at(axes, point.x, point.y) for point in points]
    placed = place_labels(places, [point.label for point in points], canvas.plot, canvas.font, canvas.leaders)
    boxes = [label.box for label in placed if label]
    assert len(boxes) == len(points) if canvas.name == "wide" else len(boxes) > len(points) / 2
    assert not any(one.meets(other) for one, other in combinations(boxes, 2))
    for box in boxes:
        assert box.within(canvas.plot)
        assert min(box.distance(*point) for point in places) >= RADIUS
    for point, label in zip(places, placed, strict=True):
        if label and not label.leader:
            assert label.box.distance(*point) == min(label.box.distance(*other) for other in places)


def test_a_label_without_room_is_left_out():
    plot = Box(0, 0, 60, 20)
    assert place_labels([(30, 10)], ["far too long a label"], plot, 12) == [None]
    assert place_labels([(30, 10)], [""], plot, 12) == [None]
    assert place_labels([(10, 10)], ["fits"], plot, 12)[0].side == 1
    assert place_labels([(50, 10)], ["fits"], plot, 12)[0].side == -1


def test_a_label_with_one_place_gets_it():
    wide = Box(0, 0, 106, 20)
    places = place_labels([(50, 10), (99, 10)], ["aaaa", "bbbb"], wide, 12, leaders=False)
    assert [place.side for place in places] == [-1, -1]  # the first would rather stand to the right
    assert place_labels([(50, 10)], ["aaaa"], wide, 12, leaders=False)[0].side == 1


def test_numbers_beneath_a_narrow_axis_do_not_touch(drawings):
    def numbers(name: str) -> list[str]:
        axes = next(part for part in drawings[name].iter("g") if part.get("class") == "dl-axes")
        return [text.text for text in axes.iter("text") if text.get("text-anchor") == "middle"]

    assert "3,000" in numbers("wide") and "1,000" in numbers("narrow") and "3,000" not in numbers("narrow")


def test_text_from_outside_stays_text():
    family = chart.Series(key="f", title="<b>", tip='"tip"', path=chart.CIRCLE, colour="blue")
    point = Point("f", 1, 2, "<i>", ('<script>"', "a & b"))
    shown = chart.chart_html([family], [point], Axes((0.1, 10), (0.1, 10), (1,), (1,), "<x>", "<y>", '"'))
    assert not re.search(r"<(b|i|script|x|y)>", shown)
    for match in SVG.finditer(shown):
        assert marks(ElementTree.fromstring(match[0]))[0].get("data-tip") == '<script>"\na & b'


def test_a_canvas_turns_values_into_places():
    canvas = Canvas("c", 212, 166, 12, leaders=True, left=100, bottom=56)
    axes = Axes((1, 100), (1, 100), (), (), "", "", "")
    assert canvas.at(axes, 1, 1) == (100, 110)
    assert canvas.at(axes, 10, 10) == (150, 60)
    assert canvas.at(axes, 100, 100) == (200, 10)


def test_what_is_seen_is_computed(monkeypatch):
    said = papers.seen()
    assert "is −0.93." in said and "from 9.62 to 2.27" in said and "from 35.24 to 19.47" in said
    assert "must not be compared" in said
    monkeypatch.setattr(records, "SCALING", records.SCALING[:2])
    assert "is −1.00." in papers.seen()
