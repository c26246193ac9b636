"""Checkpoints and the average of the weights."""

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

import dit
from train.checkpoint import Ema, TrainState, checkpoints, truncate_metrics


def make_state(seed: int = 0, step: int = 0, width: int = 4) -> TrainState:
    """A small model after two steps of AdamW, so that the optimizer has something to remember."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(width, 3), nn.Linear(3, 2))
    model.config = dit.preset("DiT-N/8")  # only written down
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    state = TrainState(model, Ema(copy.deepcopy(model), 0.9999), optimizer, step)
    for _ in range(2):
        model(torch.randn(5, width)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        state.ema.update(model, state.step)
    return state


def content(state: TrainState) -> dict:
    """All that a state remembers, flat: name -> value."""
    tensors = {f"model.{key}": value for key, value in state.model.state_dict().items()}
    tensors |= {f"ema.{key}": value for key, value in state.ema.model.state_dict().items()}
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in moments.items()}
    return tensors | {"step": torch.tensor(state.step)}


def same(one: TrainState, other: TrainState) -> bool:
    a, b = content(one), content(other)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# --- average ---


def test_the_decay_rises_to_its_ceiling():
    ema = Ema(nn.Linear(1, 1), 0.999)
    decays = [ema.decay(step) for step in (0, 1, 8, 90, 8980, 8990, 8991, 10**6)]
    expected = [1 / 10, 2 / 11, 9 / 18, 91 / 100, 8981 / 8990, 8991 / 9000, 0.999, 0.999]
    assert decays == pytest.approx(expected, rel=1e-12)
    assert Ema(nn.Linear(1, 1), 0.0).decay(50) == 0.0


def test_an_update_moves_the_average_towards_the_weights():
    average, model = nn.Linear(2, 2), nn.Linear(2, 2)
    start = copy.deepcopy(average.state_dict())
    ema = Ema(average, 0.9999)
    ema.update(model, step=8)  # decay 1/2
    for name, value in ema.model.state_dict().items():
        torch.testing.assert_close(value, 0.5 * start[name] + 0.5 * model.state_dict()[name])
        assert not torch.equal(value, start[name])
    ema.update(model, step=10**6)  # the ceiling
    moved = 0.5 * start["bias"] + 0.5 * model.bias
    torch.testing.assert_close(ema.model.bias, 0.9999 * moved + 0.0001 * model.bias)


def test_a_constant_is_its_own_average():
    model = nn.Linear(3, 3)
    ema = Ema(copy.deepcopy(model), 0.99)
    for step in range(20):
        ema.update(model, step)
    assert torch.equal(ema.model.weight, model.weight)


def test_the_average_is_in_evaluation_mode_and_never_trained():
    ema = Ema(nn.Linear(3, 3).train(), 0.99)
    assert not ema.model.training and not any(p.requires_grad for p in ema.model.parameters())


# --- files ---


def test_everything_comes_back(tmp_path):
    state, other = make_state(seed=1, step=7), make_state(seed=2)
    path = state.save(tmp_path, keep=2)
    assert path == tmp_path / "checkpoints" / "step_00000007.pt" and not same(state, other)
    other.load(path)
    assert same(state, other) and other.step == 7
    assert "optimizer.0.exp_avg" in content(other)


def test_only_the_last_few_are_kept(tmp_path):
    state = make_state()
    for state.step in (5, 10, 99_999_999, 15, 20):
        state.save(tmp_path, keep=2)
    names = [path.name for path in checkpoints(tmp_path)]
    assert names == ["step_00000020.pt", "step_99999999.pt"]
    state.save(tmp_path, keep=1)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_99999999.pt"]


def test_a_run_without_checkpoints_has_none(tmp_path):
    assert checkpoints(tmp_path) == []


def test_half_written_files_are_no_checkpoints(tmp_path):
    state = make_state(step=3)
    state.save(tmp_path, keep=5)
    (tmp_path / "checkpoints" / ".step_00000009.pt.x7y").write_bytes(b"half")
    assert [path.name for path in checkpoints(tmp_path)] == ["step_00000003.pt"]


def test_a_failed_save_leaves_the_checkpoints_as_they_were(tmp_path, monkeypatch):
    state = make_state(step=3)
    path = state.save(tmp_path, keep=1)
    before = path.read_bytes()

    def fail(content, file):
        Path(file).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    state.step = 4
    with pytest.raises(OSError, match="disk full"):
        state.save(tmp_path, keep=1)
    assert [p.name for p in path.parent.iterdir()] == [path.name] and path.read_bytes() == before


@pytest.mark.parametrize("length", [0, 1, 100, -1, -200])
def test_a_truncated_checkpoint_is_named(length, tmp_path):
    path = make_state(step=3).save(tmp_path, keep=1)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=f"(?s){path.name}.*delete the file") as error:
        make_state().load(path)
    assert "weights_only" not in str(error.value)  # torch's advice to switch the protection off


def test_a_checkpoint_of_another_model_or_of_nothing_is_named(tmp_path):
    path = make_state(step=3, width=5).save(tmp_path, keep=1)
    with pytest.raises(ValueError, match=f"(?s){path.name}.*size mismatch"):
        make_state().load(path)
    torch.save({"step": 3}, path)
    with pytest.raises(ValueError, match=f"{path.name}.*KeyError"):
        make_state().load(path)


class Bomb:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


def test_a_checkpoint_cannot_run_code(tmp_path):
    bomb, path = Bomb(tmp_path / "executed"), tmp_path / "step_00000001.pt"
    torch.save({"step": 1, "model": bomb}, path)
    with pytest.raises(ValueError, match=path.name):
        make_state().load(path)
    assert not bomb.trace.exists()
    pickle.loads(pickle.dumps(bomb))  # the bomb works
    assert bomb.trace.exists()


# --- metrics ---


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
