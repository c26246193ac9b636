"""Deleting a run: all of it goes, at once and for good, and nothing else does."""

import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from dit.published import size_of
from tests.run_folders import write_run
from ui.limits import USUAL
from ui.run_delete import delete, question, size_on_disk
from ui.runs import Runs
from ui.upload_store import UploadStore


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    """Two of them."""
    for name in ("mine", "other"):
        write_run(tmp_path / "runs", name)
    (tmp_path / "runs" / "mine" / "samples").mkdir()
    (tmp_path / "runs" / "mine" / "samples" / "step_1.png").write_bytes(bytes(3_000_000))
    return Runs(tmp_path / "runs")


def names(runs: Runs) -> list[str]:
    return [run.name for run in runs.found()]


def test_all_of_it_goes_and_nothing_else(runs: Runs) -> None:
    size = size_on_disk(runs.named("mine"))
    assert size > 3_000_000
    asked = f"Delete mine and its {size_of(size)} for good? Its weights, checkpoints, samples and curves go."
    assert question(runs, "mine") == asked
    assert delete(runs, "mine") == size
    assert names(runs) == ["other"] and [path.parent.name for path in runs.weights()] == ["other"]
    assert not [path for path in runs.folder.rglob("*") if path.is_file() and "other" not in path.parts]
    with pytest.raises(ValueError, match="there is no run called 'mine'"):
        delete(runs, "mine")


def test_what_a_kill_leaves_of_it_is_no_run_and_goes(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda path: (path / "weights.safetensors").unlink() or 1 / 0)
        with pytest.raises(ZeroDivisionError):
            delete(runs, "mine")
    assert names(runs) == ["other"] and len(runs.weights()) == 1
    assert list(runs.folder.rglob("step_1.png"))
    UploadStore(runs.folder, USUAL).expire()
    assert not list(runs.folder.rglob("step_1.png")) and names(runs) == ["other"]


def test_not_while_it_trains(runs: Runs) -> None:
    with FileLock(runs.folder / "mine" / ".lock"):  # as its trainer has it
        for function in (question, delete):
            with pytest.raises(ValueError, match="mine is training; stop it first"):
                function(runs, "mine")
    assert sorted(names(runs)) == ["mine", "other"]
    delete(runs, "mine")


@pytest.mark.parametrize("name", ["", "..", ".", "../runs/mine", "mine/samples", "/etc", None, 3])
def test_no_name_leads_elsewhere(name: object, runs: Runs) -> None:
    with pytest.raises(ValueError, match="there is no run called"):
        delete(runs, name)
    assert sorted(names(runs)) == ["mine", "other"]


def test_of_a_link_only_the_link_goes(runs: Runs, tmp_path: Path) -> None:
    write_run(tmp_path / "elsewhere", "far")
    (runs.folder / "linked").symlink_to(tmp_path / "elsewhere" / "far")
    delete(runs, "linked")
    assert "linked" not in names(runs) and (tmp_path / "elsewhere" / "far" / "weights.safetensors").exists()
