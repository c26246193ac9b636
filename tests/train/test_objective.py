"""What a step minimises, by the model's formulation; and every backbone through the whole trainer."""

from dataclasses import replace

import pytest
import torch

import dit
from dit import edm
from dit.diffusion import training_losses
from train.augment import augment
from train.checkpoint import checkpoints
from train.config import TrainConfig
from train.hardware import select
from train.loop import train
from train.objective import draw_timesteps, losses

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
    monkeypatch.setattr("train.record.GRID_COLUMNS", 1)
    monkeypatch.setattr("train.record.GRID_CALLS", 2)


def perturbed(name: str, **fields: object) -> dit.Backbone:
    torch.manual_seed(0)
    model = dit.build(name, input_size=16, in_channels=3, num_classes=10, class_dropout_prob=0.0, **fields)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.02 * torch.randn(parameter.shape))
    return model.eval()


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(8, 3, 16, 16) * 2 - 1, torch.arange(8)


def test_a_ddpm_model_learns_at_timesteps(batch):
    model = perturbed("DiT-N/8")
    torch.manual_seed(5)
    found = losses(TINY, model, *batch)
    torch.manual_seed(5)
    t = draw_timesteps("uniform", 8)
    expected = training_losses(model, batch[0], t, batch[1])
    assert found.keys() == {"mse", "vb", "loss"}
    torch.testing.assert_close(found["loss"], expected["loss"])


@pytest.mark.parametrize("probability", [0.0, 0.5])
def test_an_edm_model_learns_at_sigmas_and_hears_of_its_augmentation(probability, batch):
    model = perturbed("DiffiT-C-32")
    torch.manual_seed(5)
    found = losses(replace(TINY, model="DiffiT-C-32", augment=probability), model, *batch)
    torch.manual_seed(5)
    x0, labels = augment(batch[0], probability) if probability else (batch[0], None)
    sigma = edm.draw_sigmas(8)
    noise = torch.randn_like(x0)
    expected = edm.training_losses(model, x0, sigma, batch[1], noise, augment=labels)
    torch.testing.assert_close(found["loss"], expected["loss"])
    if probability:
        unheard = edm.training_losses(model, x0, sigma, batch[1], noise)
        assert (found["loss"] - unheard["loss"]).abs().max() > 1e-4


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
    ],
    ids=str,
)
def test_runs_that_cannot_be_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        replace(TINY, **fields)


def test_a_depth_can_be_asked_for():
    assert replace(TINY, depth=3).network().depth == 3 and TINY.network().depth == 4
