"""The table of named models: the papers' sizes, and what is said of names and fields that do not fit."""

import pytest

import dit
from dit.config import CONDITIONINGS
from dit.presets import MODELS, PATCHES, SIZES, preset

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
    with pytest.raises(ValueError) as error:
        make("DiT-XXL/2")
    said = str(error.value)
    assert "'DiT-XXL/2'" in said and "DiT-XL/2" in said.split("there are")[0]  # what was meant
    for part in (
        "DiT-{XL,L,B,S,M,T,C,N,P,F,E}/{2,4,8}",
        "-in-context",
        "DiffiT-{XL",
        "DiffiT-CIFAR-32",
        "UNet-S",
    ):
        assert part in said


def test_a_name_like_no_other_gets_no_guess():
    with pytest.raises(ValueError, match="no model is called 'zzz'; there are DiT"):
        preset("zzz")


def test_all_sizes_patches_and_designs_have_a_name():
    grid = {f"{size}/{patch}" for size in SIZES for patch in PATCHES}
    designs = ("", "-adaln", "-cross-attention", "-in-context")
    names = {f"DiT-{cell}{design}" for cell in grid for design in designs} | {
        f"DiffiT-{cell}" for cell in grid
    }
    assert set(MODELS) == names | {
        "DiffiT-CIFAR-32",
        "DiffiT-FFHQ-64",
        "DiffiT-C-32",
        "UNet-C",
        "UNet-S",
        "UNet-B",
    }


@pytest.mark.parametrize("conditioning", CONDITIONINGS[1:])
@pytest.mark.parametrize("cell", ["XL/2", "N/8"])
def test_a_design_differs_in_conditioning_alone(cell, conditioning):
    assert MODELS[f"DiT-{cell}-{conditioning}"] == preset(f"DiT-{cell}", conditioning=conditioning)


@pytest.mark.parametrize("cell", ["XL/2", "B/4", "N/8"])
def test_latent_diffit_has_dits_sizes(cell):
    assert MODELS[f"DiffiT-{cell}"] == preset(f"DiT-{cell}", backbone="diffit")


@pytest.mark.parametrize(
    ("name", "stages", "window", "dropout"),
    [
        ("DiffiT-CIFAR-32", ((256, 32), (256, 16), (256, 8)), 4, 0.13),
        ("DiffiT-FFHQ-64", ((128, 64), (256, 32), (256, 16), (256, 8)), 8, 0.05),  # tables S.2 and S.3
    ],
)
def test_diffit_on_pixels_is_the_papers(name, stages, window, dropout):
    config = MODELS[name]
    assert (config.stages, config.window_size, config.dropout, config.depth) == (stages, window, dropout, 4)
    assert (config.backbone, config.formulation, config.augment_dim) == ("diffit-image", "edm", 9)
    assert (config.in_channels, config.out_channels, config.num_classes, config.head_size) == (3, 3, 0, 64)


def test_ffhq_has_no_labels():
    with pytest.raises(
        ValueError, match="num_classes is 10, but FFHQ has no class labels.*use 0 .*or DiffiT-CI"
    ):
        preset("DiffiT-FFHQ-64", num_classes=10)
    assert preset("DiffiT-CIFAR-32", num_classes=10).num_classes == 10
    assert preset("DiffiT-FFHQ-64", dropout=0.2).num_classes == 0


def test_a_name_in_small_letters_finds_its_model():
    with pytest.raises(ValueError, match="did you mean DiffiT-FFHQ-64"):
        preset("diffit-ffhq-64")


@pytest.mark.parametrize("config", ["DiT-N/8", MODELS["DiT-N/8"]], ids=["name", "config"])
def test_an_unknown_field_lists_the_known_ones(config):
    with pytest.raises(ValueError, match=r"unknown config fields \['heads'\]; .*'num_heads'"):
        dit.build(config, heads=5)
    assert dit.build(config, num_heads=4).config.num_heads == 4
