"""Configs: checked when made, and the same after a trip through JSON."""

import dataclasses
import json

import pytest

from dit.config import ModelConfig
from dit.presets import MODELS, UNLABELLED, preset
from tests.networks import TINY

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
    ({"backbone": "u-net"}, ["backbone", "'u-net'", "dit, diffit, diffit-image, unet"]),
    ({"formulation": "vp"}, ["formulation", "'vp'", "ddpm, edm, flow"]),
    ({"conditioning": "cross"}, ["conditioning", "'cross'", "adaln-zero"]),
    ({"prediction": "x0"}, ["prediction", "'x0'", "epsilon, v"]),
    ({"frequency_shift": 2}, ["frequency_shift", "2", "0, 1"]),
    ({"frequency_shift": -1}, ["frequency_shift", "-1", "0, 1"]),
    ({"mlp_norm_eps": 0}, ["mlp_norm_eps", "0", "positive"]),
    ({"mlp_norm_eps": -1e-6}, ["mlp_norm_eps", "-1e-06", "positive"]),
    ({"mlp_norm_eps": float("inf")}, ["mlp_norm_eps", "inf", "finite"]),
    ({"mlp_norm_eps": float("nan")}, ["mlp_norm_eps", "nan"]),
    ({"qk_norm": 2}, ["qk_norm", "2", "False, True"]),
    ({"block_embedders": "yes"}, ["block_embedders", "'yes'", "False, True"]),
    ({"block_embedders": None}, ["block_embedders", "None", "False, True"]),
    ({"block_embedders": True, "conditioning": "adaln"}, ["block_embedders", "adaln;", "leave it out"]),
    ({"mlp_norm_eps": 1e-5, "conditioning": "adaln"}, ["mlp_norm_eps is 1e-05", "adaln;", "leave it out"]),
    ({"augment_dim": 3}, ["augment_dim", "3", "0, 9"]),
    ({"window_size": -1}, ["window_size", "-1", "at least 0"]),
    ({"dropout": 1.0}, ["dropout", "1.0", "below 1"]),
    ({"channel_mult": (1, 0)}, ["channel_mult[1]", "0", "at least 1"]),
]
# Fields that only some backbones have: name, value, what is to be chosen instead.
EDM = {"formulation": "edm", "learn_sigma": False}
FLOW = {"formulation": "flow", "prediction": "velocity", "learn_sigma": False}
U_NET = {"backbone": "unet", "hidden_size": 16, "depth": 1, "num_heads": 2, "patch_size": 1}
U_NET |= {"input_size": 16, "channel_mult": (1, 2)}
IMAGE = U_NET | {"backbone": "diffit-image", "window_size": 4}
DIFFIT = VALID | {"backbone": "diffit"}

