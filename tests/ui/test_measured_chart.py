"""A measured family as a drawing and in words: places, lines, the frontier, the fit, and what is said."""

import dataclasses
import itertools
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from dit import papers
from dit.measured import correlation, frontier
from tests.families import STEPS, made_up
from ui import chart
from ui.measured_chart import COLOURS, MARKS, drawing, fitted_line, keys
from ui.measured_choice import MACS, MODEL, PICTURE, SECONDS, Choice, Options
from ui.measured_words import behind, details, fisher, seen

NAMES = ["small", "middle", "big"]


@pytest.fixture(scope="module")
def family():
    return made_up()


def choose(family, **changes):
    return dataclasses.replace(Choice.of(family), **changes)


def svg(drawn, name="wide"):
    return ElementTree.fromstring(re.search(rf'<svg class="dl-{name}".*?</svg>', drawn, re.DOTALL)[0])


def parts(drawing, kind):
    return [part for part in drawing.iter() if kind in part.get("class", "").split()]


def place(mark):
    return tuple(map(float, re.fullmatch(r"translate\((\S+) (\S+)\)", mark.get("transform")).groups()))


def through(line):
    return [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]


def test_what_is_chosen_is_what_the_table_has(family):
    usual = Choice.of(family)
    assert usual == Choice(PICTURE, MACS, "ddim", (1.0, None), (1,), 250)
    names = ("view", "cost", "sampler", "guidance", "caches", "steps")
    sent = dict(zip(names, (MODEL, SECONDS, "ddpm", "3", [2, 1], 16), strict=True))
    assert Choice.of(family, sent) == Choice(MODEL, SECONDS, "ddpm", (3.0, None), (1, 2), 16)
    for wrong in (["x"], {}, 7, "7", math.nan, [[]], -1, None):
        assert Choice.of(family, dict.fromkeys(names, wrong)) == usual
    with pytest.raises(ValueError, match="no cells.*train.sweep"):
        Choice.of(dataclasses.replace(family, cells=()))


def test_toggles_are_what_cells_differ_in():
    options = Options.of(
        made_up(samplers=["ddpm"], guidances=[(3.0, (100.0, 700.0)), (3.0, None), (1.0, None)], caches=[1])
    )
    assert options.samplers == ("ddpm",) and options.caches == (1,) and options.steps == STEPS
    assert list(options.guidances) == ["none", "3", "3 at levels 100–700"]
    assert options.guidances["3 at levels 100–700"] == (3.0, (100.0, 700.0))


@pytest.mark.parametrize("name", ["wide", "narrow"])
def test_a_line_a_model_a_point_a_step_count_where_their_numbers_say(family, name):
    choice = choose(family)
    shown = svg(drawing(family, choice), name)
    cells = choice.cells(family)
    marks = parts(shown, "dl-point")
    assert len(marks) == len(cells) == 3 * len(STEPS)
    for mark, cell in zip(marks, cells, strict=True):
        assert family.cells[int(mark.get("data-pick"))] is cell
        assert (
            mark.get("data-tip").split("\n")[0] == f"{cell.model}, {cell.steps} step{'s'[: cell.steps > 1]}"
        )
    places = [place(mark) for mark in marks]
    logs = np.log10([(cell.macs, cell.frechet) for cell in cells])
    for axis, sign in ((0, 1), (1, -1)):  # places are the logarithms, moved and stretched
        slope, move = np.polyfit(logs[:, axis], [at[axis] for at in places], 1)
        assert np.sign(slope) == sign
        assert np.allclose(slope * logs[:, axis] + move, [at[axis] for at in places], atol=0.1)
    lines = parts(shown, "dl-firm")
    assert [through(line) for line in lines] == [places[i : i + 9] for i in (0, 9, 18)]
    looks = {(parts(shown, "dl-point")[i].get("class"), marks[i].find("path").get("d")) for i in (0, 9, 18)}
    assert len(looks) == 3


def test_every_model_has_a_colour_and_a_mark_of_its_own():
    assert len(set(COLOURS)) == 10 and len(set(MARKS)) == 9
    many = made_up(models=[(f"m{i}", 10**6 * (i + 1)) for i in range(12)], samplers=["ddim"], caches=[1])
    marks = parts(svg(drawing(many, choose(many))), "dl-point")
    looks = {(mark.get("class"), mark.find("path").get("d")) for mark in marks}
    assert len(looks) == 12


