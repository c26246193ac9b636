"""Flow matching along straight paths, as SiT trains it (Ma et al. 2024, 2401.08740; the linear path).

A noise level is a time from 0, the data, to 1, the noise: x = (1 - t) x0 + t noise. The network says the
velocity noise - x0, in which x moves as t grows. (SiT's code, unlike its paper, runs the time backwards.)
Imports no model: networks are handed in.
"""

import torch
from torch import Tensor, nn

TIME_SCALE = 1000.0  # what the network is told of t: see `network_time`


def network_time(t: Tensor) -> Tensor:
    """The times t (N,) in 0..1 as a network is told them: times 1000.

    SiT's code feeds t as it is into an embedder whose fastest wave then does not turn once. Here t covers the
    range that the sinusoids are made for, as in Stable Diffusion 3 (Esser et al. 2024, 2403.03206; diffusers'
    FlowMatchEulerDiscreteScheduler).
    """
    return TIME_SCALE * t


def interpolate(x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """x_t, the place at time t (N,) of the straight path from x0 to noise, both (N, C, H, W)."""
    return _over(1 - t, x0) * x0 + _over(t, x0) * noise


def to_x0(v: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """The clean picture that a velocity v means, x_t - t v; both (N, C, H, W), t (N,)."""
    return x_t - _over(t, x_t) * v


def velocity(model: nn.Module, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
    """The network's v(x, t), typed as x. x: (N, C, H, W). t: (N,) in 0..1. y: (N,) labels."""
    return model(x, network_time(t.float()), y).to(x.dtype)


def denoised(model: nn.Module, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
    """The expected clean picture, (N, C, H, W); arguments as `velocity`."""
    return to_x0(velocity(model, x, t, y), x, t)


def draw_times(how: str, n: int, generator: torch.Generator | None = None) -> Tensor:
    """n times to train at, (n,) float32 on the CPU: uniform as SiT, or logit-normal (2403.03206, 3.1).

    Logit-normal as that paper found best: the mean is 0 and the deviation 1.
    """
    if how == "uniform":
        return torch.rand(n, generator=generator)
    return torch.sigmoid(torch.randn(n, generator=generator))


def min_snr_weight(t: Tensor, gamma: float) -> Tensor:
    """Min-SNR weight of the velocity's error at times t, shaped as t (Hang et al. 2023, 2303.09556).

    The paper weights the error of the clean picture by min(SNR, gamma). Here that error is t times the
    velocity's, and SNR = ((1 - t) / t)**2, so that the weight is min((1 - t)**2, gamma t**2).
    """
    return torch.minimum((1 - t) ** 2, gamma * t**2)


def training_losses(
    model: nn.Module, x0: Tensor, t: Tensor, y: Tensor | None, noise: Tensor, gamma: float | None = None
) -> dict[str, Tensor]:
    """Loss of each picture: `mse`, the velocity's error, and `loss`, weighted if there is a gamma; both (N,).

    x0, noise: (N, C, H, W). t: (N,) in 0..1. y: (N,) labels. gamma: of Min-SNR.
    """
    said = velocity(model, interpolate(x0, t, noise), t, y).float()
    mse = (said - (noise - x0)).square().flatten(1).mean(dim=1)
    return {"mse": mse, "loss": mse if gamma is None else min_snr_weight(t, gamma) * mse}


def times(n: int) -> Tensor:
    """The n times at which a sampler's steps begin, descending evenly from 1 to 1 / n, (n,) float64."""
    return torch.arange(n, 0, -1, dtype=torch.float64) / n


def _over(coefficient: Tensor, x: Tensor) -> Tensor:
    """(N,) -> shaped and typed to multiply x (N, C, H, W)."""
    return coefficient.to(x.dtype).view(-1, *[1] * (x.ndim - 1))
