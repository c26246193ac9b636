"""Configs: checked when made, the same after a trip through JSON, and the paper's sizes."""

import dataclasses
import json

import pytest

import dit
from dit.config import ModelConfig
from dit.presets import MODELS, preset

VALID = {"hidden_size": 48, "depth": 2, "num_heads": 3}

WRONG_VALUES = [
    ({"hidden_size": 0}, ["hidden_size", "0", "at least 1"]),
    ({"hidden_size": -48}, ["hidden_size", "-48", "at least 1"]),
    ({"depth": 0}, ["depth", "0", "at least 1"]),
    ({"num_heads": 0}, ["num_heads", "0", "at least 1"]),
    ({"patch_size": 0}, ["patch_size", "0", "at least 1"]),
    ({"input_size": 0}, ["input_size", "0", "at least 1"]),
    ({"in_channels": 0}, ["in_channels", "0", "at least 1"]),
    ({"num_classes": -1}, ["num_classes", "-1", "at least 0"]),
    ({"num_heads": 5}, ["hidden_size 48", "num_heads 5", "multiple"]),
    ({"hidden_size": 54}, ["hidden_size 54", "multiple of 4"]),
    ({"input_size": 33}, ["input_size 33", "patch_size 2", "multiple"]),
    ({"class_dropout_prob": -0.1}, ["class_dropout_prob", "-0.1", "below 1"]),
    ({"class_dropout_prob": 1.0}, ["class_dropout_prob", "1.0", "below 1"]),
    ({"class_dropout_prob": float("nan")}, ["class_dropout_prob", "nan"]),
    ({"mlp_ratio": 0}, ["mlp_ratio", "0", "positive"]),
    ({"mlp_ratio": -4.0}, ["mlp_ratio", "-4.0", "positive"]),
    ({"mlp_ratio": float("nan")}, ["mlp_ratio", "nan"]),
    ({"backbone": "unet"}, ["backbone", "'unet'", "dit"]),
    ({"conditioning": "cross"}, ["conditioning", "'cross'", "adaln-zero"]),
    ({"prediction": "x0"}, ["prediction", "'x0'", "epsilon, v"]),
    ({"frequency_shift": 2}, ["frequency_shift", "2", "0, 1"]),
    ({"frequency_shift": -1}, ["frequency_shift", "-1", "0, 1"]),
    ({"mlp_norm_eps": 0}, ["mlp_norm_eps", "0", "positive"]),
    ({"mlp_norm_eps": -1e-6}, ["mlp_norm_eps", "-1e-06", "positive"]),
    ({"mlp_norm_eps": float("inf")}, ["mlp_norm_eps", "inf", "finite"]),
    ({"mlp_norm_eps": float("nan")}, ["mlp_norm_eps", "nan"]),
    ({"block_embedders": "yes"}, ["block_embedders", "'yes'", "False, True"]),
    ({"block_embedders": None}, ["block_embedders", "None", "False, True"]),
]


@pytest.mark.parametrize(("fields", "said"), WRONG_VALUES, ids=lambda value: str(value)[:50])
def test_a_wrong_value_is_refused_and_named(fields, said):
    with pytest.raises(ValueError) as error:
        ModelConfig(**(VALID | fields))
    for part in said:
        assert part in str(error.value)


@pytest.mark.parametrize("value", [48.0, "48", True, None])
@pytest.mark.parametrize(
    "name", ["hidden_size", "depth", "num_heads", "patch_size", "in_channels", "num_classes"]
)
def test_a_count_that_is_no_whole_number_is_refused(name, value):
    with pytest.raises(TypeError, match=f"{name} must be a whole number, not {value!r}"):
        ModelConfig(**(VALID | {name: value}))


def test_the_smallest_values_are_allowed():
    ModelConfig(hidden_size=4, depth=1, num_heads=1, patch_size=1, input_size=1, in_channels=1, num_classes=0)
    ModelConfig(**VALID, class_dropout_prob=0.0)


def test_it_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelConfig(**VALID).depth = 3


@pytest.mark.parametrize("name", MODELS)
def test_it_survives_json(name):
    fields = {"num_classes": 3, "prediction": "v", "learn_sigma": False, "mlp_ratio": 2.5}
    of_diffusers = {"frequency_shift": 1, "mlp_norm_eps": 1e-5, "block_embedders": True}
    config = preset(name, **fields, **of_diffusers)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert set(config.to_dict()) == {field.name for field in dataclasses.fields(ModelConfig)}


def test_an_unknown_field_is_named_and_the_known_ones_are_listed():
    with pytest.raises(ValueError, match=r"\['depht', 'width'\].*hidden_size"):
        ModelConfig.from_dict(VALID | {"width": 3, "depht": 4})


def test_a_config_from_before_a_field_means_the_authors_model():
    """Files of earlier versions do not name where diffusers computes otherwise."""
    values = ModelConfig(**VALID).to_dict()
    for name in ("frequency_shift", "mlp_norm_eps", "block_embedders"):
        del values[name]
    config = ModelConfig.from_dict(values)
    assert (config.frequency_shift, config.mlp_norm_eps, config.block_embedders) == (0, 1e-6, False)


def test_from_dict_checks_values_too():
    with pytest.raises(ValueError, match="depth is 0"):
        ModelConfig.from_dict(VALID | {"depth": 0})


# Table 1 and Table 4 of the paper: size -> depth, width, heads; patch -> tokens of a 32 x 32 latent.
PAPER = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}
TOKENS = {8: 16, 4: 64, 2: 256}


@pytest.mark.parametrize("patch", TOKENS)
@pytest.mark.parametrize("size", PAPER)
def test_the_presets_are_the_papers(size, patch):
    config = MODELS[f"DiT-{size}/{patch}"]
    assert (config.depth, config.hidden_size, config.num_heads) == PAPER[size]
    assert (config.patch_size, config.tokens) == (patch, TOKENS[patch])
    assert (config.input_size, config.in_channels, config.mlp_ratio) == (32, 4, 4.0)
    assert (config.num_classes, config.class_dropout_prob) == (1000, 0.1)
    assert config.learn_sigma and config.out_channels == 8
    assert config.prediction == "epsilon"
    assert (config.frequency_shift, config.mlp_norm_eps, config.block_embedders) == (0, 1e-6, False)


def test_preset_replaces_fields_and_checks_them():
    assert preset("DiT-N/8", input_size=64).tokens == 64
    with pytest.raises(ValueError, match="input_size 30 is not a multiple of patch_size 8"):
        preset("DiT-N/8", input_size=30)


@pytest.mark.parametrize("make", [preset, dit.build])
def test_an_unknown_preset_lists_the_known_ones(make):
    with pytest.raises(ValueError, match=r"'DiT-XXL/2'.*DiT-XL/2.*DiT-N/8"):
        make("DiT-XXL/2")


@pytest.mark.parametrize(
    ("classes", "dropout", "has"), [(10, 0.1, True), (10, 0.0, False), (0, 0.1, False), (0, 0.0, False)]
)
def test_a_null_class_needs_classes_and_dropout(classes, dropout, has):
    assert ModelConfig(**VALID, num_classes=classes, class_dropout_prob=dropout).has_null_class is has


def test_out_channels_without_learned_variance():
    assert ModelConfig(**VALID, in_channels=3, learn_sigma=False).out_channels == 3
