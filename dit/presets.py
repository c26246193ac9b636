"""The table of named models: the papers' sizes, and smaller ones in the same manner."""

import difflib
from dataclasses import replace
from typing import Any

from dit.config import AUGMENTATIONS, CONDITIONINGS, ModelConfig

# Table 1 of the DiT paper, then seven for small machines: name -> depth, hidden_size, num_heads.
SIZES = {
    "XL": (28, 1152, 16),
    "L": (24, 1024, 16),
    "B": (12, 768, 12),
    "S": (12, 384, 6),
    "M": (6, 256, 4),
    "T": (6, 192, 3),
    "C": (7, 128, 4),  # about 0.1 GMACs at 32 x 32 and patch 4: to compare backbones on two cores
    "N": (4, 128, 2),
    "P": (3, 96, 3),
    "F": (3, 64, 2),
    "E": (1, 64, 2),
}
PATCHES = (2, 4, 8)


def _isotropic(size: str, patch: int, **fields: Any) -> ModelConfig:
    depth, width, heads = SIZES[size]
    return ModelConfig(depth=depth, hidden_size=width, num_heads=heads, patch_size=patch, **fields)


def _image_diffit(
    input_size: int, channel_mult: tuple[int, ...], window: int, dropout: float, **smaller: Any
) -> ModelConfig:
    """DiffiT on pixels, in EDM's formulation (DiffiT, appendices H and I; unconditional there).

    smaller: fields in which a model for small machines differs.

    The paper contradicts itself on the blocks of a stage: appendix H.1 says 4 everywhere, I.1 says 2, 2, 2
    (CIFAR-10) and 1, 2, 2, 2 (FFHQ). But those of I.1 are EDM's channel multipliers for the two, word for
    word, and together with 128 channels they give the widths of tables S.2 and S.3. So: 4 blocks a stage.
    Where it says nothing: heads are 64 wide as in EDM, the MLP ratio is the latent model's 4.
    """
    paper = ModelConfig(
        backbone="diffit-image",
        formulation="edm",
        input_size=input_size,
        in_channels=3,
        patch_size=1,
        hidden_size=128,
        depth=4,
        num_heads=2,
        channel_mult=channel_mult,
        window_size=window,
        dropout=dropout,
        augment_dim=AUGMENTATIONS,
        num_classes=0,
        learn_sigma=False,
    )
    return replace(paper, **smaller)


def _unet(width: int, depth: int, channel_mult: tuple[int, ...]) -> ModelConfig:
    """A U-Net after ADM and LDM: attention in all stages but the first, heads of 32 channels as in LDM."""
    return ModelConfig(
        backbone="unet",
        patch_size=1,
        hidden_size=width,
        depth=depth,
        num_heads=max(1, width // 32),
        channel_mult=channel_mult,
    )


MODELS: dict[str, ModelConfig] = {
    f"DiT-{size}/{patch}{'' if design == 'adaln-zero' else '-' + design}": _isotropic(
        size, patch, conditioning=design
    )
    for design in CONDITIONINGS
    for size in SIZES
    for patch in PATCHES
}
MODELS |= {
    f"DiffiT-{size}/{patch}": _isotropic(size, patch, backbone="diffit")
    for size in SIZES
    for patch in PATCHES
}
MODELS |= {
    "DiffiT-CIFAR-32": _image_diffit(32, (2, 2, 2), window=4, dropout=0.13),
    "DiffiT-FFHQ-64": _image_diffit(64, (1, 2, 2, 2), window=8, dropout=0.05),
    "DiffiT-C-32": _image_diffit(32, (1, 2, 4), window=4, dropout=0.0, hidden_size=24, depth=1, num_heads=1),
}
MODELS |= {
    "UNet-C": _unet(16, 1, (1, 2, 3, 4)),  # as much compute as DiT-C/4
    "UNet-S": _unet(128, 2, (1, 2, 2, 2)),  # DDPM's widths for CIFAR-10; as much as DiT-S/2
    "UNet-B": _unet(224, 2, (1, 2, 3, 4)),  # diffusers' default; about as much as DiT-B/2
}
LOWER = {name.lower(): name for name in MODELS}
UNLABELLED = {"DiffiT-FFHQ-64": "FFHQ has no class labels"}


def preset(name: str, **overrides: Any) -> ModelConfig:
    """The config of a preset of `MODELS`, with fields replaced.

    Raises:
        ValueError: no such preset or field, and the message says which there are; or fields that do not fit.
    """
    if name not in MODELS:
        raise ValueError(no_such_model(name))
    config = ModelConfig.from_dict(MODELS[name].to_dict() | overrides)
    if name in UNLABELLED and config.num_classes:
        raise ValueError(
            f"num_classes is {config.num_classes}, but {UNLABELLED[name]}, and {name} is unconditional; "
            "use 0 (in training --no-class-conditional), or DiffiT-CIFAR-32 for a class-conditional model"
        )
    return config


def similar(name: str, n: int = 3, cutoff: float = 0.6) -> list[str]:
    """Names of `MODELS` like this one, in any case, the nearest first; cutoff: how like, 0 to 1."""
    return [LOWER[match] for match in difflib.get_close_matches(name.lower(), LOWER, n, cutoff)]


def no_such_model(name: object) -> str:
    """What to say of a name that is not in `MODELS`: what was meant, perhaps, and how names are made."""
    near = similar(str(name))
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    sizes, patches = ",".join(SIZES), ",".join(map(str, PATCHES))
    designs = ", ".join(f"-{design}" for design in CONDITIONINGS[1:])
    others = ", ".join(known for known in MODELS if "/" not in known)
    return (
        f"no model is called {name!r}; {hint}there are DiT-{{{sizes}}}/{{{patches}}}, each also with "
        f"{designs} behind; DiffiT-{{{sizes}}}/{{{patches}}}; {others}"
    )
