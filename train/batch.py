"""What one optimizer step is computed from."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Pictures, and all that is random about how they are used: a step is a function of batch and weights.

    It is drawn on the CPU, row by row from (seed, step, row), so that it is the same on any device and over
    any number of processes.
    """

    x0: Tensor  # (N, C, H, W) float32
    y: Tensor | None  # (N,) int64, some replaced by the null class; None for an unconditional model
    t: Tensor  # (N,) the noise level: int64 timesteps of DDPM, float32 sigmas of EDM, times 0..1 of flow
    noise: Tensor  # (N, C, H, W) float32, standard normal
    augment: Tensor | None = None  # (N, 9) what EDM's augmentation did to x0

    def __len__(self) -> int:
        return len(self.x0)

    def parts(self, size: int) -> Iterator["Batch"]:
        """The same in parts of so many rows."""
        for start in range(0, len(self), size):
            values = (getattr(self, field.name) for field in fields(self))
            yield Batch(*(value if value is None else value[start : start + size] for value in values))
