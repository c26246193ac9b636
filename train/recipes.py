"""Recipes: training runs by name, as data."""

from dataclasses import replace

from dit.presets import MODELS, UNLABELLED, no_such_model
from train.config import TrainConfig

LATENTS = "latents/imagenet-{}"  # where the README's commands for the papers' recipes put latents

_SOLIDS = TrainConfig(
    model="DiT-T/4",
    prediction="v",
    timesteps="logit-normal",
    total_steps=20_000,
    batch_size=64,
    lr=1e-3,
    lr_warmup_steps=200,
    lr_decay_steps=5_000,
    sample_every=500,
    checkpoint_every=250,
)
_SMOKE = TrainConfig(
    model="DiT-N/8",
    prediction="v",
    num_pictures=640,
    total_steps=60,
    batch_size=32,
    lr=1e-3,
    lr_warmup_steps=10,
    log_every=5,
    sample_every=30,
    checkpoint_every=20,
)
RECIPES: dict[str, TrainConfig] = {
    "solids": _SOLIDS,
    "solids-edm": replace(
        _SOLIDS, model="DiffiT-C-32", prediction="epsilon", timesteps="uniform", augment=0.12, flip=False
    ),
    "solids-flow": replace(_SOLIDS, formulation="flow", prediction="epsilon"),
    "mnist": replace(_SOLIDS, data="ylecun/mnist", image_size=28, flip=False, model="DiT-N/4"),
    "cifar10": replace(_SOLIDS, data="uoft-cs/cifar10", model="DiT-M/2", total_steps=50_000),
    "smoke": _SMOKE,
}

# DiT, section 4: TrainConfig's defaults, batch 256 included. The longest runs are those of section 5.1.
PAPER_STEPS = {"DiT-XL/2-256": 7_000_000, "DiT-XL/2-512": 3_000_000}
RECIPES |= {
    f"DiT-{size}/{patch}-{pixels}": TrainConfig(
        model=f"DiT-{size}/{patch}",
        data=LATENTS.format(pixels),
        image_size=pixels,
        total_steps=PAPER_STEPS.get(f"DiT-{size}/{patch}-{pixels}", 400_000),
        sample_every=10_000,
        checkpoint_every=5_000,
        keep_every=50_000,
    )
    for pixels in (256, 512)
    for size in ("S", "B", "L", "XL")
    for patch in (2, 4, 8)
}
# DiffiT, appendix I.2 for latents: rate and batch are given; optimizer and length are not, and are DiT's.
RECIPES |= {
    "DiffiT-XL/2-256": replace(RECIPES["DiT-XL/2-256"], model="DiffiT-XL/2", lr=3e-4),
    "DiffiT-XL/2-512": replace(RECIPES["DiT-XL/2-512"], model="DiffiT-XL/2", batch_size=512),
}
# Appendix I.1, "as EDM": its rate rises over 10 million pictures, its average halves in half a million. The
# length is the 200,000 iterations that the paper states, though EDM's own budget is 200 million pictures.
_EDM = TrainConfig(
    model="DiffiT-CIFAR-32",
    data="uoft-cs/cifar10",
    class_conditional=False,
    flip=False,  # its augmentation mirrors, and tells the network
    augment=0.12,
    total_steps=200_000,
    batch_size=512,
    lr=1e-3,
    lr_warmup_steps=10_000_000 // 512,
    ema_decay=0.5 ** (512 / 500_000),
    sample_every=5_000,
    checkpoint_every=1_000,
    keep_every=20_000,
)
RECIPES |= {
    "DiffiT-CIFAR-32": _EDM,
    "DiffiT-FFHQ-64": replace(
        _EDM,
        model="DiffiT-FFHQ-64",
        data="ffhq-64",
        image_size=64,
        augment=0.15,
        batch_size=256,
        lr=2e-4,
        lr_warmup_steps=10_000_000 // 256,
        ema_decay=0.5 ** (256 / 500_000),
    ),
}


def recipe_for(model: str) -> TrainConfig:
    """A recipe for a preset of `dit.MODELS`: that of its formulation, with settings that it needs.

    Raises:
        ValueError: no such preset.
    """
    if model not in MODELS:
        raise ValueError(no_such_model(model))
    if MODELS[model].formulation != "edm":
        return replace(RECIPES["solids"], model=model)
    return replace(
        RECIPES["solids-edm"],
        model=model,
        image_size=MODELS[model].input_size,
        class_conditional=model not in UNLABELLED,
    )
