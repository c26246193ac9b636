"""What decides a batch of pictures besides the weights, and what it makes of a model's formulation."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from dit import edm
from dit.config import ModelConfig
from dit.diffusion import NUM_TIMESTEPS, linear_schedule
from dit.guidance import SCHEDULES, check_scale
from dit.samplers import OF_FORMULATION, SAMPLERS, SPACINGS, Denoiser, Step, timesteps

MAX_SEED = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """Everything that decides a batch of pictures besides the weights.

    Checked when made, but for what depends on the model: `resolved` checks that, and `guided`.

    Raises:
        TypeError, ValueError: a value of the wrong type or out of range; the message names limit and remedy.
    """

    classes: Sequence[int]  # one label a picture; ignored by an unconditional model
    seeds: Sequence[int]  # one seed a picture
    steps: int = 50  # 1..1000
    guidance_scale: float = 1.0  # 1: no guidance, one forward pass a network call
    sampler: str = "auto"  # auto: ddim; heun for an EDM model
    spacing: str = "even"  # of the timesteps: "even", as the DiT authors, or "leading", as diffusers' DDIM
    eta: float = 0.0  # DDIM's noise, 0..1
    guided_channels: int | None = None  # None: all; 3: as the DiT authors
    guidance_interval: tuple[float, float] | None = None  # of timesteps, or sigmas; None: everywhere
    guidance_schedule: str = "auto"  # auto: constant; power-cosine where DiffiT's authors have it

    def __post_init__(self) -> None:
        for name, values in (("class", self.classes), ("seed", self.seeds), ("steps", [self.steps])):
            for value in values:
                if isinstance(value, bool) or not isinstance(value, int | np.integer):
                    raise TypeError(f"{name} must be a whole number, not {value!r}")
        if not self.seeds or len(self.classes) != len(self.seeds):
            raise ValueError(
                f"{len(self.classes)} classes and {len(self.seeds)} seeds; give one of each for each picture"
            )
        if bad := [seed for seed in self.seeds if not 0 <= seed <= MAX_SEED]:
            raise ValueError(f"seed is {bad[0]}; it must be from 0 to {MAX_SEED}")
        if not 1 <= self.steps <= NUM_TIMESTEPS:
            raise ValueError(f"steps is {self.steps}; it must be from 1 to {NUM_TIMESTEPS}")
        for name, allowed in (
            ("sampler", ("auto", *SAMPLERS)),
            ("spacing", SPACINGS),
            ("guidance_schedule", ("auto", *SCHEDULES)),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(allowed)}")
        check_scale(self.guidance_scale)
        if self.guidance_interval is not None:
            try:
                low, high = self.guidance_interval
            except (TypeError, ValueError):
                low, high = math.nan, math.nan
            if not 0 <= low <= high < math.inf:
                raise ValueError(
                    f"guidance_interval is {self.guidance_interval}; give lowest and highest noise level, "
                    "0 or more, finite and ascending"
                )
        if not 0.0 <= self.eta <= 1.0:
            raise ValueError(f"eta is {self.eta}; it must be from 0 (deterministic) to 1 (as noisy as DDPM)")
        if self.eta and self.sampler not in ("auto", "ddim"):
            raise ValueError(
                f"eta is {self.eta}, but only the ddim sampler has an eta; use 0 with {self.sampler}"
            )

    def resolved(self, config: ModelConfig) -> "SampleSettings":
        """The same with nothing left to be chosen: sampler and guidance schedule are those of this model.

        Raises:
            ValueError: they cannot serve it.
        """
        own = OF_FORMULATION[config.formulation]
        sampler = own[0] if self.sampler == "auto" else self.sampler
        if sampler not in own:
            raise ValueError(
                f"sampler is {sampler!r}, but this model's formulation is {config.formulation}; "
                f"use {' or '.join(own)}"
            )
        schedule = usual_schedule(config) if self.guidance_schedule == "auto" else self.guidance_schedule
        if config.formulation == "edm":
            self._check_edm()
        return replace(self, sampler=sampler, guidance_schedule=schedule)

    def _check_edm(self) -> None:
        """What counts timesteps is nothing for an EDM model."""
        for name, allowed in (
            ("spacing", ("even",)),
            ("eta", (0.0,)),
            ("guidance_schedule", ("auto", "constant")),
        ):
            if (value := getattr(self, name)) not in allowed:
                raise ValueError(f"{name} is {value!r}, but an EDM model has none such; leave it out")
        if self.guidance_interval and self.guidance_interval[0] > edm.SIGMA_MAX:
            raise ValueError(
                f"guidance_interval is {self.guidance_interval}, but an EDM model's noise levels are sigmas "
                f"from {edm.SIGMA_MIN} to {edm.SIGMA_MAX:g}; give some of these, not timesteps"
            )

    def describe(self, picture: int) -> dict[str, Any]:
        """What decides one of the pictures besides the weights, as plain JSON values."""
        return {
            "label": int(self.classes[picture]),
            "seed": int(self.seeds[picture]),
            "steps": int(self.steps),
            "guidance_scale": self.guidance_scale,
            "sampler": self.sampler,
            "spacing": self.spacing,
            "eta": self.eta,
            "guided_channels": self.guided_channels or "all",
            "guidance_interval": list(self.guidance_interval) if self.guidance_interval else "all",
            "guidance_schedule": self.guidance_schedule,
        }


def usual_schedule(config: ModelConfig) -> str:
    """Power-cosine for the latent DiffiT up to a side of 32, as its authors draw; else constant."""
    small_latent = config.is_latent and config.input_size <= 32 and config.formulation == "ddpm"
    return "power-cosine" if config.backbone == "diffit" and small_latent else "constant"


def levels(settings: SampleSettings) -> list[tuple[float, ...]]:
    """For each step, the timesteps or sigmas at which the network is called. settings: resolved."""
    if settings.sampler == "heun":
        sigmas = edm.sigmas(settings.steps).tolist()
        return [*zip(sigmas, sigmas[1:], strict=False), (sigmas[-1],)]
    return [(t,) for t in reversed(timesteps(settings.steps, settings.spacing).tolist())]


def walk(
    settings: SampleSettings, denoiser: Denoiser, x: Tensor, noise: Callable[[int], Tensor]
) -> Iterator[Step]:
    """The sampler's steps. settings: resolved. x: (N, C, H, W) standard normal, where it starts."""
    if settings.sampler == "heun":
        return SAMPLERS["heun"](denoiser, edm.SIGMA_MAX * x, edm.sigmas(settings.steps))
    extra = {"ddim": {"eta": settings.eta, "noise": noise}, "ddpm": {"noise": noise}}
    return SAMPLERS[settings.sampler](
        denoiser,
        x,
        linear_schedule().alpha_bar,
        timesteps(settings.steps, settings.spacing),
        **extra.get(settings.sampler, {}),
    )


def level_name(settings: SampleSettings, level: float) -> str:
    """A noise level as viewers read it: t = 999, or σ = 0.3. settings: resolved."""
    return f"σ = {level:.3g}" if settings.sampler == "heun" else f"t = {int(level)}"
