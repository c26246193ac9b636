"""Trains the small classifier of the solids, the judge of generated pictures: `python -m train.classifier`.

It learns from slightly spoiled pictures (colour, contrast, blur, noise), so that what it says of a
generated picture depends on the solid in it, and not on traces that only the ray caster leaves.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from dit.classifier import DEFAULT, Classifier, ClassifierConfig, save
from dit.command import exit_status
from train import solids
from train.data import NUM_SOLIDS, SolidsData, solids_cache
from train.order import Order

HELD_OUT_SEED = 1  # of the solids that accuracy is measured on; those of seed 0 are for training


def accuracy(found: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """How many of the labels (N,) were found (N,), as shares: {"overall": ..., "per_class": {name: ...}}.

    Raises:
        ValueError: a class has no picture.
    """
    per_class = {}
    for label, name in enumerate(classes):
        of_class = labels == label
        if not of_class.any():
            raise ValueError(f"no picture is of class {name!r}; measure on pictures of every class")
        per_class[name] = float((found[of_class] == label).mean())
    return {"overall": float((found == labels).mean()), "per_class": per_class}


def check_samples(samples: int, classes: Sequence[str]) -> None:
    """Raises ValueError if so few pictures, whose classes take turns, leave one out of `accuracy`."""
    if samples < len(classes):
        raise ValueError(
            f"{samples} pictures are not one of each of {len(classes)} classes, whose accuracy is measured; "
            f"take at least {len(classes)}"
        )


def held_out(model: Classifier, num_pictures: int) -> dict[str, Any]:
    """The classifier's `accuracy` on the first held-out solids, with how many and which they were."""
    pictures = solids_cache(num_pictures, model.config.side, HELD_OUT_SEED)
    labels = solids.labels(np.arange(num_pictures))
    measured = accuracy(model.classify(pictures), labels, model.config.classes)
    return {"pictures": num_pictures, "seed": HELD_OUT_SEED, **measured}


def spoil(x: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (N, 3, H, W) in [-1, 1], each with a saturation, contrast, blur and noise of its own."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(x), 1, 1, 1, generator=generator)

    x = torch.lerp(x, x.mean(1, keepdim=True), uniform(-0.2, 1.0))  # 1 is grey
    x = x * uniform(0.7, 1.2) + uniform(-0.15, 0.15)
    binomial = torch.tensor([1.0, 2.0, 1.0])
    kernel = (binomial[:, None] * binomial / 16).expand(3, 1, 3, 3)
    blurred = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, groups=3)
    x = torch.lerp(x, blurred, uniform(-0.3, 1.0))  # below 0 it sharpens
    x = x + uniform(0.0, 0.12) * torch.randn(x.shape, generator=generator)
    return x.clamp(-1, 1)


@dataclass(frozen=True, kw_only=True)
class Training:
    """Train the classifier of the solids, measure it on held-out ones, and write it to a file."""

    steps: int = 800
    """length of the training (optimizer steps)"""
    batch_size: int = 64
    """pictures a step"""
    lr: float = 3e-3
    """AdamW's learning rate at its peak; it rises and falls once"""
    weight_decay: float = 0.05
    """AdamW's decoupled weight decay"""
    num_pictures: int = NUM_SOLIDS
    """size of the training set (pictures); the default shares its cache with the trainer"""
    held_out_pictures: int = 5000
    """pictures that accuracy is measured on"""
    seed: int = 0
    """of initial weights, data order and spoiling"""
    out: Path = DEFAULT
    """file to write"""

    def __post_init__(self) -> None:
        classes = len(solids.CLASSES)
        at_least = {
            "steps": 1,
            "batch_size": 2,
            "num_pictures": self.batch_size,
            "held_out_pictures": classes,
        }
        for name, least in (at_least | {"seed": 0, "weight_decay": 0}).items():
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"lr is {self.lr}; it must be a positive number, such as 3e-3")


def train(training: Training) -> Classifier:
    """A freshly trained classifier, in training mode; a function of the settings, on the CPU."""
    torch.manual_seed(training.seed)
    model = Classifier(ClassifierConfig(classes=solids.CLASSES))
    model = model.to(memory_format=torch.channels_last).train()
    data = SolidsData(training.num_pictures, model.config.side)
    order = Order(len(data), training.batch_size, training.seed)
    generator = torch.Generator().manual_seed(training.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=training.lr, weight_decay=training.weight_decay, fused=True
    )
    lr_schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=training.lr, total_steps=training.steps + 1
    )
    losses = []
    for step in (bar := tqdm(range(training.steps), desc="training the classifier", unit="step")):
        indices = order.indices(step)
        mirrored = np.random.default_rng([training.seed, step, 1]).random(len(indices)) < 0.5
        x, y = data.fetch(indices, mirrored, indices)
        x = spoil(x, generator).contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(model(x), y, label_smoothing=0.05)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        lr_schedule.step()
        losses.append(float(loss.detach()))
        if step % 20 == 0:
            bar.set_postfix(loss=f"{sum(losses[-20:]) / len(losses[-20:]):.4f}")
    return model


def main(arguments: list[str]) -> int:
    """Train, measure, write and report. Returns the exit status."""
    return exit_status(lambda: _train(arguments), "stopped before the end")


def _train(arguments: list[str]) -> None:
    training = tyro.cli(Training, prog="python -m train.classifier", args=arguments)
    model = train(training)
    state = {k: v.half().float() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    model.load_state_dict(state)  # measured is what the file holds, in half precision
    measured = held_out(model.eval(), training.held_out_pictures)
    provenance = {
        "dataset": "solids",
        "dataset_version": solids.VERSION,
        "pictures_seen": training.steps * training.batch_size,
        "seed": training.seed,
        "training": {name: value for name, value in asdict(training).items() if name != "out"},
        "held_out": measured,
    }
    save(training.out, model, provenance)
    for name, share in [*measured["per_class"].items(), ("all", measured["overall"])]:
        print(f"{name:<12}{share:7.2%}")
    print(f"{training.out}: {training.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
