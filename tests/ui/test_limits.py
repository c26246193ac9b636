"""What this server allows: checked when made, kept by every view, told on the page."""

import asyncio
import dataclasses
from pathlib import Path

import gradio as gr
import pytest

from dit.samplers import OF_FORMULATION
from ui import jobs
from ui.axes import Axis, parse_axis
from ui.budget import allow
from ui.controls import PAGE_GUIDANCE
from ui.costs import refuse_dear
from ui.grid import plan
from ui.limits import USUAL, Limits
from ui.limits_html import limits_html
from ui.opening import open_studio
from ui.page import build, serving
from ui.request import PAGE_STEPS, Request, Wish, parse
from ui.runs import Runs
from ui.studio import Rung, Studio
from ui.turns import Turns

LARGEST = "DiT-XL/2-512"


@pytest.fixture(scope="module")
def studio(ladder_files: list[Path]) -> Studio:
    """The random models, the bundled and the published ones, under limits of its own."""
    return open_studio(
        ladder_files, limits=Limits(models=2, small_bytes=1, gmacs=2, pictures=8, cells=6, waiting=3)
    )


def asked(studio: Studio, model: str, steps: int, pictures: int, guidance: float = 4.0) -> Request:
    return parse(studio.rungs, Wish(model, 0, steps, guidance, 0, pictures, "auto"))


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Limits)])
def test_a_limit_that_allows_nothing_is_refused(name: str) -> None:
    if name not in ("training", "folders"):
        with pytest.raises(ValueError, match=f"the limit of {name} is 0; it must be above 0"):
            Limits(**{name: 0})
        with pytest.raises(ValueError, match=f"the limit of {name} is nan"):
            Limits(**{name: float("nan")})


def test_all_that_the_sliders_allow_of_models_of_pixels_is_given(studio: Studio) -> None:
    for rung in (rung for rung in studio.rungs if not rung.latent):
        guidance = PAGE_GUIDANCE if rung.config.has_null_class else 1
        for sampler in OF_FORMULATION[rung.config.formulation]:
            wish = Wish(rung.name, 0, PAGE_STEPS, guidance, 0, USUAL.pictures, sampler)
            refuse_dear([parse(studio.rungs, wish)], USUAL)


def test_the_largest_model_is_given_at_usual_settings_and_not_at_all_of_them(studio: Studio) -> None:
    refuse_dear([asked(studio, LARGEST, 250, 4)], USUAL)
    refuse_dear([asked(studio, "DiT-XL/2-256", 250, 16)], USUAL)
    with pytest.raises(
        ValueError,
        match="16 pictures would cost 16,785,226 GMACs, and this server gives at most 1,200,000 to a "
        "request: choose fewer steps, fewer pictures, or a smaller model",
    ):
        refuse_dear([asked(studio, LARGEST, 1000, 16)], USUAL)


def test_several_requests_are_counted_together(studio: Studio) -> None:
    request = asked(studio, "big", 10, 1)
    each = request.rung.macs(request.settings) / 1e9
    refuse_dear([request] * 3, Limits(gmacs=3.001 * each))
    with pytest.raises(ValueError, match="3 pictures would cost"):
        refuse_dear([request] * 3, Limits(gmacs=2.999 * each))


def test_no_view_draws_what_costs_too_much(studio: Studio) -> None:
    """The device has nothing to do with it, and nobody has taken a place."""

    async def scene() -> None:
        turns = Turns(studio)
        events = jobs.draw(turns, asked(studio, "big", 1000, 16), "a", "explore")
        with pytest.raises(gr.Error, match="16 pictures would cost .* at most 2.00 to a request"):
            await anext(events)
        assert not turns.line and not turns._parts()

    asyncio.run(scene())


def test_a_grid_and_a_budget_say_so_before_they_are_drawn(studio: Studio) -> None:
    rungs = [rung for rung in studio.rungs if rung.name in ("small", "big")]
    wish = Wish("big", 0, 16, 2.0, 0, 4, "auto")
    with pytest.raises(ValueError, match="16 pictures would cost .* at most 2.00"):
        plan(studio, Axis("steps", (1, 999)), Axis("seed", (0, 1)), wish)
    with pytest.raises(ValueError, match="8 pictures would cost .* at most 2.00"):
        allow(studio, rungs, 2e9, wish, None)


def rungs_of(studio: Studio) -> list[Rung]:
    return [rung for rung in studio.rungs if rung.name in ("small", "big")]


def test_pictures_and_cells_are_those_of_the_limits(studio: Studio) -> None:
    with pytest.raises(gr.Error, match="pictures is 9; it must be a whole number from 1 to 8"):
        jobs.check(studio, Wish("big", 0, 4, 1.0, 0, 9, "auto"), "api")
    with pytest.raises(ValueError, match="steps is 11; it must be a whole number from 1 to 10"):
        parse(studio.rungs, Wish("big", 0, 11, 1.0, 0, 1, "auto"), Limits(steps=10))
    with pytest.raises(ValueError, match="the axis steps has 7 values; a grid has at most 6 cells"):
        parse_axis("steps", "1,2,3,4,5,6,7", rungs_of(studio), rungs_of(studio), studio.limits.cells)
    with pytest.raises(ValueError, match="8 cells; a grid has at most 6"):
        plan(studio, Axis("steps", (1, 2)), Axis("seed", (0, 1, 2, 3)), Wish("big", 0, 1, 1.0, 0, 1, "auto"))


def test_the_server_keeps_to_them(studio: Studio, tmp_path: Path) -> None:
    page = build(studio, Runs(tmp_path))
    assert page.demo._queue.max_size == 3 and len(studio.resident) == 2
    sliders = [block for block in page.demo.blocks.values() if isinstance(block, gr.Slider)]
    assert [slider.maximum for slider in sliders if slider.elem_id == "pictures"] == [8]
    taken = serving(Limits(sessions=5, upload_bytes=7, training=True))
    assert (taken["state_session_capacity"], taken["max_file_size"]) == (5, 7)
    assert serving(Limits(training=False))["max_file_size"] == "1mb"


def test_the_page_tells_all_of_them(studio: Studio, tmp_path: Path) -> None:
    told = limits_html(Limits(runs=2), training=True)
    for said in (
        "16 pictures, 1,000 steps", "1,200,000 GMACs", "64 cells, 15 min expected, 4.2 megapixels", "20 jobs",
        "64 whose pictures are kept", "3 models; those below 64 MB count for their part",
        "its last half takes one of each session", "2 runs at a time",
        "200 MB, 1 GB unpacked, 100,000 files", "5 GB unpacked; what no run needs goes 24 h after",
    ):  # fmt: skip
        assert said in told, said
    assert "Training" not in limits_html(USUAL, training=False)
    shown = [block.value for block in build(studio).demo.blocks.values() if isinstance(block, gr.HTML)]
    assert limits_html(studio.limits, training=False) in shown
