"""Flow matching, against the paper's relations, data whose answer is known, and diffusers' Euler steps.

For data N(0, s^2) all is in closed form: x_t is N(0, (1-t)^2 s^2 + t^2); the ODE stretches x as its spread.
"""

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

import dit
from dit import flow
from dit.guidance import Guided, power_cosine
from dit.pipeline import Pipeline, cost, to_pictures
from dit.samplers import OF_FORMULATION, euler, euler_maruyama, heun
from dit.settings import SampleSettings, level_name, levels
from dit.weights import load, save
from tests.networks import TINY, tiny

FLOW = {"formulation": "flow", "prediction": "velocity", "learn_sigma": False}
SAMPLERS = {"euler": euler, "heun": heun, "sde": euler_maruyama}


def settings(**fields) -> SampleSettings:
    return SampleSettings(**({"classes": [0], "seeds": [0], "steps": 4} | fields))


def gaussian(s: float):
    """The exact denoiser of data N(0, s^2): E[x0 | x_t]."""

    def denoise(x, t):
        t = t.view(-1, 1, 1, 1).to(x.dtype)
        return x * (1 - t) * s**2 / ((1 - t) ** 2 * s**2 + t**2)

    return denoise


def last(walk):
    *_, step = walk
    return step


# --- the path ---


def test_the_path_leads_from_the_data_to_the_noise():
    x0, noise = torch.randn(3, 1, 2, 2), torch.randn(3, 1, 2, 2)
    x = flow.interpolate(x0, torch.tensor([0.0, 0.25, 1.0]), noise)
    torch.testing.assert_close(x[0], x0[0])
    torch.testing.assert_close(x[1], 0.75 * x0[1] + 0.25 * noise[1])
    torch.testing.assert_close(x[2], noise[2])


def test_a_velocity_leads_back_to_the_clean_picture():
    x0, noise, t = torch.randn(3, 1, 2, 2), torch.randn(3, 1, 2, 2), torch.tensor([0.1, 0.5, 1.0])
    x = flow.interpolate(x0, t, noise)
    torch.testing.assert_close(flow.to_x0(noise - x0, x, t), x0, atol=1e-6, rtol=1e-5)


def test_the_clean_picture_of_gaussian_data_is_exact():
    s, t = 0.6, torch.tensor([0.2, 0.7])
    x = torch.randn(2, 1, 3, 3)
    wide = t.view(-1, 1, 1, 1)
    variance = (1 - wide) ** 2 * s**2 + wide**2
    v = (wide - (1 - wide) * s**2) * x / variance  # d/dt of the spread, over it
    torch.testing.assert_close(flow.to_x0(v, x, t), gaussian(s)(x, t))


# --- training ---


def test_an_untrained_model_loses_what_the_velocities_weigh():
    """Its output is 0, so the loss is E|noise - x0|^2 = 1 + 4 for data of deviation 2."""
    torch.manual_seed(0)
    model = dit.build(tiny("adaln-zero", **FLOW))
    x0, noise, t = 2 * torch.randn(500, 3, 8, 8), torch.randn(500, 3, 8, 8), torch.rand(500)
    with torch.no_grad():
        losses = flow.training_losses(model, x0, t, torch.zeros(500).long(), noise)
    assert losses["loss"].shape == (500,) and losses["loss"].mean() == pytest.approx(5, rel=0.01)
    assert torch.equal(losses["loss"], losses["mse"])


def test_the_loss_is_the_error_of_the_velocity(random_model):
    model, y = random_model(**FLOW), torch.tensor([1, 9])
    x0, noise, t = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8), torch.tensor([0.2, 0.9])
    with torch.no_grad():
        losses = flow.training_losses(model, x0, t, y, noise)
        wide = t.view(-1, 1, 1, 1)
        said = model((1 - wide) * x0 + wide * noise, 1000 * t, y)
    torch.testing.assert_close(losses["mse"], (said - noise + x0).square().mean((1, 2, 3)))


def test_min_snr_is_the_papers_weight_of_the_clean_picture():
    """min(SNR, 5) times the squared error of x0, which is t times the velocity's."""
    t = torch.tensor([0.01, 0.2, 1 / (1 + math.sqrt(5)), 0.5, 0.9, 1.0])
    snr = ((1 - t) / t) ** 2
    torch.testing.assert_close(flow.min_snr_weight(t, 5.0), snr.clamp(max=5) * t**2)
    model = dit.build(tiny("adaln-zero", **FLOW))
    x0, noise = torch.randn(6, 3, 8, 8), torch.randn(6, 3, 8, 8)
    losses = flow.training_losses(model, x0, t, torch.arange(6), noise, gamma=5.0)
    torch.testing.assert_close(losses["loss"], flow.min_snr_weight(t, 5.0) * losses["mse"])
    v = torch.randn(6, 3, 8, 8)  # whatever is said instead of the velocity
    x = flow.interpolate(x0, t, noise)
    errors = (flow.to_x0(v, x, t) - x0).square().mean((1, 2, 3)) * snr.clamp(max=5)
    expected = flow.min_snr_weight(t, 5.0) * (v - noise + x0).square().mean((1, 2, 3))
    torch.testing.assert_close(errors, expected, atol=1e-5, rtol=1e-3)


