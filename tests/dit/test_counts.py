"""Counts of a model, against networks that are really made and torch's own counter."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dit.counts import count
from dit.models import initialised
from dit.presets import preset

PRODUCTS = (torch.ops.aten.bmm, torch.ops.aten.baddbmm)


@pytest.mark.parametrize(
    "name, fields",
    [
        ("DiT-N/4", {}),
        ("DiT-N/4", {"num_classes": 0}),
        ("DiT-N/4-in-context", {}),
        ("DiT-N/4-cross-attention", {}),
        ("DiffiT-N/4", {}),
        ("DiffiT-CIFAR-32", {"hidden_size": 16, "num_heads": 1, "depth": 2}),
        ("UNet-C", {}),
        ("UNet-C", {"depth": 2, "channel_mult": (1, 2)}),
    ],
)
def test_attention_products_are_what_torch_counts(name, fields):
    config = preset(name, **fields)
    model = initialised(config).eval()
    x = torch.randn(1, config.in_channels, config.input_size, config.input_size)
    y = torch.zeros(1, dtype=torch.long) if config.num_classes else None
    # The plain attention kernel: its products, and no others, are of batches of matrices.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(x, torch.tensor([5.0]), y)
    found = counter.get_flop_counts()["Global"]
    counted = count(config)
    products = counted.macs - counted.macs_without_attention_matmuls
    assert 2 * products == sum(found.get(product, 0) for product in PRODUCTS) > 0
    assert 2 * counted.macs == counter.get_total_flops()


def test_parameters_and_bytes_are_those_of_a_real_model():
    model, counted = initialised(preset("DiT-N/4")), count(preset("DiT-N/4"))
    assert counted.parameters == sum(p.numel() for p in model.parameters())
    assert counted.parameters - counted.trainable == model.pos_embed.numel()
    assert counted.weight_bytes == 4 * counted.parameters
