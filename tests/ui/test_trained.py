"""Runs' weights on the ladder of models: they come, are read anew, and go without moving the others."""

import os
from pathlib import Path

import gradio as gr
import pytest

import dit
from tests.run_folders import write_run
from ui import jobs
from ui.axes import Axis, parse_axis
from ui.budget import allow
from ui.controls import chosen
from ui.costs import ladder_html
from ui.families import groups_of, joined
from ui.grid import plan
from ui.limits import Limits
from ui.models import table_html
from ui.opening import open_studio
from ui.request import Wish, parse
from ui.run_delete import delete
from ui.runs import Runs
from ui.studio import Rung, Studio
from ui.tables import load_tables
from ui.trained import Trained


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "runs")


@pytest.fixture
def trained(runs: Runs, ladder_files: list[Path]) -> Trained:
    return Trained(open_studio(ladder_files, limits=Limits(models=9)), runs)


def drawn(studio: Studio, rung: Rung) -> float:
    [*_, frame] = studio.stream(rung, dit.SampleSettings(classes=[0], seeds=[0], steps=2))
    return float(frame.x0.astype(int).sum())


def test_a_run_joins_behind_the_others_and_draws(trained: Trained, runs: Runs) -> None:
    studio = trained.studio
    before, first = list(studio.rungs), studio.first
    trained.look()
    assert studio.rungs == before
    write_run(runs.folder, "mine")
    trained.look()
    assert studio.rungs[:-1] == before and studio.first is first
    rung = studio.rungs[-1]
    assert rung.name == "mine" and rung.in_training and studio.missing(rung) is None
    assert rung.titles == ("left", "right") and rung.side == 16
    request = parse(studio.rungs, Wish("mine", "right", 3, 2.0, 0, 2, "auto"))
    assert request.rung is rung and rung.seconds(request.settings) > 0
    assert drawn(studio, rung) > 0
    trained.look()
    assert len(studio.rungs) == len(before) + 1


def test_newer_weights_are_read_in_place_of_older_ones(trained: Trained, runs: Runs) -> None:
    studio = trained.studio
    write_run(runs.folder, "mine", seed=1)
    trained.look()
    rung = studio.rungs[-1]
    old = drawn(studio, rung)
    assert drawn(studio, rung) == old and rung.provenance["images_seen"] == 8
    write_run(runs.folder, "mine", seed=2)
    assert drawn(studio, rung) == old  # nobody has looked
    trained.look()
    assert studio.rungs[-1] is rung and rung.provenance["images_seen"] == 16
    new = drawn(studio, rung)
    assert new != old and studio.resident.count(rung) == 1 and not rung.outdated
    read = rung.pipeline
    trained.look()
    assert drawn(studio, rung) == new and rung.pipeline is read


def test_weights_that_are_gone_are_told_and_their_place_stays(trained: Trained, runs: Runs) -> None:
    studio = trained.studio
    write_run(runs.folder, "mine"), write_run(runs.folder, "other")
    trained.look()
    mine, other = studio.rungs[-2:]
    Path(mine.source).unlink()
    trained.look()
    assert studio.rungs[-2:] == [mine, other]
    said = str(studio.missing(mine))
    assert "the weights of mine are no longer in its folder" in said and "python -m train --run-dir" in said


def test_a_deleted_run_is_out_of_play_though_in_memory_and_every_view_says_so(
    trained: Trained, runs: Runs
) -> None:
    studio = trained.studio
    write_run(runs.folder, "mine", told={"dataset": "solids"}, input_size=32)
    trained.look()
    rung = studio.rungs[-1]
    assert drawn(studio, rung) > 0 and rung.pipeline
    delete(runs, "mine")
    trained.look()
    said = "mine was deleted, and its weights with it; train another"
    assert said in str(studio.missing(rung)) and studio.rungs[-1] is rung
    wish = Wish("mine", 0, 3, 2.0, 0, 1, "auto")
    with pytest.raises(gr.Error, match=said):
        jobs.check(studio, wish, "explore")
    assert said in ladder_html(studio, rung) and said in table_html(studio)
    with pytest.raises(ValueError, match=f"none of the 2 cells can be drawn: {said}"):
        plan(studio, Axis("steps", (1, 2)), Axis("seed", (0,)), wish)
    both = plan(studio, Axis("model", ("mine", "DiT-E-4-solids")), Axis("seed", (0,)), wish)
    assert [said in cell.refusal for cell in both.cells] == [True, False]
    here = [other for other in studio.rungs if not studio.missing(other)]
    with pytest.raises(ValueError, match="model is 'mine', which is not here"):
        parse_axis("model", "mine", [], here)
    solids = groups_of(studio.rungs[:-1], studio.first, load_tables(studio.tables))["solids"]
    given = allow(studio, joined(solids, studio.rungs), 1e12, wish._replace(label="cone"), None)
    assert [said in each.refusal for each in given if each.rung is rung] == [True]
    with pytest.raises(ValueError, match="there is no run called 'mine'"):
        trained.position("mine")


