"""Full disks: training fails with a word on it, what was there stays, and with room it goes on."""

import asyncio
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import pytest

from tests.run_folders import write_run
from tests.train.picture_files import picture, png
from tests.ui.conftest import end_all
from tests.ui.faults import EVERY, arguments, disk, ended, fill, frozen, same_end, saved, written
from ui import train_view
from ui.deliver import export
from ui.limits import Limits
from ui.run import FAILED, FINISHED, LITTLE, TrainingRun
from ui.run_html import state_of
from ui.runs import ROOT, Runs
from ui.upload_store import UploadStore

BLOCK = 4096  # bytes that a file takes at a time
OTHERS = 3 * BLOCK  # what else may be written before the next checkpoint: log, metrics


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MB; a run here takes less than half of it."""
    with disk(tmp_path / "disk", "16m") as place:
        yield place


@pytest.fixture
def runs(small: Path) -> Iterator[Runs]:
    """On the small disk."""
    made = Runs(small / "runs")
    yield made
    end_all(made)


def between(run_dir: Path, step: int) -> bool:
    """Whether there is a checkpoint of that step or later, and nothing is being written."""
    busy = written(run_dir) or list(run_dir.glob(".*.partial")) or list(run_dir.glob(".tmp*"))
    return saved(run_dir) >= step and (run_dir / "weights.safetensors").exists() and not busy


def filled_while_it_trains(runs: Runs, step: int, left: int) -> TrainingRun:
    """What comes of a run when its disk has only so much room left from a step on."""
    with frozen(runs, "a", lambda folder: between(folder, step)):
        last = saved(runs.folder / "a")
        filler = fill(runs.folder.parent, left)
    run = ended(runs, "a")
    assert run.state == FAILED and str(run.folder) not in run.said and run.saved == last
    assert not written(run.folder) and f"Resume goes on from step {last}" in state_of(run)
    filler.unlink()
    return run


def test_a_disk_that_fills_up_three_times_leaves_no_trace(runs: Runs, pictures: Path, undisturbed: Path):
    """Before a checkpoint, while it is written, and so that not even the log takes a word any more."""
    [shard] = undisturbed.glob("checkpoints/step_*200/*.safetensors")
    with shard.open("rb") as file:
        tensors = shard.stat().st_size - 8 - int.from_bytes(file.read(8), "little")
    assert shard.stat().st_size - tensors > OTHERS - BLOCK  # its header, for which no room is looked for
    runs.start("a", arguments(pictures))
    run = filled_while_it_trains(runs, EVERY, tensors // 2)
    assert "a checkpoint needs 1.8" in run.said and "make room" in run.said
    runs.resume("a")
    run = filled_while_it_trains(runs, run.saved + EVERY, tensors + OTHERS)
    assert "could not" in run.said and "room" in run.said and "needs" not in run.said
    runs.resume("a")
    run = filled_while_it_trains(runs, run.saved + EVERY, 0)
    assert f"the disk of {run.name} is full; make room" in run.said
    runs.resume("a")
    run = ended(runs, "a")
    assert run.state == FINISHED and run.history.changes == []
    same_end(run.folder, undisturbed)


def test_what_the_page_cannot_write_it_says_and_leaves_nothing_behind(
    runs: Runs, small: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for label in "ab":
            opened.writestr(f"{label}/0.png", png(picture(ord(label), side=64)))
    with gr.Blocks() as demo:
        train_view.build(runs, UploadStore(runs.folder, Limits()))
    said = {one.name: one.fn for one in demo.fns.values()}
    usual = train_view.Form()
    rest = (usual.preset, 16, 800, 8, usual.lr, usual.guidance_dropout, usual.seed, True, True)
    drawn = (train_view.DRAWN, None, "", "", *rest)
    sent = (train_view.ZIP, str(archive), "", "", *rest)
    write_run(runs.folder, "made")
    fill(small, 0)
    for values in (drawn, sent):
        with pytest.raises(gr.Error, match="the disk is full; make room"):
            asyncio.run(said["on_start"]("b", *values))
    assert "the disk is full; make room" in asyncio.run(said["on_check"]("b", *sent))[0]
    with pytest.raises(OSError, match="the disk is full; make room"):
        runs.resume("made")
    assert sorted(path.name for path in runs.folder.iterdir()) == [".uploads", "made"]
    assert {path.name for path in (runs.folder / ".uploads").iterdir()} <= {".lock"}


def test_an_export_without_room_is_said(small: Path, vae_folder: Path, tmp_path: Path) -> None:
    elsewhere = Runs(tmp_path / "runs")
    write_run(elsewhere.folder, "a", told={"autoencoder": str(vae_folder)}, in_channels=4, input_size=8)
    fill(small, BLOCK)
    with pytest.raises(OSError, match="the disk is full; make room"):
        asyncio.run(export(elsewhere.named("a"), small))


def test_a_cache_without_room_is_said(small: Path) -> None:
    """Where pictures are drawn into a memory map: without room for all of it, the system kills who writes."""
    command = [sys.executable, "-m", "train", "smoke", "--image-size=64", "--num-pictures=5000"]
    told = subprocess.run(
        [*command, f"--run-dir={small / 'a'}", "--device=cpu", "--tracker=none"],
        cwd=ROOT, env=os.environ | {"DITLAB_CACHE": str(small / "cache")}, capture_output=True, text=True,
    )  # fmt: skip
    assert told.returncode == 1 and "the disk is full; make room" in told.stderr


def test_a_full_disk_is_told_of_whoever_was_killed_there(runs: Runs, small: Path) -> None:
    """It may be why: a log that takes nothing more cannot say so."""
    folder = write_run(runs.folder, "a").parent
    assert "process is gone" in state_of(runs.named("a"))
    filler = fill(small, LITTLE - BLOCK)
    assert state_of(runs.named("a")).startswith(f"failed: the disk of {folder.name} is full; make room")
    os.truncate(filler, 0)
    assert "process is gone" in state_of(runs.named("a"))