IMPOSSIBLE = [
    # each backbone has the fields it has
    (DIFFIT | {"conditioning": "in-context"}, ["conditioning is 'in-context'", "diffit", "leave it out"]),
    (U_NET | {"conditioning": "adaln"}, ["conditioning is 'adaln'", "unet", "or choose backbone dit"]),
    (IMAGE | {"conditioning": "cross-attention"}, ["conditioning", "diffit-image", "leave it out"]),
    (DIFFIT | {"block_embedders": True}, ["block_embedders is True", "diffit", "leave it out"]),
    (DIFFIT | {"mlp_norm_eps": 1e-5}, ["mlp_norm_eps is 1e-05", "diffit", "leave it out"]),
    (U_NET | {"mlp_norm_eps": 1e-5}, ["mlp_norm_eps is 1e-05", "unet", "leave it out"]),
    (U_NET | {"qk_norm": True}, ["qk_norm is True", "unet", "dit or diffit or diffit-image"]),
    (U_NET | {"frequency_shift": 1}, ["frequency_shift is 1", "unet", "dit or diffit"]),
    (VALID | {"channel_mult": (1, 2)}, ["channel_mult is (1, 2)", "backbone dit", "diffit-image or unet"]),
    (DIFFIT | {"channel_mult": (1,)}, ["channel_mult is (1,)", "backbone diffit ", "leave it out"]),
    (VALID | {"dropout": 0.1}, ["dropout is 0.1", "backbone dit", "leave it out"]),
    (DIFFIT | {"window_size": 4}, ["window_size is 4", "backbone diffit ", "diffit-image"]),
    (U_NET | {"window_size": 4}, ["window_size is 4", "backbone unet", "diffit-image"]),
    (U_NET | {"augment_dim": 9}, ["augment_dim is 9", "backbone unet", "diffit-image"]),
    # the U
    (U_NET | {"channel_mult": ()}, ["channel_mult is empty", "a number for each stage", "(1, 2, 2)"]),
    (IMAGE | {"channel_mult": ()}, ["channel_mult is empty", "a number for each stage", "(1, 2, 2)"]),
    (U_NET | {"patch_size": 2}, ["patch_size is 2", "unet has no patches", "set it to 1"]),
    (IMAGE | {"patch_size": 4}, ["patch_size is 4", "diffit-image has no patches", "set it to 1"]),
    (
        U_NET | {"input_size": 18, "channel_mult": (1, 1, 1)},
        ["18", "multiple of 4", "3 stages", "change one"],
    ),
    (IMAGE | {"input_size": 20, "channel_mult": (1,) * 4}, ["20", "multiple of 8", "4 stages", "change one"]),
    (U_NET | {"num_heads": 3}, ["hidden_size 16", "num_heads 3", "multiple", "change one"]),
    (U_NET | {"hidden_size": 6, "num_heads": 1, "channel_mult": (1,)}, ["hidden_size 6", "of 4", "choose"]),
    (U_NET | {"hidden_size": 3, "num_heads": 1, "channel_mult": (4,)}, ["hidden_size 3", "of 4", "choose"]),
    # the windows
    (IMAGE | {"window_size": 0}, ["window_size is 0", "side 16", "from 1 to 16", "choose"]),
    (IMAGE | {"window_size": 16}, ["window_size is 16", "side 8", "from 1 to 8", "a smaller window"]),
    (IMAGE | {"window_size": 32}, ["window_size is 32", "side 16", "from 1 to 16", "a smaller window"]),
    (IMAGE | {"window_size": 3}, ["side 16", "no multiple of window_size 3", "choose a window that divides"]),
    (IMAGE | {"input_size": 12}, ["side 6", "no multiple of window_size 4", "choose a window that divides"]),
    (IMAGE | {"hidden_size": 144}, ["hidden_size 144", "144", "multiple of 32", "choose"]),
    # the formulation
    (VALID | {"formulation": "edm"}, ["learn_sigma is True", "edm learns no variance", "set it to False"]),
    (VALID | EDM | {"prediction": "v"}, ["prediction is 'v'", "edm fixes", "leave it out"]),
    (VALID | FLOW | {"learn_sigma": True}, ["learn_sigma is True", "flow learns no", "set it to False"]),
    (VALID | FLOW | {"prediction": "v"}, ["prediction is 'v'", "is flow", "set it to velocity"]),
    (VALID | FLOW | {"prediction": "epsilon"}, ["prediction is 'epsilon'", "is flow", "to velocity"]),
    (VALID | {"prediction": "velocity"}, ["prediction is 'velocity'", "is ddpm", "choose epsilon or v"]),
    (VALID | EDM | {"prediction": "velocity"}, ["prediction is 'velocity'", "edm fixes", "leave it out"]),
    (IMAGE | FLOW | {"augment_dim": 9}, ["augment_dim is 9", "formulation is flow", "only edm"]),
    (IMAGE | {"augment_dim": 9}, ["augment_dim is 9", "formulation is ddpm", "only edm", "use 0"]),
]


@pytest.mark.parametrize(("fields", "said"), WRONG_VALUES, ids=lambda value: str(value)[:50])
def test_a_wrong_value_is_refused_and_named(fields, said):
    with pytest.raises(ValueError) as error:
        ModelConfig(**(VALID | fields))
    for part in said:
        assert part in str(error.value)


@pytest.mark.parametrize(("fields", "said"), IMPOSSIBLE, ids=lambda value: str(value)[-50:])
def test_what_does_not_go_together_is_refused_with_a_remedy(fields, said):
    with pytest.raises(ValueError) as error:
        ModelConfig(**fields)
    for part in said:
        assert part in str(error.value)


@pytest.mark.parametrize(
    "fields", [VALID, DIFFIT, U_NET, IMAGE, IMAGE | EDM | {"augment_dim": 9}, VALID | FLOW], ids=str
)
def test_what_the_impossible_ones_are_made_from_is_possible(fields):
    ModelConfig(**fields)


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


