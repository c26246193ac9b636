"""What a network sees in pictures, to measure by: features, a map of where things are, and classes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dit.classifier import DEFAULT, Classifier
from dit.classifier import load as load_classifier
from dit.files import sha256
from dit.pipeline import from_pictures

MOST_SPATIAL = 512  # features of the map, about as many as 5,000 pictures can tell a covariance of
MAP_CHANNELS = 7  # as ADM's evaluator takes


@dataclass(frozen=True)
class Features:
    """What an extractor sees in N pictures."""

    pool: np.ndarray  # (N, D) float32: what the last layer sees
    spatial: np.ndarray  # (N, D2) float32: some channels of an inner map, with places
    probabilities: np.ndarray  # (N, K) float32 of each class

    def __len__(self) -> int:
        return len(self.pool)


class Extractor(Protocol):
    """A network that looks at pictures."""

    name: str  # "classifier" or "inception"
    classes: tuple[str, ...]  # names of what it recognises; () where nothing is asked of that
    side: int | None  # of the pictures it takes; None: any
    dimensions: tuple[int, int]  # D and D2 of `Features`
    device: torch.device

    def told(self) -> dict[str, Any]:
        """Which it is, as JSON values: name, file and digest."""
        ...

    def of(self, pictures: np.ndarray) -> Features:
        """pictures: (N, H, W, 3) uint8. Raises ValueError if they are of another size."""
        ...


class ClassifierFeatures:
    """The features of a small classifier: what it was trained on, it sees well."""

    name = "classifier"

    def __init__(self, path: Path | str = DEFAULT, device: torch.device | str = "cpu") -> None:
        """Raises WeightsError: no such file, or not a classifier's."""
        self.path, self.device = Path(path), torch.device(device)
        self.digest = sha256(self.path) if self.path.is_file() else ""
        self.model: Classifier = load_classifier(path).to(self.device, memory_format=torch.channels_last)
        config = self.model.config
        self.classes, self.side = tuple(config.classes), config.side
        with torch.inference_mode():
            *_, inner = self._layers(torch.zeros(1, 3, self.side, self.side, device=self.device))
        self.channels = max(1, min(MAP_CHANNELS, MOST_SPATIAL // inner[0, 0].numel()))
        self.dimensions = (config.channels[-1], self.channels * inner[0, 0].numel())

    def told(self) -> dict[str, Any]:
        """Which it is."""
        return {"name": self.name, "file": self.path.name, "sha256": self.digest}

    def of(self, pictures: np.ndarray) -> Features:
        """Everything in one pass. The map: the first channels after the last stage's first convolution."""
        if pictures.dtype != np.uint8 or pictures.shape[1:] != (self.side, self.side, 3):
            raise ValueError(
                f"pictures are {pictures.dtype} {pictures.shape}, but the classifier {self.path.name} takes "
                f"uint8 (N, {self.side}, {self.side}, 3); give one of their size: --classifier FILE"
            )

        def see(chunk: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
            pool, inner = self._layers(from_pictures(chunk).to(self.device))
            return pool, flat(inner[:, : self.channels]), self.model.head(pool).softmax(1)

        return collect(see, pictures, chunk=250)

    def _layers(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (N, 3, side, side) in [-1, 1] -> features (N, D), inner map (N, C, H, W)."""
        stages = self.model.stages
        middle = len(stages) - 3  # a stage ends with convolution, norm, ReLU
        inner = stages[:middle](x)
        return stages[middle:](inner).mean((2, 3)), inner


def flat(inner: Tensor) -> Tensor:
    """A map (N, C, H, W) as features (N, H W C), in the order of TensorFlow and of ADM's references."""
    return inner.permute(0, 2, 3, 1).flatten(1)


def collect(see: Any, pictures: np.ndarray, chunk: int) -> Features:
    """What `see` finds in all pictures (N, H, W, 3), chunk by chunk."""
    parts: list[list[np.ndarray]] = [[], [], []]
    with tqdm(total=len(pictures), desc="looking at them", unit=" pictures", leave=False, delay=2) as bar:
        for start in range(0, len(pictures), chunk):
            # TF32, a GPU's default in convolutions, would be another extractor than the reference's
            with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                for part, found in zip(parts, see(pictures[start : start + chunk]), strict=True):
                    part.append(found.float().cpu().numpy())
            bar.update(len(pictures[start : start + chunk]))
    return Features(*(np.concatenate(part) for part in parts))