def test_times_are_uniform_or_logit_normal():
    generator = torch.Generator().manual_seed(0)
    uniform = flow.draw_times("uniform", 200_000, generator)
    assert uniform.dtype == torch.float32 and uniform.min() >= 0 and uniform.max() <= 1
    assert uniform.mean() == pytest.approx(0.5, abs=0.003)
    assert uniform.var() == pytest.approx(1 / 12, abs=0.001)
    logits = flow.draw_times("logit-normal", 200_000, generator).double().logit()
    assert logits.mean() == pytest.approx(0, abs=0.01) and logits.std() == pytest.approx(1, abs=0.01)


def test_the_network_is_told_a_thousand_times_the_time(random_model):
    model, seen = random_model(**FLOW), []
    model.register_forward_pre_hook(lambda model, inputs: seen.append(inputs[1].tolist()))
    Pipeline(model).generate(settings())
    assert seen == [[1000.0], [750.0], [500.0], [250.0]]


# --- samplers ---


def ode_error(sampler, steps: int, s: float = 0.5) -> float:
    """Relative distance to the exact solution: noise 1 ends at s."""
    x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    return abs(last(sampler(gaussian(s), x, flow.times(steps))).x_t.item() / s - 1)


@pytest.mark.parametrize(("sampler", "ratio"), [(euler, 2), (heun, 4)])
def test_twice_the_steps_shrink_the_error_by_the_order(sampler, ratio):
    for s in (0.3, 0.5, 2.0):
        errors = [ode_error(sampler, steps, s) for steps in (32, 64, 128, 256)]
        for coarse, fine in zip(errors, errors[1:], strict=False):
            assert 0.85 * ratio < coarse / fine < 1.15 * ratio, (s, errors)
    assert errors[-1] < 0.01


@pytest.mark.parametrize("s", [0.5, 1.5])
def test_the_sde_keeps_the_spread_at_every_time(s):
    """100,000 samples; what is left is the steps' own error, which falls with them."""
    torch.manual_seed(0)
    for step in euler_maruyama(gaussian(s), torch.randn(1, 1, 250, 400), flow.times(500)):
        to = 1 - (step.index + 1) / 500
        exact = math.hypot((1 - to) * s, to)
        assert step.x_t.std().item() == pytest.approx(exact, rel=0.012), step.t


def test_the_sde_forgets_where_it_began_and_the_ode_does_not():
    x = torch.ones(1, 1, 250, 400)
    torch.manual_seed(0)
    end = last(euler_maruyama(gaussian(0.5), x, flow.times(200))).x_t
    assert end.std() > 0.3 and end.mean() < 0.45  # the ODE takes all of them to 0.5
    assert last(euler(gaussian(0.5), x, flow.times(200))).x_t.std() < 1e-5


def test_euler_equals_diffusers():
    theirs, times = FlowMatchEulerDiscreteScheduler(), flow.times(10)
    theirs.set_timesteps(sigmas=times.tolist())
    torch.manual_seed(0)
    x = expected = torch.randn(2, 3, 8, 8)
    for step, timestep in zip(euler(gaussian(0.4), x, times), theirs.timesteps, strict=True):
        assert float(flow.network_time(torch.tensor(step.t))) == pytest.approx(float(timestep))
        t = torch.full((2,), step.t)
        v = (expected - gaussian(0.4)(expected, t)) / step.t
        expected = theirs.step(v, timestep, expected).prev_sample
        torch.testing.assert_close(step.x_t, expected, atol=1e-5, rtol=0)


