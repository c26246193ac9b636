"""Recipes: everything that decides a training run, as one frozen dataclass, and the table of named ones."""

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args, get_origin, get_type_hints

from dit.config import ModelConfig
from dit.presets import MODELS, UNLABELLED, no_such_model, preset
from train.solids import CLASSES, MAX_SIDE, MIN_SIDE


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run. The defaults are the paper's (DiT, section 4) where it has any."""

    model: str = "DiT-T/4"
    """preset of dit.MODELS, such as DiT-S/2, DiT-S/2-in-context, DiffiT-S/2, UNet-S, DiffiT-CIFAR-32"""
    depth: int = 0
    """number of blocks (of a U-shape: in each stage); 0: as the preset says"""
    class_conditional: bool = True
    """tell the model what each picture shows; the models of DiffiT's paper were not told"""
    prediction: Literal["epsilon", "v"] = "epsilon"
    """what the network predicts; the paper's is epsilon"""
    timesteps: Literal["uniform", "logit-normal"] = "uniform"
    """how t is drawn; the paper's is uniform; with logit-normal most lie around t = 330, where shapes form"""
    data: Literal["solids"] = "solids"
    """dataset; solids is drawn by code, once, and cached"""
    image_size: int = 32
    """side of the pictures (pixels)"""
    num_pictures: int = 100_000
    """size of the training set (pictures)"""
    flip: bool = True
    """mirror half of the pictures"""
    augment: float = 0.0
    """probability of each of EDM's augmentations, for models that know of them (DiffiT-CIFAR-32: 0.12)"""
    total_steps: int = 400_000
    """length of the run (optimizer steps)"""
    batch_size: int = 256
    """pictures a step"""
    lr: float = 1e-4
    """AdamW's learning rate"""
    lr_warmup_steps: int = 0
    """linear rise from 0 (steps)"""
    lr_decay_steps: int = 0
    """linear fall to 0 at the end (steps); 0 keeps the rate constant"""
    beta2: float = 0.999
    """AdamW's second-moment decay"""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay"""
    grad_clip: float = 0.0
    """largest gradient norm; 0 does not clip"""
    class_dropout_prob: float = 0.1
    """share of labels replaced by the null class"""
    ema_decay: float = 0.9999
    """ceiling of the weight average's decay; early in a run it is (1 + step) / (10 + step)"""
    seed: int = 0
    """of initial weights, data order, noise and dropout"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on a GPU that has it, float32 elsewhere"""
    compile: bool = False
    """compile the model (needs a C++ compiler; some 30 s at the start)"""
    log_every: int = 50
    """write a line to metrics.jsonl (steps)"""
    sample_every: int = 1000
    """draw a grid of every class (steps)"""
    checkpoint_every: int = 1000
    """save a resumable checkpoint (steps)"""
    keep_checkpoints: int = 2
    """how many of the last checkpoints stay on disk"""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(TrainConfig).items():
            value = getattr(self, name)
            if get_origin(kind) is Literal:
                if value not in get_args(kind):
                    raise ValueError(f"{name} is {value!r}; choose one of {', '.join(get_args(kind))}")
            elif type(value) is not kind and not (kind is float and type(value) is int):
                raise TypeError(f"{name} is {value!r}; it must be of type {kind.__name__}")
        if self.model not in MODELS:
            raise ValueError(no_such_model(self.model))
        at_least = dict.fromkeys(
            ("total_steps", "batch_size", "log_every", "sample_every", "checkpoint_every"), 1
        )
        at_least |= {
            "keep_checkpoints": 1,
            "num_pictures": self.batch_size,
            "image_size": MIN_SIDE,
            "seed": 0,
        }
        at_least |= {"depth": 0, "lr_warmup_steps": 0, "lr_decay_steps": 0, "weight_decay": 0, "grad_clip": 0}
        for name, least in at_least.items():
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if self.image_size > MAX_SIDE:
            raise ValueError(f"image_size is {self.image_size}; it must be at most {MAX_SIDE}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"lr is {self.lr}; it must be a positive number, such as 1e-4")
        for name in ("ema_decay", "beta2", "class_dropout_prob", "augment"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0 and below 1")
        if MODELS[self.model].formulation == "edm":
            for name, neutral in (("prediction", "epsilon"), ("timesteps", "uniform")):
                if getattr(self, name) != neutral:
                    raise ValueError(
                        f"{name} is {getattr(self, name)!r}, but {self.model} is an EDM model, which has no "
                        f"choice of {name}; start from the recipe solids-edm, or set it to {neutral}"
                    )
        if not self.network().augment_dim and self.augment:
            raise ValueError(
                f"augment is {self.augment}, but {self.model} has no augmentation labels, so that it would "
                "draw warped pictures; use 0, or a model that has them, such as DiffiT-C-32"
            )

    def network(self) -> ModelConfig:
        """The config of the model to train. Raises ValueError where the preset cannot be so."""
        given = {"depth": self.depth} if self.depth else {}
        try:
            return preset(
                self.model,
                input_size=self.image_size,
                in_channels=3,
                num_classes=len(CLASSES) if self.class_conditional else 0,
                class_dropout_prob=self.class_dropout_prob,
                prediction=self.prediction,
                **given,
            )
        except ValueError as error:
            raise ValueError(
                f"model {self.model} with image_size {self.image_size}, class_conditional "
                f"{self.class_conditional}, depth {self.depth or 'of the preset'}: {error}"
            ) from error

    def lr_at(self, step: int) -> float:
        """Learning rate of optimizer step 0, 1, ...: warm-up, plateau, linear decay."""
        rise = (step + 1) / self.lr_warmup_steps if step < self.lr_warmup_steps else 1.0
        left = self.total_steps - step
        fall = left / self.lr_decay_steps if left < self.lr_decay_steps else 1.0
        return self.lr * min(rise, fall)


# What may change between a run and its continuation without making it another run; changes are recorded.
RESUMABLE = {
    "timesteps",
    "compile",
    "total_steps",
    "lr_decay_steps",
    "log_every",
    "sample_every",
    "checkpoint_every",
    "keep_checkpoints",
}

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
RECIPES: dict[str, TrainConfig] = {
    "solids": _SOLIDS,
    "solids-edm": replace(
        _SOLIDS, model="DiffiT-C-32", prediction="epsilon", timesteps="uniform", augment=0.12, flip=False
    ),
    "smoke": TrainConfig(
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
