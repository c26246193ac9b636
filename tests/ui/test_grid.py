"""Grids: what may be typed for an axis, what is in a cell, which is drawn first, what can be taken away."""

import asyncio
import contextlib
import io
import itertools
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dit.pictures import read_settings
from tests.families import made_up
from ui import grid_picture, jobs
from ui.axes import Axis, parse_axis, usual_values
from ui.families import UNKNOWN, Group, groups_of
from ui.grid import Grid, plan
from ui.grid_html import GridPage
from ui.grid_view import planned as planned_of
from ui.judge import Judge, Verdict
from ui.limits import USUAL, Limits
from ui.opening import open_studio
from ui.request import Wish
from ui.several import Drawn
from ui.studio import Rung, Studio
from ui.turns import Turns

FIXED = Wish("small", "cone", 4, 1.0, 7, 1, "auto")


@pytest.fixture(scope="module")
def studio(ladder_files: list[Path]) -> Studio:
    """The two random models, and whatever is bundled."""
    return open_studio(ladder_files, limits=Limits(models=9))


@pytest.fixture(scope="module")
def family(studio: Studio) -> Sequence[Rung]:
    """The two random models: nobody knows what they learned from."""
    return groups(studio)[UNKNOWN].rungs


def groups(studio: Studio) -> dict[str, Group]:
    """As the page has them where nothing was measured."""
    return groups_of(studio.rungs, studio.first, {})


@pytest.fixture(scope="module")
def judge() -> Judge:
    """The bundled classifier, which knows ten solids; the random models have five classes."""
    return Judge.bundled()


def axis(name: str, text: str, family: Sequence[Rung]) -> Axis:
    return parse_axis(name, text, family, family)


def test_models_of_one_dataset_are_a_family(studio: Studio, family: Sequence[Rung]) -> None:
    assert [rung.name for rung in family] == ["small", "big"]
    solids = groups(studio)["solids"].compared
    assert solids and all(rung.provenance["dataset"] == "solids" for rung in solids)
    assert next(iter(groups(studio))) == "solids"  # of the model that the page opens on
    for side in (256, 512):  # the published ones, which are not here, and may come
        group = groups(studio)[f"imagenet {side} x {side}"]
        assert [rung.name for rung in group.rungs] == [f"DiT-XL/2-{side}"]


def test_all_means_the_same_whatever_is_in_memory(studio: Studio) -> None:
    home = next(iter(groups(studio).values()))
    values = ("model", "all", "steps", "2", None, "cone", 4, 1.0, "auto", 0, 1, 1)
    before = planned_of(studio, home, values).down.values
    for rung in list(studio.resident):
        studio.unload(rung)
    studio.pipeline(next(rung for rung in studio.rungs if rung.name == "big"))  # of another group
    assert studio.first.name == "big" and planned_of(studio, home, values).down.values == before
    measured = made_up("x", ((before[0], 10**6), (before[1], 10**7)))
    home = groups_of(studio.rungs, home.rungs[0], {"x": measured})["solids"]
    assert planned_of(studio, home, values).down.values == before[:2]  # those of the table


