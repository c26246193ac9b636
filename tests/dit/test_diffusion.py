"""The forward process and the loss: published numbers, the authors' losses, and what trains what."""

import math

import pytest
import torch

import dit
from dit import diffusion
from dit.config import ModelConfig
from dit.diffusion import Schedule, linear_schedule, q_sample, timesteps, training_losses


def test_the_linear_schedule_is_the_papers():
    schedule = linear_schedule()
    assert schedule.alpha_bar.dtype == torch.float64 and len(schedule.alpha_bar) == 1000
    at = schedule.alpha_bar[[0, 1, 499, 999]].tolist()
    expected = [0.9999, 0.9997800920720721, 0.07858724288177824, 4.035829765375676e-05]
    assert at == pytest.approx(expected, rel=1e-12)
    assert schedule.betas.sum().item() == pytest.approx(10.05, rel=1e-12)
    log_betas = schedule.betas.log()[[0, 1, 999]].tolist()
    assert log_betas == pytest.approx([-9.21034037, -9.02868637, -3.91202301], abs=1e-8)
    log_posterior = schedule.posterior_log_variance[[0, 1, 999]].tolist()
    assert log_posterior == pytest.approx([-9.81672514, -9.81672514, -3.91202383], abs=1e-8)
    sigma = (1 / schedule.alpha_bar - 1).sqrt()
    assert (sigma[0].item(), sigma[-1].item()) == pytest.approx((0.0100005, 157.40728), rel=1e-6)
    half_log_snr = -sigma.log()
    assert (half_log_snr[-1].item(), half_log_snr[0].item()) == pytest.approx((-5.05884, 4.60512), abs=1e-5)


def test_a_respaced_schedule():
    betas = Schedule(linear_schedule().alpha_bar[timesteps(250)]).betas
    assert (betas[-1].item(), betas[1].item()) == pytest.approx((0.07751934, 0.00059907), abs=5e-9)


def test_the_posterior_is_bayes_rule():
    """Mean and variance of q(x_{t-1} | x_t, x0), from the product of the two Gaussians it is made of."""
    schedule = linear_schedule()
    beta, before, after = schedule.betas, schedule.alpha_bar_prev, schedule.alpha_bar
    precision = (1 - beta[1:]) / beta[1:] + 1 / (1 - before[1:])
    torch.testing.assert_close(schedule.posterior_log_variance[1:].exp(), 1 / precision)
    of_x0, of_x_t = schedule.posterior_mean_coefficients
    torch.testing.assert_close(of_x0[1:], before[1:].sqrt() / (1 - before[1:]) / precision)
    torch.testing.assert_close(of_x_t[1:], (1 - beta[1:]).sqrt() / beta[1:] / precision)
    assert (of_x0[0].item(), of_x_t[0].item()) == pytest.approx((1.0, 0.0))
    assert (after == before * (1 - beta)).float().mean() > 0.3
    torch.testing.assert_close(after, before * (1 - beta), rtol=1e-14, atol=0)


# steps -> the first and last timesteps; the rest follows the same stride.
RESPACED = {
    250: ([0, 4, 8, 12, 16, 20], [987, 991, 995, 999]),
    128: ([0, 8, 16, 24, 31, 39], [975, 983, 991, 999]),
    64: ([0, 16, 32, 48, 63, 79], [999]),
    50: ([0, 20, 41, 61, 82, 102], [999]),
    32: ([0, 32, 64, 97, 129, 161], [999]),
    20: ([0, 53, 105, 158, 210, 263], [999]),
    16: ([0, 67, 133, 200, 266, 333], [999]),
    2: ([0], [999]),
}


@pytest.mark.parametrize("n", RESPACED)
def test_timesteps_are_the_authors(n):
    first, last = RESPACED[n]
    chosen = timesteps(n).tolist()
    assert len(chosen) == n
    assert (chosen[: len(first)], chosen[-len(last) :]) == (first, last)


def test_timesteps_at_the_ends():
    assert timesteps(1).tolist() == [999]
    assert timesteps(1000).tolist() == list(range(1000))


@pytest.mark.parametrize("n", [1, 2, 3, 7, 10, 20, 50, 250, 333, 501, 1000])
def test_leading_timesteps_are_diffusers(n):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(timestep_spacing="leading", steps_offset=0)
    scheduler.set_timesteps(n)
    assert timesteps(n, "leading").tolist() == scheduler.timesteps.flip(0).tolist()


