"""The formulation of Karras et al. 2022 (EDM, 2206.00364), in which DiffiT's image models are trained.

A noise level is a standard deviation, sigma, and x = x0 + sigma * noise. The network F is wrapped so that
what it sees and what it must say have unit variance at every sigma. Imports no model: networks are handed in.
"""

import torch
from torch import Tensor, nn

SIGMA_DATA = 0.5  # standard deviation of pictures in [-1, 1], about
SIGMA_MIN, SIGMA_MAX, RHO = 0.002, 80.0, 7.0  # of the sampler's noise levels, Table 1
LOG_MEAN, LOG_DEVIATION = -1.2, 1.2  # of ln(sigma) in training, Table 1


def preconditioning(sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """c_skip, c_out, c_in and c_noise, each shaped as sigma. Table 1, column "Ours"."""
    total = sigma**2 + SIGMA_DATA**2
    return SIGMA_DATA**2 / total, sigma * SIGMA_DATA / total.sqrt(), 1 / total.sqrt(), sigma.log() / 4


def denoised(
    model: nn.Module, x: Tensor, sigma: Tensor, y: Tensor | None, augment: Tensor | None = None
) -> Tensor:
    """D(x; sigma), the expected clean picture: c_skip x + c_out F(c_in x, c_noise). Eq. 7.

    x: (N, C, H, W) noisy. sigma: (N,) positive. y: (N,) labels. augment: (N, 9), for models that know of it.
    """
    c_skip, c_out, c_in, c_noise = preconditioning(sigma.float())
    hints = {} if augment is None else {"augment": augment}
    output = model(_over(c_in, x) * x, c_noise, y, **hints)
    return _over(c_skip, x) * x + _over(c_out, x) * output.to(x.dtype)


def loss_weight(sigma: Tensor) -> Tensor:
    """1 / c_out**2: an untrained network errs alike at every sigma. Table 1, as sigma."""
    return (sigma**2 + SIGMA_DATA**2) / (sigma * SIGMA_DATA) ** 2


def draw_sigmas(n: int, generator: torch.Generator | None = None) -> Tensor:
    """Log-normal noise levels to train at, (n,) on the CPU."""
    return (torch.randn(n, generator=generator) * LOG_DEVIATION + LOG_MEAN).exp()


def training_losses(
    model: nn.Module,
    x0: Tensor,
    sigma: Tensor,
    y: Tensor | None,
    noise: Tensor | None = None,
    augment: Tensor | None = None,
) -> dict[str, Tensor]:
    """Loss of each picture: `loss`, weighted, and `mse`, the error of the clean picture; both (N,). Eq. 8.

    x0: (N, C, H, W). sigma: (N,). y: (N,) labels. noise: standard normal, like x0; drawn if None.
    """
    noise = torch.randn_like(x0) if noise is None else noise
    expected = denoised(model, x0 + _over(sigma, x0) * noise, sigma, y, augment).float()
    mse = (expected - x0).square().flatten(1).mean(dim=1)
    return {"loss": loss_weight(sigma) * mse, "mse": mse}


def sigmas(n: int) -> Tensor:
    """The n noise levels of the sampler, descending from 80 to 0.002, (n,) float64. Eq. 5; n = 1 gives 80."""
    share = torch.linspace(0, 1, n, dtype=torch.float64)
    return (SIGMA_MAX ** (1 / RHO) + share * (SIGMA_MIN ** (1 / RHO) - SIGMA_MAX ** (1 / RHO))) ** RHO


def _over(coefficient: Tensor, x: Tensor) -> Tensor:
    """(N,) -> shaped and typed to multiply x (N, C, H, W)."""
    return coefficient.to(x.dtype).view(-1, *[1] * (x.ndim - 1))
