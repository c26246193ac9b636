"""A tiny network of every kind, for what all of them have in common."""

import torch
from torch import Tensor, nn

from dit.config import ModelConfig

# What to add to a config of side 8 and width 32, such as the fixture `random_model` makes.
TINY: dict[str, dict[str, object]] = {
    "adaln-zero": {},
    "adaln": {"conditioning": "adaln"},
    "cross-attention": {"conditioning": "cross-attention"},
    "in-context": {"conditioning": "in-context"},
    "diffit": {"backbone": "diffit"},
    "diffit-image": {
        "backbone": "diffit-image",
        "patch_size": 1,
        "channel_mult": (1, 2),
        "window_size": 4,
    },
    "unet": {"backbone": "unet", "patch_size": 1, "channel_mult": (1, 2)},
}
EDM_IMAGE = TINY["diffit-image"] | {"formulation": "edm", "learn_sigma": False, "augment_dim": 9}


def tiny(kind: str, **fields: object) -> ModelConfig:
    """The config of a tiny network, with fields replaced."""
    sizes = {"hidden_size": 32, "depth": 2, "num_heads": 2, "input_size": 8, "in_channels": 3}
    return ModelConfig(**(sizes | {"num_classes": 10} | TINY[kind] | fields))


def perturb(model: nn.Module, std: float = 0.1) -> None:
    """Move what starts at exactly zero, which else would hide all that lies behind it."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad and not parameter.any():
            parameter.data.normal_(std=std, generator=generator)


def inputs(config: ModelConfig, pictures: int = 2) -> tuple[Tensor, Tensor, Tensor | None]:
    """Noise, ascending timesteps and labels."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(pictures, config.in_channels, config.input_size, config.input_size, generator=generator)
    t = torch.linspace(3, 900, pictures).long()
    return x, t, torch.arange(pictures) % config.num_classes if config.num_classes else None
