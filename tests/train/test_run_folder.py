"""A run's folder: lines of metrics beyond the checkpoint go, and half-written ones."""

import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from tests.train.picture_files import picture, picture_folder
from train.__main__ import main
from train.changes import changes_of
from train.hardware import select
from train.run_files import LOCK, PROCESS
from train.run_folder import PATIENCE, hold, truncate_metrics


def steps(run_dir: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("step", "kept"), [(0, []), (9, [5]), (10, [5, 10]), (99, [5, 10, 15])])
def test_lines_beyond_the_checkpoint_are_dropped(step, kept, tmp_path):
    lines = "".join(f'{{"step": {i}, "loss": 0.1}}\n' for i in (5, 10, 15))
    (tmp_path / "metrics.jsonl").write_text(lines)
    truncate_metrics(tmp_path, step)
    assert steps(tmp_path) == kept
    assert lines.startswith((tmp_path / "metrics.jsonl").read_text())


@pytest.mark.parametrize("half", ['{"step": 1', '{"step"', "{", '{"loss": 3}', "\0\0\0"])
def test_a_half_written_last_line_is_dropped(half, tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 5}\n' + half)
    truncate_metrics(tmp_path, 100)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 5}\n'


def test_no_metrics_are_no_problem(tmp_path):
    truncate_metrics(tmp_path, 5)
    assert list(tmp_path.iterdir()) == []


SETTINGS = ["smoke", "--device=cpu", "--image-size=16", "--batch-size=4", "--micro-batch=4", "--compile=no"]
SETTINGS += ["--num-pictures=0", "--tracker=none", "--sample-every=1000"]


def test_a_run_knows_its_data_again(tmp_path, capsys):
    """By their number and classes, whatever it is that they are read from, and by what some pictures show."""
    data, run_dir = picture_folder(tmp_path / "data", per_class=4), tmp_path / "run"

    def trains(steps: int) -> bool:
        return main([*SETTINGS, f"--data={data}", f"--total-steps={steps}", f"--run-dir={run_dir}"]) == 0

    def changes() -> list[dict]:
        return [line for line in changes_of(run_dir) if "set" not in line]

    assert trains(1)
    moved = data.rename(tmp_path / "moved")
    shutil.copytree(moved, data)  # with other times
    assert trains(2) and not changes()
    first, *_, last = sorted(data.glob("*/*"))
    picture(99).save(first)
    assert trains(3)
    assert changes() == [{"after": "step_00000002", "other_pictures": str(data)}]
    assert "its pictures have changed" in capsys.readouterr().err
    assert trains(4) and len(changes()) == 1
    kept = last.rename(tmp_path / "kept.png")
    assert not trains(5)
    assert "pictures of" in (said := capsys.readouterr().err) and "was 12, now 11" in said
    shutil.move(kept, last)
    last.parent.rename(data / "z")
    assert not trains(5)
    assert "classes of" in (said := capsys.readouterr().err) and "'z'" in said and "give a new folder" in said


def test_who_trained_before_is_forgotten_first_and_who_does_at_its_end(tmp_path, monkeypatch):
    """A page signals the number that it finds while the lock is held: it must be no other process's."""
    (tmp_path / PROCESS).write_text('{"pid": 1}')
    seen = []
    monkeypatch.setattr(
        "train.run_folder.discard_partials", lambda folder: seen.append(list(folder.iterdir()))
    )
    with hold(tmp_path, select("cpu", "fp32")):
        assert seen == [[tmp_path / LOCK]] and (tmp_path / PROCESS).exists()
    assert not (tmp_path / PROCESS).exists()


def test_the_process_that_trains_is_told_and_the_lock_may_be_looked_at(tmp_path, monkeypatch):
    """The page asks by the lock whether anybody trains, which must not keep a run from beginning."""
    with FileLock(tmp_path / LOCK):
        began = time.perf_counter()
        with pytest.raises(ValueError, match="in use by another process"):
            with hold(tmp_path, select("cpu", "fp32")):
                pass
        assert time.perf_counter() - began >= PATIENCE
    monkeypatch.setattr("train.run_folder.PATIENCE", 200)
    seen = FileLock(tmp_path / LOCK, thread_local=False)
    seen.acquire()
    threading.Timer(0.3, seen.release, kwargs={"force": True}).start()
    with hold(tmp_path, select("cpu", "fp32")):
        assert json.loads((tmp_path / PROCESS).read_text()) == {"pid": os.getpid()}
