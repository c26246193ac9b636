"""Trackers as they really are: what is read back from their own files, also after a resume and a failure."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from train.tracker import open_tracker

# One life of a run, in a process of its own: trackio decides where it writes when it is imported, and a
# socket that is used ends the program, so that offline is what it says.
LIFE = """
import json, socket, sys
from pathlib import Path

def refuse(*arguments, **more):
    print("NETWORK", arguments, file=sys.stderr)
    raise OSError("no network here")

socket.socket.connect = socket.getaddrinfo = refuse
from train.tracker import open_tracker
kind, run_dir, first, last, factor = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:6])
tracker = open_tracker(kind, run_dir, {"lr": 1e-4, "extra_ema_decays": (0.9,)})
for step in range(first, last, 10):
    row = {"step": step, "loss": factor / step, "mse_q1": 0.5}
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + chr(10))
    tracker.log(row, step)
if first == 10:
    tracker.picture(run_dir / "samples" / "step_00000010.png", 10)
tracker.close()
print("the end")
"""

READ_TRACKIO = """
import json, sys, trackio
from trackio.sqlite_storage import SQLiteStorage
runs = []
for run in trackio.Api().runs("dit-lab"):
    rows = SQLiteStorage.get_logs("dit-lab", run.name, run_id=run.id)
    runs.append({"name": run.name, "config": run.config, "rows": rows})