@pytest.mark.parametrize("cost", [MACS, SECONDS])
def test_the_frontier_goes_through_what_nothing_beats(family, cost):
    choice = choose(family, cost=cost, caches=(1, 2))
    shown = svg(drawing(family, choice))
    (band,) = parts(shown, "dl-band")
    cells = choice.cells(family)
    best = frontier(cells, cost)
    assert best != frontier(cells, MACS if cost == SECONDS else SECONDS)
    marks = dict(zip(map(id, cells), parts(shown, "dl-point"), strict=True))
    assert through(band) == [place(marks[id(cell)]) for cell in best] and 3 < len(best) < len(cells)
    for cell in cells:
        assert ("on the efficient frontier" in marks[id(cell)].get("data-tip")) == any(
            cell is b for b in best
        )


def test_caching_is_drawn_hollow_beside_and_hidden_with_its_model(family):
    drawn = drawing(family, choose(family, caches=(1, 2)))
    shown = svg(drawn)
    hollow = [m for m in parts(shown, "dl-point") if "dl-hollow" in m.find("path").get("class")]
    assert len(hollow) == 3 * len(STEPS) and all("caching every 2" in mark.get("data-tip") for mark in hollow)
    assert {mark.get("data-family") for mark in hollow} == {"small c2", "middle c2", "big c2"}
    assert len(parts(shown, "dl-dashed")) == 3
    assert re.findall(r'data-key="([^"]+)"', drawn) == ["small", "middle", "big", "c2", "frontier"]
    assert set(re.findall(r'data-key="([^"]+)"', drawn)) <= set(keys(family))


def test_models_at_one_step_count_and_their_line(family):
    choice = choose(family, view=MODEL, steps=8)
    shown = svg(drawing(family, choice))
    marks = parts(shown, "dl-point")
    assert [mark.get("data-tip").split("\n")[0] for mark in marks] == [f"{name}, 8 steps" for name in NAMES]
    cells = [next(c for c in choice.cells(family) if (c.model, c.steps) == (name, 8)) for name in NAMES]
    xs, ys = zip(*map(place, marks), strict=True)
    assert (xs[1] - xs[0]) / (xs[2] - xs[0]) == pytest.approx(math.log(6) / math.log(40), abs=1e-3)
    distances = [cell.frechet for cell in cells]
    expected = (distances[1] - distances[0]) / (distances[2] - distances[0])  # not logarithmic
    assert (ys[1] - ys[0]) / (ys[2] - ys[0]) == pytest.approx(expected, abs=2e-3)
    (line,) = parts(shown, "dl-dashed")
    (x1, y1), (x2, y2) = through(line)
    slope, start = np.polyfit(xs, ys, 1)  # least squares are the same in places as in numbers
    assert (y1, y2) == pytest.approx((start + slope * x1, start + slope * x2), abs=0.2)
    assert len(parts(shown, "dl-whisker")) == 3


def test_the_fitted_line_stays_in_the_drawing():
    pairs = [(1, 8.0), (10, 4.0), (100, 0.0)]
    assert np.allclose(fitted_line(pairs, (1, 100), 10), [(1, 8), (100, 0)])
    assert np.allclose(fitted_line(pairs, (0.1, 1000), 10), [(10**-0.5, 10), (100, 0)])
    assert fitted_line(pairs[:1], (1, 100), 10) == fitted_line([], (1, 100), 10) == ()


def test_a_combination_that_was_not_measured_is_named(family):
    fewer = dataclasses.replace(
        family, cells=tuple(c for c in family.cells if (c.sampler, c.guidance_scale) != ("ddpm", 3.0))
    )
    choice = choose(fewer, sampler="ddpm", guidance=(3.0, None))
    with pytest.raises(ValueError, match="nothing was measured with ddpm, guidance 3; choose other"):
        drawing(fewer, choice)
    with pytest.raises(ValueError, match="nothing was measured at 3 steps with ddim, no guidance"):
        drawing(family, choose(family, view=MODEL, steps=3))
    assert seen(fewer, choice) == seen(fewer, dataclasses.replace(choice, view=MODEL)) == []


