"""What a step minimises, by the model's formulation; and every backbone through the whole trainer."""

from dataclasses import replace

import pytest
import torch

import dit
from dit import edm, flow
from dit.diffusion import min_snr_weight, training_losses
from dit.layers import drops_no_labels
from train.augment import Warps, augment
from train.batch import Batch
from train.checkpoint import checkpoints
from train.config import TrainConfig
from train.hardware import select
from train.loop import train
from train.objective import draw_labels, draw_levels, losses
from train.pictures import DataInfo
from train.recipes import RECIPES

CPU = select("cpu", "fp32")
TINY = TrainConfig(
    model="DiT-N/8",
    image_size=16,
    num_pictures=64,
    batch_size=8,
    total_steps=4,
    lr=1e-3,
    log_every=2,
    sample_every=4,
    checkpoint_every=2,
    tracker="none",
    micro_batch=8,
)
MODELS = (
    "DiT-N/8-adaln",
    "DiT-N/8-cross-attention",
    "DiT-N/8-in-context",
    "DiffiT-N/8",
    "DiffiT-C-32",
    "UNet-C",
)


@pytest.fixture(autouse=True)
def small_grids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.grid.COLUMNS", 1)
    monkeypatch.setattr("train.grid.CALLS", 2)


def perturbed(name: str, **fields: object) -> dit.Backbone:
    torch.manual_seed(0)
    model = dit.build(name, input_size=16, in_channels=3, num_classes=10, class_dropout_prob=0.0, **fields)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.02 * torch.randn(parameter.shape))
    return model.eval()


FLOW = replace(TINY, formulation="flow")


def batch_of(config: TrainConfig, model: dit.Backbone, seed: int = 3) -> Batch:
    """Eight pictures, and what else decides a step."""
    config = replace(config, class_dropout_prob=model.config.class_dropout_prob)
    generator = torch.Generator().manual_seed(seed)
    x0, labels = torch.rand(8, 3, 16, 16, generator=generator) * 2 - 1, None
    if config.augment:
        x0, labels = augment(x0, Warps.draw(8, config.augment, generator))
    return Batch(
        x0,
        draw_labels(config, model.config, torch.arange(8), torch.rand(8, generator=generator)),
        draw_levels(config, model.config, 8, generator),
        torch.randn(8, 3, 16, 16, generator=generator),
        labels,
    )


def test_a_ddpm_model_learns_at_timesteps():
    model = perturbed("DiT-N/8")
    batch = batch_of(TINY, model)
    found = losses(TINY, model, batch)
    expected = training_losses(model, batch.x0, batch.t, batch.y, batch.noise)
    assert found.keys() == {"mse", "vb", "loss"} and batch.t.dtype == torch.int64
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("probability", [0.0, 0.5])
def test_an_edm_model_learns_at_sigmas_and_hears_of_its_augmentation(probability):
    model, config = perturbed("DiffiT-C-32"), replace(TINY, model="DiffiT-C-32", augment=probability)
    batch = batch_of(config, model)
    found = losses(config, model, batch)
    expected = edm.training_losses(model, batch.x0, batch.t, batch.y, batch.noise, augment=batch.augment)
    torch.testing.assert_close(found, expected)
    assert batch.t.dtype == torch.float32 and (batch.t > 0).all()
    if probability:
        unheard = edm.training_losses(model, batch.x0, batch.t, batch.y, batch.noise)
        assert (found["loss"] - unheard["loss"]).abs().max() > 1e-4


def test_a_flow_model_learns_at_times():
    model = perturbed("DiT-N/8", formulation="flow", prediction="velocity", learn_sigma=False)
    batch = batch_of(FLOW, model)
    found = losses(FLOW, model, batch)
    expected = flow.training_losses(model, batch.x0, batch.t, batch.y, batch.noise)
    assert found.keys() == {"mse", "loss"} and batch.t.dtype == torch.float32
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("formulation", ["auto", "flow"])
def test_min_snr_is_what_the_config_asks_for(formulation):
    config = replace(TINY, formulation=formulation, loss_weighting="min-snr")
    torch.manual_seed(0)
    model = dit.build(config.network(DataInfo("x", ("a",) * 10, 3, 16)))
    batch = batch_of(config, model)
    if formulation == "auto":
        batch = replace(batch, t=torch.arange(8) * 100)
    found = losses(config, model, batch)
    plain = losses(replace(config, loss_weighting="uniform"), model, batch)
    weight = (
        flow.min_snr_weight(batch.t, 5.0)
        if formulation == "flow"
        else min_snr_weight(batch.t, "epsilon", 5.0)
    )
    torch.testing.assert_close(found["loss"], weight * found["mse"] + found.get("vb", 0))
    torch.testing.assert_close(found["mse"], plain["mse"])
    assert (found["loss"] < plain["loss"]).any()


@pytest.mark.parametrize("name", ["DiT-N/8", "DiffiT-C-32", "UNet-C", "flow"])
def test_the_loss_is_a_function_of_weights_and_batch(name):
    """In training mode, with label dropout of the model off: nothing is drawn."""
    config = FLOW if name == "flow" else replace(TINY, model=name)
    torch.manual_seed(0)
    model = dit.build(replace(config, class_dropout_prob=0.5).network(DataInfo("x", ("a",) * 10, 3, 16)))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.02 * torch.randn(parameter.shape))
    batch = replace(batch_of(config, model), y=torch.arange(8))
    drops_no_labels(model.train())
    assert model.training
    state = torch.get_rng_state()
    one, two = (losses(config, model, batch)["loss"] for _ in range(2))
    assert torch.equal(one, two) and torch.equal(torch.get_rng_state(), state)
    model.train()  # all of it again
    assert not torch.equal(losses(config, model, batch)["loss"], one)


