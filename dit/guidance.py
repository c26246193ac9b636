"""Classifier-free guidance, Ho & Salimans 2022 (2207.12598): a model and its labels become a denoiser."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dit.diffusion import NUM_TIMESTEPS, to_epsilon

GuidanceSchedule = Callable[[float, int], float]


def constant(scale: float, t: int) -> float:
    """The same guidance at every timestep."""
    return scale


def power_cosine(scale: float, t: int, power: float = 4.0) -> float:
    """Guidance growing from 1 at pure noise to `scale` at the data (MDT, 2303.14389; DiffiT: power 4)."""
    return 1 + (scale - 1) * 0.5 * (1 - math.cos(math.pi * (1 - t / NUM_TIMESTEPS) ** power))


class Guided:
    """A denoiser for the samplers: (x_t, t) -> noise of the given classes, pushed away from the null class.

    Where the scale at t is 1, or t lies outside the interval, the null class is not evaluated: one pass, not
    two.
    """

    def __init__(
        self,
        model: nn.Module,
        y: Tensor | None,
        scale: float = 1.0,
        *,
        channels: int | None = None,
        interval: tuple[int, int] = (0, NUM_TIMESTEPS - 1),
        schedule: GuidanceSchedule = constant,
    ) -> None:
        """model: as `dit.build` makes. y: (N,) labels, None for an unconditional model.

        channels: how many channels, from the first, are guided; the rest and the variance keep the
        conditional prediction. None guides all; 3 is what the DiT authors do with their four latent channels.
        interval: first and last guided timestep, both included (Kynkaanniemi et al. 2024, 2404.07724).

        Raises:
            ValueError: scale, labels, channels or interval that this model cannot serve.
        """
        config = model.config
        if not math.isfinite(scale) or scale < 0:
            raise ValueError(
                f"guidance_scale is {scale}; it must be a finite number, 0 or more (1 means no guidance)"
            )
        if scale != 1.0 and not config.has_null_class:
            raise ValueError(
                f"guidance_scale is {scale}, but this model has no null class to guide away from "
                f"(num_classes {config.num_classes}, class_dropout_prob {config.class_dropout_prob}); use 1"
            )
        if (y is None) != (config.num_classes == 0):
            raise ValueError(
                f"this model has {config.num_classes} classes; give labels if and only if it has any"
            )
        last = config.num_classes if config.has_null_class else config.num_classes - 1
        if y is not None and not bool(((y >= 0) & (y <= last)).all()):
            null = f" ({last}: no class)" if config.has_null_class else ""
            raise ValueError(f"labels {y.tolist()} must lie in 0..{last}{null}")
        if channels is not None and not 1 <= channels <= config.in_channels:
            raise ValueError(f"guided channels is {channels}; this model has 1 to {config.in_channels}")
        if not 0 <= interval[0] <= interval[1] < NUM_TIMESTEPS:
            raise ValueError(
                f"guidance interval is {interval}; give first and last timestep, ascending, "
                f"in 0..{NUM_TIMESTEPS - 1}"
            )
        self.model, self.y, self.scale = model, y, float(scale)
        self.channels = config.in_channels if channels is None else channels
        self.interval, self.schedule = interval, schedule

    def scale_at(self, t: int) -> float:
        """The guidance scale in force at timestep t; 1 outside the interval."""
        return self.schedule(self.scale, t) if self.interval[0] <= t <= self.interval[1] else 1.0

    def passes(self, t: int) -> int:
        """Forward passes a picture costs at timestep t: 1 or 2."""
        return 1 if self.scale_at(t) == 1.0 else 2

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """x: (N, C, H, W). t: (N,), all equal, on the CPU, so that reading it stalls no device."""
        scale, C = self.scale_at(int(t[0])), x.shape[1]
        t_x = t.to(x.device)
        if scale == 1.0:
            output = self.model(x, t_x, self.y)
        else:
            null = torch.full_like(self.y, self.model.config.num_classes)
            output, unconditional = self.model(
                torch.cat([x, x]), torch.cat([t_x, t_x]), torch.cat([self.y, null])
            ).chunk(2)
            base = unconditional[:, : self.channels]
            guided = base + scale * (output[:, : self.channels] - base)
            output = torch.cat([guided, output[:, self.channels :]], dim=1)
        eps = to_epsilon(output[:, :C], x, t_x, self.model.config.prediction)
        return torch.cat([eps, output[:, C:]], dim=1)
