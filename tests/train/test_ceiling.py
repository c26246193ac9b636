"""The ceiling is one that a real product comes near to; MFU is the formula."""

import time

import pytest
import torch

import dit
from dit.presets import preset
from train.ceiling import matmul_ceiling, mfu

CPU = torch.device("cpu")


def test_the_ceiling_is_what_products_reach():
    """A product of our own reaches no more than it by much, and no less than some tenth of it."""
    ceiling = matmul_ceiling(CPU, False)
    a = torch.randn(1024, 1024)
    spent = []
    for _ in range(8):
        began = time.perf_counter()
        a @ a
        spent.append(time.perf_counter() - began)
    reached = 2 * 1024**3 / min(spent)
    assert 0.4 < reached / ceiling < 1.8


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
