"""Equal budget: the steps that each model can afford, the cell measured near, and what is said of it."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest

import dit
from dit.measured import Cell, Family, MeasuredModel
from tests.conftest import random_weights
from tests.families import made_up
from ui.budget import Allowance, allow, budget_at, finding, near, positions, usual
from ui.budget_html import Shown
from ui.budget_view import planned
from ui.families import UNKNOWN, Group, groups_of
from ui.fixed import clamps
from ui.judge import Verdict
from ui.limits import USUAL, Limits
from ui.opening import open_studio
from ui.page import build
from ui.request import PAGE_SEED, PAGE_STEPS, Wish, parse
from ui.several import Drawn
from ui.studio import Rung, Studio

WISH = Wish(None, "cone", 1, 2.0, 7, 1, "auto")


@pytest.fixture(scope="module")
def studio(ladder_files: list[Path]) -> Studio:
    """The two random models, and whatever is bundled."""
    return open_studio(ladder_files, limits=Limits(models=9))


@pytest.fixture(scope="module")
def family(studio: Studio) -> Sequence[Rung]:
    """The two random models, small and big."""
    return groups_of(studio.rungs, studio.first, {})[UNKNOWN].rungs


def measured(values: dict[tuple[str, int], float], spread: float = 0.1) -> Family:
    """A table of Frechet distances by model and steps, with ddim at guidance 2."""
    cells = [
        Cell(
            model=model, sampler="ddim", steps=steps, guidance_scale=2.0, guidance_interval=None,
            cache_every=1, passes=steps, reused=0, macs=steps * 10**7, seconds=1.0, samples=5000, seed=0,
            thumbnails="",
            measures={"frechet": value, "frechet_interval": [value - spread, value + spread]},
        )
        for (model, steps), value in values.items()
    ]  # fmt: skip
    models = [
        MeasuredModel(
            name=name, preset="", network="", macs=1, parameters=1, images_seen=1, seconds=1.0,
            seconds_reused=1.0,
        )
        for name in dict.fromkeys(model for model, _ in values)
    ]  # fmt: skip
    return Family(name="x", classes=("a",), models=tuple(models), cells=tuple(cells))


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("sampler", ["auto", "dpm-solver++"])
def test_each_model_gets_the_most_steps_that_the_budget_pays_for(
    studio: Studio, family: Sequence[Rung], guidance: float, sampler: str
) -> None:
    budget = 30 * family[1].macs_per_pass
    given = allow(studio, family, budget, WISH._replace(guidance_scale=guidance, sampler=sampler), None)
    passes = 2 if guidance != 1 else 1
    for rung, each in zip(family, given, strict=True):
        assert each.steps == min(PAGE_STEPS, budget // (passes * rung.macs_per_pass))
        assert each.macs == each.steps * passes * rung.macs_per_pass <= budget
        assert (list(each.request.settings.seeds), each.request.label) == ([7], 3)
    assert given[0].steps > given[1].steps


def test_who_cannot_afford_a_step_says_what_it_costs(studio: Studio, family: Sequence[Rung]) -> None:
    small, big = allow(studio, family, 2 * family[0].macs_per_pass, WISH, None)
    assert small.steps == 1 and big.steps == 0
    assert big.refusal.startswith("cannot afford one step: that takes 0.")
    nobody = allow(studio, family, 1.0, WISH, None)
    assert not any(each.request for each in nobody)
    assert "cannot afford" in Shown.of(1.0, Group("toys", tuple(family)), nobody).html()


def test_a_cache_pays_less(studio: Studio, family: Sequence[Rung]) -> None:
    budget = 20 * family[1].macs_per_pass
    plain = allow(studio, family, budget, WISH, None)
    cached = allow(studio, family, budget, WISH._replace(cache_every=3), None)
    assert all(less.steps < more.steps for less, more in zip(plain, cached, strict=True) if less.steps < 250)
    assert all(each.macs <= budget for each in cached)
    with pytest.raises(ValueError, match="sampler is 'heun', but this model's formulation is ddpm"):
        allow(studio, family, budget, WISH._replace(sampler="heun"), None)


def test_heun_looks_twice_a_step(tmp_path: Path) -> None:
    """Except at the last: n steps make 2 n - 1 looks, each of two passes with guidance."""
    studio = open_studio([random_weights(tmp_path / "edm.safetensors", "DiffiT-C-32")])
    [edm] = groups_of(studio.rungs, studio.first, {})[UNKNOWN].rungs
    budget = 40 * edm.macs_per_pass
    for scale, looks in ((1.0, 40), (2.0, 20)):
        [given] = allow(studio, [edm], budget, WISH._replace(guidance_scale=scale), None)
        assert given.request.settings.sampler == "heun"
        assert given.steps == (looks + 1) // 2 and given.macs <= budget
        *_, last = studio.stream(edm, given.request.settings)
        assert last.macs == given.macs == (2 * given.steps - 1) * (40 // looks) * edm.macs_per_pass


def test_who_is_not_here_says_so_until_it_is(
    studio: Studio, family: Sequence[Rung], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups hold the models that may yet come: one that is downloaded can be drawn with at once."""
    groups = groups_of(studio.rungs, studio.first, {})
    values = ("imagenet 256 x 256", 18, "tench", 4.0, "auto", 0, 1)
    with pytest.raises(ValueError, match=r"DiT-XL/2-256 \(3.33 GB\) is not on this machine"):
        planned(studio, groups, values)
    monkeypatch.setattr(studio, "missing", lambda rung: None)
    [given] = planned(studio, groups, values).given
    assert given.steps == 4 and given.request.rung.name == "DiT-XL/2-256"
    monkeypatch.setattr(studio, "missing", lambda rung: "gone" if rung is family[0] else None)
    small, big = allow(studio, family, 20 * family[1].macs_per_pass, WISH, None)
    assert (small.request, small.refusal) == (None, "gone") and big.steps == 10


