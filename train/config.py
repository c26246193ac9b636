"""What decides a training run, as one frozen dataclass that is checked when made."""

import math
from dataclasses import dataclass
from typing import Literal, get_args, get_origin, get_type_hints

from dit.config import ModelConfig
from dit.presets import MODELS, no_such_model, preset
from train.pictures import DataInfo
from train.solids import CLASSES, MAX_SIDE, MIN_SIDE, SOLIDS


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run. The defaults are the paper's (DiT, section 4) where it has any."""

    model: str = "DiT-T/4"
    """preset of dit.MODELS, such as DiT-S/2, DiT-S/2-in-context, DiffiT-S/2, UNet-S, DiffiT-CIFAR-32"""
    depth: int = 0
    """number of blocks (of a U-shape: in each stage); 0: as the preset says"""
    class_conditional: bool = True
    """tell the model what each picture shows; the models of DiffiT's paper were not told"""
    formulation: Literal["auto", "flow"] = "auto"
    """auto: the preset's own, DDPM's or EDM's; flow: velocities along straight paths (SiT, 2401.08740)"""
    prediction: Literal["epsilon", "v"] = "epsilon"
    """what a network of DDPM's formulation predicts; the paper's is epsilon"""
    timesteps: Literal["uniform", "logit-normal"] = "uniform"
    """how t is drawn; the paper's is uniform; with logit-normal most lie in the middle, where shapes form"""
    loss_weighting: Literal["uniform", "min-snr"] = "uniform"
    """weight of the timesteps; the paper's is uniform; min-snr: at most 5 times the noise's (2303.09556)"""
    qk_norm: bool = False
    """normalise queries and keys, which keeps attention from blowing up in half precision (2302.05442)"""
    data: str = "solids"
    """solids (drawn by code), a folder of pictures or of latents, or a dataset on the Hub: OWNER/NAME"""
    split: str = "train"
    """of a dataset in the Hub's layout"""
    streaming: bool = False
    """read a dataset in the Hub's layout piece by piece, for sets larger than the disk"""
    num_workers: int = -1
    """processes that read and decode pictures ahead; -1: as many as the data needs"""
    image_size: int = 32
    """side of the pictures (pixels)"""
    channels: Literal["auto", "rgb", "grey"] = "auto"
    """auto: grey where all pictures are, as in MNIST, else rgb"""
    num_pictures: int = 0
    """learn from the first so many of the set (pictures); 0: all; of solids, which have no end, 100,000"""
    overfit: int = 0
    """learn so many pictures by heart, to see that training works at all; 0: learn from all"""
    flip: bool = True
    """mirror half of the pictures"""
    augment: float = 0.0
    """probability of each of EDM's augmentations, for models that know of them (DiffiT-CIFAR-32: 0.12)"""
    total_steps: int = 400_000
    """length of the run (optimizer steps)"""
    batch_size: int = 256
    """pictures a step, over all devices"""
    micro_batch: int = 0
    """pictures a device computes at once, the gradients of several being added up; 0: as memory allows"""
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
    extra_ema_decays: tuple[float, ...] = ()
    """further averages to keep beside that one; each makes a weights file of its own"""
    seed: int = 0
    """of initial weights, data order, noise and dropout"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on a GPU that has it, float32 elsewhere"""
    compile: Literal["auto", "yes", "no"] = "auto"
    """compile the model (some 30 s at the start); auto: on a GPU, and for 1000 steps on a CPU with g++"""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """over several devices: a copy of the model on each, or a part of it (for what does not fit)"""
    remat: bool = False
    """keep no activations of the blocks, but compute them again: less memory, a third more compute"""
    deterministic: bool = False
    """use deterministic kernels on a GPU, so that a resumed run is the same bit for bit"""
    max_skipped: int = 10
    """steps in a row with a loss or gradient that is not finite, each skipped, before the run goes back"""
    log_every: int = 50
    """write a line to metrics.jsonl (steps)"""
    sample_every: int = 1000
    """draw a grid of every class (steps)"""
    checkpoint_every: int = 1000
    """save a resumable checkpoint (steps)"""
    keep_checkpoints: int = 2
    """how many of the last checkpoints stay on disk"""
    keep_every: int = 0
    """of the others, keep those at multiples of so many steps; 0: none"""
    tracker: Literal["auto", "none", "trackio", "tensorboard"] = "auto"
    """where metrics go besides metrics.jsonl; auto: trackio, on this machine, where it is installed"""

    def __post_init__(self) -> None:
        if isinstance(self.extra_ema_decays, list):  # as JSON has it
            object.__setattr__(self, "extra_ema_decays", tuple(self.extra_ema_decays))
        for name, kind in get_type_hints(TrainConfig).items():
            value = getattr(self, name)
            if get_origin(kind) is Literal:
                if value not in get_args(kind):
                    raise ValueError(f"{name} is {value!r}; choose one of {', '.join(get_args(kind))}")
            elif get_origin(kind) is tuple:
                if not isinstance(value, tuple) or not all(type(one) is float for one in value):
                    raise TypeError(f"{name} is {value!r}; it must be a tuple of numbers such as 0.999")
            elif type(value) is not kind and not (kind is float and type(value) is int):
                raise TypeError(f"{name} is {value!r}; it must be of type {kind.__name__}")
        if self.model not in MODELS:
            raise ValueError(no_such_model(self.model))
        at_least = dict.fromkeys(
            ("total_steps", "batch_size", "log_every", "sample_every", "checkpoint_every"), 1
        )
        at_least |= {
            "keep_checkpoints": 1,
            "max_skipped": 1,
            "num_workers": -1,
            "image_size": MIN_SIDE,
        }
        at_least |= dict.fromkeys(("num_pictures", "overfit", "micro_batch", "keep_every", "seed"), 0)
        at_least |= {"depth": 0, "lr_warmup_steps": 0, "lr_decay_steps": 0, "weight_decay": 0, "grad_clip": 0}
        for name, least in at_least.items():
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"lr is {self.lr}; it must be a positive number, such as 1e-4")
        shares = [
            (name, getattr(self, name)) for name in ("ema_decay", "beta2", "class_dropout_prob", "augment")
        ]
        for name, value in [*shares, *(("extra_ema_decays", decay) for decay in self.extra_ema_decays)]:
            if not 0 <= value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 0 and below 1")
        if MODELS[self.model].formulation == "edm":
            neutrals = {"prediction": "epsilon", "timesteps": "uniform"}
            neutrals |= {"loss_weighting": "uniform", "formulation": "auto", "qk_norm": False}
            for name, neutral in neutrals.items():
                if getattr(self, name) != neutral:
                    raise ValueError(
                        f"{name} is {getattr(self, name)!r}, but {self.model} is an EDM model, which has no "
                        f"choice of {name}; start from the recipe solids-edm, or set it to {neutral}"
                    )
        if self.formulation == "flow" and self.prediction != "epsilon":
            raise ValueError(
                f"prediction is {self.prediction!r}, but formulation flow predicts velocities; start from "
                "the recipe solids-flow, or set prediction to epsilon"
            )
        if self.augment and not MODELS[self.model].augment_dim:
            raise ValueError(
                f"augment is {self.augment}, but {self.model} has no augmentation labels, so that it would "
                "draw warped pictures; use 0, or a model that has them, such as DiffiT-C-32"
            )
        if self.data == SOLIDS:  # of other data, more is known once it is opened
            if self.image_size > MAX_SIDE:
                raise ValueError(f"image_size is {self.image_size}; it must be at most {MAX_SIDE}")
            self.network()

    def network(self, data: DataInfo | None = None) -> ModelConfig:
        """The config of the model to train, for what is known of its data; None: for solids.

        Raises:
            ValueError: the preset cannot be so.
        """
        shape = data or DataInfo(SOLIDS, CLASSES, 3, self.image_size)
        given = {"depth": self.depth} if self.depth else {}
        if self.formulation == "flow":
            given |= {"formulation": "flow", "prediction": "velocity", "learn_sigma": False}
        else:
            given |= {"prediction": self.prediction}
        if self.qk_norm:
            given["qk_norm"] = True
        try:
            return preset(
                self.model,
                input_size=shape.side,
                in_channels=shape.channels,
                num_classes=len(shape.classes) if self.class_conditional else 0,
                class_dropout_prob=self.class_dropout_prob,
                **given,
            )
        except ValueError as error:
            raise ValueError(
                f"model {self.model} on {shape.channels} x {shape.side} x {shape.side} of {shape.name}, "
                f"class_conditional {self.class_conditional}, depth {self.depth or 'of the preset'}: {error}"
            ) from error

    def lr_at(self, step: int) -> float:
        """Learning rate of optimizer step 0, 1, ...: warm-up, plateau, linear decay."""
        rise = (step + 1) / self.lr_warmup_steps if step < self.lr_warmup_steps else 1.0
        left = self.total_steps - step
        fall = left / self.lr_decay_steps if left < self.lr_decay_steps else 1.0
        return self.lr * min(rise, fall)

    def highest_lr(self) -> float:
        """The learning rate where it is highest: less than `lr` if warm-up and decay meet in a short run."""
        meet = self.total_steps * self.lr_warmup_steps / max(1, self.lr_warmup_steps + self.lr_decay_steps)
        near = (self.lr_warmup_steps - 1, self.total_steps - self.lr_decay_steps, int(meet) - 1, int(meet))
        return max(self.lr_at(min(max(0, step), self.total_steps - 1)) for step in near)


# What may change between a run and its continuation without making it another run; changes are recorded.
RESUMABLE = {
    "timesteps",
    "loss_weighting",
    "num_workers",
    "micro_batch",
    "compile",
    "parallel",
    "remat",
    "deterministic",
    "max_skipped",
    "total_steps",
    "lr_decay_steps",
    "log_every",
    "sample_every",
    "checkpoint_every",
    "keep_checkpoints",
    "keep_every",
    "tracker",
}
