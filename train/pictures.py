"""What a set of pictures is to the trainer, whatever it is stored in."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class DataInfo:
    """What is known of training data before any of it is read."""

    name: str  # as given: solids, a path, OWNER/NAME
    classes: tuple[str, ...]  # name of each label; () of data without labels
    channels: int  # 1 grey, 3 RGB, else latents
    side: int  # of what the network sees: pixels, or places of a latent
    autoencoder: str | None = None  # that made the latents


class UnreadablePicture(ValueError):
    """One picture of a set cannot be decoded; the message names it and says why."""


class Pictures(Protocol):
    """Pictures of any size and mode, by their place in the set. Pickles, for the loader's processes."""

    name: str
    classes: tuple[str, ...]
    labels: np.ndarray  # (n,) int64; all 0 without classes
    blocks: (
        np.ndarray | None
    )  # sizes of the consecutive parts that are read whole; None: any order is as fast

    def __len__(self) -> int: ...

    def title(self, index: int) -> str:
        """What the picture is called where it is stored, for messages."""
        ...

    def picture(self, index: int) -> Image.Image:
        """The decoded picture. Raises UnreadablePicture."""
        ...

    def fingerprint(self) -> str:
        """A digest that changes with the stored pictures."""
        ...
