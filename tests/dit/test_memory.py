"""Activation memory, against sums by hand and against real passes of small models."""

import pytest
import torch
from torch import Tensor, nn

from dit import memory
from dit.config import ModelConfig
from dit.memory import Tally, forward_peak, kept_for_backward
from dit.models import network
from dit.presets import preset

N, D, H = 8, 16, 64  # rows, width, hidden width
FLOAT = 4  # bytes


def test_two_linear_layers():
    """At most the hidden activation and one of its neighbours live at once; ReLU keeps its output only."""
    mlp = nn.Sequential(nn.Linear(D, H), nn.ReLU(), nn.Linear(H, D))
    x = torch.randn(N, D)
    assert forward_peak(mlp, x) == FLOAT * N * (H + H)  # into and out of the ReLU
    assert kept_for_backward(mlp, x) == FLOAT * N * (H + D)  # ReLU's output for both, and the result


def test_without_gradients_nothing_piles_up():
    deep = nn.Sequential(*[nn.Linear(D, D) for _ in range(10)])
    x = torch.randn(N, D)
    assert forward_peak(deep, x) == FLOAT * N * 2 * D  # in and out of one layer
    assert kept_for_backward(deep, x) == FLOAT * N * 10 * D  # the input of every layer but the first; result


def test_views_weights_and_inputs_cost_nothing():
    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.zeros(N, D))

        def forward(self, x: Tensor) -> Tensor:
            return (x.view(D, N).t(), self.table.flatten(), x[0])[2]

    assert forward_peak(Views(), torch.randn(N, D)) == 0


def test_what_is_let_go_no_longer_counts():
    x = torch.ones(N)
    with Tally(x) as tally:
        first = x + 1
        second = x + 2
        assert tally.now() == tally.peak == 2 * N * FLOAT
        del first
        assert tally.now() == N * FLOAT
        second.add_(1)  # in place
        assert tally.now() == N * FLOAT and tally.peak == 2 * N * FLOAT


@pytest.mark.parametrize(
    "name, fields",
    [
        ("DiT-N/4", {}),
        ("DiT-N/2", {"num_classes": 0, "depth": 2}),
        ("DiT-N/4-in-context", {}),
        ("DiT-N/4-cross-attention", {}),
        ("DiffiT-N/4", {}),
        ("DiffiT-CIFAR-32", {"hidden_size": 16, "num_heads": 1, "depth": 1}),
    ],
)
def test_pretended_passes_take_what_real_ones_do(name, fields):
    config = preset(name, **fields)
    model, inputs = network(config), real_inputs(config)
    assert memory.sampling_bytes(config) == forward_peak(model, *inputs) > 0
    assert memory.training_bytes(config) == kept_for_backward(model, *inputs) > 0


def test_the_unets_convolutions_copy_a_little_less_than_is_pretended():
    config = preset("UNet-C")
    model, inputs = network(config), real_inputs(config)
    assert memory.sampling_bytes(config) == forward_peak(model, *inputs)
    assert 1 <= memory.training_bytes(config) / kept_for_backward(model, *inputs) < 1.04


def real_inputs(config: ModelConfig) -> tuple[Tensor, Tensor, Tensor | None]:
    x = torch.randn(1, config.in_channels, config.input_size, config.input_size)
    return x, torch.tensor([5.0]), torch.zeros(1, dtype=torch.long) if config.num_classes else None


def test_training_keeps_every_block_and_sampling_one():
    shallow, deep = (preset("DiT-N/4", depth=depth) for depth in (2, 6))
    assert memory.sampling_bytes(deep) == memory.sampling_bytes(shallow)
    per_block = (memory.training_bytes(deep) - memory.training_bytes(shallow)) / 4
    assert per_block > FLOAT * 64 * 128 * 10  # qkv, attention, both norms, the MLP's 4 widths twice
