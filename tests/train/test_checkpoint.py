"""Checkpoints: all comes back, some are kept, and a failure spoils none."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint import FileSystemWriter

from dit.weights import WeightsError, load
from train.checkpoint import STATE, Checkpoints, checkpoints
from train.config import TrainConfig
from train.hardware import select
from train.state import Counters, TrainState, fresh_state

CPU = select("cpu", "fp32")


def make_state(seed: int = 0, **counters: int) -> TrainState:
    """A small model with an optimizer that has something to remember."""
    config = TrainConfig(model="DiT-N/8", image_size=16, seed=seed, extra_ema_decays=(0.9,))
    state = fresh_state(config, config.network(), CPU)
    generator = torch.Generator().manual_seed(seed)
    for value in state.tensors().values():
        value.copy_(torch.rand(value.shape, generator=generator))
    state.restored(Counters(**counters))
    return state


def copied(state: TrainState) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in state.tensors().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def save(run_dir: Path, state: TrainState, keep: int = 2, keep_every: int = 0) -> None:
    with Checkpoints(run_dir, CPU, keep, keep_every) as saved:
        saved.save(state)


def names(run_dir: Path) -> list[str]:
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir())


def test_everything_comes_back(tmp_path):
    state, other = make_state(seed=1, step=7, skipped=2, in_row=0, detours=3), make_state(seed=2)
    save(tmp_path, state)
    assert names(tmp_path) == ["step_00000007"] and not same(copied(state), copied(other))
    assert Checkpoints(tmp_path, CPU, keep=2).restore(other)
    assert same(copied(state), copied(other)) and other.counters == state.counters
    assert {name.split(".")[0] for name in copied(state)} == {"model", "ema", "optimizer"}
    moments = [other.optimizer.state[value]["step"] for value in other.trained().values()]
    assert all(float(step) == 5 for step in moments)  # what was skipped is no step of AdamW's


def test_what_is_written_is_the_state_at_the_call(tmp_path):
    """Writing goes on in a thread; training must not reach into it."""
    state = make_state(seed=1, step=7)
    before = copied(state)
    with Checkpoints(tmp_path, CPU, keep=2) as saved:
        saved.save(state)
        for value in state.tensors().values():
            value.zero_()
    assert Checkpoints(tmp_path, CPU, keep=2).restore(state)
    assert same(copied(state), before)


def test_the_last_few_are_kept_and_every_so_manyth(tmp_path):
    state = make_state()
    for state.counters.step in (5, 10, 15, 20, 25, 30, 35):
        save(tmp_path, state, keep=2, keep_every=10)
    assert names(tmp_path) == [f"step_000000{step}" for step in (10, 20, 30, 35)]
    save(tmp_path, state, keep=1)  # it is there already
    state.counters.step = 40
    save(tmp_path, state, keep=1)
    assert names(tmp_path) == ["step_00000040"]


def test_a_run_without_checkpoints_has_none(tmp_path):
    assert checkpoints(tmp_path) == []
    assert not Checkpoints(tmp_path, CPU, keep=2).restore(make_state())


def test_half_a_checkpoint_is_none(tmp_path):
    save(tmp_path, make_state(step=3))
    whole, half = (tmp_path / "checkpoints" / name for name in ("step_00000003", ".step_00000009.partial"))
    shutil.copytree(whole, half)
    shutil.copytree(whole, whole.with_name("step_00000012"))
    (whole.with_name("step_00000012") / STATE).unlink()
    assert [path.name for path in checkpoints(tmp_path)] == ["step_00000003"]


def test_a_failed_save_leaves_the_checkpoints_as_they_were_and_is_told(tmp_path, monkeypatch):
    """As on a disk that is full: the library wraps what it meets there into an error of its own kind."""
    state = make_state(step=3)
    save(tmp_path, state, keep=1)
    saved = Checkpoints(tmp_path, CPU, keep=1)
    state.counters.step = 4

    def full(self, planner, queue):
        (Path(self.path) / "half.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FileSystemWriter, "_write_data", full)
    saved.save(state)
    with pytest.raises(OSError, match="(?s)could not write a checkpoint.*No space left.*room"):
        saved.wait()
    assert names(tmp_path) == ["step_00000003"]  # nor anything half-written, which would fill the disk
    saved.wait()  # it is told once


def test_without_room_nothing_is_begun(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    saved = Checkpoints(tmp_path, CPU, keep=1)
    with pytest.raises(OSError, match="a checkpoint needs .* MB, but the disk of .* has 1 kB left"):
        saved.save(make_state(step=3))
    assert checkpoints(tmp_path) == []


def test_a_network_of_another_shape_is_refused_and_the_difference_named(tmp_path):
    """As when the data has got another class since."""
    save(tmp_path, make_state(step=3))
    config = TrainConfig(model="DiT-N/8", image_size=16, class_conditional=False, extra_ema_decays=(0.9,))
    with pytest.raises(ValueError, match="another network: num_classes was 10, now 0.*--run-dir"):
        Checkpoints(tmp_path, CPU, keep=2).restore(fresh_state(config, config.network(), CPU))


def test_what_cannot_be_deleted_stays_and_ends_no_run(tmp_path, monkeypatch, capsys):
    state = make_state(step=3)
    save(tmp_path, state, keep=1)
    state.counters.step = 4

    def busy(path):
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(shutil, "rmtree", lambda path, **_: None if _ else busy(path))
    save(tmp_path, state, keep=1)
    assert [path.name for path in checkpoints(tmp_path)] == ["step_00000004"]
    assert "an old checkpoint stays" in capsys.readouterr().err


def test_who_loads_a_checkpoint_as_weights_is_told_where_those_are(tmp_path):
    save(tmp_path, make_state(step=3))
    with pytest.raises(WeightsError, match=f"is a checkpoint.*{tmp_path / 'weights.safetensors'}"):
        load(checkpoints(tmp_path)[0])


def test_state_says_what_belongs_to_it(tmp_path):
    save(tmp_path, make_state(step=3))
    (saved,) = checkpoints(tmp_path)
    header = json.loads((saved / STATE).read_text())
    assert set(header) == {"format", *asdict(Counters()), "config", "files"}
    assert set(header["files"]) == {path.name for path in saved.glob("*.safetensors")}
    assert header["config"]["hidden_size"] == 128
