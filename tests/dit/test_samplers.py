"""Samplers against the authors' trajectories, diffusers' schedulers, and data whose answer is known.

A denoiser that knows x0 passes any sampler that ends on x0. So the data here are Gaussian, N(0, s^2): their
noise prediction, the probability-flow ODE's solution and the exact reverse variance all have closed forms.
"""

import copy
import itertools
import math

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from dit import samplers
from dit.diffusion import linear_schedule, timesteps
from dit.guidance import Guided
from dit.samplers import OF_FORMULATION, ddim, ddpm, dpm_solver
from dit.settings import usual_spacing

ALPHA_BAR = linear_schedule().alpha_bar
STEPS = (10, 50, 250, 1000)

SAMPLERS = {name: samplers.SAMPLERS[name] for name in OF_FORMULATION["ddpm"]}


def gaussian(s: float):
    """The exact denoiser of data N(0, s^2): E[noise | x_t]."""

    def denoise(x, t):
        a = ALPHA_BAR[t].view(-1, 1, 1, 1).to(x.dtype)
        return (1 - a).sqrt() * x / (a * s**2 + 1 - a)

    return denoise


def bimodal(x, t):
    """The exact denoiser of data that are -0.8 or 0.8, blurred by 0.2: not linear in x."""
    a = ALPHA_BAR[t].view(-1, 1, 1, 1).to(x.dtype)
    variance = a * 0.2**2 + 1 - a
    mean = 0.8 * torch.tanh(a.sqrt() * x * 0.8 / variance)
    x0 = mean + a.sqrt() * 0.2**2 / variance * (x - a.sqrt() * mean)
    return (x - a.sqrt() * x0) / (1 - a).sqrt()


def last(walk):
    *_, step = walk
    return step


def last_std(sampler, denoise, steps: int, **settings) -> float:
    """Spread of 100,000 samples; the standard error is 0.2 %."""
    torch.manual_seed(0)
    x = torch.randn(1, 1, 250, 400)
    return last(sampler(denoise, x, ALPHA_BAR, timesteps(steps), **settings)).x_t.std().item()


def ode_error(sampler, s: float, steps: int, spacing: str = "even") -> float:
    """Relative distance to the exact solution of the ODE: x shrinks as the spread of x_t does."""
    a = ALPHA_BAR[-1].item()
    exact = s / math.sqrt(a * s**2 + 1 - a)
    x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    walk = sampler(gaussian(s), x, ALPHA_BAR, timesteps(steps, spacing))
    return abs(last(walk).x_t.item() / exact - 1)


# --- the authors' code ---


# The random model is no denoiser: its samples grow to 700, and each pixel of the end depends on all of them.
# So float32 leaves an error in proportion to the largest: the authors' numbers are 5e-7 of it away from a
# float64 walk, and a float32 walk lies as far off on another side. A bare 1e-4 would be 1.4e-7 of it.
PRECISIONS = pytest.mark.parametrize(
    ("dtype", "share"), [(torch.float64, 1e-6), (torch.float32, 3e-6)], ids=str
)


def assert_authors_walk(sampler, out: str, data, model, dtype, share: float, **settings) -> None:
    denoise = Guided(copy.deepcopy(model).to(dtype), data["in.y"], 4.0, channels=3)
    with torch.no_grad():
        x = last(sampler(denoise, data["in.x_T"].to(dtype), ALPHA_BAR, timesteps(25), **settings)).x_t
    expected = data[out].to(dtype)
    assert expected.abs().max() > 500
    torch.testing.assert_close(x, expected, atol=share * expected.abs().max().item(), rtol=0)


@PRECISIONS
def test_ddpm_walks_as_the_authors(golden_diffusion, golden_model, dtype, share):
    """Learned variance, guidance 4 on three channels, 25 steps."""

    def noise(index: int) -> torch.Tensor:
        return golden_diffusion["in.noises"][index].to(dtype)

    assert_authors_walk(ddpm, "out.ddpm", golden_diffusion, golden_model, dtype, share, noise=noise)


@PRECISIONS
def test_ddim_walks_as_the_authors(golden_diffusion, golden_model, dtype, share):
    """The same without noise; the variance channels are ignored."""
    assert_authors_walk(ddim, "out.ddim", golden_diffusion, golden_model, dtype, share)


