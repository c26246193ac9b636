"""Training runs as the page starts, ends and finds them: with the real trainer, in processes of its own."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.ui.waiting import until
from ui import runs as module
from ui.run import FAILED, FINISHED, INTERRUPTED, PAUSED, RUNNING, STOPPED, TrainingRun
from ui.runs import Runs

TINY = ["smoke", "--model=DiT-N/8", "--image-size=16", "--num-pictures=64", "--batch-size=8", "--device=cpu"]
TINY += ["--log-every=1", "--sample-every=1000000", "--checkpoint-every=20", "--tracker=none", "--compile=no"]
LONG = [*TINY, "--total-steps=100000"]


def kill(folder: Path) -> None:
    os.kill(json.loads((folder / "process.json").read_text())["pid"], signal.SIGKILL)


def state_of(runs: Runs, name: str) -> str:
    return runs.named(name).state


@pytest.fixture
def runs(tmp_path):
    found = Runs(tmp_path / "runs")
    yield found
    for child in found._children.values():
        child.kill()
        child.wait()


def trains(runs: Runs, name: str, steps: int = 3) -> TrainingRun:
    """The run once it has done so many steps more."""
    first = runs.named(name).step
    until(lambda: runs.named(name).state != RUNNING or runs.named(name).step >= first + steps)
    return runs.named(name)


def test_a_run_ends_by_itself_and_is_finished(runs):
    run = runs.start("first", [*TINY, "--total-steps=5"])
    assert run.state == RUNNING and run.history is None and run.step == 0
    until(lambda: state_of(runs, "first") != RUNNING)
    run = runs.named("first")
    assert run.state == FINISHED and run.step == run.total_steps == 5
    assert [one.name for one in runs.found()] == ["first"]
    assert run.history.samples and (run.folder / "weights.safetensors").exists()
    with pytest.raises(ValueError, match="first is finished: there is nothing to resume"):
        runs.resume("first")
    with pytest.raises(ValueError, match="first is finished: it does not train now"):
        runs.pause("first")
    with pytest.raises(ValueError, match="a run called 'first' already"):
        runs.start("first", TINY)


def test_paused_resumed_and_stopped_by_another_page_than_began_it(runs, tmp_path):
    """The second one is a page that was started again: it knows the run by its folder alone."""
    runs.start("long", LONG)
    assert trains(runs, "long").state == RUNNING
    again = Runs(tmp_path / "runs")
    assert [(one.name, one.state) for one in again.found()] == [("long", RUNNING)]
    again.pause("long")
    until(lambda: state_of(again, "long") != RUNNING)
    paused = again.named("long")
    assert paused.state == PAUSED and paused.step > 0
    assert (paused.folder / "checkpoints" / f"step_{paused.step:08d}").is_dir()
    again.resume("long")
    run = trains(again, "long")
    assert run.state == RUNNING and run.step > paused.step
    assert run.history.changes == []  # with its own settings
    again.stop("long")
    until(lambda: state_of(again, "long") != RUNNING)
    assert state_of(again, "long") == STOPPED
    for child in again._children.values():
        assert child.wait(60) == 75


def test_a_trainer_that_was_killed_is_shown_as_interrupted_and_goes_on(runs):
    runs.start("killed", LONG)
    until(lambda: runs.named("killed").step > 20)
    kill(runs.named("killed").folder)
    until(lambda: state_of(runs, "killed") != RUNNING)
    assert state_of(runs, "killed") == INTERRUPTED
    runs.resume("killed")
    run = trains(runs, "killed")
    assert run.state == RUNNING and run.step >= 20


def test_one_run_at_a_time(runs):
    runs.start("a", LONG)
    with pytest.raises(ValueError, match="a is training, and this machine takes one run at a time"):
        runs.start("b", TINY)
    assert not (runs.folder / "b").exists()
    assert [one.name for one in runs.found()] == ["a"]


def test_what_the_trainer_complains_of_is_told(runs):
    runs.start("bad", [*TINY, "--lr=-1"])
    until(lambda: state_of(runs, "bad") != RUNNING)
    run = runs.named("bad")
    assert run.state == FAILED and "lr is -1.0" in run.said


def test_the_page_ends_and_its_run_has_a_checkpoint(runs):
    runs.start("long", LONG)
    trains(runs, "long")
    runs.close()
    run = runs.named("long")
    assert run.state == INTERRUPTED
    assert (run.folder / "checkpoints" / f"step_{run.step:08d}").is_dir()


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "a b", "-x", "x" * 65, ".hidden", None, 3, "a\0b"])
def test_names_that_are_none_are_refused(name, runs):
    with pytest.raises(ValueError, match="use letters, digits"):
        runs.start(name, TINY)
    with pytest.raises(ValueError, match="there is no run called"):
        runs.pause(name)
    assert not runs.folder.exists() or not list(runs.folder.iterdir())


def test_runs_of_the_command_line_are_found_too(runs, tmp_path):
    folder = tmp_path / "runs" / "by hand"
    command = module.command_of(folder, [*TINY, "--total-steps=2"])
    subprocess.run(command, check=True, capture_output=True)
    assert [(one.name, one.state, one.step) for one in runs.found()] == [("by hand", FINISHED, 2)]


def test_what_is_half_written_is_forgiven(runs, tmp_path):
    folder = tmp_path / "runs" / "half"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"total_steps": 10, "batch_s')
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    (folder / "page.json").write_text("[]")
    run = runs.named("half")
    assert (run.state, run.step, run.total_steps, run.wanted) == (INTERRUPTED, 0, 0, "")
    (folder / "config.json").write_text('{"total_steps": 10, "batch_size": 4}')
    assert (runs.named("half").step, runs.named("half").total_steps) == (1, 10)
