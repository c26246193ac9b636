"""What decides a batch of pictures besides the weights, and what it makes of a model's formulation."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from dit import edm, flow
from dit.config import ModelConfig
from dit.diffusion import NUM_TIMESTEPS, linear_schedule
from dit.flops import CACHEABLE
from dit.guidance import SCHEDULES, check_scale
from dit.samplers import OF_FORMULATION, SAMPLERS, SPACINGS, Denoiser, Step, timesteps

MAX_SEED = 2**63 - 1
MAX_CACHE = 10  # steps; FORA's paper goes to 7


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
    sampler: str = "auto"  # auto: ddim; heun for an EDM model, euler for a flow model
    spacing: str = "auto"  # of the timesteps, see `timesteps`; auto: linspace for dpm-solver++, else even
    eta: float = 0.0  # DDIM's noise, 0..1
    guided_channels: int | None = None  # None: all; 3: as the DiT authors
    guidance_interval: tuple[float, float] | None = None  # of timesteps, sigmas, or times 0..1; None: all
    guidance_schedule: str = "auto"  # auto: constant; power-cosine where DiffiT's authors have it
    cache_every: int = 1  # blocks compute at every so many steps, and serve again between; 1: at each

    def __post_init__(self) -> None:
        for name, values in (
            ("class", self.classes),
            ("seed", self.seeds),
            ("steps", [self.steps]),
            ("cache_every", [self.cache_every]),
        ):
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
        if not 1 <= self.cache_every <= MAX_CACHE:
            raise ValueError(
                f"cache_every is {self.cache_every}; it must be from 1 (nothing is reused) to {MAX_CACHE}"
            )
        for name, allowed in (
            ("sampler", ("auto", *SAMPLERS)),
            ("spacing", ("auto", *SPACINGS)),
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
        """The same with nothing left to be chosen: sampler, spacing and guidance schedule are this model's.

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
        spacing = usual_spacing(sampler) if self.spacing == "auto" else self.spacing
        schedule = usual_schedule(config) if self.guidance_schedule == "auto" else self.guidance_schedule
        if config.formulation != "ddpm":
            self._check_continuous(config.formulation)
        if self.cache_every > 1 and config.backbone not in CACHEABLE:
            raise ValueError(
                f"cache_every is {self.cache_every}, but this model's backbone is {config.backbone}, whose "
                f"steps cannot be cached; use 1, or a model of {' or '.join(CACHEABLE)}"
            )
        if self.cache_every > 1 and sampler == "heun":
            raise ValueError(
                f"cache_every is {self.cache_every}, but heun looks twice a step, the second time to correct "
                "the first; use 1, or another sampler"
            )
        return replace(self, sampler=sampler, spacing=spacing, guidance_schedule=schedule)

    def _check_continuous(self, formulation: str) -> None:
        """What counts timesteps is nothing for a model that has none."""
        kind = {"edm": "an EDM model", "flow": "a flow model"}[formulation]
        for name, allowed in (
            ("spacing", ("auto", "even")),
            ("eta", (0.0,)),
            ("guidance_schedule", ("auto", "constant")),
        ):
            if (value := getattr(self, name)) not in allowed:
                raise ValueError(f"{name} is {value!r}, but {kind} has none such; leave it out")
        if formulation == "flow" and self.guidance_interval and self.guidance_interval[1] > 1:
            raise ValueError(
                f"guidance_interval is {self.guidance_interval}, but a flow model's noise levels are times "
                "from 0 (data) to 1 (noise); give some of these, not timesteps"
            )
        too_high = self.guidance_interval and self.guidance_interval[0] > edm.SIGMA_MAX
        if formulation == "edm" and too_high:
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
            "cache_every": int(self.cache_every),
        }


def usual_spacing(sampler: str) -> str:
    """Even, as the DiT authors; for DPM-Solver++ linspace, as diffusers.

    Even spacing ends at t = 0. The step to there covers two to five times as much of the log signal-to-noise
    ratio as the one before, and a second-order solver that extrapolates over it overshoots.
    """
    return "linspace" if sampler == "dpm-solver++" else "even"


def usual_schedule(config: ModelConfig) -> str:
    """Power-cosine for the latent DiffiT up to a side of 32, as its authors draw; else constant."""
    small_latent = config.is_latent and config.input_size <= 32 and config.formulation == "ddpm"
    return "power-cosine" if config.backbone == "diffit" and small_latent else "constant"


def _begins(settings: SampleSettings, formulation: str) -> Tensor:
    """The sigmas or times at which the sampler's steps begin, (n,) float64, descending."""
    return edm.sigmas(settings.steps) if formulation == "edm" else flow.times(settings.steps)


def levels(settings: SampleSettings, formulation: str) -> list[tuple[float, ...]]:
    """For each step, the noise levels at which the network is called. settings: resolved."""
    if formulation == "ddpm":
        return [(t,) for t in reversed(timesteps(settings.steps, settings.spacing).tolist())]
    begins = _begins(settings, formulation).tolist()
    if settings.sampler == "heun":
        return [*zip(begins, begins[1:], strict=False), (begins[-1],)]
    return [(level,) for level in begins]


def walk(
    settings: SampleSettings,
    formulation: str,
    denoiser: Denoiser,
    x: Tensor,
    noise: Callable[[int], Tensor],
) -> Iterator[Step]:
    """The sampler's steps. settings: resolved. x: (N, C, H, W) standard normal, where it starts."""
    sampler, extra = SAMPLERS[settings.sampler], {}
    if settings.sampler in ("ddpm", "ddim", "sde"):
        extra["noise"] = noise
    if settings.sampler == "ddim":
        extra["eta"] = settings.eta
    if formulation == "ddpm":
        visited = timesteps(settings.steps, settings.spacing)
        return sampler(denoiser, x, linear_schedule().alpha_bar, visited, **extra)
    if formulation == "edm":
        x = edm.SIGMA_MAX * x
    elif settings.sampler == "heun":
        extra["gain"] = lambda _: 1.0  # on straight paths the variance stays between 1/2 and 1
    return sampler(denoiser, x, _begins(settings, formulation), **extra)


def level_name(formulation: str, level: float) -> str:
    """A noise level as viewers read it: timestep t = 999, σ = 0.3, or a flow's time t = 0.98."""
    if formulation == "ddpm":
        return f"t = {int(level)}"
    return f"{'σ' if formulation == 'edm' else 't'} = {level:.3g}"