# --- diffusers ---


@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("steps", [10, 50])
def test_ddim_equals_diffusers(steps, eta):
    theirs = DDIMScheduler(clip_sample=False)
    theirs.set_timesteps(steps)
    ascending = theirs.timesteps.flip(0)
    torch.manual_seed(0)
    x, noises = torch.randn(2, 3, 8, 8), torch.randn(steps, 2, 3, 8, 8)
    expected = x
    for step in ddim(bimodal, x, ALPHA_BAR, ascending, eta=eta, noise=lambda i: noises[i]):
        noise = bimodal(expected, torch.full((2,), step.t))
        result = theirs.step(noise, step.t, expected, eta=eta, variance_noise=noises[step.index])
        if step.index == steps - 1:  # diffusers adds noise after the last step as well, the paper does not
            torch.testing.assert_close(step.x0, result.pred_original_sample, atol=1e-4, rtol=0)
            break
        expected = result.prev_sample
        torch.testing.assert_close(step.x_t, expected, atol=1e-4, rtol=0)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside diffusers
@pytest.mark.parametrize("spacing", ["even", "linspace"])
@pytest.mark.parametrize("steps", [2, 10, 20, 50])
def test_dpm_solver_equals_diffusers(steps, spacing):
    theirs = DPMSolverMultistepScheduler(
        algorithm_type="dpmsolver++", solver_order=2, solver_type="midpoint", final_sigmas_type="zero"
    )
    visited = timesteps(steps, spacing)
    theirs.set_timesteps(timesteps=visited.flip(0).tolist())
    torch.manual_seed(0)
    x = expected = torch.randn(2, 3, 8, 8)
    for step in dpm_solver(bimodal, x, ALPHA_BAR, visited):
        expected = theirs.step(bimodal(expected, torch.full((2,), step.t)), step.t, expected).prev_sample
        # lower_order_final makes diffusers' last step first-order; ours is, on sigma = 0.
        torch.testing.assert_close(step.x_t, expected, atol=1e-4, rtol=0)


# --- data with a known answer ---


def test_ddim_converges_on_the_ode_at_first_order():
    errors = [ode_error(ddim, 0.5, steps) for steps in STEPS]
    assert errors == pytest.approx([0.277, 0.0562, 0.01147, 0.00302], rel=0.01)
    for s in (0.3, 1.0, 2.0):
        coarse, fine = ode_error(ddim, s, 50), ode_error(ddim, s, 250)
        assert 4 < coarse / fine < 6


def test_dpm_solver_converges_on_the_ode_at_second_order():
    errors = [ode_error(dpm_solver, 0.5, steps) for steps in STEPS]
    assert errors == pytest.approx([0.3853, 0.05566, 0.001929, 0.0000745], rel=0.01)
    for s in (0.3, 1.0, 2.0):
        coarse, fine = ode_error(dpm_solver, s, 50), ode_error(dpm_solver, s, 250)
        assert coarse / fine > 20
        assert fine < ode_error(ddim, s, 250) / 3


@pytest.mark.parametrize("steps", [8, 16, 32, 50])
@pytest.mark.parametrize("s", [0.5, 1.0, 2.0])
def test_dpm_solver_does_not_overshoot_at_its_usual_spacing(s, steps):
    ours = ode_error(dpm_solver, s, steps, usual_spacing("dpm-solver++"))
    assert ours < 0.8 * ode_error(ddim, s, steps)  # to which even spacing loses at 8 and 16 steps
    assert ours < 0.8 * ode_error(dpm_solver, s, steps)


def with_exact_variance(s: float, steps: int):
    """The exact denoiser of N(0, s^2), with logits that ask for the exact reverse variance of each step."""
    chosen = timesteps(steps)
    a = ALPHA_BAR[chosen]
    before = torch.cat([torch.ones(1), a[:-1]])
    beta = 1 - a / before
    posterior = beta * (1 - before) / (1 - a)
    # Var(x_prev | x_t) = the posterior's, and what not knowing x0 adds to it.
    of_x0 = before.sqrt() * beta / (1 - a)
    exact = posterior + of_x0**2 * s**2 * (1 - a) / (a * s**2 + 1 - a)
    logits = 2 * (exact / posterior).log() / (beta / posterior).log() - 1
    table = dict(zip(chosen.tolist(), logits.tolist(), strict=True))

    def denoise(x, t):
        logit = table[int(t[0])] if t[0] else 0.0  # of no consequence in the last step, which adds no noise
        return torch.cat([gaussian(s)(x, t), torch.full_like(x, logit)], dim=1)

    return denoise


