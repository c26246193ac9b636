"""Samplers: generators that walk from noise to data.

They import no model. A denoiser is any callable (x_t (N, C, H, W), t (N,) int64 on the CPU) -> (N, C, H, W)
the noise in x_t, or (N, 2C, H, W) with variance logits after it; for `heun`, `euler` and `euler_maruyama`
(x, level (N,) float64 on the CPU) -> the clean picture. `alpha_bar` is the whole (1000,) float64 table of the
training process, `timesteps` the ascending subset to visit; coefficients are computed in float64 and applied
as numbers.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dit.diffusion import SPACINGS, Schedule, learned_log_variance, timesteps

Denoiser = Callable[[Tensor, Tensor], Tensor]
Noise = Callable[[int], Tensor]  # step index -> standard normal noise, like x


@dataclass(frozen=True)
class Step:
    """What one step of a sampler has made."""

    index: int  # 0 for the first step, at the noisiest level
    t: float  # the noise level at which the network was (first) called: a timestep, a sigma, or a time 0..1
    x_t: Tensor  # (N, C, H, W) the sample after this step
    x0: Tensor  # (N, C, H, W) the clean picture as predicted in this step
    gain: float = 1.0  # what brings x_t to about unit variance, for viewers


def _check(alpha_bar: Tensor, timesteps: Tensor) -> None:
    if timesteps.ndim != 1 or not len(timesteps) or (timesteps.diff() <= 0).any():
        raise ValueError(
            "timesteps must be a non-empty 1-D tensor in strictly ascending order; see samplers.timesteps"
        )
    if timesteps[0] < 0 or timesteps[-1] >= len(alpha_bar):
        raise ValueError(
            f"timesteps run from {int(timesteps[0])} to {int(timesteps[-1])}; "
            f"alpha_bar has entries for 0 to {len(alpha_bar) - 1}"
        )


def _denoise(denoise: Denoiser, x: Tensor, t: int) -> tuple[Tensor, Tensor | None]:
    """Noise, and variance logits if the denoiser gives them, each (N, C, H, W)."""
    eps, *variance = denoise(x, torch.full((len(x),), t)).split(x.shape[1], dim=1)
    return eps, variance[0] if variance else None


def ddpm(
    denoise: Denoiser, x: Tensor, alpha_bar: Tensor, timesteps: Tensor, noise: Noise | None = None
) -> Iterator[Step]:
    """Ancestral sampling, Ho et al. 2020, Alg. 2, respaced as in Nichol & Dhariwal 2021, section 4.

    x: (N, C, H, W) standard normal. The variance is the learned one where the denoiser gives logits, else
    beta (the authors' "fixed large"). x0 is not clipped. The last step adds no noise.
    """
    _check(alpha_bar, timesteps)
    schedule = Schedule(alpha_bar[timesteps])
    log_min, log_beta = schedule.posterior_log_variance, schedule.betas.log()
    log_fixed = torch.cat([log_min[:1], log_beta[1:]])
    for index, i in enumerate(reversed(range(len(timesteps)))):
        t, a = int(timesteps[i]), float(schedule.alpha_bar[i])
        eps, logits = _denoise(denoise, x, t)
        x0 = math.sqrt(1 / a) * x - math.sqrt(1 / a - 1) * eps
        of_x0, of_x_t = (float(table[i]) for table in schedule.posterior_mean_coefficients)
        x = of_x0 * x0 + of_x_t * x
        if i > 0:
            if logits is None:
                deviation = math.exp(0.5 * float(log_fixed[i]))
            else:
                deviation = torch.exp(
                    0.5 * learned_log_variance(logits, float(log_min[i]), float(log_beta[i]))
                )
            x = x + deviation * (noise(index) if noise else torch.randn_like(x))
        yield Step(index, t, x, x0)


def ddim(
    denoise: Denoiser,
    x: Tensor,
    alpha_bar: Tensor,
    timesteps: Tensor,
    eta: float = 0.0,
    noise: Noise | None = None,
) -> Iterator[Step]:
    """DDIM, Song et al. 2021 (2010.02502), Eq. 12 and 16. eta 0 is deterministic, 1 is as noisy as DDPM.

    x: (N, C, H, W) standard normal.

    Raises:
        ValueError: eta is outside 0..1.
    """
    _check(alpha_bar, timesteps)
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta is {eta}; it must be from 0 (deterministic) to 1 (as noisy as DDPM)")
    schedule = Schedule(alpha_bar[timesteps])
    for index, i in enumerate(reversed(range(len(timesteps)))):
        t, a, a_prev = int(timesteps[i]), float(schedule.alpha_bar[i]), float(schedule.alpha_bar_prev[i])
        eps, _ = _denoise(denoise, x, t)
        x0 = math.sqrt(1 / a) * x - math.sqrt(1 / a - 1) * eps
        sigma = eta * math.sqrt((1 - a_prev) / (1 - a) * (1 - a / a_prev))
        x = math.sqrt(a_prev) * x0 + math.sqrt(1 - a_prev - sigma**2) * eps
        if sigma > 0:
            x = x + sigma * (noise(index) if noise else torch.randn_like(x))
        yield Step(index, t, x, x0)


def dpm_solver(denoise: Denoiser, x: Tensor, alpha_bar: Tensor, timesteps: Tensor) -> Iterator[Step]:
    """DPM-Solver++(2M), Lu et al. 2022 (2211.01095), Alg. 2: second order, deterministic, one call a step.

    x: (N, C, H, W) standard normal. The first step has no history and is first-order; the last lands on sigma
    = 0, where lambda is infinite and the update is the predicted x0 itself.
    """
    _check(alpha_bar, timesteps)
    alphas = alpha_bar[timesteps].sqrt().tolist()
    sigmas = (1 - alpha_bar[timesteps]).sqrt().tolist()
    lambdas = [math.log(alpha / sigma) for alpha, sigma in zip(alphas, sigmas, strict=True)]
    x0_before, h_before = None, 0.0
    for index, i in enumerate(reversed(range(len(timesteps)))):
        t = int(timesteps[i])
        eps, _ = _denoise(denoise, x, t)
        x0 = (x - sigmas[i] * eps) / alphas[i]
        if i == 0:
            x = x0
        else:
            h = lambdas[i - 1] - lambdas[i]
            extrapolated = x0 if x0_before is None else x0 + (x0 - x0_before) * (h / h_before / 2)
            x = sigmas[i - 1] / sigmas[i] * x - alphas[i - 1] * math.expm1(-h) * extrapolated
            x0_before, h_before = x0, h
        yield Step(index, t, x, x0)


def _descending(levels: Tensor) -> list[float]:
    """The levels, and 0 after them. Raises ValueError where they cannot be walked."""
    if levels.ndim != 1 or not len(levels) or (levels.diff() >= 0).any() or levels[-1] <= 0:
        raise ValueError("levels must be a non-empty 1-D tensor, positive and strictly descending")
    return [*levels.tolist(), 0.0]


def _unit_gain(sigma: float) -> float:
    """What brings x = x0 + sigma noise to unit variance, if the data have it."""
    return 1 / math.sqrt(1 + sigma**2)


def euler(denoise: Denoiser, x: Tensor, levels: Tensor) -> Iterator[Step]:
    """The ODE dx/dt = (x - x0) / t by Euler's method: first order, deterministic, one call a step.

    On straight paths that slope is the velocity (see `dit.flow`). x: (N, C, H, W) standard normal. levels:
    (n,) float64, descending from 1; the last step goes from there to 0, which is the predicted x0.

    Raises:
        ValueError: levels are not positive and descending.
    """
    levels = _descending(levels)
    for index, (t, to) in enumerate(zip(levels, levels[1:], strict=False)):
        x0 = denoise(x, torch.full((len(x),), t, dtype=torch.float64))
        x = x0 + (to / t) * (x - x0)
        yield Step(index, t, x, x0)


def heun(
    denoise: Denoiser, x: Tensor, levels: Tensor, gain: Callable[[float], float] = _unit_gain
) -> Iterator[Step]:
    """EDM's deterministic sampler, Karras et al. 2022, Alg. 1: second order, two network calls a step.

    The ODE is dx/dsigma = (x - x0) / sigma. That of straight paths (see `dit.flow`) is the same, with their
    time for sigma, since x - x0 is t times the velocity.

    x: (N, C, H, W) normal, of deviation levels[0] for EDM, standard for a flow. levels: (n,) float64,
    descending; the last step goes from there to 0, by Euler's method and with one call: 2 n - 1 in all.
    gain: of a step's end, by its level.

    Raises:
        ValueError: levels are not positive and descending.
    """
    levels = _descending(levels)
    for index, (level, to) in enumerate(zip(levels, levels[1:], strict=False)):
        x0 = denoise(x, torch.full((len(x),), level, dtype=torch.float64))
        slope = (x - x0) / level
        ahead = x + (to - level) * slope
        if to > 0:
            corrected = denoise(ahead, torch.full((len(x),), to, dtype=torch.float64))
            slope = (slope + (ahead - corrected) / to) / 2
            ahead = x + (to - level) * slope
        x = ahead
        yield Step(index, level, x, x0, gain=gain(to))


def euler_maruyama(
    denoise: Denoiser, x: Tensor, levels: Tensor, noise: Noise | None = None
) -> Iterator[Step]:
    """The SDE of straight paths, dx = (v - w s / 2) dt + sqrt(w) dW backwards in time, SiT (2401.08740).

    s is the score, and w = t, SiT's sigma_t. One call a step. x: (N, C, H, W) standard normal. levels: (n,)
    float64, descending from 1. The last step adds no noise and follows v alone, to the predicted x0: one of
    the last steps that SiT's code offers (its default takes the score's drift too, from t = 0.04).

    Raises:
        ValueError: levels are not positive and descending.
    """
    levels = _descending(levels)
    for index, (t, to) in enumerate(zip(levels, levels[1:], strict=False)):
        x0 = denoise(x, torch.full((len(x),), t, dtype=torch.float64))
        velocity, step = (x - x0) / t, t - to
        if to > 0:
            score = -(x0 + velocity) / t  # x0 + velocity is the expected noise
            fresh = noise(index) if noise else torch.randn_like(x)
            x = x - step * (velocity - t / 2 * score) + math.sqrt(t * step) * fresh
        else:
            x = x0
        yield Step(index, t, x, x0)


__all__ = [
    "OF_FORMULATION",
    "SAMPLERS",
    "SPACINGS",
    "Denoiser",
    "Noise",
    "Step",
    "ddim",
    "ddpm",
    "dpm_solver",
    "euler",
    "euler_maruyama",
    "heun",
    "timesteps",
]

SAMPLERS = {
    "ddim": ddim,
    "dpm-solver++": dpm_solver,
    "ddpm": ddpm,
    "heun": heun,
    "euler": euler,
    "sde": euler_maruyama,
}
OF_FORMULATION = {  # the usual one first
    "ddpm": ("ddim", "dpm-solver++", "ddpm"),
    "edm": ("heun",),
    "flow": ("euler", "heun", "sde"),
}
