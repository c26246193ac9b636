"""Recipes: checked when made, and the learning rate that they describe."""

import dataclasses

import pytest

from dit.presets import MODELS
from train.config import RESUMABLE, TrainConfig
from train.recipes import RECIPES


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model": "DiT-Q/3"}, "no model is called 'DiT-Q/3'.*DiffiT-"),
        ({"prediction": "x0"}, "prediction is 'x0'.*epsilon, v"),
        ({"timesteps": "cosine"}, "timesteps is 'cosine'.*uniform, logit-normal"),
        ({"precision": "fp8"}, "precision is 'fp8'.*auto, fp32, bf16"),
        ({"total_steps": 0}, "total_steps is 0.*at least 1"),
        ({"batch_size": 0}, "batch_size is 0.*at least 1"),
        ({"log_every": 0}, "log_every is 0.*at least 1"),
        ({"sample_every": 0}, "sample_every is 0.*at least 1"),
        ({"checkpoint_every": 0}, "checkpoint_every is 0.*at least 1"),
        ({"keep_checkpoints": 0}, "keep_checkpoints is 0.*at least 1"),
        ({"num_pictures": -1}, "num_pictures is -1.*at least 0"),
        ({"micro_batch": -1}, "micro_batch is -1.*at least 0"),
        ({"num_workers": -2}, "num_workers is -2.*at least -1"),
        ({"max_skipped": 0}, "max_skipped is 0.*at least 1"),
        ({"extra_ema_decays": (0.9, 1.0)}, "extra_ema_decays is 1.0.*below 1"),
        ({"parallel": "tp"}, "parallel is 'tp'.*ddp, fsdp"),
        ({"image_size": 2048}, "image_size is 2048.*at most 1024"),
        ({"image_size": 4}, "image_size is 4.*at least 8"),
        ({"image_size": 30}, "input_size 30 is not a multiple of patch_size 4"),
        ({"seed": -1}, "seed is -1.*at least 0"),
        ({"lr_warmup_steps": -1}, "lr_warmup_steps is -1"),
        ({"lr_decay_steps": -1}, "lr_decay_steps is -1"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1"),
        ({"weight_decay": float("nan")}, "weight_decay is nan"),
        ({"grad_clip": -1.0}, "grad_clip is -1.0"),
        ({"lr": 0.0}, "lr is 0.0.*positive"),
        ({"lr": -1e-4}, "lr is -0.0001.*positive"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"lr": float("inf")}, "lr is inf"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0.*below 1"),
        ({"ema_decay": -0.1}, "ema_decay is -0.1"),
        ({"beta2": 1.0}, "beta2 is 1.0.*below 1"),
        ({"class_dropout_prob": 1.0}, "class_dropout_prob is 1.0.*below 1"),
        ({"depth": -1}, "depth is -1.*at least 0"),
        ({"model": "DiffiT-FFHQ-64", "image_size": 64}, "num_classes is 10.*no class labels.*use 0"),
        ({"model": "DiffiT-CIFAR-32", "prediction": "v"}, "prediction is 'v'.*EDM.*solids-edm.*epsilon"),
        (
            {"model": "DiffiT-CIFAR-32", "timesteps": "logit-normal"},
            "'logit-normal'.*EDM.*solids-edm.*uniform",
        ),
        ({"model": "UNet-S", "image_size": 36}, "input_size 36 is not a multiple of 8"),
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_and_named(fields, said):
    with pytest.raises(ValueError, match=said):
        TrainConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"total_steps": 2.5}, "total_steps is 2.5.*type int"),
        ({"total_steps": True}, "total_steps is True.*type int"),
        ({"lr": "fast"}, "lr is 'fast'.*type float"),
        ({"flip": 1}, "flip is 1.*type bool"),
        ({"model": 3}, "model is 3.*type str"),
    ],
    ids=str,
)
def test_a_value_of_another_type_is_refused_and_named(fields, said):
    with pytest.raises(TypeError, match=said):
        TrainConfig(**fields)


def test_a_whole_number_does_for_a_real_one():
    assert TrainConfig(grad_clip=1).grad_clip == 1


def test_the_defaults_are_the_papers():
    config = TrainConfig()
    assert (config.lr, config.batch_size, config.total_steps, config.beta2) == (1e-4, 256, 400_000, 0.999)
    assert (config.weight_decay, config.grad_clip, config.lr_warmup_steps, config.lr_decay_steps) == (
        0,
        0,
        0,
        0,
    )
    assert (config.ema_decay, config.class_dropout_prob, config.prediction) == (0.9999, 0.1, "epsilon")
    assert config.flip
    assert {config.lr_at(step) for step in (0, 1, 200_000, 399_999)} == {1e-4}


def test_the_learning_rate_rises_stays_and_falls():
    config = TrainConfig(total_steps=100, lr=2.0, lr_warmup_steps=10, lr_decay_steps=20)
    rates = [config.lr_at(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10:81] == [2.0] * 71
    assert rates[80:] == pytest.approx([0.1 * left for left in range(20, 0, -1)])
    assert min(rates) > 0  # no step is wasted


def test_the_learning_rate_of_runs_shorter_than_their_ramps():
    config = TrainConfig(total_steps=8, lr=1.0, lr_warmup_steps=10, lr_decay_steps=16)
    assert [config.lr_at(step) for step in range(8)] == pytest.approx(
        [0.1, 0.2, 0.3, 0.3125, 0.25, 0.1875, 0.125, 0.0625]
    )
    assert TrainConfig(total_steps=1, lr=1.0, lr_warmup_steps=1, lr_decay_steps=1).lr_at(0) == 1.0


def test_what_makes_a_run_the_run_that_it_is_cannot_change_on_resume():
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    assert RESUMABLE < fields
    deciding = {
        "model",
        "depth",
        "class_conditional",
        "prediction",
        "data",
        "image_size",
        "num_pictures",
        "flip",
        "batch_size",
        "lr",
        "seed",
        "augment",
        "formulation",
        "qk_norm",
        "split",
        "streaming",
        "channels",
        "overfit",
        "extra_ema_decays",
    }
    deciding |= {"lr_warmup_steps", "beta2", "weight_decay", "grad_clip", "class_dropout_prob", "ema_decay"}
    assert fields - RESUMABLE == deciding | {"precision"}


def test_every_field_is_explained_with_its_unit():
    """The explanations are the help text of `python -m train`."""
    import inspect

    source = inspect.getsource(TrainConfig)
    for field in dataclasses.fields(TrainConfig):
        assert f"    {field.name}: " in source
        explanation = source.split(f"    {field.name}: ", 1)[1].split("\n")[1].strip()
        assert explanation.startswith('"""') and explanation.endswith('"""'), field.name


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_complete(name):
    recipe = RECIPES[name]
    assert recipe.model in MODELS
    assert recipe.checkpoint_every <= recipe.total_steps


@pytest.mark.parametrize("total", [1, 7, 30, 99, 120, 1000])
@pytest.mark.parametrize(("rise", "fall"), [(0, 0), (1, 1), (20, 0), (0, 50), (20, 100), (200, 5000)])
def test_the_highest_rate_is_that_of_some_step(total, rise, fall):
    config = TrainConfig(total_steps=total, lr_warmup_steps=rise, lr_decay_steps=fall, lr=1.0)
    assert config.highest_lr() == max(config.lr_at(step) for step in range(total))
