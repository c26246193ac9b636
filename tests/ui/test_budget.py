"""Equal budget: the steps that each model can afford, the cell measured near, and what is said of it."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from dit.measured import Cell, Family, MeasuredModel
from ui.budget import Allowance, allow, budget_at, finding, near, positions
from ui.budget_view import Shown
from ui.families import UNKNOWN, families
from ui.judge import Verdict
from ui.request import PAGE_STEPS, Wish
from ui.several import Drawn
from ui.studio import Rung, Studio, open_studio

WISH = Wish(None, "cone", 1, 2.0, 7, 1, "auto")


@pytest.fixture(scope="module")
def studio(ladder_files: list[Path]) -> Studio:
    """The two random models, and whatever is bundled."""
    return open_studio(ladder_files, limit=9)


@pytest.fixture(scope="module")
def family(studio: Studio) -> list[Rung]:
    """The two random models, small and big."""
    return families(studio)[UNKNOWN]


def measured(values: dict[tuple[str, int], float], spread: float = 0.1) -> Family:
    """A table of Frechet distances by model and steps, with ddim at guidance 2."""
    cells = [
        Cell(
            model=model, sampler="ddim", steps=steps, guidance_scale=2.0, guidance_interval=None,
            cache_every=1, passes=steps, reused=0, macs=steps, seconds=1.0, samples=5000, seed=0,
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
    studio: Studio, family: list[Rung], guidance: float, sampler: str
) -> None:
    budget = 30 * family[1].macs_per_pass
    given = allow(studio, family, budget, WISH._replace(guidance_scale=guidance, sampler=sampler), None)
    passes = 2 if guidance != 1 else 1
    for rung, each in zip(family, given, strict=True):
        assert each.steps == min(PAGE_STEPS, budget // (passes * rung.macs_per_pass))
        assert each.macs == each.steps * passes * rung.macs_per_pass <= budget
        assert (list(each.request.settings.seeds), each.request.label) == ([7], 3)
    assert given[0].steps > given[1].steps


def test_who_cannot_afford_a_step_says_what_it_costs(studio: Studio, family: list[Rung]) -> None:
    small, big = allow(studio, family, 2 * family[0].macs_per_pass, WISH, None)
    assert small.steps == 1 and big.steps == 0
    assert big.refusal.startswith("cannot afford one step: that takes 0.")
    nobody = allow(studio, family, 1.0, WISH, None)
    assert not any(each.request for each in nobody)
    assert "cannot afford" in Shown.of(1.0, nobody).html()


def test_heun_looks_twice_a_step_and_a_cache_pays_less(studio: Studio, family: list[Rung]) -> None:
    budget = 20 * family[1].macs_per_pass
    plain = allow(studio, family, budget, WISH, None)
    cached = allow(studio, family, budget, WISH._replace(cache_every=3), None)
    assert all(less.steps < more.steps for less, more in zip(plain, cached, strict=True) if less.steps < 250)
    assert all(each.macs <= budget for each in cached)
    with pytest.raises(ValueError, match="sampler is 'heun', but this model's formulation is ddpm"):
        allow(studio, family, budget, WISH._replace(sampler="heun"), None)


def test_too_long_a_job_is_refused(
    studio: Studio, family: list[Rung], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ui.budget.MAX_SECONDS", 1e-9)
    with pytest.raises(ValueError, match="expected to take .* for 2 models; at most .*smaller budget"):
        allow(studio, family, 100 * family[1].macs_per_pass, WISH, None)


def test_the_slider_reaches_from_one_step_to_all(family: list[Rung]) -> None:
    low, high = positions(family, 2.0)
    assert family[0].macs_per_pass <= budget_at(low) < family[0].macs_per_pass * 10 ** (1.001 / 20)
    dearest = 2 * PAGE_STEPS * family[-1].macs_per_pass
    assert dearest <= budget_at(high) * (1 + 1e-9) and budget_at(high - 1) < dearest
    assert budget_at(20) == pytest.approx(10 * budget_at(0)) and budget_at(0) == 1e9


def test_the_measured_cell_is_near_and_never_dearer(studio: Studio, family: list[Rung]) -> None:
    table = measured({("small", 8): 5.0, ("small", 16): 4.0, ("small", 64): 3.0, ("big", 64): 1.0})
    budget = 2 * 40 * family[0].macs_per_pass  # 40 steps of the small model
    small, big = allow(studio, family, budget, WISH, table)
    assert small.steps == 40 and small.measured is None  # 16 is less than half of 40, 64 is more
    small, _ = allow(studio, family, budget * 30 / 40, WISH, table)
    assert small.steps == 30 and small.measured.steps == 16
    assert (
        near(table, allow(studio, family, budget, WISH._replace(guidance_scale=1.0), None)[0].request) is None
    )
    assert near(None, small.request) is None and big.measured is None


def given(
    studio: Studio, family: list[Rung], frechets: tuple[float, float], spread: float
) -> list[Allowance]:
    """Budget for 64 steps of the small model, with both measured at what they can afford."""
    budget = 2 * 64 * family[0].macs_per_pass
    steps = [each.steps for each in allow(studio, family, budget, WISH, None)]
    table = measured({("small", steps[0]): frechets[0], ("big", steps[1]): frechets[1]}, spread)
    return allow(studio, family, budget, WISH, table)


def test_the_sentence_compares_what_was_measured(studio: Studio, family: list[Rung]) -> None:
    larger = given(studio, family, (3.4, 1.2), 0.1)
    big = larger[1].steps
    assert finding(2e9, larger, []) == (
        f"At 2.00 GMACs a picture the larger model big at {big} steps beats the smaller small at 64 "
        "(Fréchet 1.2 against 3.4; lower is better)."
    )
    smaller = finding(2e9, given(studio, family, (1.0, 2.0), 0.1), [])
    assert f"the smaller model small at 64 steps beats the larger big at {big}" in smaller
    alike = finding(2e9, given(studio, family, (1.0, 1.1), 0.1), [])
    assert "cannot be told apart (Fréchet 1 against 1.1; their 95 % intervals overlap)" in alike


def test_without_a_table_the_sentence_says_what_it_rests_on(studio: Studio, family: list[Rung]) -> None:
    plain = allow(studio, family, 20 * family[1].macs_per_pass, WISH, None)
    assert finding(2e9, plain, []) == ""
    [*_, last] = studio.stream(family[0], plain[0].request.settings)
    drawn = [Drawn(plain[0].request, last.x0, last.macs, last.seconds, None)]
    looked = [replace(drawn[0], verdict=Verdict("cone", (name,))) for name in ("cone", "cube")]
    said = finding(2e9, plain, looked)
    assert "1 of 2 models draw what passes for a cone, and small does not, says the class check" in said
    assert "judge by eye" in finding(2e9, plain, drawn) and "no measure" in finding(2e9, plain, drawn)


def test_every_model_has_a_card(studio: Studio, family: list[Rung]) -> None:
    shown = Shown.of(1e9, given(studio, family, (3.4, 1.2), 0.1))
    page = shown.html()
    assert page.count("<li>") == 2 and "64 steps" in page and "Fréchet 3.4" in page
    assert [request.rung.name for request in shown.job.requests] == [
        each.rung.name for each in sorted(shown.given, key=lambda each: each.macs)
    ]
    assert math.isclose(shown.job.seconds, sum(r.rung.seconds(r.settings) for r in shown.job.requests))
