"""Multiply-accumulates: the published numbers, and half of what torch counts, for every kind of network."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import dit
from dit.config import ModelConfig
from dit.models import network
from dit.presets import MODELS, preset
from tests.networks import EDM_IMAGE, TINY, inputs, tiny


def counted_by_torch(config: ModelConfig, device: str = "meta") -> int:
    """Floating-point operations of one forward pass of one picture."""
    with torch.device(device):
        model = network(config)
    x, t, y = (part if part is None else part.to(device) for part in inputs(config, 1))
    # The plain attention kernel: torch does not count the fused one of the CPU.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        output = model.eval()(x, t, y)
    assert output.shape == (1, config.out_channels, config.input_size, config.input_size)
    return counter.get_total_flops()


# As the authors' code counts them (DiT's Table 4 rounds; adaLN-Zero's other sizes are in test_dit.py).
PUBLISHED = [
    ("DiT-XL/2", {}, 118_621_421_568),
    ("DiT-XL/2-adaln", {}, 118_547e6),
    ("DiT-XL/2-in-context", {}, 119_354e6),
    ("DiT-XL/2-cross-attention", {}, 137_603e6),
    ("DiffiT-XL/2", {}, 118_507_290_624),
    ("DiffiT-XL/2", {"input_size": 64}, 524_424_167_424),
    ("DiffiT-XL/2", {"depth": 30}, 126_970_970_112),
    ("DiffiT-XL/2", {"depth": 30, "input_size": 64}, 561_878_876_160),
]


@pytest.mark.parametrize(("name", "fields", "macs"), PUBLISHED, ids=str)
def test_the_published_numbers(name, fields, macs):
    config = preset(name, **fields)
    if isinstance(macs, float):  # known to a million
        assert abs(dit.macs(config) - macs) <= 0.5e6
    else:
        assert dit.macs(config) == macs
    assert 2 * dit.macs(config) == counted_by_torch(config)


# Each kind: several configs off the beaten track.
COMMON = [
    {"num_classes": 0},
    {"mlp_ratio": 2.5, "in_channels": 1},
    {"in_channels": 4, "learn_sigma": False, "num_heads": 4},
    {"num_classes": 0, "depth": 3, "learn_sigma": False, "class_dropout_prob": 0.0},
]
ISOTROPIC = [
    {"in_channels": 8, "patch_size": 1},
    {"patch_size": 4, "depth": 3},
    {"patch_size": 8},
    {"mlp_ratio": 1.3, "hidden_size": 36},  # 46.8 hidden units: rounded down
    {"frequency_shift": 1},
]
OF_DIFFUSERS = [
    {"block_embedders": True, "depth": 3},
    {"block_embedders": True, "num_classes": 0},
    {"block_embedders": True, "depth": 1, "mlp_norm_eps": 1e-5},
]
DEEP_U = {"input_size": 24, "channel_mult": (1, 2, 3, 4)}
IMAGE = [
    {"window_size": 1},
    {"window_size": 2, "mlp_ratio": 1.3},
    {"channel_mult": (3,), "window_size": 8},
    {"channel_mult": (2, 1, 2), "window_size": 2, "depth": 3},
    DEEP_U | {"window_size": 3, "depth": 1},
    EDM_IMAGE,
]
U_NET = [
    {"channel_mult": (1,)},
    {"channel_mult": (2,), "depth": 3, "in_channels": 1},
    {"channel_mult": (1, 1), "depth": 1},
    {"channel_mult": (2, 1, 2), "depth": 3, "num_heads": 4},
    DEEP_U | {"depth": 1, "num_classes": 0},
    {"channel_mult": (3, 2), "formulation": "edm", "learn_sigma": False},
]
ODD = [(kind, fields) for kind in TINY for fields in COMMON]
ODD += [(kind, fields) for kind in TINY if kind not in ("diffit-image", "unet") for fields in ISOTROPIC]
ODD += [("adaln-zero", fields) for fields in OF_DIFFUSERS]
ODD += [("diffit-image", fields) for fields in IMAGE] + [("unet", fields) for fields in U_NET]


@pytest.mark.parametrize(("kind", "fields"), ODD, ids=str)
def test_half_of_what_torch_counts(kind, fields):
    config = tiny(kind, **fields)
    assert 2 * dit.macs(config) == counted_by_torch(config)


@pytest.mark.parametrize("kind", TINY)
def test_half_of_what_torch_counts_on_real_numbers(kind):
    config = tiny(kind, in_channels=4)
    assert 2 * dit.macs(config) == counted_by_torch(config, "cpu")


@pytest.mark.parametrize("name", [name for name in MODELS if "/" not in name])
def test_half_of_what_torch_counts_of_the_u_shaped_presets(name):
    assert 2 * dit.macs(preset(name)) == counted_by_torch(preset(name))


@pytest.mark.parametrize(
    ("name", "transformer"), [("UNet-C", "DiT-C/4"), ("UNet-S", "DiT-S/2"), ("UNet-B", "DiT-B/2")]
)
def test_a_u_net_costs_what_the_transformer_does_that_it_is_compared_with(name, transformer):
    assert dit.macs(preset(name)) == pytest.approx(dit.macs(preset(transformer)), rel=0.1)
