"""The forward process and the training loss of DiT: ADM's, linear schedule, learned-range variance."""

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

NUM_TIMESTEPS = 1000


@dataclass(frozen=True, eq=False)
class Schedule:
    """Noise levels of a (possibly respaced) discrete process; every table is (n,) float64 on the CPU."""

    alpha_bar: Tensor  # cumulative product of 1 - beta, Ho et al. 2020

    @functools.cached_property
    def alpha_bar_prev(self) -> Tensor:
        """alpha_bar one step nearer to the data; 1 before the first."""
        return torch.cat([self.alpha_bar.new_ones(1), self.alpha_bar[:-1]])

    @functools.cached_property
    def betas(self) -> Tensor:
        """Noise added by each step."""
        return 1 - self.alpha_bar / self.alpha_bar_prev

    @functools.cached_property
    def posterior_log_variance(self) -> Tensor:
        """log of the variance of q(x_{t-1} | x_t, x0); its first entry (log 0) is replaced by the second."""
        variance = self.betas * (1 - self.alpha_bar_prev) / (1 - self.alpha_bar)
        return torch.cat([variance[1:2], variance[1:]]).log() if len(variance) > 1 else self.betas.log()

    @functools.cached_property
    def posterior_mean_coefficients(self) -> tuple[Tensor, Tensor]:
        """Weights of x0 and x_t in the mean of q(x_{t-1} | x_t, x0), Ho et al. 2020, Eq. 7."""
        of_x0 = self.betas * self.alpha_bar_prev.sqrt() / (1 - self.alpha_bar)
        of_x_t = (1 - self.alpha_bar_prev) * (1 - self.betas).sqrt() / (1 - self.alpha_bar)
        return of_x0, of_x_t


@functools.cache
def linear_schedule() -> Schedule:
    """beta from 1e-4 to 2e-2 in 1000 steps (Ho et al. 2020), as DiT trains with."""
    betas = torch.linspace(1e-4, 2e-2, NUM_TIMESTEPS, dtype=torch.float64)
    return Schedule(alpha_bar=torch.cumprod(1 - betas, dim=0))


SPACINGS = ("even", "leading", "linspace")


