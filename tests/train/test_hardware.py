"""Devices and precision: what is chosen, what is refused, and randomness as a function of the step."""

import pytest
import torch

from train.hardware import Hardware, select

CPU = torch.device("cpu")


def test_auto_takes_what_there_is():
    kinds = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    assert select("auto").device.type == next(kind for kind, there in kinds.items() if there)


@pytest.mark.parametrize("device", ["nonsense", "", "cuda:99", "xla", "meta"])
def test_a_device_that_is_not_there_is_refused_and_named(device):
    with pytest.raises(ValueError, match=f"(?s)device '{device}' cannot be used here.*--device auto"):
        select(device)


@pytest.mark.parametrize(("precision", "bf16"), [("auto", False), ("fp32", False), ("bf16", True)])
def test_precision_on_a_cpu(precision, bf16):
    hardware = select("cpu", precision)
    assert hardware == Hardware(CPU, bf16)
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
