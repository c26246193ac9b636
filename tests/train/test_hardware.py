"""Devices and precision: what is chosen, what is refused, and randomness as a function of the step."""

import importlib.util
import shutil

import pytest
import torch
from torch._dynamo.utils import counters

from train.batches import Batches
from train.config import TrainConfig
from train.data import open_data
from train.hardware import Hardware, select
from train.loop import gradients
from train.state import fresh_state

CPU = torch.device("cpu")


def test_auto_takes_what_there_is():
    kinds = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    assert select("auto").device.type == next(kind for kind, there in kinds.items() if there)


@pytest.mark.parametrize("device", ["nonsense", "", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_refused_and_named(device):
    with pytest.raises(ValueError, match=f"(?s)device '{device}' cannot be used here.*--device auto"):
        select(device)


@pytest.mark.parametrize(("precision", "bf16"), [("auto", False), ("fp32", False), ("bf16", True)])
def test_precision_on_a_cpu(precision, bf16):
    hardware = select("cpu", precision)
    assert (type(hardware), hardware.device, hardware.bf16) == (Hardware, CPU, bf16)
    assert (hardware.rank, hardware.world, hardware.devices, hardware.is_main) == (0, 1, 1, True)
    with hardware.autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if bf16 else torch.float32)
    assert hardware.describe().startswith("cpu, 1 threads") and ("bf16" in hardware.describe()) is bf16


def draw(seed: int, step: int) -> tuple[float, ...]:
    select("cpu").seed(seed, step)
    return tuple(torch.rand(3).tolist())


def test_randomness_is_a_function_of_seed_and_step():
    draws = {(seed, step): draw(seed, step) for seed in (0, 1, 2, 10**12) for step in (0, 1, 2, 10**6)}
    assert len(set(draws.values())) == len(draws)
    for key, value in reversed(draws.items()):
        assert draw(*key) == value


@pytest.mark.skipif(importlib.util.find_spec("torch_xla") is not None, reason="it is here")
@pytest.mark.parametrize("asked", ["tpu", "xla", "by the environment"])
def test_a_tpu_without_its_library_is_refused_and_not_replaced(asked, monkeypatch):
    if asked == "by the environment":
        monkeypatch.setenv("PJRT_DEVICE", "TPU")
    with pytest.raises(ValueError, match="torch_xla, which cannot be used here.*requirements-tpu.txt"):
        select("auto" if asked == "by the environment" else asked)


def test_rows_are_shared_out_evenly():
    hardware = Hardware(CPU, False)
    for world in (2, 3, 4):
        rows = []
        for rank in range(world):
            hardware.rank, hardware.world = rank, world
            rows += hardware.rows(12)
        assert rows == list(range(12))


def step(largest: float, finite: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A weight before and after one step with gradient 3, and the norm that was told."""
    hardware, weight = select("cpu"), torch.nn.Parameter(torch.ones(4))
    optimizer = hardware.optimizer([weight], TrainConfig(weight_decay=0.5))
    weight.grad = torch.full((4,), 3.0)
    norm = hardware.clip([weight], largest)
    assert weight.grad.norm() == pytest.approx(largest or 6.0, rel=1e-5)
    before = weight.detach().clone()
    assert hardware.update(optimizer, 0.1, torch.tensor(finite)) is finite
    assert weight.grad is None
    return before, weight.detach(), norm


@pytest.mark.parametrize("largest", [0.0, 1.5])
def test_gradients_are_measured_before_they_are_clipped(largest):
    before, after, norm = step(largest, finite=True)
    assert float(norm) == pytest.approx(6.0)
    torch.testing.assert_close(after, before * (1 - 0.1 * 0.5) - 0.1)  # AdamW's first step: the sign


def test_a_step_that_is_not_finite_is_not_done():
    before, after, _ = step(0.0, finite=False)
    assert torch.equal(before, after)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler")
@pytest.mark.parametrize("fields", [{"loss_weighting": "min-snr"}, {"formulation": "flow"}])
def test_a_compiled_step_is_one_graph_and_computes_the_same(fields):
    hardware, found = select("cpu"), []
    for compiled in ("no", "yes"):
        config = TrainConfig(
            model="DiT-N/4", depth=2, batch_size=8, num_pictures=32, compile=compiled, lr=1e-3, **fields
        )
        data = open_data(config)
        network = config.network(data.info)
        make = Batches(config, network, data, range(8))
        torch._dynamo.reset()
        counters.clear()
        state, curve = fresh_state(config, network, hardware), []
        for number in range(3):
            terms, _, norm = gradients(config, state, make(number), 4, hardware)
            hardware.update(state.optimizer, config.lr, norm.isfinite())
            curve.append(torch.stack([*(term.mean() for term in terms.values()), norm]))
        assert counters["stats"]["unique_graphs"] == (compiled == "yes")
        assert not counters["graph_break"]
        found.append(torch.stack(curve))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)


def test_processes_that_hold_the_same_share_out_what_they_copy():
    tensors = {f"weight{number}": torch.full((3,), float(number)) for number in range(7)}
    hardware, found = select("cpu"), {}
    hardware.world = 3
    for rank in range(3):
        hardware.rank = rank
        copy = hardware.copy(tensors)
        assert len(copy.tensors) in (2, 3) and not found.keys() & copy.tensors.keys()
        assert copy.files.keys() == tensors.keys()
        found |= copy.tensors
    assert found.keys() == tensors.keys()
    tensors["weight0"].zero_().add_(5)  # training goes on meanwhile
    assert all(found[name].tolist() == [float(name[-1])] * 3 for name in tensors)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler")
@pytest.mark.parametrize("remat", [False, True])
def test_blocks_that_are_shared_out_are_compiled_each(remat):
    config = TrainConfig(
        model="DiT-N/4", depth=2, batch_size=4, num_pictures=32, compile="yes", parallel="fsdp", remat=remat
    )
    hardware, data = select("cpu"), open_data(config)
    network = config.network(data.info)
    torch._dynamo.reset()
    counters.clear()
    try:
        state = fresh_state(config, network, hardware)
        gradients(config, state, Batches(config, network, data, range(4))(0), 4, hardware)
        assert counters["stats"]["unique_graphs"] == 1  # all blocks are alike
        assert not counters["graph_break"]
    finally:
        hardware.close()


def test_weights_that_travel_in_half_precision_compute_what_autocast_does():
    data, curves, kept = None, {}, {}
    for parallel in ("ddp", "fsdp"):
        config = TrainConfig(
            model="DiT-N/4", depth=2, batch_size=8, num_pictures=32, compile="no", lr=1e-3, parallel=parallel
        )
        hardware, data = select("cpu", "bf16"), data or open_data(config)
        network = config.network(data.info)
        make, state = Batches(config, network, data, range(8)), fresh_state(config, network, hardware)
        try:
            curves[parallel] = []
            for number in range(4):
                terms, _, norm = gradients(config, state, make(number), 4, hardware)
                hardware.update(state.optimizer, config.lr, norm.isfinite())
                curves[parallel].append(float(terms["loss"].mean()))
            kept[parallel] = {value.dtype for value in state.tensors().values()}
        finally:
            hardware.close()
    assert curves["fsdp"] == pytest.approx(curves["ddp"], rel=1e-3)
    assert kept["fsdp"] == kept["ddp"] == {torch.float32}