def timesteps(n: int, spacing: str = "even") -> Tensor:
    """The n of 1000 timesteps that a respaced process visits, ascending, (n,).

    even: round(i * 999 / (n - 1)), Nichol & Dhariwal 2021; rounding is to the even, as in the authors' code.
    n = 1 gives [999], the noisiest one (the authors' code gives [0], from which no picture can be drawn).
    leading: i * (1000 // n), what diffusers' DDIMScheduler visits where its config says nothing else.
    linspace: the upper n of n + 1 even ones, so never 0 (but for n = 1000, which is all of them): what
    diffusers' DPMSolverMultistepScheduler visits where its config says nothing else.

    Raises:
        ValueError: n is outside 1..1000, or no such spacing.
    """
    if spacing not in SPACINGS:
        raise ValueError(f"spacing is {spacing!r}; choose one of {', '.join(SPACINGS)}")
    if isinstance(n, bool) or not 1 <= n <= NUM_TIMESTEPS or n != int(n):
        raise ValueError(f"steps is {n!r}; it must be a whole number from 1 to {NUM_TIMESTEPS}")
    if spacing == "leading":
        return torch.arange(int(n)) * (NUM_TIMESTEPS // int(n))
    if spacing == "linspace" and n < NUM_TIMESTEPS:
        return torch.from_numpy(np.linspace(0, NUM_TIMESTEPS - 1, int(n) + 1).round()[1:]).long()
    if n == 1:
        return torch.tensor([NUM_TIMESTEPS - 1])
    stride, position, taken = (NUM_TIMESTEPS - 1) / (int(n) - 1), 0.0, []
    for _ in range(int(n)):  # accumulated rather than multiplied, as the authors do: ties round as theirs
        taken.append(round(position))
        position += stride
    return torch.tensor(taken)


def _tables() -> dict[str, Tensor]:
    schedule = linear_schedule()
    alpha_bar = schedule.alpha_bar
    of_x0, of_x_t = schedule.posterior_mean_coefficients
    tables = {
        "signal": alpha_bar.sqrt(),
        "noise": (1 - alpha_bar).sqrt(),
        "inverse_signal": (1 / alpha_bar).sqrt(),
        "noise_to_signal": (1 / alpha_bar - 1).sqrt(),
        "snr": alpha_bar / (1 - alpha_bar),
        "log_beta": schedule.betas.log(),
        "posterior_log_variance": schedule.posterior_log_variance,
        "mean_of_x0": of_x0,
        "mean_of_x_t": of_x_t,
    }
    with torch.inference_mode(False):  # whatever asks first for this module, training may use them
        return {name: table.float() for name, table in tables.items()}


# By name, (1000,) float32 on the CPU. Made once: a compiler would make them anew in each step.
_TABLES = _tables()


def _at(name: str, t: Tensor, like: Tensor) -> Tensor:
    """Entries of a table for timesteps t (N,), shaped to multiply `like` (N, C, H, W)."""
    return _TABLES[name].to(like.device)[t].view(-1, *[1] * (like.ndim - 1))


def q_sample(x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """x_t: x0 (N, C, H, W) with noise added up to timestep t (N,). Ho et al. 2020, Eq. 4."""
    return _at("signal", t, x0) * x0 + _at("noise", t, x0) * noise


def velocity(x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """v = sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x0, Salimans & Ho 2022 (2202.00512), section 4."""
    return _at("signal", t, x0) * noise - _at("noise", t, x0) * x0


def to_epsilon(output: Tensor, x_t: Tensor, t: Tensor, prediction: str) -> Tensor:
    """The noise that a model means by `output` (N, C, H, W), whatever it was trained to predict."""
    if prediction == "epsilon":
        return output
    return _at("signal", t, x_t) * output + _at("noise", t, x_t) * x_t


def to_x0(output: Tensor, x_t: Tensor, t: Tensor, prediction: str) -> Tensor:
    """The clean picture that a model means by `output` (N, C, H, W)."""
    if prediction == "v":
        return _at("signal", t, x_t) * x_t - _at("noise", t, x_t) * output
    return _at("inverse_signal", t, x_t) * x_t - _at("noise_to_signal", t, x_t) * output


def learned_log_variance(logits: Tensor, log_min: Tensor, log_max: Tensor) -> Tensor:
    """Interpolate in the log between the posterior's variance and beta; logits are not clamped.

    Nichol & Dhariwal 2021, Eq. 15, with v = (logits + 1) / 2.
    """
    share = (logits + 1) / 2
    return share * log_max + (1 - share) * log_min


def _mean_per_sample(x: Tensor) -> Tensor:
    return x.flatten(1).mean(dim=1)


def _gaussian_kl(mean1: Tensor, logvar1: Tensor, mean2: Tensor, logvar2: Tensor) -> Tensor:
    """KL(N1 || N2) of each element, in nats."""
    return 0.5 * (
        -1.0 + logvar2 - logvar1 + torch.exp(logvar1 - logvar2) + (mean1 - mean2) ** 2 * torch.exp(-logvar2)
    )


def _discretised_gaussian_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """log-likelihood, in nats, of x as an 8-bit pixel in [-1, 1]. ADM applies it to latents too; so do we."""

    def cdf(z: Tensor) -> Tensor:  # the tanh approximation of the normal's
        return 0.5 * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (z + 0.044715 * z**3)))

    inverse_scale = torch.exp(-log_scale)
    above = cdf(inverse_scale * (x - mean + 1.0 / 255.0))
    below = cdf(inverse_scale * (x - mean - 1.0 / 255.0))
    likelihood = torch.where(x < -0.999, above, torch.where(x > 0.999, 1.0 - below, above - below))
    return likelihood.clamp(min=1e-12).log()


def variational_bound(x0: Tensor, x_t: Tensor, t: Tensor, x0_hat: Tensor, logits: Tensor) -> Tensor:
    """One term of the variational bound, element mean, in bits: (N,). Nichol & Dhariwal 2021, Eq. 12-14.

    Not multiplied by the number of timesteps: the authors leave that rescaling off.
    """
    log_min = _at("posterior_log_variance", t, x_t)
    log_variance = learned_log_variance(logits, log_min, _at("log_beta", t, x_t))
    of_x0, of_x_t = _at("mean_of_x0", t, x_t), _at("mean_of_x_t", t, x_t)
    mean = of_x0 * x0_hat + of_x_t * x_t
    kl = _mean_per_sample(_gaussian_kl(of_x0 * x0 + of_x_t * x_t, log_min, mean, log_variance))
    nll = -_mean_per_sample(_discretised_gaussian_log_likelihood(x0, mean, 0.5 * log_variance))
    return torch.where(t == 0, nll, kl) / math.log(2.0)


def min_snr_weight(t: Tensor, prediction: str, gamma: float) -> Tensor:
    """Min-SNR weight of the squared error at timesteps t (N,), float32, Hang et al. 2023 (2303.09556).

    min(SNR, gamma) / SNR for the noise, min(SNR, gamma) / (SNR + 1) for v: that is min(SNR, gamma) for the
    clean picture. SNR = alpha_bar / (1 - alpha_bar).
    """
    snr = _TABLES["snr"].to(t.device)[t]
    return snr.clamp(max=gamma) / (snr if prediction == "epsilon" else snr + 1)


def training_losses(
    model: nn.Module,
    x0: Tensor,
    t: Tensor,
    y: Tensor | None,
    noise: Tensor | None = None,
    gamma: float | None = None,
) -> dict[str, Tensor]:
    """Loss of each picture: `mse`, `vb` (with learned variance) and their sum `loss`, all (N,).

    x0: (N, C, H, W). t: (N,) int64 in 0..999. y: (N,) labels. noise: like x0, drawn if None. The bound trains
    the variance alone: the noise prediction is detached inside it (Nichol & Dhariwal 2021, section 3.1).
    gamma: weights `mse` in the sum by Min-SNR; the bound keeps its weight.
    """
    noise = torch.randn_like(x0) if noise is None else noise
    x_t = q_sample(x0, t, noise)
    config = model.config
    output, *variance = model(x_t, t, y).float().split(x0.shape[1], dim=1)
    target = noise if config.prediction == "epsilon" else velocity(x0, t, noise)
    terms = {"mse": _mean_per_sample((target - output) ** 2)}
    terms["loss"] = terms["mse"]
    if gamma is not None:
        terms["loss"] = min_snr_weight(t, config.prediction, gamma) * terms["mse"]
    if variance:
        x0_hat = to_x0(output.detach(), x_t, t, config.prediction)
        terms["vb"] = variational_bound(x0, x_t, t, x0_hat, variance[0])
        terms["loss"] = terms["loss"] + terms["vb"]
    return terms