def test_leading_timesteps_at_the_ends():
    assert timesteps(1, "leading").tolist() == [0]
    assert timesteps(3, "leading").tolist() == [0, 333, 666]
    assert timesteps(600, "leading").tolist() == list(range(600))
    assert timesteps(1000, "leading").tolist() == timesteps(1000).tolist() == list(range(1000))
    assert timesteps(10, "leading").dtype == timesteps(10).dtype == torch.int64


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 8, 10, 16, 20, 50, 64, 250, 333, 501, 998, 999])
def test_linspace_timesteps_are_diffusers_dpm_solvers(n):
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(timestep_spacing="linspace")
    scheduler.set_timesteps(n)
    assert timesteps(n, "linspace").tolist() == scheduler.timesteps.flip(0).tolist()
    assert timesteps(n, "linspace").dtype == torch.int64


def test_a_thousand_linspace_timesteps_are_all_of_them():
    """Of diffusers' thousand one is there twice."""
    assert timesteps(1000, "linspace").tolist() == list(range(1000))


@pytest.mark.parametrize("spacing", ["trailing", "", None])
def test_an_unknown_spacing_lists_the_known(spacing):
    with pytest.raises(ValueError, match=f"spacing is {spacing!r}; choose one of even, leading, linspace"):
        timesteps(10, spacing)


@pytest.mark.parametrize("n", [0, -1, 1001, 2.5, True])
@pytest.mark.parametrize("spacing", diffusion.SPACINGS)
def test_a_wrong_number_of_steps_is_refused(spacing, n):
    with pytest.raises(ValueError, match=f"steps is {n!r}; it must be a whole number from 1 to 1000"):
        timesteps(n, spacing)


def test_timesteps_always_ascend_from_0_to_999():
    for n in range(2, 1001):
        chosen = timesteps(n)
        assert len(chosen) == n and (chosen[0], chosen[-1]) == (0, 999) and (chosen.diff() > 0).all(), n


@pytest.mark.parametrize("n", [0, -1, 1001, 2.5, float("nan"), float("inf"), True], ids=str)
def test_any_other_number_of_timesteps_is_refused(n):
    with pytest.raises(ValueError, match="steps is .*whole number from 1 to 1000"):
        timesteps(n)


def test_timesteps_of_the_authors_25_steps(golden_diffusion):
    assert torch.equal(timesteps(25), golden_diffusion["timesteps"].long())


def test_losses_equal_the_authors(golden_diffusion, golden_model):
    x0, t, y, eps = (golden_diffusion[f"loss.{name}"] for name in ("x0", "t", "y", "eps"))
    with torch.no_grad():
        losses = training_losses(golden_model, x0, t, y, eps)
    assert set(losses) == {"mse", "vb", "loss"} and 0 in t and (t > 0).any()
    for ours, theirs in (("mse", "mse"), ("vb", "vb"), ("loss", "total")):
        expected = golden_diffusion[f"loss.{theirs}"]
        torch.testing.assert_close(
            losses[ours], expected, atol=1e-5, rtol=1e-4, msg=lambda m, ours=ours: ours + m
        )


@pytest.fixture(scope="module")
def untrained():
    """Its output is exactly 0."""
    return dit.build(ModelConfig(hidden_size=4, depth=1, num_heads=1, patch_size=8, input_size=32)).eval()


@pytest.mark.parametrize(("t", "bits"), [(1, 0.63271), (10, 0.10778), (500, 0.007952), (999, 0.014722)])
def test_the_bound_of_an_untrained_model(t, bits, untrained):
    """Closed form: with unit variance data and eps_hat = 0 the KL has an exact mean at each timestep."""
    torch.manual_seed(t)
    n = 256
    x0, steps = torch.randn(n, 4, 32, 32), torch.full((n,), t)
    with torch.no_grad():
        vb = training_losses(untrained, x0, steps, torch.zeros(n, dtype=torch.long))["vb"]
    assert vb.mean().item() == pytest.approx(bits, rel=0.005)


