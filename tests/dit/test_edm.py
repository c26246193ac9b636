"""EDM's formulation: the preconditioning's identities, the loss, the sampler's order, all in closed form."""

import math

import pytest
import torch

from dit import edm
from dit.guidance import Guided, power_cosine
from dit.samplers import heun

SIGMAS = torch.tensor([0.002, 0.1, 0.5, 1.0, 7.0, 80.0], dtype=torch.float64)
EDM = {"formulation": "edm", "learn_sigma": False}


def test_the_coefficients_are_those_of_the_paper():
    c_skip, c_out, c_in, c_noise = edm.preconditioning(SIGMAS)
    for i, sigma in enumerate(SIGMAS.tolist()):
        assert c_skip[i] == pytest.approx(0.25 / (sigma**2 + 0.25))
        assert c_out[i] == pytest.approx(sigma * 0.5 / math.sqrt(0.25 + sigma**2))
        assert c_in[i] == pytest.approx(1 / math.sqrt(sigma**2 + 0.25))
        assert c_noise[i] == pytest.approx(math.log(sigma) / 4)


def test_the_network_sees_and_says_unit_variance():
    """Appendix B.6: what comes in, and what must come out, of data of deviation 0.5, at every sigma."""
    c_skip, c_out, c_in, _ = edm.preconditioning(SIGMAS)
    torch.testing.assert_close(c_in**2 * (0.5**2 + SIGMAS**2), torch.ones(6, dtype=torch.float64))
    # of (x0 - c_skip (x0 + sigma n)) / c_out, which the network must say
    target = ((1 - c_skip) ** 2 * 0.5**2 + c_skip**2 * SIGMAS**2) / c_out**2
    torch.testing.assert_close(target, torch.ones(6, dtype=torch.float64))
    torch.testing.assert_close(edm.loss_weight(SIGMAS) * c_out**2, torch.ones(6, dtype=torch.float64))


def test_an_untrained_model_scales_what_it_sees_and_errs_by_1_everywhere(random_model):
    """Its output is 0, so D = c_skip x: the loss of data of deviation 0.5 is 1 at every sigma."""
    model = random_model(**EDM)
    torch.nn.init.zeros_(model.final_layer.linear.weight)
    torch.nn.init.zeros_(model.final_layer.linear.bias)
    torch.manual_seed(0)
    x0, y = 0.5 * torch.randn(2000, 3, 8, 8), torch.zeros(2000, dtype=torch.long)
    for sigma in (0.01, 0.5, 10.0):
        level = torch.full((2000,), sigma)
        with torch.no_grad():
            losses = edm.training_losses(model, x0, level, y)
            seen = edm.denoised(model, x0, level, y)
        assert losses["loss"].shape == (2000,) and losses["loss"].mean() == pytest.approx(1, abs=0.02)
        torch.testing.assert_close(seen, x0 * 0.25 / (sigma**2 + 0.25))


def test_the_denoiser_is_the_network_between_its_coefficients(random_model):
    model, y = random_model(**EDM), torch.tensor([1, 9])
    x, sigma = torch.randn(2, 3, 8, 8) * 3, torch.tensor([0.3, 20.0])
    c_skip, c_out, c_in, c_noise = (part.view(-1, 1, 1, 1) for part in edm.preconditioning(sigma))
    with torch.no_grad():
        expected = c_skip * x + c_out * model(c_in * x, c_noise.flatten(), y)
        torch.testing.assert_close(edm.denoised(model, x, sigma, y), expected)
    other = edm.denoised(model, x, sigma * 1.5, y)
    assert (other - expected).abs().amax() > 1e-3


def test_the_loss_is_the_weighted_error_of_the_clean_picture(random_model):
    model, y = random_model(**EDM), torch.tensor([1, 9])
    x0, noise, sigma = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8), torch.tensor([0.2, 5.0])
    with torch.no_grad():
        losses = edm.training_losses(model, x0, sigma, y, noise)
        expected = edm.denoised(model, x0 + sigma.view(-1, 1, 1, 1) * noise, sigma, y)
    mse = (expected - x0).square().mean((1, 2, 3))
    torch.testing.assert_close(losses["mse"], mse)
    torch.testing.assert_close(losses["loss"], mse * (sigma**2 + 0.25) / (sigma * 0.5) ** 2)


def test_noise_levels_in_training_are_log_normal():
    torch.manual_seed(0)
    logs = edm.draw_sigmas(200_000).log()
    assert logs.mean() == pytest.approx(-1.2, abs=0.01) and logs.std() == pytest.approx(1.2, abs=0.01)
    assert (logs < -1.2 - 1.2).float().mean() == pytest.approx(0.1587, abs=0.003)