def test_the_table_is_found_by_its_models(tmp_path: Path) -> None:
    """Whatever group and table are called: models of another side give the group another name."""
    large = dit.build("DiT-N/8", input_size=64, in_channels=3, num_classes=10)
    dit.weights.save(tmp_path / "large.safetensors", large, {"dataset": "solids", "name": "large"})
    studio = open_studio([tmp_path / "large.safetensors"])
    models = (("DiT-N-4-solids", 10**7), ("DiT-P-4-solids", 10**6), ("DiT-X-solids", 10**8))
    tables = {"other": made_up(), "bad": "no table", "mine": made_up("mine", models)}
    groups = groups_of(studio.rungs, studio.first, tables)
    assert list(groups)[:2] == ["solids 32 x 32", "solids 64 x 64"]
    small, large = groups["solids 32 x 32"], groups["solids 64 x 64"]
    assert small.table is tables["mine"] and large.table is None
    assert [rung.name for rung in small.compared] == ["DiT-P-4-solids", "DiT-N-4-solids"]  # trained alike
    assert [rung.name for rung in large.compared] == ["large"]


def test_the_view_begins_where_something_was_measured(studio: Studio) -> None:
    pair = (("small", 10**7), ("big", 10**8))
    table = made_up("toys", pair, ("dpm-solver++", "ddim"), [(1.5, None), (3.0, (100.0, 700.0))], (1, 2))
    group = groups_of(studio.rungs, studio.first, {"toys": table})[UNKNOWN]
    assert usual(group) == (1.5, "dpm-solver++")
    place = -positions(group.compared)[0]  # of 1 GMAC
    shown = planned(studio, {"toys": group}, ("toys", place, "cone", *usual(group), 0, 1))
    assert all(each.measured for each in shown.given)
    assert usual(replace(group, table=None)) == (group.compared[-1].guidance_scale, "auto")


def test_a_seed_of_the_page_survives_the_browser(studio: Studio) -> None:
    numbers = [block for block in build(studio).demo.blocks.values() if isinstance(block, gr.Number)]
    assert len(numbers) == 3 and {number.maximum for number in numbers} == {PAGE_SEED}
    assert clamps(studio)["seed"](str(2**63)) == PAGE_SEED
    assert len({float(seed) for seed in range(PAGE_SEED, PAGE_SEED + USUAL.pictures)}) == USUAL.pictures
    assert parse(studio.rungs, WISH._replace(model="small", seed=PAGE_SEED)).settings.seeds[0] == PAGE_SEED


def test_too_long_a_job_is_refused(
    studio: Studio, family: Sequence[Rung], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studio, "limits", Limits(seconds=1e-9))
    with pytest.raises(ValueError, match="expected to take .* for 2 models; at most .*smaller budget"):
        allow(studio, family, 100 * family[1].macs_per_pass, WISH, None)


