"""Checkpoints, pictures and weights that are damaged or gone: it is said, and what helps ends the same."""

import contextlib
import os
import shutil
import signal
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from gradio_client.exceptions import AppError

from tests.run_folders import write_run
from tests.ui.conftest import end_all
from tests.ui.faults import (
    EVERY,
    Visitor,
    arguments,
    disk,
    ended,
    frozen,
    same_end,
    saved,
    trainer_of,
    written,
)
from tests.ui.waiting import client_of, until
from ui import page
from ui.limits import Limits
from ui.opening import open_studio
from ui.run import FAILED, FINISHED, INTERRUPTED
from ui.run_html import state_html, state_of
from ui.runs import Runs
from ui.upload_store import UploadStore


def stopped_after(runs: Runs, steps: int) -> Path:
    """Folder of the run "a", whose trainer is killed once so many steps are saved, and nothing is written."""
    with frozen(runs, "a", lambda folder: saved(folder) >= steps and not written(folder)) as process:
        os.kill(process, signal.SIGKILL)
    assert ended(runs, "a").state == INTERRUPTED
    return runs.folder / "a"


@pytest.fixture(scope="module")
def killed(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder of a run that was killed with two checkpoints; to be copied."""
    runs = Runs(tmp_path_factory.mktemp("killed"))
    runs.start("a", arguments(pictures))
    yield stopped_after(runs, 2 * EVERY)
    end_all(runs)


@pytest.mark.parametrize("what", ["flipped", "state gone"])
def test_a_damaged_checkpoint_is_not_used_and_it_is_said(
    what: str, runs: Runs, killed: Path, undisturbed: Path
) -> None:
    folder = Path(shutil.copytree(killed, runs.folder / "a"))
    *_, before, last = sorted(path for path in folder.glob("checkpoints/step_*"))
    [shard] = last.glob("*.safetensors")
    if what == "flipped":
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        shard.write_bytes(data)
    else:
        (last / "state.json").unlink()
    runs.resume("a")
    run = ended(runs, "a")
    assert run.state == FINISHED
    same_end(folder, undisturbed)
    step = int(before.name.removeprefix("step_"))
    reason = shard.name if what == "flipped" else "state.json is damaged or missing"
    assert f"At step {step}: went on from it, as {last.name} was damaged: {reason}" in state_html(run)
    assert (last.parent / f"damaged_{last.name}").is_dir()


def test_without_a_good_checkpoint_a_run_is_not_begun_anew(runs: Runs, killed: Path) -> None:
    folder = Path(shutil.copytree(killed, runs.folder / "a"))
    for shard in folder.glob("checkpoints/*/*.safetensors"):
        shard.write_bytes(b"")
    runs.resume("a")
    run = ended(runs, "a")
    assert run.state == FAILED and "all checkpoints are damaged" in state_of(run)
    assert "restore them from a copy, or delete the run folder" in state_of(run)


def test_an_upload_goes_while_a_run_has_it_in_memory(
    runs: Runs, pictures: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """It goes on by what it has decoded; to be resumed it needs the pictures, which are uploaded again."""
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for path in pictures.rglob("*.png"):
            opened.write(path, path.relative_to(pictures))
    data = UploadStore(runs.folder, Limits()).unpacked(archive).folder
    runs.start("a", arguments(data))
    with frozen(runs, "a", lambda folder: saved(folder) and not written(folder)):
        shutil.rmtree(data)
        before = saved(runs.folder / "a")
    folder = stopped_after(runs, before + EVERY)
    runs.resume("a")
    run = ended(runs, "a")
    assert run.state == FAILED and f".uploads/{data.name}: there is no such folder" in state_of(run)
    assert "bring the folder back" in state_of(run) and f"Resume goes on from step {run.saved}" in state_of(
        run
    )
    assert UploadStore(runs.folder, Limits()).unpacked(archive).folder == data
    runs.resume("a")
    assert ended(runs, "a").state == FINISHED
    same_end(folder, undisturbed)


def test_pictures_go_while_a_run_reads_them_from_the_disk(
    runs: Runs, pictures: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a large set, which is not kept decoded. None is replaced by another, and no process stays."""
    data = Path(shutil.copytree(pictures, tmp_path / "data"))
    with disk(tmp_path / "cache", "64k") as cache:
        monkeypatch.setenv("DITLAB_CACHE", str(cache))
        runs.start("a", arguments(data))
        process = trainer_of(runs, "a")
        with frozen(runs, "a", lambda folder: saved(folder) and not written(folder)):
            shutil.rmtree(data / "b")  # of three classes one
        run = ended(runs, "a")
        assert (
            run.state == FAILED and f"{data}: b/" in run.said and "is gone; bring the folder back" in run.said
        )
        assert not (run.folder / "skipped.jsonl").exists()
        until(lambda: not members(process))  # those that made batches end too
        assert not list(cache.glob("pictures-*"))
        shutil.copytree(pictures / "b", data / "b")
        runs.resume("a")
        assert ended(runs, "a").state == FINISHED
    same_end(run.folder, undisturbed)
    assert runs.named("a").history.changes == []


def members(session: int) -> list[str]:
    """The processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            state, _, _, its_session, *_ = path.read_text().rpartition(")")[2].split()
            if int(its_session) == session and state != "Z":
                found.append(path.parent.name)
    return found


@pytest.mark.parametrize("what", ["half", "gone"])
def test_weights_of_a_finished_run_are_written_again(what: str, runs: Runs, undisturbed: Path) -> None:
    folder = Path(shutil.copytree(undisturbed, runs.folder / "a"))
    assert runs.named("a").state == FINISHED
    weights = folder / "weights.safetensors"
    if what == "half":
        os.truncate(weights, weights.stat().st_size // 2)
    else:
        weights.unlink()
    assert "weights are missing or damaged: Resume writes them again" in state_of(runs.named("a"))
    if what == "half":  # of the other one tests/train/test_loop.py knows
        runs.resume("a")
        assert ended(runs, "a").state == FINISHED
        same_end(folder, undisturbed)


def test_weights_that_go_or_break_while_the_page_offers_them(runs: Runs, ladder_files: list[Path]) -> None:
    path = write_run(runs.folder, "a")
    whole = path.read_bytes()
    studio = open_studio(ladder_files, limits=Limits(models=9), timed=False)
    served = page.build(studio, runs)
    served.demo.launch(prevent_thread_lock=True, quiet=True, **page.serving(studio.limits))
    try:
        visitor = Visitor(served.demo.local_url.rstrip("/"))
        client = client_of(visitor.address)
        values = [0, 0, 2, 2, 0, 1, "ddim", 0, 999, 1]

        def draws(model: str) -> bool:
            return bool(client.predict(model, "0", 2, api_name="/generate")[0])

        def breaks(what: str) -> None:
            path.unlink(missing_ok=True)
            if what == "half":
                path.write_bytes(whole[: len(whole) // 2])
            visitor.press("unload")

        visitor.press("run-draw", *values)
        assert draws("a")
        for what, said in (("half", "weights.safetensors"), ("gone", "are no longer in its folder")):
            breaks(what)
            if what == "half":
                visitor.press("run-draw", *values)  # it is on the ladder still
            with pytest.raises(AppError, match=said):
                draws("a")
            assert draws("small") and "a" in visitor.sees()
        path.write_bytes(whole)
        assert draws("a")
    finally:
        served.demo.close(verbose=False)