def test_given_noise_is_used_as_it_is_and_not_in_the_last_step():
    """x - h (v - t s / 2) + sqrt(t h) noise, by hand, for a denoiser that says 0: v = x / t, s = -x / t^2."""
    x, asked = torch.ones(1, 1, 1, 1, dtype=torch.float64), []

    def noise(i):
        asked.append(i)
        return torch.full_like(x, i + 1.0)

    steps = list(euler_maruyama(lambda x, t: 0 * x, x, flow.times(4), noise))
    assert asked == [0, 1, 2]
    expected, h = 1.0, 0.25
    for step, t in zip(steps[:-1], (1.0, 0.75, 0.5), strict=True):
        v, score = expected / t, -expected / t**2
        expected = expected - h * (v - t * score / 2) + math.sqrt(t * h) * (step.index + 1)
        assert step.x_t.item() == pytest.approx(expected)
    assert steps[-1].x_t.item() == 0


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_step_is_reported_and_every_call_foretold(name, steps):
    seen = []

    def denoise(x, t):
        assert t.shape == (len(x),) and t.dtype == torch.float64
        seen.append(float(t[0]))
        return gaussian(0.5)(x, t)

    walk = list(SAMPLERS[name](denoise, torch.randn(2, 1, 3, 3), flow.times(steps)))
    assert [step.index for step in walk] == list(range(steps))
    assert [step.t for step in walk] == flow.times(steps).tolist()
    calls = levels(settings(steps=steps, sampler=name), "flow")
    assert [level for step in calls for level in step] == seen
    torch.testing.assert_close(walk[-1].x_t, walk[-1].x0)


@pytest.mark.parametrize("sampler", SAMPLERS.values())
@pytest.mark.parametrize("times", [[], [0.5, 1.0], [1.0, 1.0], [1.0, 0.0], [[1.0, 0.5]]])
def test_impossible_times_are_refused(sampler, times):
    with pytest.raises(ValueError, match="descending"):
        next(sampler(gaussian(1.0), torch.zeros(1, 1, 2, 2), torch.tensor(times)))


# --- guidance ---