def test_a_cell_without_a_logarithm_is_left_out(family):
    cells = [dataclasses.replace(c, measures=c.measures | {"frechet": 0.0}) for c in family.cells[:1]]
    changed = dataclasses.replace(family, cells=(*cells, *family.cells[1:]))
    assert len(parts(svg(drawing(changed, choose(changed))), "dl-point")) == 3 * len(STEPS) - 1


def test_a_point_says_all_that_is_known(family):
    cell = next(c for c in family.cells if (c.steps, c.guidance_scale, c.cache_every) == (8, 3.0, 2))
    assert details(family, cell, best=True) == (
        "small, 8 steps",
        "ddim, guidance 3, caching every 2 steps",
        "0.1 GMACs and 0.03 s a picture",
        f"Fréchet distance {cell.frechet:.3g} (95 %: {0.95 * cell.frechet:.3g} to {1.05 * cell.frechet:.3g})",
        "precision 0.700, recall 0.400",
        "class accuracy 93.1%",
        "of 5,000 pictures",
        "on the efficient frontier",
    )
    bare = dataclasses.replace(cell, measures={"frechet": 123.4})
    assert details(family, bare)[3:] == ("Fréchet distance 123", "of 5,000 pictures")
    told = behind(family, [cell])
    assert told.startswith("Fréchet distance") and "not FID" in told
    assert "Each point is measured on 5,000 pictures, against 5,000 real ones of toys." in told
    standard = dataclasses.replace(family, about={"features": {"name": "inception"}, "reference": "odd"})
    assert behind(standard, [cell]).startswith("FID; lower is better. ")
    assert ">FID (log)<" in drawing(standard, choose(standard))


def test_what_is_seen_is_computed_from_the_cells(family):
    choice = choose(family)
    cells = choice.cells(family)
    budgets, models, efficient = seen(family, choice)
    best = min((c for c in cells if c.macs <= 1e9), key=lambda c: c.frechet)
    assert f"up to 1 GMACs, {best.steps} steps of {best.model} ({best.frechet:.3g})" in budgets
    small, big = ([c for c in cells if c.model == name] for name in ("small", "big"))
    floor = min(c.frechet for c in small)
    first = next(c for c in big if c.frechet <= floor)
    ratio = first.macs / small[-1].macs
    assert f"small, the cheapest model, gets to {floor:.3g} at best, in 250 steps for 2.5 GMACs" in models
    assert f"big, the dearest, gets there in {first.steps} steps" in models and f"{ratio:.3g} times" in models
    assert "where small does not get at any number of steps tried." in models
    assert f"{len(frontier(cells))} of 27 points, of small, middle and big." in efficient

    worse = tuple(
        dataclasses.replace(c, measures={"frechet": 100 * c.frechet}) if c.model == "big" else c
        for c in family.cells
    )
    changed = dataclasses.replace(family, cells=worse)
    _, models, efficient = seen(changed, choice)
    assert "big, the dearest, is not as good at any number of steps tried." in models
    assert efficient.endswith("of small and middle; never big.")


def test_what_caching_saves_and_costs_is_told(family):
    told = seen(family, choose(family, caches=(1, 2)))[-1]
    assert told.startswith(
        "Attention and MLPs computed every 2 steps only: 62.5 % of the compute at 110 % of the distance"
    )
    assert "medians of 24 pairs" in told and "nearer in 0 of them" in told
    without = dataclasses.replace(family, cells=tuple(c for c in family.cells if c.cache_every == 1))
    assert "Caching every 2 steps was not measured" in seen(without, choose(without, caches=(1, 2)))[-1]


def test_the_correlation_is_told_beside_the_papers(family):
    choice = choose(family, view=MODEL, steps=8)
    pairs = [(c.macs, c.frechet) for c in choice.cells(family) if c.steps == 8]
    (said,) = seen(family, choice)  # three models have no interval
    ours = f"{correlation(pairs):.2f}".replace("-", "−")
    assert f"correlation of {ours} over 3 models; the DiT paper's 12 models have −0.93" in said
    assert said.startswith("At 8 steps (ddim, no guidance)")
    two = made_up(models=[("a", 10**7), ("b", 10**8)])
    assert "2 pairs; a correlation needs at least 3" in seen(two, choose(two, view=MODEL))[0]