def test_models_that_were_not_trained_alike_are_told(studio: Studio, family: Sequence[Rung]) -> None:
    solids = groups(studio)["solids"].compared
    seen = {rung.name: rung.provenance["images_seen"] for rung in solids}
    assert len(set(seen.values())) > 1
    unlike = plan(studio, axis("model", "all", solids), axis("steps", "1", solids), FIXED)
    told = unlike.notes[-1]
    assert told.startswith("Not trained alike: ")
    assert all(f"{name} was trained on {number:,} pictures" in told for name, number in seen.items())
    assert "Not trained alike" in GridPage(Grid.of(unlike)).html()
    assert len(plan(studio, axis("model", "all", family), axis("steps", "1", family), FIXED).notes) == 1


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("steps", "1, 2, 4, 8", (1, 2, 4, 8)),
        ("steps", "1-4; 8", (1, 2, 3, 4, 8)),
        ("seed", "3 to 5", (3, 4, 5)),
        ("guidance", "1, 1.5,2", (1.0, 1.5, 2.0)),
        ("sampler", "DDIM, dpm-solver++", ("ddim", "dpm-solver++")),
        ("class", "cone, 0, Torus", ("cone", "sphere", "torus")),
        ("class", "all", ("sphere", "cube", "cylinder", "cone", "torus")),
        ("model", "all", ("small", "big")),
        ("model", "BIG", ("big",)),
        ("caching", "1,2,", (1, 2)),
    ],
)
def test_values_are_typed_as_text(name: str, text: str, values: tuple, family: Sequence[Rung]) -> None:
    assert axis(name, text, family).values == values


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("colour", "1", "an axis is 'colour'; choose one of model, steps"),
        (["steps"], "1", "an axis is .*choose one of"),
        ("steps", " , ", "the axis steps has no values; give some, such as 1, 2, 4"),
        ("steps", None, "no values"),
        ("steps", "4, 8, 4", "steps 4 is on its axis twice; give each value once"),
        ("class", "cone, 3", "class cone is on its axis twice"),
        ("steps", "1, many", "steps is 'many'; it must be a whole number from 1 to 1000"),
        ("steps", "0", "steps is '0'.*from 1 to 1000"),
        ("steps", "1e999999", "steps is '1e999999'.*from 1 to 1000"),
        ("steps", "8-1", "runs backwards; write 1-8"),
        ("seed", "0-999999999999", f"1000000000000 values; a grid has at most {USUAL.cells} cells"),
        ("seed", ",".join(map(str, range(65))), "seed has 65 values; a grid has at most 64"),
        ("guidance", "nan", "guidance is 'nan'; it must be a number from 0 to 20"),
        ("sampler", "fast", "sampler is 'fast', which is not here; choose among auto, ddim"),
        ("model", "huge", "model is 'huge', which is not here; choose among small, big, or all"),
        ("class", "zebra", "no class is called 'zebra'.*small has sphere, cube"),
        ("class", "9", "class is '9'; it must be a whole number from 0 to 4"),
        ("class", "x" * 3000, "3000 letters; at most 2000 are read"),
    ],
)
def test_what_cannot_be_an_axis_says_why(name: str, text: str, message: str, family: Sequence[Rung]) -> None:
    with pytest.raises(ValueError, match=message):
        parse_axis(name, text, family, family)


def test_what_the_page_proposes_can_be_drawn(studio: Studio) -> None:
    for rungs in (group.compared for group in groups(studio).values()):
        for name in ("model", "steps", "guidance", "sampler", "class", "seed", "caching"):
            assert parse_axis(name, usual_values(name, rungs), rungs, rungs).values


def test_cells_are_planned_cheapest_first(studio: Studio, family: Sequence[Rung]) -> None:
    planned = plan(studio, axis("model", "big, small", family), axis("steps", "8, 2", family), FIXED)
    assert [(cell.row, cell.column) for cell in planned.cells] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    costs = [cell.macs for cell in planned.order]
    assert costs == sorted(costs) and len(set(costs)) == 4
    cheapest = planned.order[0].request
    assert (cheapest.rung.name, cheapest.settings.steps) == ("small", 2)
    assert {(*cell.request.settings.seeds, cell.request.label) for cell in planned.order} == {(7, 3)}
    assert planned.held == {
        "class": "cone", "guidance": "1", "sampler": "each model's first", "seed": "7", "pictures a cell": "1"
    }  # fmt: skip
    assert planned.summary.startswith("4 cells, ") and planned.macs == sum(costs)


def test_what_a_model_cannot_serve_is_a_cell_that_says_so(studio: Studio, family: Sequence[Rung]) -> None:
    planned = plan(studio, axis("sampler", "ddim, heun", family), axis("steps", "2, 3", family), FIXED)
    assert [bool(cell.request) for cell in planned.cells] == [True, True, False, False]
    assert "heun" in planned.cells[2].refusal and "2 cannot be drawn" in planned.summary
    with pytest.raises(ValueError, match="none of the 2 cells can be drawn: sampler is 'heun'"):
        plan(studio, axis("sampler", "heun", family), axis("steps", "2, 3", family), FIXED)