@pytest.mark.parametrize("steps", [5, 25, 250])
@pytest.mark.parametrize("s", [0.5, 1.5])
def test_ddpm_with_the_right_variance_is_exact_in_any_number_of_steps(s, steps):
    # The last step lands on the mean of x0 given x_0, which at s = 0.5 is 0.02 % narrower.
    assert last_std(ddpm, with_exact_variance(s, steps), steps) == pytest.approx(s, rel=0.008)


def test_ddpm_with_fixed_variance_approaches_the_data():
    """beta is too large a variance for data narrower than the noise, the less so the shorter the steps."""
    coarse, fine = (last_std(ddpm, gaussian(0.5), steps) for steps in (25, 250))
    assert coarse == pytest.approx(0.540, rel=0.01) and fine == pytest.approx(0.505, rel=0.01)
    assert last_std(ddpm, gaussian(1.0), 25) == pytest.approx(1.0, rel=0.01)  # for unit data it is exact


def test_stochastic_ddim_approaches_the_data():
    coarse, fine = (last_std(ddim, gaussian(0.5), steps, eta=1.0) for steps in (25, 250))
    assert abs(fine - 0.5) < 0.015 < 0.08 < abs(coarse - 0.5)


def test_ddim_with_eta_1_is_ddpm_with_the_posteriors_variance():
    """Song et al. 2021, section 4.1: step by step, for the same noise."""
    torch.manual_seed(0)
    x, noises = torch.randn(2, 3, 8, 8), torch.randn(20, 2, 3, 8, 8)

    def small(x, t):  # logits of -1: the lower end of the range
        return torch.cat([bimodal(x, t), -torch.ones_like(x)], dim=1)

    settings = (x, ALPHA_BAR, timesteps(20))
    one = ddpm(small, *settings, noise=lambda i: noises[i])
    other = ddim(bimodal, *settings, eta=1.0, noise=lambda i: noises[i])
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a.x_t, b.x_t, atol=1e-4, rtol=0)


# --- noise ---


@pytest.mark.parametrize("sampler", [ddim, dpm_solver])
def test_deterministic_samplers_draw_nothing(sampler):
    x = torch.randn(2, 3, 4, 4)
    before = torch.get_rng_state()
    one, two = (last(sampler(bimodal, x, ALPHA_BAR, timesteps(9))).x_t for _ in range(2))
    assert torch.equal(one, two) and torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("sampler", "settings"), [(ddpm, {}), (ddim, {"eta": 0.5})])
def test_stochastic_samplers_draw(sampler, settings):
    x = torch.randn(2, 3, 4, 4)
    one, two = (last(sampler(bimodal, x, ALPHA_BAR, timesteps(9), **settings)).x_t for _ in range(2))
    assert not torch.equal(one, two)


@pytest.mark.parametrize("kind", ["fixed", "learned", "ddim"])
def test_given_noise_is_used_as_it_is_and_not_in_the_last_step(kind):
    """Each step's noise enters times the standard deviation of the paper's formula."""
    chosen, x = timesteps(4), torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    a = ALPHA_BAR[chosen]
    before = torch.cat([torch.ones(1), a[:-1]])
    beta = 1 - a / before
    posterior = beta * (1 - before) / (1 - a)
    variance = {"fixed": beta, "learned": posterior**0.7 * beta**0.3, "ddim": 0.6**2 * posterior}[kind]
    asked = []

    def noise(i):
        asked.append(i)
        return torch.full_like(x, i + 1.0)

    def nothing(x, t):
        logits = [torch.full_like(x, 2 * 0.3 - 1)] if kind == "learned" else []
        return torch.cat([torch.zeros_like(x), *logits], dim=1)

    settings = {"eta": 0.6} if kind == "ddim" else {}
    sampler = ddim if kind == "ddim" else ddpm
    steps = list(sampler(nothing, x, ALPHA_BAR, chosen, noise=noise, **settings))
    assert asked == [0, 1, 2]
    expected = 0.0
    for step, i in zip(steps, (3, 2, 1, 0), strict=True):
        x0 = expected / a[i].sqrt()
        if kind == "ddim":
            expected = before[i].sqrt() * x0
        else:
            mean_of_x0 = before[i].sqrt() * beta[i] / (1 - a[i])
            expected = mean_of_x0 * x0 + (1 - before[i]) * (1 - beta[i]).sqrt() / (1 - a[i]) * expected
        expected = expected + (variance[i].sqrt() * (step.index + 1) if i else 0)
        torch.testing.assert_close(step.x_t, torch.full_like(x, float(expected)), rtol=1e-6, atol=1e-9)


