"""The ceiling is one that a real product comes near to; MFU is the formula."""

import time
from types import SimpleNamespace

import pytest
import torch

import dit
from dit.presets import preset
from train.ceiling import matmul_ceiling, mfu

CPU = torch.device("cpu")


def test_the_ceiling_is_that_of_the_fastest_product(monkeypatch):
    """A multiply-add is two operations; a clock of our own, so that no other work of the machine counts."""
    speeds, now = {256: 1e11, 512: 3e11, 1024: 2e11, 2048: 2e11}, [0.0]

    def multiply(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
        now[0] += 2 * len(a) ** 3 / speeds[len(a)]

    monkeypatch.setattr(torch, "mm", multiply)
    monkeypatch.setattr("train.ceiling.time", SimpleNamespace(perf_counter=lambda: now[0]))
    assert matmul_ceiling.__wrapped__(CPU, False) == pytest.approx(3e11)


def test_the_ceiling_is_of_the_order_of_what_products_reach():
    a = torch.randn(1024, 1024)
    spent = []
    for _ in range(8):
        began = time.perf_counter()
        a @ a
        spent.append(time.perf_counter() - began)
    assert 0.02 < 2 * 1024**3 / min(spent) / matmul_ceiling(CPU, False) < 50


def test_mfu_of_a_hand_made_run():
    """DiT-XL/2: 118.6 GMACs, 6 of them each FLOPs a picture; at 100 images/s of 989 TFLOP/s."""
    macs = dit.macs(preset("DiT-XL/2"))
    assert mfu(macs, 100, 989e12) == pytest.approx(100 * 6 * 118.62e9 / 989e12, rel=1e-3)
    assert mfu(macs, 100, 989e12, 8) == pytest.approx(mfu(macs, 100, 989e12) / 8)


def test_impossible_ceilings():
    with pytest.raises(ValueError, match="ceiling is 0.* above 0"):
        mfu(1, 1, 0.0)
    with pytest.raises(ValueError, match="of 0 devices"):
        mfu(1, 1, 1.0, 0)
