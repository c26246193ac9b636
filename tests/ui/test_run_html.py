"""A run as the page shows it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.history import History
from ui.run import FAILED, FINISHED, INTERRUPTED, PAUSED, RUNNING, STOPPED, TrainingRun
from ui.run_html import curves_html, facts, samples_html, state_html, state_of


def made(
    folder: Path, state: str = RUNNING, wanted: str = RUNNING, steps: int = 20, said: str = ""
) -> TrainingRun:
    """A run of 100 steps of 8 pictures, so many of them done, with two grids."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"total_steps": 100, "batch_size": 8, "model": "DiT-E/4"}
    (folder / "config.json").write_text(json.dumps(settings))
    lines = (
        {"step": i, "loss": 2.0 / i, "grad_norm": 0.5, "lr": 1e-3, "images_per_second": 40.0}
        for i in range(1, steps + 1)
    )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "samples").mkdir(exist_ok=True)
    for step in (10, 20):
        pixels = np.full((8, 8, 3), step, np.uint8)
        Image.fromarray(pixels).save(folder / "samples" / f"step_{step:08d}.png")
    return TrainingRun(folder, state, wanted, settings, History.of(folder) if steps else None, said)


def test_numbers_of_a_run(tmp_path):
    told = dict(facts(made(tmp_path / "a")))
    assert told["steps"] == "20 of 100" and told["pictures seen"] == "160"
    assert told["loss"] == "0.1" and told["left"] == "≈ 16.0 s"  # 80 steps of 8 pictures, 40 a second
    assert "left" not in dict(facts(made(tmp_path / "a", PAUSED)))


@pytest.mark.parametrize(
    ("state", "wanted", "said", "told"),
    [
        (RUNNING, RUNNING, "", "training"),
        (RUNNING, PAUSED, "", "pausing: it writes a checkpoint"),
        (RUNNING, STOPPED, "", "stopping: it writes a checkpoint"),
        (PAUSED, PAUSED, "", "paused: Resume"),
        (STOPPED, STOPPED, "", "stopped before its end"),
        (INTERRUPTED, RUNNING, "", "interrupted: its process is gone"),
        (FINISHED, RUNNING, "", "finished"),
        (FAILED, RUNNING, "error: lr is -1", "failed: lr is -1"),
    ],
)
def test_its_state_in_words(state, wanted, said, told, tmp_path):
    assert state_of(made(tmp_path / "a", state, wanted, said=said)).startswith(told)


def test_before_its_first_line_it_says_what_the_trainer_says(tmp_path):
    run = made(tmp_path / "a", steps=0, said="drawing solids: 40%")
    assert state_of(run) == "beginning: drawing solids: 40% …"
    assert curves_html(run) == samples_html(run, 1) == "" and "steps" in state_html(run)
    compiling = made(tmp_path / "b", steps=0, said="b: 0%| | 0/5000 [00:00<?, ?step/s]")
    assert state_of(compiling) == "beginning: its first steps, which take longest …"


def test_how_long_it_takes_is_not_told_by_the_first_steps(tmp_path):
    assert made(tmp_path / "a", RUNNING, RUNNING, steps=2).seconds_left is None
    assert made(tmp_path / "b", PAUSED, PAUSED, steps=9).seconds_left is None
    run = made(tmp_path / "c", RUNNING, RUNNING, steps=9)
    usual = run.seconds_left
    run.history.rows[-1]["images_per_second"] = 0.01
    assert run.seconds_left == usual > 0


def test_curves_of_one_run_and_the_loss_of_several(tmp_path):
    first, second = made(tmp_path / "a"), made(tmp_path / "b <i>")
    one, both = curves_html(first), curves_html(first, [second])
    assert re.findall(r"<figcaption>(.*?)<", one) == ["Loss", "Gradient norm", "Learning rate", "Speed"]
    assert "(logarithmic)" in one and one.count('class="raw') >= 1
    assert re.findall(r"<figcaption>(.*?)<", both) == ["Loss"]
    assert "a: loss" in both and "b &lt;i&gt;: loss" in both and "<i>:" not in both


def test_samples_at_a_place_of_the_slider(tmp_path):
    run = made(tmp_path / "a")
    assert "after step 10;" in samples_html(run, 1) and "after step 20;" in samples_html(run, 2)
    assert samples_html(run, 99) == samples_html(run, 2) and samples_html(run, -5) == samples_html(run, 1)
    (tmp_path / "a" / "samples" / "step_00000020.png").write_bytes(b"half")
    assert "cannot be shown" in samples_html(run, 2)
