"""The findings: their tables and figures say what the measured table says, and nothing older."""

import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

import dit
from benchmarks import figures, findings
from dit.digest import digest_of
from dit.measured import load_family
from dit.weights import ZOO, bundled
from tests.families import made_up
from ui.costs import count_of

MODELS = (("S/4", 10_000_000), ("S/2", 40_000_000), ("M/4", 50_000_000), ("M/2", 200_000_000))


@pytest.fixture
def family():
    """Two sizes, two patches."""
    made = made_up("toys", MODELS, samplers=("ddim",), guidances=((1.0, None), (1.5, None)))
    presets = [replace(model, preset=f"DiT-{model.name}") for model in made.models]
    return replace(made, models=tuple(presets))


def rows(lines):
    """The cells of a Markdown table, without its head."""
    table = [line for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def test_the_correlation_is_that_of_log_compute_with_the_distance(family):
    *measured, paper = rows(findings.scaling(family))
    assert [row[0] for row in measured] == [
        count_of("step", steps) for steps in findings.common_steps(family)
    ]
    macs = np.log([model.macs for model in family.models])
    for steps, row in zip(findings.common_steps(family), measured, strict=True):
        distances = [c.frechet for c in family.at(findings.PLAIN) if c.steps == steps]
        assert row[1:] == [
            "4",
            *(f"{np.corrcoef(macs, d)[0, 1]:.3f}" for d in (distances, np.log(distances))),
        ]
    assert (
        paper[0].startswith("DiT paper")
        and paper[1] == "12"
        and float(paper[2]) == pytest.approx(-0.93, abs=0.01)
    )


def test_a_model_at_its_best_is_beaten_by_the_cheapest_better_cell_of_a_dearer_one(family):
    first, *_, last = rows(findings.making_up(family))
    best = min((c for c in family.at(findings.PLAIN) if c.model == "S/4"), key=lambda c: c.frechet)
    better = [c for c in family.at(findings.PLAIN) if c.model != "S/4" and c.frechet < best.frechet]
    cheapest = min(better, key=lambda c: c.macs)
    assert first[0] == "S/4" and first[1] == "250"
    assert first[4] == f"{cheapest.model}, {cheapest.steps}"
    assert float(first[7]) == pytest.approx(cheapest.macs / best.macs, abs=0.005)
    assert last[0] == "M/2" and not any(last[4:])  # nothing is dearer


def test_a_smaller_patch_is_set_beside_its_size_and_its_equal_in_compute(family):
    small, _ = rows(findings.patches(family))
    assert small[0] == "S/2" and small[4].endswith("at 10.0") and small[5] == "M/4"


def test_what_is_compared_differs_in_one_part_and_has_equal_steps(family):
    cells = findings.compared(family, 1)
    assert {cell.model for cell in cells} == {model.name for model in family.models}
    assert len({cell.steps for cell in cells}) == 1 and len(cells) == 2 * len(family.models)
    for cell in cells:
        assert [i for i in range(4) if cell.setting[i] != findings.PLAIN[i]] in ([], [1])
    assert len(rows(findings.BLOCKS["guidance"](family))) == len(cells)


def test_beside_caching_stands_what_costs_as_much_by_fewer_steps(family):
    cells = findings.cached(family)
    reusing = [cell for cell in cells if cell.cache_every > 1]
    assert {(cell.model, cell.steps) for cell in reusing} == {
        (cell.model, cell.steps) for cell in family.cells
    }
    for cell in reusing:
        plain = [other for other in cells if other.model == cell.model and other.cache_every == 1]
        assert any(other.steps == cell.steps for other in plain)
        assert any(0.6 < other.macs / cell.macs < 1.7 for other in plain)
        assert all(other.setting == findings.PLAIN for other in plain)
    names = [cell.model for cell in cells]
    assert names == sorted(names, key=names.index)
    for model in set(names):
        steps = [cell.steps for cell in cells if cell.model == model]
        assert steps == sorted(steps, reverse=True)
    assert len(rows(findings.BLOCKS["caching"](family))) == len(cells)


def test_samplers_stand_below_each_other():
    family = made_up("toys", MODELS, samplers=("ddim", "ddpm"), guidances=((1.0, None), (1.5, None)))
    found = rows(findings.samplers(family))
    assert [row[:2] for row in found] == [[name, of] for name in ("S/4", "S/2", "M/4", "M/2")
                                          for of in ("ddim", "ddpm")]  # fmt: skip
    for ddim, ddpm in zip(found[::2], found[1::2], strict=True):
        assert all(float(a) < float(b) for a, b in zip(ddim[2:], ddpm[2:], strict=True))
    one = made_up("toys", MODELS, samplers=("ddim",), guidances=((1.0, None),), caches=(1,))
    assert findings.samplers(one) == ["Not measured yet."]


def test_an_interval_stands_beside_the_same_scale_without_one():
    guidances = ((1.0, None), (1.5, None), (1.5, (200.0, 700.0)), (4.0, None))
    family = made_up("toys", MODELS, samplers=("ddim",), guidances=guidances, caches=(1,))
    cells = findings.compared(family, 2)
    assert len(cells) == 3 * len(MODELS)  # plain, guided, guided in the interval; not the other scale
    assert {cell.setting[1:3] for cell in cells} == set(guidances[:3])


def test_two_models_have_no_correlation():
    two = made_up("toys", MODELS[:2], samplers=("ddim",), guidances=((1.0, None),), caches=(1,))
    (paper,) = rows(findings.scaling(two))
    assert paper[0].startswith("DiT paper")


def test_charts_stand_alone(family):
    drawn = figures.charts(family)
    assert list(drawn) == ["trade-off.svg", "models.svg", "caching.svg"]
    for text in drawn.values():
        root = ElementTree.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert not re.search(r"data-|tabindex|https?://(?!www\.w3\.org/2000/svg)", text)
        used = set(re.findall(r"var\((--[\w-]+)\)", text))
        assert used and all(f"{name}:" in text for name in used)
        assert {model.name for model in family.models} <= {node.text for node in root.iter()}


def test_equal_budgets_are_spent_by_at_least_half(family):
    groups = figures.equal_budgets(family)
    assert len(groups) == figures.BUDGETS
    for budget, cells in groups:
        assert len(cells) >= 3 and all(budget / 2 <= cell.macs <= budget for cell in cells)
        order = [cell.model for cell in cells]
        assert order == [model.name for model in family.models[::-1] if model.name in order]
    assert math.log(groups[-1][0] / groups[0][0]) > 1
    image = figures.pictures(family, [("a title", groups[0][1]), ("another", groups[1][1])])
    assert image.getpixel((image.width - figures.MARGIN - 40, 2 * figures.MARGIN + 60)) != (255, 255, 255)


@pytest.mark.parametrize("path", sorted(ZOO.glob("*.json")), ids=lambda path: path.stem)
def test_a_bundled_table_is_of_the_bundled_weights(path):
    """Else the chart would show one model and Explore draw another."""
    files = bundled()
    for model in load_family(path).models:
        assert digest_of(dit.load(files[model.name])) == model.network, (
            f"{model.name}: run python -m train.sweep"
        )


def test_the_findings_are_of_the_bundled_table():
    family = load_family(ZOO / "solids.json")
    text = findings.DOCS.read_text()
    for name, lines_of in findings.BLOCKS.items():
        written = text.split(f"<!-- {name} -->\n")[1].split(f"<!-- /{name} -->")[0]
        assert written == "\n".join(lines_of(family)) + "\n", (
            f"{name}: run python -m benchmarks.findings --docs"
        )
    for name, drawn in figures.charts(family).items():
        assert (findings.DOCS.parent / name).read_text() == drawn, f"{name}: run python -m benchmarks.figures"
