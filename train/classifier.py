"""A small classifier of the solids, the judge of generated pictures: `python -m train.classifier` trains it.

It learns from slightly spoiled pictures (colour, contrast, blur, noise), so that what it says of a
generated picture depends on the solid in it, and not on traces that only the ray caster leaves.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from dit.command import exit_status
from dit.pipeline import from_pictures
from dit.weights import WeightsError, read_header, read_tensors, write_tensors
from train import solids
from train.data import NUM_SOLIDS, SolidsData, solids_cache
from train.order import Order

DEFAULT = Path(__file__).resolve().parent.parent / "assets" / "classifiers" / "solids.safetensors"
FORMAT = "dit-lab-classifier/1"
HELD_OUT_SEED = 1  # of the solids that accuracy is measured on; those of seed 0 are for training
CHUNK = 250  # pictures classified together


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Shape of a classifier.

    Raises:
        ValueError: a field is out of range.
    """

    channels: Sequence[int] = (32, 64, 128)  # width of each stage; every stage but the first halves the side
    classes: Sequence[str] = solids.CLASSES  # name of each label
    side: int = 32  # of the (square) pictures

    def __post_init__(self) -> None:
        if not self.channels or min(self.channels) < 1:
            raise ValueError(f"channels is {self.channels}; give at least one width, each at least 1")
        if len(self.classes) < 2:
            raise ValueError(f"classes is {self.classes}; give at least two names")
        if self.side < (least := 2 ** (len(self.channels) - 1)):
            raise ValueError(f"side is {self.side}; {len(self.channels)} stages need at least {least}")


class Classifier(nn.Module):
    """A plain network: two 3x3 convolutions a stage, the mean over the picture, one linear layer."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.provenance: dict[str, Any] = {}
        layers: list[nn.Module] = []
        width = 3
        for stage, channels in enumerate(config.channels):
            for stride in (1 if stage == 0 else 2, 1):
                layers.append(nn.Conv2d(width, channels, 3, stride, padding=1, bias=False))
                layers += [nn.BatchNorm2d(channels), nn.ReLU()]
                width = channels
        self.stages = nn.Sequential(*layers)
        self.head = nn.Linear(width, len(config.classes))

    def features(self, x: Tensor) -> Tensor:
        """x (N, 3, side, side) in [-1, 1] -> what the last layer sees, (N, last of config.channels)."""
        return self.stages(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """x (N, 3, side, side) in [-1, 1] -> logits (N, number of classes)."""
        return self.head(self.features(x))

    @torch.inference_mode()
    def classify(self, pictures: np.ndarray) -> np.ndarray:
        """Labels (N,) int64 of pictures (N, side, side, 3) uint8.

        Raises:
            ValueError: the pictures are of another shape or type.
        """
        side = self.config.side
        if pictures.dtype != np.uint8 or pictures.shape[1:] != (side, side, 3):
            raise ValueError(
                f"pictures are {pictures.dtype} {pictures.shape}; they must be uint8 (N, {side}, {side}, 3)"
            )
        labels = [self.head(features).argmax(1).cpu().numpy() for features in self._features(pictures)]
        return np.concatenate([np.empty(0, np.int64), *labels])

    @torch.inference_mode()
    def features_of(self, pictures: np.ndarray) -> np.ndarray:
        """What the last layer sees of pictures (N, side, side, 3) uint8: (N, D) float32."""
        return np.concatenate([features.cpu().numpy() for features in self._features(pictures)])

    def _features(self, pictures: np.ndarray) -> Iterator[Tensor]:
        """`features` of pictures (N, side, side, 3) uint8, chunk by chunk."""
        for start in range(0, len(pictures), CHUNK):
            chunk = from_pictures(pictures[start : start + CHUNK])
            yield self.features(chunk.to(self.head.weight.device))


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


def held_out(model: Classifier, num_pictures: int) -> dict[str, Any]:
    """The classifier's `accuracy` on the first held-out solids, with how many and which they were."""
    pictures = solids_cache(num_pictures, model.config.side, HELD_OUT_SEED)
    labels = solids.labels(np.arange(num_pictures))
    measured = accuracy(model.classify(pictures), labels, model.config.classes)
    return {"pictures": num_pictures, "seed": HELD_OUT_SEED, **measured}


def save(path: Path | str, model: Classifier, provenance: dict[str, Any]) -> None:
    """Write a classifier to one safetensors file in half precision, atomically; provenance: JSON values."""
    tensors = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
    }
    write_tensors(
        Path(path), tensors, {"format": FORMAT, "config": asdict(model.config), "provenance": provenance}
    )


def load(path: Path | str = DEFAULT) -> Classifier:
    """A classifier in evaluation mode, float32, on the CPU; its `provenance` says what it was trained on.

    Raises:
        WeightsError: no such file, truncated, not a classifier, or its tensors are not those of its config.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such classifier; make one with python -m train.classifier")
    header, tensors = read_header(path, FORMAT), read_tensors(path)
    try:
        model = Classifier(_config(header["config"]))
        model.provenance = header["provenance"]
        model.load_state_dict(tensors, strict=True)
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path}: expected config and provenance in the metadata, found {error!r}; "
            "make it again with python -m train.classifier"
        ) from error
    except RuntimeError as error:
        raise WeightsError(f"{path}: its tensors are not those of its config: {error}") from error
    return model.eval()


def _config(values: dict[str, Any]) -> ClassifierConfig:
    """The config that JSON values stand for; JSON knows no tuples."""
    if unknown := sorted(set(values) - {field.name for field in fields(ClassifierConfig)}):
        raise ValueError(f"unknown config fields {unknown}")
    return ClassifierConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


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
    model = Classifier(ClassifierConfig()).to(memory_format=torch.channels_last).train()
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