print(json.dumps(runs))
"""


def python(code: str, *arguments: object, home: Path, **environment: str) -> subprocess.CompletedProcess:
    own = {"TRACKIO_DIR": str(home), "HF_TOKEN": "hf_none", "TRACKIO_SPACE_ID": "me/mine", **environment}
    own |= {"HF_HUB_OFFLINE": "", "TRANSFORMERS_OFFLINE": ""}
    project = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=project,
        env=os.environ | own,
        capture_output=True,
        text=True,
        timeout=120,
    )


def run_folder(parent: Path, name: str = "smoke") -> Path:
    folder = parent / name
    (folder / "samples").mkdir(parents=True)
    Image.new("RGB", (40, 20), "red").save(folder / "samples" / "step_00000010.png")
    return folder


def cut(run_dir: Path, lines: int) -> None:
    """As a resume does."""
    path = run_dir / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:lines]))


def told(home: Path) -> list[dict]:
    result = python(READ_TRACKIO, home=home)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def losses(run: dict) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in run["rows"] if "loss" in row]


def test_trackio_offline_and_resumed(tmp_path):
    run_dir, home = run_folder(tmp_path), tmp_path / "home"
    first = python(LIFE, "auto", run_dir, 10, 60, 1, home=home)
    assert first.returncode == 0 and first.stdout == "the end\n", first.stderr
    assert "NETWORK" not in first.stderr
    assert f"tracker: trackio, in {home}" in first.stderr and "TRACKIO_SPACE_ID left aside" in first.stderr
    (run,) = told(home)
    assert run["name"] == "smoke" and run["config"]["lr"] == 1e-4
    assert losses(run) == [(step, 1 / step) for step in (10, 20, 30, 40, 50)]
    (picture,) = [row["samples"] for row in run["rows"] if "samples" in row]
    assert (home / "media" / picture["file_path"]).exists()

    cut(run_dir, 3)
    assert python(LIFE, "trackio", run_dir, 40, 80, 2, home=home).stdout == "the end\n"
    (run,) = told(home)
    assert losses(run) == [(10, 1 / 10), (20, 1 / 20), (30, 1 / 30)] + [(s, 2 / s) for s in (40, 50, 60, 70)]
    assert sum("samples" in row for row in run["rows"]) == 1


def test_trackio_keeps_runs_of_one_name_apart(tmp_path):
    home, one, other = tmp_path / "home", run_folder(tmp_path / "a"), run_folder(tmp_path / "b")
    python(LIFE, "trackio", one, 10, 30, 1, home=home)
    python(LIFE, "trackio", other, 10, 30, 2, home=home)
    python(LIFE, "trackio", one, 30, 40, 1, home=home)
    runs = {run["config"]["folder"]: losses(run) for run in told(home)}
    assert runs == {
        str(one): [(10, 0.1), (20, 0.05), (30, 1 / 30)],
        str(other): [(10, 0.2), (20, 0.1)],
    }


def test_a_copy_of_a_run_leaves_the_record_of_the_first(tmp_path):
    home, one = tmp_path / "home", run_folder(tmp_path, "one")
    python(LIFE, "trackio", one, 10, 30, 1, home=home)
    copied = run_folder(tmp_path, "copied")
    for name in ("metrics.jsonl", ".trackio"):
        (copied / name).write_text((one / name).read_text())
    python(LIFE, "trackio", copied, 30, 40, 1, home=home)
    assert {run["name"]: len(losses(run)) for run in told(home)} == {"one": 2, "copied": 3}


def scalars(run_dir: Path) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "mse_q1"} and events.Tags()["images"] == ["samples"]
    return [(event.step, pytest.approx(event.value)) for event in events.Scalars("loss")]


def test_tensorboard_resumed(tmp_path):
    run_dir = run_folder(tmp_path)
    first = python(LIFE, "tensorboard", run_dir, 10, 60, 1, home=tmp_path)
    assert first.returncode == 0 and first.stdout == "the end\n", first.stderr
    cut(run_dir, 3)
    second = python(LIFE, "tensorboard", run_dir, 40, 50, 2, home=tmp_path)
    assert second.stdout == "the end\n", second.stderr
    assert scalars(run_dir) == [(10, 1 / 10), (20, 1 / 20), (30, 1 / 30), (40, 2 / 40)]


def test_a_tracker_that_cannot_write_is_said_once_and_the_run_goes_on(tmp_path):
    run_dir = run_folder(tmp_path)
    (run_dir / "tensorboard").write_text("in the way")
    result = python(LIFE, "tensorboard", run_dir, 10, 60, 1, home=tmp_path)
    assert result.stdout == "the end\n" and result.stderr.count("tracker: tensorboard failed") == 1
    assert len((run_dir / "metrics.jsonl").read_text().splitlines()) == 5


def test_trackio_without_a_place_to_write_is_said_and_the_run_goes_on(tmp_path):
    run_dir, home = run_folder(tmp_path), tmp_path / "home"
    home.write_text("in the way")
    result = python(LIFE, "trackio", run_dir, 10, 60, 1, home=home)
    assert result.stdout == "the end\n", result.stderr
    assert "failed" in result.stderr or "could not" in result.stderr
    assert len((run_dir / "metrics.jsonl").read_text().splitlines()) == 5


def test_a_tracker_that_breaks_on_the_way_takes_nothing_more(tmp_path, capsys):
    run_dir = run_folder(tmp_path)
    tracker = open_tracker("tensorboard", run_dir, {})
    tracker.log({"step": 1, "loss": 1.0}, 1)
    (run_dir / "samples" / "step_00000010.png").write_bytes(b"no picture")
    tracker.picture(run_dir / "samples" / "step_00000010.png", 1)
    tracker.picture(run_dir / "samples" / "step_00000010.png", 2)
    tracker.log({"step": 2, "loss": 1.0}, 2)
    tracker.close()
    said = capsys.readouterr().err
    assert said.count("failed") == 1 and "UnidentifiedImageError" in said and "metrics.jsonl" in said


def test_none_tells_nobody(tmp_path, capsys):
    tracker = open_tracker("none", tmp_path, {})
    tracker.log({"loss": 1.0}, 1)
    tracker.close()
    assert list(tmp_path.iterdir()) == [] and capsys.readouterr().err == ""


def test_what_is_not_installed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for kind in ("trackio", "tensorboard"):
        with pytest.raises(ValueError, match=f"{kind}, which is not installed; pip install {kind}"):
            open_tracker(kind, tmp_path, {})
    open_tracker("auto", tmp_path, {}).log({"loss": 1.0}, 1)
    assert "tracker: none, as trackio is not installed" in capsys.readouterr().err