@pytest.mark.parametrize("channels", [1, 3, None])
def test_guidance_acts_on_the_velocity(channels, random_model):
    model, y = random_model(in_channels=4, **FLOW), torch.tensor([3, 4])
    x, t = torch.randn(2, 4, 8, 8), torch.full((2,), 0.7, dtype=torch.float64)
    with torch.no_grad():
        v = model(x, torch.full((2,), 700.0), y)
        null = model(x, torch.full((2,), 700.0), torch.tensor([10, 10]))
        guided = Guided(model, y, 2.5, channels=channels)(x, t)
        plain = Guided(model, y)(x, t)
    count = channels or 4
    v_guided = torch.cat([null[:, :count] + 2.5 * (v - null)[:, :count], v[:, count:]], dim=1)
    torch.testing.assert_close(guided, x - 0.7 * v_guided, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(plain, x - 0.7 * v)
    assert ((guided - plain).abs().amax((0, 2, 3)) > 1e-4).tolist() == [i < count for i in range(4)]


def test_an_interval_is_one_of_times(random_model):
    model, y = random_model(**FLOW), torch.tensor([3])
    inside = Guided(model, y, 2.0, interval=(0.3, 1.0))
    assert [inside.passes(t) for t in (0.0, 0.29, 0.3, 1.0)] == [1, 1, 2, 2]
    for interval in ((0.5, 0.2), (0.5, 1.5), (100, 900)):
        with pytest.raises(ValueError, match="time, ascending, in 0..1"):
            Guided(model, y, 2.0, interval=interval)
    with pytest.raises(ValueError, match="power_cosine.*flow model has times.*use constant"):
        Guided(model, y, 2.0, schedule=power_cosine)


# --- settings, pipeline, files ---


def test_a_flow_model_has_samplers_of_its_own(random_model):
    config = random_model(**FLOW).config
    assert settings().resolved(config).sampler == "euler" and OF_FORMULATION["flow"] == tuple(SAMPLERS)
    for name in ("ddim", "dpm-solver++", "ddpm"):
        with pytest.raises(ValueError, match="formulation is flow; use euler or heun or sde"):
            settings(sampler=name).resolved(config)
    for name in ("euler", "sde"):
        for fields in ({}, {"formulation": "edm", "learn_sigma": False}):
            with pytest.raises(ValueError, match=f"sampler is '{name}'.*formulation is (ddpm|edm); use"):
                settings(sampler=name).resolved(random_model(**fields).config)


@pytest.mark.parametrize(
    ("name", "value"), [("eta", 0.5), ("spacing", "leading"), ("guidance_schedule", "power-cosine")]
)
def test_what_counts_timesteps_is_refused(name, value, random_model):
    with pytest.raises(ValueError, match=f"{name} is {value!r}.*a flow model.*leave it out"):
        settings(**{name: value}).resolved(random_model(**FLOW).config)


def test_an_interval_of_timesteps_is_none_of_times(random_model):
    config = random_model(**FLOW).config
    with pytest.raises(ValueError, match=r"\(100, 900\).*times from 0 \(data\).*not timesteps"):
        settings(guidance_interval=(100, 900)).resolved(config)
    assert settings(guidance_interval=(0.1, 1)).resolved(config)


def test_a_time_is_shown_as_a_time():
    assert level_name("flow", 0.98) == "t = 0.98" and level_name("flow", 1.0) == "t = 1"


@pytest.mark.parametrize(("name", "calls"), [("euler", 4), ("heun", 7), ("sde", 4)])
def test_every_call_of_a_drawing_is_counted(name, calls, random_model):
    model, seen = random_model(**FLOW), []
    model.register_forward_hook(lambda model, inputs, output: seen.append(len(inputs[0])))
    pipeline = Pipeline(model)
    for wish, passes in ((1.0, 1), (2.0, 2)):
        seen.clear()
        frames = list(pipeline.stream(settings(sampler=name, guidance_scale=wish)))
        assert seen == [passes] * calls == [passes] * (cost(pipeline.model, settings(sampler=name)).passes)
        assert frames[-1].macs == passes * calls * dit.macs(pipeline.model.config) and frames[-1].done
        assert [frame.level for frame in frames] == ["t = 1", "t = 0.75", "t = 0.5", "t = 0.25"]


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_drawing_starts_from_standard_noise_and_is_shown_as_it_is(name, random_model):
    """The samplers of EDM's formulation start from noise of deviation 80, and show less of it."""
    model, seen, x_T = random_model(**FLOW), [], torch.randn(1, 3, 8, 8)
    model.register_forward_pre_hook(lambda model, inputs: seen.append(inputs[0].clone()))
    frames = list(Pipeline(model).stream(settings(sampler=name), x_T))
    torch.testing.assert_close(seen[0], x_T)
    for frame, x in zip(frames, seen[2::2] if name == "heun" else seen[1:], strict=False):
        assert (frame.x_t == to_pictures(x)).all()


def test_the_seed_decides_what_the_sde_draws(random_model):
    pipeline = Pipeline(random_model(**FLOW))
    one, two = (pipeline.generate(settings(sampler="sde", seeds=[7])).x0 for _ in range(2))
    assert (one == two).all()
    assert (pipeline.generate(settings(sampler="sde", seeds=[8])).x0 != one).any()
    both = pipeline.generate(settings(sampler="sde", seeds=[6, 7], classes=[0, 0])).x0
    assert abs(both[1].astype(int) - one[0]).max() <= 1


def test_a_file_says_that_its_model_is_a_flow(random_model, tmp_path):
    model = random_model(**FLOW)
    save(tmp_path / "flow.safetensors", model)
    again = Pipeline(load(tmp_path / "flow.safetensors"))
    assert again.model.config == model.config
    assert (again.generate(settings()).x0 == Pipeline(model).generate(settings(sampler="euler")).x0).all()


# --- learning ---


@pytest.fixture(scope="module")
def trained():
    """A tiny flow model that has learned eight pictures by heart, one a class."""
    torch.manual_seed(0)
    x0 = torch.rand(8, 3, 1, 1).round().mul(1.6).sub(0.8).expand(8, 3, 8, 8).clone()
    x0[:, :, :4] *= torch.tensor([1.0, -1.0]).repeat(4).view(8, 1, 1, 1)
    y = torch.arange(8)
    fields = FLOW | {"num_classes": 8, "class_dropout_prob": 0.0, "hidden_size": 64}
    model = dit.build(tiny("adaln-zero", **fields)).train()
    steps = 300
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    x, labels = x0.repeat(4, 1, 1, 1), y.repeat(4)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1.0, (step + 1) / 20, (steps - step) / (steps / 2))
        losses = flow.training_losses(model, x, torch.rand(32), labels, torch.randn_like(x))
        losses["loss"].mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval(), x0, y


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_was_learned_is_drawn_by_every_sampler(name, trained):
    model, x0, y = trained
    with torch.no_grad():
        x = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
        drawn = last(SAMPLERS[name](Guided(model, y), x, flow.times(30))).x_t
    distances = (drawn[:, None] - x0).square().flatten(2).mean(2).sqrt()
    assert distances.diagonal().max() < 0.25, distances.diagonal()


@pytest.mark.parametrize("kind", TINY)
def test_every_backbone_can_be_a_flow(kind):
    torch.manual_seed(0)
    model = dit.build(tiny(kind, **FLOW))
    frame = Pipeline(model).generate(settings(steps=2, guidance_scale=2.0))
    assert frame.done and frame.x0.shape == (1, 8, 8, 3)
