"""What one optimizer step is computed from."""

from dataclasses import dataclass

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
