"""A run's folder: lines of metrics beyond the checkpoint go, and half-written ones."""

import json
from pathlib import Path

import pytest

from train.run_folder import truncate_metrics


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
