"""What a diffusion transformer is: a frozen config, checked when made, and the table of presets."""

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

BACKBONES = ("dit",)
CONDITIONINGS = ("adaln-zero",)
PREDICTIONS = ("epsilon", "v")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of a model, in the DiT authors' own field names (facebookresearch/DiT, models.py).

    Raises:
        TypeError: a size is not a whole number.
        ValueError: a field is out of range; the message says value, constraint and remedy.
    """

    hidden_size: int  # D, the width of a token
    depth: int  # number of blocks
    num_heads: int
    patch_size: int = 2
    input_size: int = 32  # side of the (square) latent or picture
    in_channels: int = 4  # 4 for the SD autoencoder's latents, 3 for RGB, 1 for grey
    mlp_ratio: float = 4.0
    num_classes: int = 1000  # 0 makes an unconditional model; also the id of the null class
    class_dropout_prob: float = 0.1  # share of labels replaced by the null class in training; 0: has none
    learn_sigma: bool = True  # the output carries variance channels after the noise channels
    backbone: str = "dit"
    conditioning: str = "adaln-zero"
    prediction: str = "epsilon"  # what the first C channels are: the noise (the paper) or v (2202.00512)
    # Where diffusers' DiT computes otherwise than the authors'. Its files only draw as meant if we follow.
    frequency_shift: int = 0  # 1: divides the exponents of the timestep frequencies by 127, not by 128
    mlp_norm_eps: float = 1e-6  # of the layer norm before the MLP; diffusers' files may say 1e-5
    block_embedders: bool = False  # every block embeds timestep and label by weights of its own

    def __post_init__(self) -> None:
        for name in (
            "hidden_size",
            "depth",
            "num_heads",
            "patch_size",
            "input_size",
            "in_channels",
            "num_classes",
        ):
            value, least = getattr(self, name), 0 if name == "num_classes" else 1
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be a whole number, not {value!r}")
            if value < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}")
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}; "
                "change one so that every head gets the same width"
            )
        if self.hidden_size % 4:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of 4, as the 2-D position table needs"
            )
        if self.input_size % self.patch_size:
            raise ValueError(
                f"input_size {self.input_size} is not a multiple of patch_size {self.patch_size}; "
                "choose a patch that divides the side"
            )
        if not 0.0 <= self.class_dropout_prob < 1.0:
            raise ValueError(
                f"class_dropout_prob is {self.class_dropout_prob}; it must be at least 0 and below 1"
            )
        for name in ("mlp_ratio", "mlp_norm_eps"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive and finite")
        for name, allowed in (
            ("backbone", BACKBONES),
            ("conditioning", CONDITIONINGS),
            ("prediction", PREDICTIONS),
            ("frequency_shift", (0, 1)),
            ("block_embedders", (False, True)),
        ):
            if getattr(self, name) not in allowed:
                choices = ", ".join(map(str, allowed))
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {choices}")

    @property
    def out_channels(self) -> int:
        """Channels of the output: noise (C), then variance logits (C) if `learn_sigma`."""
        return self.in_channels * (2 if self.learn_sigma else 1)

    @property
    def is_latent(self) -> bool:
        """Whether the model draws latents, which an autoencoder decodes; 1 (grey) and 3 (RGB) are pixels."""
        return self.in_channels not in (1, 3)

    @property
    def tokens(self) -> int:
        """T, the number of patches of one picture."""
        return (self.input_size // self.patch_size) ** 2

    @property
    def has_null_class(self) -> bool:
        """Whether the model learned an unconditional mode next to its classes, as guidance needs."""
        return self.num_classes > 0 and self.class_dropout_prob > 0

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """The inverse of `to_dict`. Raises ValueError on a field this version does not know."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown config fields {unknown}; this version knows {sorted(known)}")
        return cls(**values)


# Table 1 of the paper, then three for small machines: name -> depth, hidden_size, num_heads.
_SIZES = {
    "XL": (28, 1152, 16),
    "L": (24, 1024, 16),
    "B": (12, 768, 12),
    "S": (12, 384, 6),
    "M": (6, 256, 4),
    "T": (6, 192, 3),
    "N": (4, 128, 2),
}

MODELS: dict[str, ModelConfig] = {
    f"DiT-{size}/{patch}": ModelConfig(depth=depth, hidden_size=width, num_heads=heads, patch_size=patch)
    for size, (depth, width, heads) in _SIZES.items()
    for patch in (2, 4, 8)
}


def preset(name: str, **overrides: Any) -> ModelConfig:
    """The config of a preset of `MODELS`, with fields replaced.

    Raises:
        ValueError: no such preset; the message lists those there are.
    """
    if name not in MODELS:
        raise ValueError(f"no model is called {name!r}; choose one of {', '.join(MODELS)}")
    return replace(MODELS[name], **overrides)