def through_json(config: ModelConfig) -> ModelConfig:
    return ModelConfig.from_dict(json.loads(json.dumps(config.to_dict())))


@pytest.mark.parametrize("name", MODELS)
def test_it_survives_json(name):
    """With as many fields off their defaults as the backbone has."""
    config = MODELS[name]
    fields = {"num_classes": 0 if name in UNLABELLED else 3, "mlp_ratio": 2.5, "class_dropout_prob": 0.25}
    if config.formulation == "ddpm":
        fields |= {"prediction": "v", "learn_sigma": False}
    if config.backbone in ("dit", "diffit"):
        fields |= {"frequency_shift": 1, "qk_norm": True}
    else:
        fields |= {"dropout": 0.3}
    if config.backbone == "dit" and config.conditioning == "adaln-zero":
        fields |= {"mlp_norm_eps": 1e-5, "block_embedders": True}
    config = preset(name, **fields)
    assert through_json(config) == config
    assert set(config.to_dict()) == {field.name for field in dataclasses.fields(ModelConfig)}


@pytest.mark.parametrize("kind", TINY)
def test_stages_are_a_tuple_again(kind):
    config = ModelConfig(hidden_size=32, depth=1, num_heads=2, input_size=8, **TINY[kind])
    again = through_json(config)
    assert again == config and hash(again) == hash(config)
    assert isinstance(again.channel_mult, tuple)
    assert len(again.channel_mult) == (2 if kind in ("diffit-image", "unet") else 0)


def test_an_unknown_field_is_named_and_the_known_ones_are_listed():
    with pytest.raises(ValueError, match=r"\['depht', 'width'\].*hidden_size"):
        ModelConfig.from_dict(VALID | {"width": 3, "depht": 4})


OF_DIFFUSERS = ("frequency_shift", "mlp_norm_eps", "block_embedders")
OF_OTHER_BACKBONES = ("formulation", "qk_norm", "channel_mult", "window_size", "dropout", "augment_dim")


@pytest.mark.parametrize("missing", [OF_DIFFUSERS, OF_OTHER_BACKBONES, OF_DIFFUSERS + OF_OTHER_BACKBONES])
def test_a_config_from_before_a_field_means_the_authors_model(missing):
    """Files of earlier versions know nothing of diffusers' ways, or nothing of other backbones."""
    values = ModelConfig(**VALID).to_dict()
    for name in missing:
        del values[name]
    config = ModelConfig.from_dict(values)
    assert config == ModelConfig(**VALID)
    assert (config.backbone, config.conditioning, config.formulation) == ("dit", "adaln-zero", "ddpm")
    assert (config.frequency_shift, config.mlp_norm_eps, config.block_embedders) == (0, 1e-6, False)
    assert (config.channel_mult, config.window_size, config.augment_dim) == ((), 0, 0)
    assert config.qk_norm is False


def test_from_dict_checks_values_too():
    with pytest.raises(ValueError, match="depth is 0"):
        ModelConfig.from_dict(VALID | {"depth": 0})


@pytest.mark.parametrize(
    ("classes", "dropout", "has"), [(10, 0.1, True), (10, 0.0, False), (0, 0.1, False), (0, 0.0, False)]
)
def test_a_null_class_needs_classes_and_dropout(classes, dropout, has):
    assert ModelConfig(**VALID, num_classes=classes, class_dropout_prob=dropout).has_null_class is has


def test_out_channels_without_learned_variance():
    assert ModelConfig(**VALID, in_channels=3, learn_sigma=False).out_channels == 3


def test_the_stages_of_a_u():
    config = ModelConfig(**(U_NET | {"hidden_size": 24, "num_heads": 3, "channel_mult": [1, 2, 4]}))
    assert config.stages == ((24, 16), (48, 8), (96, 4))
    assert config.head_size == 8 and config.tokens == 256


@pytest.mark.parametrize(
    ("classes", "dropout", "rows"), [(10, 0.1, 11), (10, 0.0, 10), (0, 0.1, 0), (0, 0.0, 0)]
)
def test_the_label_table_has_a_row_for_no_class_if_labels_are_dropped(classes, dropout, rows):
    assert ModelConfig(**VALID, num_classes=classes, class_dropout_prob=dropout).label_rows == rows
