"""The profiler traces the steps that it says, of a real model, and no more."""

import json
from contextlib import closing

import pytest
import torch
from torch import nn

from train.tracing import NoProfiler, Profiler


def train(profiler: Profiler | NoProfiler, steps: int) -> None:
    model = nn.Linear(64, 64)
    optimizer = torch.optim.AdamW(model.parameters())
    for step in range(steps):
        with torch.profiler.record_function(f"my_step_{step}"):
            model(torch.randn(8, 64)).square().mean().backward()
            optimizer.step()
        profiler.step()


def traced(run_dir) -> set[str]:
    events = json.loads((run_dir / "profile" / "trace.json").read_text())["traceEvents"]
    return {event["name"] for event in events if event["name"].startswith("my_step")}


def test_some_steps_after_a_warm_up(tmp_path):
    profiler = Profiler(tmp_path, warm_up=2, recorded=3)
    train(profiler, 9)
    assert profiler.finished
    assert traced(tmp_path) == {"my_step_2", "my_step_3", "my_step_4"}
    table = (tmp_path / "profile" / "operations.txt").read_text()
    assert table.startswith("3 steps after 2\n") and "aten::addmm" in table
    assert sorted(path.name for path in (tmp_path / "profile").iterdir()) == ["operations.txt", "trace.json"]


def test_a_run_that_ends_before_still_leaves_its_trace(tmp_path):
    with closing(Profiler(tmp_path, warm_up=1, recorded=30)) as profiler:
        train(profiler, 3)
    assert traced(tmp_path) == {"my_step_1", "my_step_2"}
    assert (tmp_path / "profile" / "operations.txt").read_text().startswith("2 steps after 1\n")


def test_a_run_that_ends_while_warming_up_leaves_nothing(tmp_path):
    with closing(Profiler(tmp_path)) as profiler:
        train(profiler, 2)
    assert list(tmp_path.iterdir()) == []


def test_nothing_does_nothing(tmp_path):
    train(NoProfiler(), 2)
    NoProfiler().close()


def test_no_step_to_trace_is_refused(tmp_path):
    with pytest.raises(ValueError, match="recorded 0; trace at least one step"):
        Profiler(tmp_path, recorded=0)