# --- the walk itself ---


@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_step_is_reported_and_the_last_lands_on_the_prediction(name, steps):
    x = torch.randn(1, 1, 2, 2)
    walk = list(SAMPLERS[name](gaussian(0.5), x, ALPHA_BAR, timesteps(steps)))
    assert [step.index for step in walk] == list(range(steps))
    assert [step.t for step in walk] == timesteps(steps).flip(0).tolist()
    assert all(step.x_t.isfinite().all() and step.x_t.shape == x.shape for step in walk)
    torch.testing.assert_close(walk[-1].x_t, walk[-1].x0, rtol=1e-6, atol=0)
    if steps > 1:
        assert not torch.allclose(walk[0].x_t, walk[0].x0)


@pytest.mark.parametrize("name", SAMPLERS)
def test_x0_is_the_prediction_of_the_step(name):
    """What is left of x_t without the noise that the denoiser found."""
    x = torch.randn(2, 3, 4, 4)
    for step in SAMPLERS[name](bimodal, x, ALPHA_BAR, timesteps(12)):
        t = torch.full((2,), step.t)
        a = ALPHA_BAR[step.t].item()
        noise = bimodal(x, t)
        torch.testing.assert_close(math.sqrt(a) * step.x0 + math.sqrt(1 - a) * noise, x, atol=1e-5, rtol=0)
        x = step.x_t


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_denoiser_is_called_once_a_step_and_only_when_asked(name):
    calls = []

    def counting(x, t):
        assert t.dtype == torch.int64 and t.device.type == "cpu" and t.shape == (2,)
        calls.append(t.tolist())
        return bimodal(x, t)

    walk = SAMPLERS[name](counting, torch.randn(2, 3, 4, 4), ALPHA_BAR, timesteps(6))
    assert calls == []
    for taken, step in enumerate(itertools.islice(walk, 4), start=1):
        assert len(calls) == taken and calls[-1] == [step.t] * 2
    walk.close()
    assert len(calls) == 4


@pytest.mark.parametrize("name", SAMPLERS)
def test_variance_logits_do_not_disturb_the_samplers_that_ignore_them(name):
    def with_logits(x, t):
        return torch.cat([bimodal(x, t), torch.ones_like(x)], dim=1)

    x = torch.randn(2, 3, 4, 4)
    settings = {"noise": lambda i: torch.zeros_like(x)} if name == "ddpm" else {}
    plain, extra = (
        last(SAMPLERS[name](denoise, x, ALPHA_BAR, timesteps(5), **settings)).x_t
        for denoise in (bimodal, with_logits)
    )
    assert torch.equal(plain, extra)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ([], "non-empty"),
        ([5, 3, 1], "ascending"),
        ([1, 3, 3], "ascending"),
        ([[1, 2]], "1-D"),
        ([-1, 5], "from -1 to 5.*0 to 999"),
        ([0, 1000], "from 0 to 1000.*0 to 999"),
    ],
    ids=str,
)
def test_impossible_timesteps_are_refused(name, chosen, said):
    with pytest.raises(ValueError, match=said):
        next(SAMPLERS[name](bimodal, torch.zeros(1, 1, 2, 2), ALPHA_BAR, torch.tensor(chosen)))


@pytest.mark.parametrize("eta", [-0.1, 1.1, float("nan")])
def test_impossible_eta_is_refused(eta):
    with pytest.raises(ValueError, match=f"eta is {eta}.*from 0"):
        next(ddim(bimodal, torch.zeros(1, 1, 2, 2), ALPHA_BAR, timesteps(2), eta=eta))