@pytest.mark.parametrize(
    ("distances", "verdict"),
    [
        ([4, 3, 2, 1], "more closely here"),
        ([1, 2, 3, 4], "the other way round"),
        ([4, 1, 3, 1.5], "less closely here"),
    ],
)
def test_it_is_said_where_the_paper_and_we_differ(distances, verdict):
    models = [(f"m{i}", 10 ** (7 + i)) for i in range(4)]
    family = made_up(models=models, samplers=["ddim"], guidances=[(1.0, None)], caches=[1])
    cells = tuple(
        dataclasses.replace(c, measures={"frechet": float(distances[int(c.model[1])])}) for c in family.cells
    )
    family = dataclasses.replace(family, cells=cells)
    assert verdict in seen(family, choose(family, view=MODEL))[0]


def test_fishers_interval(monkeypatch):
    """Of r = 0.6 between 28 pairs, z = 0.6931 ± 1.96 / 5: by hand."""
    assert fisher(0.6, 28) == pytest.approx((0.2923, 0.7951), abs=1e-4)
    assert fisher(0.6, 3) is None and fisher(-1.0, 9) is None
    monkeypatch.setattr(papers, "SCALING", papers.SCALING[:3])
    family = made_up(models=[(f"m{i}", 10 ** (7 + i)) for i in range(4)])
    assert "the DiT paper's 3 models have −0.99" in seen(family, choose(family, view=MODEL))[0]


def test_ticks_are_round_and_enough():
    assert chart.log_ticks(0.004, 120) == (0.01, 0.1, 1, 10, 100)
    assert chart.log_ticks(0.9, 60) == (1, 3, 10, 30)
    assert chart.log_ticks(2.2, 4.5) == (3, 4)
    assert chart.linear_ticks(7.2) == (0, 1, 2, 3, 4, 5, 6, 7)
    assert chart.linear_ticks(0.5) == (0, 0.1, 0.2, 0.3, 0.4, 0.5)
    assert chart.linear_ticks(41) == (0, 10, 20, 30, 40)
    assert [chart.number(value) for value in (0.00005, 0.001, 20, 3000)] == [
        "0.00005",
        "0.001",
        "20",
        "3,000",
    ]


@pytest.mark.parametrize("view", [PICTURE, MODEL])
@pytest.mark.parametrize("name", ["wide", "narrow"])
def test_no_name_stands_on_a_line(view, name):
    many = made_up(models=[(f"DiT-{'EFPN'[i]}-4", 10**7 * 3**i) for i in range(4)], samplers=["ddim"])
    cells = [
        dataclasses.replace(
            cell,
            measures={"frechet": cell.frechet, "frechet_interval": [cell.frechet / 2, 1.4 * cell.frechet]},
        )
        for cell in many.cells
    ]
    many = dataclasses.replace(many, cells=tuple(cells))
    shown = svg(drawing(many, choose(many, view=view, caches=(1, 2), steps=64)), name)
    lines = [through(line) for line in parts(shown, "dl-line")]
    labels = [part.find("text") for part in parts(shown, "dl-label")]
    assert labels or name == "narrow"  # where there is room for none
    for label in labels:
        width, at = len(label.text) * 6, float(label.get("x"))  # narrower than it may be
        left = at - width * {"start": 0, "middle": 0.5, "end": 1}[label.get("text-anchor")]
        bottom = float(label.get("y"))
        for line in lines:
            for (x1, y1), (x2, y2) in itertools.pairwise(line):
                for share in np.linspace(0, 1, 200):
                    x, y = x1 + (x2 - x1) * share, y1 + (y2 - y1) * share
                    assert not (left < x < left + width and bottom - 8 < y < bottom), label.text


def test_the_title_of_an_axis_stays_clear_of_its_numbers():
    axes = chart.Axes((1, 10), (0.00001, 1), (1,), (0.00005, 1), "", "", "")
    for canvas in chart.CANVASES:
        fitted = canvas.fitted(axes)
        assert fitted.left - 6 - len("0.00005") * canvas.font * 0.55 > 13
        assert canvas.fitted(dataclasses.replace(axes, y_ticks=(1,))).left == canvas.left
