"""A small classifier, the judge of generated pictures: what it sees, and what it takes them for.

`python -m train.classifier` trains the one of the solids.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dit.pipeline import from_pictures
from dit.weights import WeightsError, read_header, read_tensors, write_tensors

CLASSIFIERS = Path(__file__).resolve().parent.parent / "assets" / "classifiers"
DEFAULT = CLASSIFIERS / "solids.safetensors"
FORMAT = "dit-lab-classifier/1"
CHUNK = 250  # pictures classified together


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Shape of a classifier.

    Raises:
        ValueError: a field is out of range.
    """

    classes: Sequence[str]  # name of each label
    channels: Sequence[int] = (32, 64, 128)  # width of each stage; every stage but the first halves the side
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