def test_labels_are_dropped_as_often_as_asked():
    network = TINY.network()
    y = torch.arange(10).repeat(2000)
    dice = torch.rand(len(y), generator=torch.Generator().manual_seed(0))
    dropped = draw_labels(replace(TINY, class_dropout_prob=0.3), network, y, dice)
    is_null = dropped == network.num_classes
    assert is_null.float().mean() == pytest.approx(0.3, abs=0.01)
    assert torch.equal(dropped[~is_null], y[~is_null])
    assert torch.equal(draw_labels(replace(TINY, class_dropout_prob=0.0), network, y, dice), y)
    unconditional = replace(TINY, class_conditional=False)
    assert draw_labels(unconditional, unconditional.network(), y, dice) is None


@pytest.mark.parametrize(
    "config",
    [TINY, replace(TINY, timesteps="logit-normal"), FLOW, replace(FLOW, timesteps="logit-normal")]
    + [replace(TINY, model="DiffiT-C-32")],
    ids=lambda config: f"{config.model}, {config.formulation}, {config.timesteps}",
)
def test_levels_depend_on_their_generator_alone(config):
    network = config.network()

    def drawn(seed: int) -> torch.Tensor:
        return draw_levels(config, network, 1000, torch.Generator().manual_seed(seed))

    first, state = drawn(7), torch.get_rng_state()
    assert first.shape == (1000,) and first.device.type == "cpu"
    assert torch.equal(drawn(7), first) and not torch.equal(drawn(8), first)
    assert torch.equal(torch.get_rng_state(), state)


def test_logit_normal_levels_lie_in_the_middle():
    of_ddpm, of_flow = (
        draw_levels(
            replace(config, timesteps="logit-normal"),
            config.network(),
            100_000,
            torch.Generator().manual_seed(0),
        )
        for config in (TINY, FLOW)
    )
    expected = 0.25 * 0.332 + 0.75 * 0.5  # sigmoid(-0.7) = 0.332 is the median of the others
    assert (of_ddpm < 332).float().mean() == pytest.approx(expected, abs=0.01)
    assert (of_flow < 0.5).float().mean() == pytest.approx(0.5, abs=0.01)
    assert (of_flow.logit() < 1).float().mean() == pytest.approx(0.8413, abs=0.01)


@pytest.mark.parametrize("name", MODELS)
def test_every_backbone_trains_resumes_and_draws(name, tmp_path):
    """Interrupted after half of its steps, it ends with the weights of an uninterrupted run."""
    config = replace(TINY, model=name, augment=0.1 if name == "DiffiT-C-32" else 0.0)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    weights = dit.load(train(config, whole, CPU))
    train(replace(config, total_steps=2), parts, CPU)
    assert len(checkpoints(parts)) == 1
    resumed = dit.load(train(config, parts, CPU))
    for key, value in weights.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key
    assert weights.config == config.network()
    assert weights.provenance["classes"][0] == "sphere"
    assert (whole / "samples" / "step_00000004.png").is_file()
    frame = dit.Pipeline(weights).generate(
        dit.SampleSettings(classes=[1], seeds=[0], steps=2, guidance_scale=2)
    )
    assert frame.done and frame.x0.shape == (1, 16, 16, 3)


def test_a_model_can_be_unconditional(tmp_path):
    config = replace(TINY, model="DiffiT-C-32", class_conditional=False, total_steps=2, sample_every=2)
    model = dit.load(train(config, tmp_path, CPU))
    assert model.config.num_classes == 0 and model.provenance["classes"] == []
    assert (tmp_path / "samples" / "step_00000002.png").is_file()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model": "DiffiT-FFHQ-64", "image_size": 64}, "FFHQ has no class labels.*use 0"),
        ({"model": "DiffiT-C-32", "prediction": "v"}, "prediction is 'v'.*EDM.*solids-edm.*epsilon"),
        ({"model": "DiffiT-C-32", "timesteps": "logit-normal"}, "timesteps is 'logit-normal'.*uniform"),
        ({"augment": 0.1}, "augment is 0.1, but DiT-N/8 has no augmentation labels.*use 0"),
        ({"model": "DiffiT-C-32", "augment": 1.0}, "augment is 1.0.*below 1"),
        ({"model": "DiffiT-C-32", "image_size": 24}, "side 6, no multiple of window_size 4"),
        ({"model": "UNet-C", "image_size": 12}, "input_size 12 is not a multiple of 8"),
        ({"model": "DiT-N/8-adaLN"}, "did you mean DiT-N/8-adaln"),
        ({"depth": -1}, "depth is -1"),
        ({"formulation": "flow", "prediction": "v"}, "prediction is 'v'.*velocities.*to epsilon"),
        ({"formulation": "flow", "model": "DiffiT-C-32"}, "formulation is 'flow'.*EDM model.*auto"),
        ({"qk_norm": True, "model": "UNet-C"}, "qk_norm is True, but backbone unet.*leave it out"),
    ],
    ids=str,
)
def test_runs_that_cannot_be_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        replace(TINY, **fields)


def test_a_depth_can_be_asked_for():
    assert replace(TINY, depth=3).network().depth == 3 and TINY.network().depth == 4


def test_a_flow_recipe_makes_a_flow_model():
    network = RECIPES["solids-flow"].network()
    assert (network.formulation, network.prediction, network.learn_sigma) == ("flow", "velocity", False)
    assert replace(TINY, qk_norm=True).network().qk_norm and not TINY.network().qk_norm