def test_the_loss_of_an_untrained_model(untrained):
    torch.manual_seed(0)
    t = torch.arange(1000)
    with torch.no_grad():
        losses = training_losses(untrained, torch.randn(1000, 4, 32, 32), t, t * 0)
    assert losses["mse"].mean().item() == pytest.approx(1.000, abs=0.003)
    assert losses["vb"][0].item() == pytest.approx(1.99, abs=0.1)  # the term at t = 0 is another formula
    assert losses["vb"][1:].mean().item() == pytest.approx(0.01416, rel=0.01)
    assert losses["loss"].mean().item() == pytest.approx(1.016, abs=0.003)
    assert torch.equal(losses["loss"], losses["mse"] + losses["vb"])


class Parrot(torch.nn.Module):
    """Answers with a tensor that it was given, whose gradient can then be looked at."""

    def __init__(self, config: ModelConfig, output: torch.Tensor) -> None:
        super().__init__()
        self.config, self.output = config, output.requires_grad_()

    def forward(self, x, t, y):
        return self.output


SMALL = {"hidden_size": 4, "depth": 1, "num_heads": 1, "input_size": 8}


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_the_bound_trains_the_variance_alone(prediction):
    torch.manual_seed(0)
    model = Parrot(ModelConfig(**SMALL, prediction=prediction), torch.randn(5, 8, 8, 8))
    t = torch.tensor([0, 1, 10, 500, 999])
    losses = training_losses(model, torch.randn(5, 4, 8, 8), t, t * 0)
    (gradient,) = torch.autograd.grad(losses["vb"].sum(), model.output, retain_graph=True)
    assert (gradient[:, :4] == 0).all()
    assert (gradient[:, 4:] != 0).flatten(1).any(dim=1).all()
    (gradient,) = torch.autograd.grad(losses["mse"].sum(), model.output)
    assert (gradient[:, :4] != 0).any() and (gradient[:, 4:] == 0).all()


def test_without_learned_variance_there_is_no_bound():
    model = Parrot(ModelConfig(**SMALL, learn_sigma=False), torch.randn(2, 4, 8, 8))
    t = torch.tensor([3, 4])
    losses = training_losses(model, torch.randn(2, 4, 8, 8), t, None)
    assert set(losses) == {"mse", "loss"} and torch.equal(losses["mse"], losses["loss"])


def test_the_bound_is_lowest_for_a_perfect_model():
    """Noise known, variance the posterior's: KL is 0; any other variance costs."""
    torch.manual_seed(0)
    x0, noise, t = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8), torch.tensor([5, 300, 900])
    bounds = []
    for logit in (-1.0, -0.5, 1.0, -1.5):  # -1 is the posterior's variance
        output = torch.cat([noise, torch.full_like(noise, logit)], dim=1)
        bounds.append(training_losses(Parrot(ModelConfig(**SMALL), output), x0, t, None, noise)["vb"])
    assert bounds[0].abs().max() < 1e-3
    assert (torch.stack(bounds[1:]) > bounds[0] - 1e-6).all()


def test_noise_is_drawn_where_none_is_given():
    torch.manual_seed(0)
    model = Parrot(ModelConfig(**SMALL, learn_sigma=False), torch.zeros(64, 4, 8, 8))
    t = torch.arange(64)
    first = training_losses(model, torch.zeros(64, 4, 8, 8), t, None)["mse"]
    again = training_losses(model, torch.zeros(64, 4, 8, 8), t, None)["mse"]
    assert first.mean().item() == pytest.approx(1, abs=0.05) and not torch.equal(first, again)


@pytest.fixture
def noised():
    torch.manual_seed(0)
    t = torch.tensor([0, 1, 250, 500, 900])
    x0, noise = torch.randn(5, 4, 8, 8), torch.randn(5, 4, 8, 8)
    return x0, noise, t, q_sample(x0, t, noise)


def test_q_sample_mixes_with_the_roots_of_alpha_bar(noised):
    x0, noise, t, x_t = noised
    for i, step in enumerate(t.tolist()):
        a = float(linear_schedule().alpha_bar[step])
        torch.testing.assert_close(x_t[i], math.sqrt(a) * x0[i] + math.sqrt(1 - a) * noise[i])


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_noise_and_picture_come_back_from_the_true_output(prediction, noised):
    x0, noise, t, x_t = noised
    output = noise if prediction == "epsilon" else diffusion.velocity(x0, t, noise)
    torch.testing.assert_close(diffusion.to_epsilon(output, x_t, t, prediction), noise, atol=1e-4, rtol=0)
    # From the noise, x0 is a difference divided by the root of alpha_bar: 0.016 at t = 900.
    torch.testing.assert_close(diffusion.to_x0(output, x_t, t, prediction), x0, atol=1e-4, rtol=1e-4)