def test_too_much_is_refused_with_value_limit_and_remedy(
    studio: Studio, family: Sequence[Rung], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = axis("steps", "1-9", family)
    with pytest.raises(ValueError, match="both axes are steps; choose another for one of them: model"):
        plan(studio, steps, steps, FIXED)
    with pytest.raises(ValueError, match=r"9 x 8 are 72 cells; a grid has at most 64: give fewer values"):
        plan(studio, steps, axis("seed", "0-7", family), FIXED)
    seeds = axis("seed", "0-1", family)
    monkeypatch.setattr(studio, "limits", Limits(seconds=1e-9))
    with pytest.raises(ValueError, match="expected to take .* GMACs.*at most .*choose fewer steps"):
        plan(studio, steps, seeds, FIXED)
    monkeypatch.setattr(studio, "limits", Limits(pixels=18 * 1024 - 1))
    with pytest.raises(ValueError, match="megapixels together.*give fewer cells, or fewer pictures"):
        plan(studio, steps, seeds, FIXED)


def fill(studio: Studio, grid: Grid, judge: Judge, stop_after: int | None = None) -> list[bool]:
    """Draw a grid; with stop_after, stop once so many cells are done, and say what was reported since."""

    async def scene() -> list[bool]:
        turns, seen, after = Turns(studio), [], []
        events = jobs.draw_all(turns, grid.job.requests, "visitor", "grid")
        async with contextlib.aclosing(grid.job.follow(events, turns, judge)) as following:
            async for done in following:
                seen.append(done)
                if stop_after is not None and sum(seen) >= stop_after:
                    if sum(seen) == stop_after and done:
                        assert turns.stop("visitor") == 1  # one job, however many cells
                    else:
                        after.append(done)
        assert not turns.line
        grid.job.close()
        return after if stop_after is not None else seen

    return asyncio.run(scene())


@pytest.fixture(scope="module")
def filled(studio: Studio, family: Sequence[Rung], judge: Judge) -> Grid:
    """Models against steps, with one sampler that none can serve left out."""
    grid = Grid.of(plan(studio, axis("model", "all", family), axis("steps", "1, 3", family), FIXED))
    fill(studio, grid, judge)
    return grid


def test_a_cell_is_what_its_settings_draw_alone(studio: Studio, filled: Grid) -> None:
    assert filled.job.complete
    for cell in filled.plan.cells:
        drawn = filled.drawn(cell)
        [*_, last] = studio.stream(cell.request.rung, cell.request.settings)
        assert np.array_equal(drawn.pictures, last.x0) and drawn.macs == cell.macs == last.macs
        assert drawn.verdict is None  # no classifier knows these five classes


def test_stop_ends_the_whole_grid_and_keeps_what_was_drawn(
    studio: Studio, family: Sequence[Rung], judge: Judge
) -> None:
    grid = Grid.of(plan(studio, axis("steps", "1, 2, 40", family), axis("seed", "0-3", family), FIXED))
    assert fill(studio, grid, judge, stop_after=3) == []
    assert len(grid.job.drawn) == 3 and not grid.job.complete
    described = grid.describe()["cells"]
    assert sum("pictures" in cell for cell in described) == 3
    assert sum(cell.get("missing") == "not drawn" for cell in described) == 9


def test_the_class_check_is_the_classifiers_verdict(studio: Studio, judge: Judge) -> None:
    solids = groups(studio)["solids"].compared
    [classifier] = judge.classifiers
    down, across = axis("model", solids[0].name, solids), axis("class", "cone, cube", solids)
    grid = Grid.of(plan(studio, down, across, FIXED._replace(steps=8, pictures=3)))
    fill(studio, grid, judge)
    for cell in grid.plan.cells:
        drawn = grid.drawn(cell)
        found = [solids[0].classes[label] for label in classifier.classify(drawn.pictures)]
        assert drawn.verdict == Verdict(across.values[cell.column], tuple(found))
        assert [picture["looks_like"] for picture in drawn.describe()] == found
        assert drawn.macs == cell.macs  # of one of the three
    with zipfile.ZipFile(io.BytesIO(grid_picture.grid_zip(grid))) as archive:
        for name in (name for name in archive.namelist() if name.endswith(".png")):
            image = Image.open(io.BytesIO(archive.read(name)))
            settings = read_settings(image)
            assert name.endswith(f"seed-{settings['seed']}.png")
            row = [cell for cell in grid.plan.cells if across.values[cell.column] == settings["class"]][0]
            assert np.array_equal(np.asarray(image), grid.drawn(row).pictures[settings["seed"] - 7])


def test_verdicts_in_words() -> None:
    said = [
        Verdict("cone", found).text
        for found in (("cone",), ("octahedron",), ("cone",) * 2, ("cone", "cube"), ("cube",) * 3)
    ]
    assert said == [
        "looks like a cone",
        "looks like an octahedron",
        "2 of 2 look like a cone",
        "1 of 2 looks like a cone",
        "none of 3 looks like a cone; rather a cube",
    ]
    assert Verdict("cone", ("cone",)).passed and not Verdict("cone", ("cone", "cube")).passed


def test_the_page_shows_cells_drawn_now_and_to_come(
    studio: Studio, family: Sequence[Rung], filled: Grid
) -> None:
    page = GridPage(filled).html()
    assert page.count("<img") == 4 and 'alt="small, 1 step' in page and "dl-blank" not in page
    fresh = Grid.of(plan(studio, axis("sampler", "ddim, heun", family), axis("class", "all", family), FIXED))
    fresh.job.now = 0
    [fresh.job.frame, *_] = studio.stream(fresh.job.requests[0].rung, fresh.job.requests[0].settings)
    page = GridPage(fresh).html()
    assert page.count("dl-now") == 1 and "step 1 of 4" in page
    assert page.count("to be drawn") == 4 and page.count("dl-refused") == 5


def test_text_that_was_typed_is_shown_as_text(studio: Studio, family: Sequence[Rung]) -> None:
    fixed = FIXED._replace(label="<b>cone")
    with pytest.raises(ValueError):
        plan(studio, axis("steps", "1", family), axis("seed", "0", family), fixed)
    planned = plan(studio, axis("class", "cone", family), axis("seed", "0", family), fixed)
    assert "<b>cone" not in GridPage(Grid.of(planned)).html()


def test_the_png_holds_every_cell_and_the_settings(filled: Grid) -> None:
    image = Image.open(io.BytesIO(grid_picture.grid_png(filled)))
    described = read_settings(image)
    assert described == json.loads(json.dumps(filled.describe()))
    assert [cell["pictures"][0]["steps"] for cell in described["cells"]] == [1, 3, 1, 3]
    pixels = np.asarray(image)
    for cell in filled.plan.cells:  # each picture stands in it, enlarged by whole pixels
        large = filled.drawn(cell).pictures[0].repeat(5, axis=0).repeat(5, axis=1)
        rows, columns = np.where((pixels[:-159, :-159] == large[0, 0]).all(-1))
        assert any(
            np.array_equal(pixels[y : y + 160, x : x + 160], large)
            for y, x in zip(rows, columns, strict=True)
        )


@pytest.mark.parametrize(("rows", "columns"), [(64, 1), (1, 64), (1, 1), (5, 7)])
def test_the_png_is_legible_at_any_shape(
    studio: Studio, family: Sequence[Rung], monkeypatch: pytest.MonkeyPatch, rows: int, columns: int
) -> None:
    """Of a grid that is drawn all texts are there, within the picture, and none lies on another."""
    fixed, verdict = FIXED._replace(pictures=4), Verdict("cone", ("cube", "octahedron", "torus", "cone"))
    down, across = axis("seed", f"0-{rows - 1}", family), axis("steps", f"1-{columns}", family)
    grid = Grid.of(plan(studio, down, across, fixed))
    for place, request in enumerate(grid.job.requests):
        pictures = np.zeros((4, 32, 32, 3), np.uint8)
        grid.job.drawn[place] = Drawn(request, pictures, 123_456_789_000, 1234.5, verdict)
    written, plain = {}, ImageDraw.ImageDraw.text

    def text(self: ImageDraw.ImageDraw, place: tuple, said: str, fill: str, font: object) -> None:
        written[self.textbbox(place, said, font=font)] = said
        plain(self, place, said, fill, font)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    image = grid_picture.grid_image(grid)
    assert image.width * image.height < 16e6
    assert all(0 <= x < right <= image.width and 0 <= y < low <= image.height for x, y, right, low in written)
    for one, other in itertools.combinations(written, 2):
        apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert apart, f"{written[one]} and {written[other]} overlap"
    said = list(written.values())
    assert said.count("123 GMACs, 21 min") == rows * columns
    assert all(f"seed {i}" in said for i in range(rows)) and (columns == 1 or f"{columns} steps" in said)
    assert sum("1 of 4" in line for line in said) == rows * columns


def test_text_is_wrapped_within_its_width() -> None:
    for text in ("DiT-C-4-cross-attention-solids", "x" * 90, "a b c", ""):
        lines = grid_picture.wrapped(text, 15, 100)
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")
        assert all(grid_picture.font(15).getlength(line) <= 100 for line in lines)


def test_the_zip_holds_every_picture_with_its_settings(filled: Grid) -> None:
    with zipfile.ZipFile(io.BytesIO(grid_picture.grid_zip(filled))) as archive:
        described = json.loads(archive.read("settings.json"))
        names = [name for cell in described["cells"] for name in cell["files"]]
        assert sorted([*names, "settings.json"]) == sorted(archive.namelist()) and len(names) == 4
        for cell, values in zip(filled.plan.cells, described["cells"], strict=True):
            image = Image.open(io.BytesIO(archive.read(values["files"][0])))
            assert np.array_equal(np.asarray(image), filled.drawn(cell).pictures[0])
            assert read_settings(image) == values["pictures"][0]
            assert read_settings(image)["seed"] == 7
