"""Classifier-free guidance, Ho & Salimans 2022 (2207.12598): a model and its labels become a denoiser."""

import functools
import math
from collections.abc import Callable
from numbers import Real

import torch
from torch import Tensor, nn

from dit import edm, flow
from dit.diffusion import NUM_TIMESTEPS, to_epsilon
from dit.step_cache import StepCache

GuidanceSchedule = Callable[[float, float], float]


def constant(scale: float, t: float) -> float:
    """The same guidance at every noise level."""
    return scale


def power_cosine(scale: float, t: float, power: float = 4.0) -> float:
    """Guidance growing from 1 at pure noise to `scale` at the data (MDT, 2303.14389; DiffiT: power 4)."""
    return 1 + (scale - 1) * 0.5 * (1 - math.cos(math.pi * (1 - t / NUM_TIMESTEPS) ** power))


SCHEDULES: dict[str, GuidanceSchedule] = {"constant": constant, "power-cosine": power_cosine}


def check_scale(scale: object) -> None:
    """Raises ValueError unless it can be a guidance scale."""
    if isinstance(scale, bool) or not isinstance(scale, Real) or not 0 <= scale < math.inf:
        raise ValueError(
            f"guidance_scale is {scale!r}; it must be a finite number, 0 or more (1 means no guidance)"
        )


class Guided:
    """A denoiser for the samplers, of the given classes, pushed away from the null class.

    (x_t, t) -> noise; of an EDM model (x, sigma), and of a flow model (x_t, t) -> clean picture. To guide
    that is to guide the velocity: at a given x_t each is the other, stretched and shifted. Where the scale is
    1, or the noise level lies outside the interval, the null class is not evaluated: one pass, not two.
    """

    def __init__(
        self,
        model: nn.Module,
        y: Tensor | None,
        scale: float = 1.0,
        *,
        channels: int | None = None,
        interval: tuple[float, float] | None = None,
        schedule: GuidanceSchedule = constant,
        cache: StepCache | None = None,
    ) -> None:
        """model: as `dit.build` makes. y: (N,) labels, None for an unconditional model.

        channels: how many channels, from the first, are guided; the rest and the variance keep the
        conditional prediction. None guides all; 3 is what the DiT authors do with their four latent channels.
        interval: lowest and highest guided timestep, sigma of an EDM model, or time of a flow model, both
        included; None: all (Kynkaanniemi et al. 2024, 2404.07724).
        cache: of a transformer's branches, for one walk; None: each call computes all.

        Raises:
            ValueError: scale, labels, channels or interval that this model cannot serve.
        """
        config = model.config
        check_scale(scale)
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
            raise ValueError(f"guided_channels is {channels}; this model has 1 to {config.in_channels}")
        self.formulation = config.formulation
        highest = {"ddpm": NUM_TIMESTEPS - 1, "edm": math.inf, "flow": 1}[self.formulation]
        if interval and not 0 <= interval[0] <= interval[1] <= highest:
            kind = {"ddpm": f"timestep, ascending, in 0..{highest}", "edm": "sigma, ascending"}.get(
                self.formulation, "time, ascending, in 0..1"
            )
            raise ValueError(f"guidance_interval is {interval}; give lowest and highest {kind}")
        if self.formulation != "ddpm" and schedule is not constant:
            has = {"edm": "an EDM model has sigmas", "flow": "a flow model has times in 0..1"}
            raise ValueError(
                f"guidance_schedule is {schedule.__name__}, one of timesteps, and {has[self.formulation]}; "
                "use constant"
            )
        self.model, self.y, self.scale = model, y, float(scale)
        denoised = {"edm": edm.denoised, "flow": flow.denoised}.get(self.formulation)
        run = functools.partial(model, run=cache) if cache else model
        self.predict = functools.partial(denoised, run) if denoised else run
        self.cache = cache
        self.channels = config.in_channels if channels is None else channels
        self.interval, self.schedule = interval or (0, highest), schedule

    def scale_at(self, t: float) -> float:
        """The guidance scale in force at a noise level; 1 outside the interval."""
        return self.schedule(self.scale, t) if self.interval[0] <= t <= self.interval[1] else 1.0

    def passes(self, t: float) -> int:
        """Forward passes a picture costs at a noise level: 1 or 2."""
        return 1 if self.scale_at(t) == 1.0 else 2

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """x: (N, C, H, W). t: (N,), all equal, on the CPU, so that reading it stalls no device."""
        scale, C = self.scale_at(t[0].item()), x.shape[1]
        is_ddpm = self.formulation == "ddpm"
        t_x = t.to(x.device, t.dtype if is_ddpm else torch.float32)  # not all devices have float64
        if self.cache:
            passes = self.passes(t[0].item())
            self.cache.begin(passes, passes * len(x))
        if scale == 1.0:
            output = self.predict(x, t_x, self.y)
        else:
            null = torch.full_like(self.y, self.model.config.num_classes)
            output, unconditional = self.predict(
                torch.cat([x, x]), torch.cat([t_x, t_x]), torch.cat([self.y, null])
            ).chunk(2)
            base = unconditional[:, : self.channels]
            guided = base + scale * (output[:, : self.channels] - base)
            output = torch.cat([guided, output[:, self.channels :]], dim=1)
        if not is_ddpm:
            return output
        eps = to_epsilon(output[:, :C], x, t_x, self.model.config.prediction)
        return torch.cat([eps, output[:, C:]], dim=1)