def test_velocity_is_the_derivative_along_the_arc(noised):
    """x_t = cos(a) x0 + sin(a) noise; v = d x_t / d a, so that v^2 + x_t^2 = x0^2 + noise^2."""
    x0, noise, t, x_t = noised
    v = diffusion.velocity(x0, t, noise)
    torch.testing.assert_close(v.square() + x_t.square(), x0.square() + noise.square(), atol=1e-4, rtol=1e-4)
    assert torch.allclose(v[0], noise[0], atol=0.05) and not torch.allclose(v[4], noise[4], atol=0.05)


def test_a_v_model_is_trained_on_the_velocity(noised):
    x0, noise, t, _ = noised
    output = torch.cat([diffusion.velocity(x0, t, noise), -torch.ones(5, 4, 8, 8)], dim=1)
    losses = training_losses(Parrot(ModelConfig(**SMALL, prediction="v"), output), x0, t, None, noise)
    assert losses["mse"].max() < 1e-12
    assert losses["vb"][1:].abs().max() < 1e-3
    wrong = training_losses(Parrot(ModelConfig(**SMALL), output.detach()), x0, t, None, noise)
    assert wrong["mse"].max() > 0.1


@pytest.mark.parametrize("x", [-1.0, -0.3, 0.0, 0.7, 1.0])
def test_pixel_likelihoods_add_up_to_one(x):
    """At t = 0 a latent counts as one of 256 pixel values: their likelihoods are a distribution."""
    pixels = torch.linspace(-1, 1, 256)
    for scale in (0.005, 0.1, 1.0):
        log = diffusion._discretised_gaussian_log_likelihood(
            pixels, torch.full_like(pixels, x), torch.full_like(pixels, math.log(scale))
        )
        assert log.exp().sum().item() == pytest.approx(1.0, abs=1e-5)


# --- Min-SNR ---


@pytest.mark.parametrize("t", [0, 50, 163, 164, 400, 999])
def test_min_snr_weights_are_the_papers(t):
    """By hand: min(SNR, 5) / SNR for the noise, min(SNR, 5) / (SNR + 1) for v. SNR falls below 5 near 164."""
    a = linear_schedule().alpha_bar[t].item()
    snr = a / (1 - a)
    at = torch.tensor([t])
    weights = [diffusion.min_snr_weight(at, kind, 5.0).item() for kind in ("epsilon", "v")]
    assert weights == pytest.approx([min(snr, 5) / snr, min(snr, 5) / (snr + 1)], rel=1e-5)
    assert (weights[0] == 1) is (snr <= 5)


def test_min_snr_means_the_same_clean_picture_for_both_predictions(noised):
    """What the two kinds of output err by is weighted alike: by min(SNR, 5) in terms of x0."""
    x0, noise, t, x_t = noised
    a = linear_schedule().alpha_bar[t]
    errors = []
    for kind, target in (("epsilon", noise), ("v", diffusion.velocity(x0, t, noise))):
        output = target + 0.1 * torch.randn_like(x0)
        of_x0 = (diffusion.to_x0(output, x_t, t, kind) - x0).square().mean((1, 2, 3))
        weight = diffusion.min_snr_weight(t, kind, 5.0)
        errors.append(weight * (output - target).square().mean((1, 2, 3)))
        snr = (a / (1 - a)).float()
        torch.testing.assert_close(errors[-1], snr.clamp(max=5) * of_x0, rtol=2e-2, atol=1e-5)


def test_min_snr_leaves_the_bound_as_it_is():
    model = dit.build("DiT-N/8", input_size=16, in_channels=3, num_classes=10)
    x0, noise, t = torch.rand(4, 3, 16, 16), torch.randn(4, 3, 16, 16), torch.tensor([0, 20, 500, 999])
    with torch.no_grad():
        plain = training_losses(model, x0, t, torch.arange(4), noise)
        weighted = training_losses(model, x0, t, torch.arange(4), noise, gamma=5.0)
    assert torch.equal(plain["vb"], weighted["vb"]) and torch.equal(plain["mse"], weighted["mse"])
    expected = diffusion.min_snr_weight(t, "epsilon", 5.0) * plain["mse"] + plain["vb"]
    torch.testing.assert_close(weighted["loss"], expected)
    assert (weighted["loss"] < plain["loss"]).tolist() == [True, True, False, False]