def test_a_new_run_of_a_deleted_ones_name_takes_its_place_with_its_own_weights(
    trained: Trained, runs: Runs
) -> None:
    studio = trained.studio
    write_run(runs.folder, "mine", seed=1)
    place = trained.position("mine")
    rung = studio.rungs[place]
    old, cost, speed = drawn(studio, rung), rung.macs_per_pass, rung.speed
    delete(runs, "mine")
    trained.look()
    (runs.folder / "mine").mkdir()
    (runs.folder / "mine" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="mine has no weights to draw with yet"):
        trained.position("mine")
    classes = ["up", "down", "strange"]
    write_run(runs.folder, "mine", seed=2, input_size=32, num_classes=3, told={"classes": classes})
    assert trained.position("mine") == place and studio.names.count("mine") == 1
    assert rung.side == 32 and rung.titles == tuple(classes) and studio.missing(rung) is None
    assert rung.macs_per_pass > cost and rung.speed.per_picture > speed.per_picture
    [*_, frame] = studio.stream(rung, dit.SampleSettings(classes=[2], seeds=[0], steps=2))
    assert frame.x0.shape[1:3] == (32, 32) and float(frame.x0.astype(int).sum()) != old


@pytest.mark.parametrize("wrong", ["cut", "channels"])
def test_what_cannot_be_drawn_with_is_left_out_and_logged(
    wrong: str, trained: Trained, runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    count = len(trained.studio.rungs)
    path = write_run(runs.folder, "mine", **({"in_channels": 2} if wrong == "channels" else {}))
    if wrong == "cut":
        os.truncate(path, 100)
    trained.look()
    assert len(trained.studio.rungs) == count
    assert "not on the ladder of models" in caplog.text and "mine" in caplog.text
    with pytest.raises(ValueError, match="mine has no weights to draw with yet"):
        trained.position("mine")
    write_run(runs.folder, "mine")
    trained.look()
    assert trained.studio.rungs[trained.position("mine")].name == "mine"


def test_a_name_that_is_taken_gets_a_number(trained: Trained, runs: Runs) -> None:
    taken = trained.studio.rungs[0].name
    write_run(runs.folder, taken)
    position = trained.position(taken)
    assert trained.studio.rungs[position].name == f"{taken} (2)" and position == len(trained.studio.rungs) - 1


def test_without_runs_nothing_is_looked_for(ladder_files: list[Path]) -> None:
    studio = open_studio(ladder_files, limits=Limits(models=9))
    before = list(studio.rungs)
    Trained(studio, None).look()
    assert studio.rungs == before


def test_the_slider_reaches_a_model_that_has_come_since(trained: Trained, runs: Runs) -> None:
    write_run(runs.folder, "mine")
    position = trained.position("mine")
    values = [0, 0, 50, 2, 0, 1, "ddim", 0, 999, 1]
    model, label, *_ = chosen(trained.studio, values, model=position)
    assert model["value"] == model["maximum"] == position
    assert label["maximum"] == 1


def test_equal_budgets_have_what_was_trained_on_the_same_data_and_side(trained: Trained, runs: Runs) -> None:
    studio = trained.studio
    groups = groups_of(studio.rungs, studio.first, load_tables(studio.tables))
    solids = groups["solids"]
    write_run(runs.folder, "like", told={"dataset": "solids"}, input_size=32)
    write_run(runs.folder, "small", told={"dataset": "solids"})
    write_run(runs.folder, "else", input_size=32)
    trained.look()
    added = set(joined(solids, studio.rungs)) - set(solids.compared)
    assert [rung.name for rung in added] == ["like"]
    costs = [rung.macs_per_pass for rung in joined(solids, studio.rungs)]
    assert costs == sorted(costs)
