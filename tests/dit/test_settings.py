"""Settings: what is chosen for a model by what it is, and where the network is called."""

import pytest
import torch

import dit
from dit import edm
from dit.config import ModelConfig
from dit.pipeline import Pipeline, cost
from dit.presets import preset
from dit.settings import SampleSettings, level_name, levels, usual_schedule

DDPM = preset("DiT-N/4", in_channels=3)
EDM = preset("DiffiT-C-32")


def settings(**fields) -> SampleSettings:
    return SampleSettings(**({"classes": [0], "seeds": [0], "steps": 4} | fields))


def test_the_sampler_is_that_of_the_models_formulation():
    assert settings().resolved(DDPM).sampler == "ddim" and settings().resolved(EDM).sampler == "heun"
    assert settings(sampler="ddpm").resolved(DDPM).sampler == "ddpm"
    with pytest.raises(ValueError, match="sampler is 'ddim'.*formulation is edm; use heun"):
        settings(sampler="ddim").resolved(EDM)
    with pytest.raises(ValueError, match="sampler is 'heun'.*formulation is ddpm; use ddim or dpm-solver"):
        settings(sampler="heun").resolved(DDPM)


def test_the_spacing_is_the_samplers():
    assert settings().resolved(DDPM).spacing == settings().resolved(EDM).spacing == "even"
    assert settings(sampler="ddpm").resolved(DDPM).spacing == "even"
    solver = settings(sampler="dpm-solver++").resolved(DDPM)
    assert solver.spacing == "linspace" and levels(solver, "ddpm") == [(999,), (749,), (500,), (250,)]
    assert settings(sampler="dpm-solver++", spacing="even").resolved(DDPM).spacing == "even"


@pytest.mark.parametrize(
    ("name", "value"), [("eta", 0.5), ("spacing", "leading"), ("guidance_schedule", "power-cosine")]
)
def test_what_an_edm_sampler_has_not_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value!r}.*EDM model.*leave it out"):
        settings(**{name: value}).resolved(EDM)


def test_an_interval_of_timesteps_is_none_of_sigmas():
    with pytest.raises(ValueError, match=r"\(100, 900\).*sigmas from 0.002 to 80.*not timesteps"):
        settings(guidance_interval=(100, 900)).resolved(EDM)
    assert settings(guidance_interval=(0.1, 900)).resolved(EDM)


@pytest.mark.parametrize(
    "fields",
    [{"guidance_scale": v} for v in (float("nan"), float("inf"), -1, "a", True)]
    + [{"guidance_interval": v} for v in (5, (1,), (3, 1), (float("nan"), 1), (0, float("inf")), (-1, 5))],
    ids=str,
)
def test_guidance_is_checked_at_birth(fields):
    with pytest.raises(ValueError, match=f"{next(iter(fields))} is "):
        settings(**fields)


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("backbone", ["dit", "diffit"])
@pytest.mark.parametrize("channels", [3, 4])
def test_power_cosine_is_for_what_diffits_authors_draw_with_it(backbone, channels, size):
    config = ModelConfig(
        hidden_size=32, depth=1, num_heads=2, backbone=backbone, in_channels=channels, input_size=size
    )
    expected = "power-cosine" if (backbone, channels, size) == ("diffit", 4, 32) else "constant"
    assert usual_schedule(config) == settings().resolved(config).guidance_schedule == expected
    assert settings(guidance_schedule="constant").resolved(config).guidance_schedule == "constant"
    chosen = settings(guidance_schedule="power-cosine").resolved(config)
    assert chosen.guidance_schedule == "power-cosine"


def test_the_schedule_reaches_the_pictures_and_the_price(random_model):
    """Power-cosine is 1 at t = 999: one pass there, two below."""
    model = random_model(in_channels=3)
    constant = settings(guidance_scale=3.0, guidance_schedule="constant")
    growing = settings(guidance_scale=3.0, guidance_schedule="power-cosine")
    assert (cost(model, constant).passes, cost(model, growing).passes) == (8, 7)
    pipeline = Pipeline(model)
    assert (pipeline.generate(constant).x0 != pipeline.generate(growing).x0).any()


def test_an_unknown_schedule_or_sampler_is_refused():
    with pytest.raises(ValueError, match="guidance_schedule is 'linear'; choose one of auto, constant"):
        settings(guidance_schedule="linear")
    with pytest.raises(ValueError, match="sampler is 'dopri5'; choose one of auto, ddim.*heun, euler, sde"):
        settings(sampler="dopri5")


def test_levels_of_ddpm_are_timesteps_and_of_edm_pairs_of_sigmas():
    assert levels(settings().resolved(DDPM), "ddpm") == [(999,), (666,), (333,), (0,)]
    sigmas = edm.sigmas(4).tolist()
    assert levels(settings().resolved(EDM), "edm") == [*zip(sigmas, sigmas[1:], strict=False), (sigmas[-1],)]
    assert level_name("ddpm", 999.0) == "t = 999"
    assert level_name("edm", 80.0) == "σ = 80"


def test_an_edm_model_draws_and_every_call_is_counted(random_model):
    """Four steps, seven calls; guided, two passes each, but one outside the interval."""
    model = random_model(formulation="edm", learn_sigma=False)
    pipeline, calls = Pipeline(model), []
    model.register_forward_hook(lambda model, inputs, output: calls.append(len(inputs[0])))
    for wish, expected in (
        ({}, [1] * 7),
        ({"guidance_scale": 2.0}, [2] * 7),
        ({"guidance_scale": 2.0, "guidance_interval": (0.1, 10.0)}, None),
    ):
        calls.clear()
        frames = list(pipeline.stream(settings(**wish)))
        spent = sum(calls)
        assert cost(pipeline.model, settings(**wish)).passes == spent
        assert frames[-1].macs == spent * dit.macs(pipeline.model.config) and frames[-1].done
        assert [frame.level for frame in frames] == ["σ = 80", "σ = 9.72", "σ = 0.47", "σ = 0.002"]
        if expected:
            assert calls == expected
        else:
            assert sorted(set(calls)) == [1, 2]


def test_an_edm_picture_starts_from_noise_of_deviation_80(random_model):
    """x_T is standard normal for all models: the sampler scales it."""
    model = random_model(formulation="edm", learn_sigma=False, class_dropout_prob=0.0)
    seen = []
    model.register_forward_pre_hook(lambda model, inputs: seen.append(inputs[0].clone()))
    Pipeline(model).generate(settings(steps=1), x_T=torch.ones(1, 3, 8, 8))
    expected = 80 / (80**2 + 0.25) ** 0.5  # c_in of the first level
    torch.testing.assert_close(seen[0], torch.full((1, 3, 8, 8), expected))