def test_the_samplers_levels_are_the_papers():
    sigmas = edm.sigmas(18)
    assert sigmas[0] == pytest.approx(80) and sigmas[-1] == pytest.approx(0.002)
    assert (sigmas.diff() < 0).all() and sigmas.dtype == torch.float64
    roots = sigmas ** (1 / 7)
    torch.testing.assert_close(roots.diff(), roots.diff().mean().expand(17))
    assert sigmas[1] == pytest.approx(57.585981, rel=1e-6)  # from the formula, by hand
    assert edm.sigmas(1).tolist() == pytest.approx([80.0])


def gaussian(s: float):
    """The exact denoiser of data N(0, s^2): E[x0 | x]."""
    return lambda x, sigma: x * s**2 / (s**2 + sigma.view(-1, 1, 1, 1) ** 2)


def relative_error(steps: int, s: float = 0.5) -> float:
    """Distance to the exact solution of the probability-flow ODE: x shrinks as its spread does."""
    x = 80 * torch.ones(1, 1, 2, 2, dtype=torch.float64)
    exact = x * s / math.sqrt(s**2 + 80**2)
    *_, last = heun(gaussian(s), x, edm.sigmas(steps))
    return float(((last.x_t - exact) / exact).abs().max())


def test_heun_is_of_second_order():
    """Twice the steps, a quarter of the error; a first-order method would only halve it."""
    errors = [relative_error(steps) for steps in (32, 64, 128, 256)]
    for coarse, fine in zip(errors, errors[1:], strict=False):
        assert 3.7 < coarse / fine < 4.7, errors
    assert errors[-1] < 3e-4


@pytest.mark.parametrize("steps", [1, 2, 18, 40])
def test_heun_calls_the_network_twice_a_step_but_once_in_the_last(steps):
    seen = []

    def denoise(x, sigma):
        assert sigma.shape == (len(x),)
        seen.append(float(sigma[0]))
        return gaussian(0.5)(x, sigma)

    levels = edm.sigmas(steps).tolist()
    walk = list(heun(denoise, torch.randn(3, 1, 2, 2, dtype=torch.float64), edm.sigmas(steps)))
    assert len(seen) == 2 * steps - 1
    assert seen == [level for pair in zip(levels, levels[1:], strict=False) for level in pair] + [levels[-1]]
    assert [step.index for step in walk] == list(range(steps)) and [step.t for step in walk] == levels
    torch.testing.assert_close(walk[-1].x_t, walk[-1].x0)  # lands on the last prediction


def test_heun_draws_the_data_it_is_asked_for():
    torch.manual_seed(0)
    x = 80 * torch.randn(1, 1, 200, 250)
    *_, last = heun(gaussian(0.3), x, edm.sigmas(18))
    assert last.x_t.std() == pytest.approx(0.3, rel=0.07)  # the step size's error is 6 %
    assert last.gain == 1.0


def test_samples_are_shown_at_about_unit_variance():
    torch.manual_seed(0)
    for step in heun(gaussian(1.0), 80 * torch.randn(1, 1, 100, 100), edm.sigmas(20)):
        assert (step.gain * step.x_t).std() == pytest.approx(1, abs=0.12)


@pytest.mark.parametrize("sigmas", [[], [1.0, 2.0], [2.0, 2.0], [1.0, 0.0], [[2.0, 1.0]]])
def test_impossible_levels_are_refused(sigmas):
    with pytest.raises(ValueError, match="descending"):
        next(heun(gaussian(1.0), torch.zeros(1, 1, 2, 2), torch.tensor(sigmas)))


# --- guidance ---


def test_guidance_pushes_the_clean_picture_away_from_that_of_no_class(random_model):
    model, y = random_model(**EDM), torch.tensor([3, 4])
    x, sigma = torch.randn(2, 3, 8, 8), torch.full((2,), 0.7, dtype=torch.float64)
    with torch.no_grad():
        conditional = edm.denoised(model, x, sigma.float(), y)
        null = edm.denoised(model, x, sigma.float(), torch.tensor([10, 10]))
        torch.testing.assert_close(
            Guided(model, y, 2.5)(x, sigma), null + 2.5 * (conditional - null), atol=1e-5, rtol=1e-5
        )
        torch.testing.assert_close(Guided(model, y)(x, sigma), conditional)
        outside = Guided(model, y, 2.5, interval=(0.8, 3.0))
        torch.testing.assert_close(outside(x, sigma), conditional)
    assert outside.passes(0.7) == 1 and outside.passes(0.8) == outside.passes(3.0) == 2


def test_what_counts_timesteps_is_refused(random_model):
    model, y = random_model(**EDM), torch.tensor([3])
    with pytest.raises(ValueError, match="sigmas; use constant"):
        Guided(model, y, 2.0, schedule=power_cosine)
    with pytest.raises(ValueError, match=r"interval is \(3.0, 1.0\).*sigma, ascending"):
        Guided(model, y, 2.0, interval=(3.0, 1.0))
    Guided(model, y, 2.0, interval=(0.0, 5000.0))