def test_the_slider_reaches_from_one_step_to_all(family: Sequence[Rung]) -> None:
    low, high = positions(family)
    assert family[0].macs_per_pass <= budget_at(low) < family[0].macs_per_pass * 10 ** (1.001 / 20)
    dearest = 2 * PAGE_STEPS * family[-1].macs_per_pass
    assert dearest <= budget_at(high) * (1 + 1e-9) and budget_at(high - 1) < dearest
    assert budget_at(20) == pytest.approx(10 * budget_at(0)) and budget_at(0) == 1e9


def test_the_measured_cell_is_near(studio: Studio, family: Sequence[Rung]) -> None:
    table = measured({("small", 8): 5.0, ("small", 16): 4.0, ("small", 64): 3.0, ("big", 64): 1.0})
    budget = 2 * 40 * family[0].macs_per_pass  # 40 steps of the small model
    small, big = allow(studio, family, budget, WISH, table)
    assert small.steps == 40 and small.measured is None  # 64 is more than a quarter more
    for steps, nearest in ((7, 8), (9, 8), (13, 16), (20, 16), (55, 64), (11, None), (21, None)):
        small, _ = allow(studio, family, budget * (steps + 0.5) / 40, WISH, table)
        assert small.steps == steps and (small.measured and small.measured.steps) == nearest
    assert (
        near(table, allow(studio, family, budget, WISH._replace(guidance_scale=1.0), None)[0].request) is None
    )
    assert near(None, small.request) is None and big.measured is None


def given(
    studio: Studio, family: Sequence[Rung], frechets: tuple[float, float], spread: float
) -> list[Allowance]:
    """Budget for 64 steps of the small model, with both measured at what they can afford."""
    budget = 2 * 64 * family[0].macs_per_pass
    steps = [each.steps for each in allow(studio, family, budget, WISH, None)]
    table = measured({("small", steps[0]): frechets[0], ("big", steps[1]): frechets[1]}, spread)
    return allow(studio, family, budget, WISH, table)


def test_the_sentence_compares_what_was_measured(studio: Studio, family: Sequence[Rung]) -> None:
    larger = given(studio, family, (3.4, 1.2), 0.1)
    big = larger[1].steps
    assert finding(2e9, larger, []) == (
        f"At 2.00 GMACs a picture the larger model big (measured at {big} steps, {big / 100:.3g} "
        "GMACs) beats the smaller small (measured at 64 steps, 0.64 GMACs): Fréchet distance 1.2 "
        "against 3.4; lower is better."
    )
    smaller = finding(2e9, given(studio, family, (1.0, 2.0), 0.1), [])
    beaten = (
        f"the smaller model small (measured at 64 steps, 0.64 GMACs) beats the larger big (measured at {big}"
    )
    assert beaten in smaller
    alike = finding(2e9, given(studio, family, (1.0, 1.1), 0.1), [])
    assert "cannot be told apart: Fréchet distance 1 against 1.1, and their 95 % intervals overlap" in alike


def test_without_a_table_the_sentence_says_what_it_rests_on(studio: Studio, family: Sequence[Rung]) -> None:
    plain = allow(studio, family, 20 * family[1].macs_per_pass, WISH, None)
    assert finding(2e9, plain, []) == ""
    [*_, last] = studio.stream(family[0], plain[0].request.settings)
    drawn = [Drawn(plain[0].request, last.x0, last.macs, last.seconds, None)]
    looked = [replace(drawn[0], verdict=Verdict("cone", (name,))) for name in ("cone", "cube")]
    said = finding(2e9, plain, looked)
    assert "1 of 2 models draw what passes for a cone, and small does not, says the class check" in said
    assert "judge by eye" in finding(2e9, plain, drawn) and "no measure" in finding(2e9, plain, drawn)


def test_every_model_has_a_card(studio: Studio, family: Sequence[Rung]) -> None:
    shown = Shown.of(1e9, Group("toys", tuple(family)), given(studio, family, (3.4, 1.2), 0.1))
    page = shown.html()
    assert page.count("<li>") == 2 and "64 steps" in page and "Fréchet 3.4" in page
    assert page.count("trained on nobody says how many pictures") == 2  # there is no table that knows
    assert [request.rung.name for request in shown.job.requests] == [
        each.rung.name for each in sorted(shown.given, key=lambda each: each.macs)
    ]
    assert math.isclose(shown.job.seconds, sum(r.rung.seconds(r.settings) for r in shown.job.requests))
