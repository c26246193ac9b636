"""Files of DiffiT's authors, bare state dicts of all designs, and weights given to the wrong network."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import dit
from dit.config import ModelConfig
from dit.diffit import relative_position_index
from dit.export import check_exportable
from dit.presets import preset
from dit.weights import WeightsError, save
from tests.conftest import DATA

KINDS = {
    "DiT-N/8": "dit, adaln-zero",
    "DiT-N/8-adaln": "dit, adaln",
    "DiT-N/8-cross-attention": "dit, cross-attention",
    "DiT-N/8-in-context": "dit, in-context",
    "DiffiT-N/8": "diffit",
    "DiffiT-C-32": "diffit-image",
    "UNet-C": "unet",
}
ISOTROPIC = list(KINDS)[:5]


@pytest.fixture(scope="module")
def official() -> tuple[dict[str, object], dict[str, torch.Tensor]]:
    """The config, and all tensors, of a small model by DiffiT's authors' code, and what it answers."""
    with safe_open(DATA / "diffit.safetensors", framework="pt") as file:
        return json.loads(file.metadata()["config"]), {key: file.get_tensor(key) for key in file.keys()}


def weights_of(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.removeprefix("w."): value for key, value in tensors.items() if key.startswith("w.")}


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_a_file_of_diffits_authors_loads_as_it_is(ending, official, tmp_path):
    fields, tensors = official
    path = tmp_path / f"diffit_256.{ending}"
    save_file(weights_of(tensors), path) if ending == "safetensors" else torch.save(weights_of(tensors), path)
    model = dit.load(path)
    assert model.config == ModelConfig(backbone="diffit", **fields)
    assert not any("index" in name for name in model.state_dict())
    with torch.no_grad():
        answer = model(tensors["in.x"], tensors["in.t"], tensors["in.y"])
    torch.testing.assert_close(answer, tensors["out.forward"], atol=1e-5, rtol=0)


def test_it_loads_without_the_indices_too(official, tmp_path):
    _, tensors = official
    bare = {name: value for name, value in weights_of(tensors).items() if "index" not in name}
    assert len(weights_of(tensors)) - len(bare) == 2
    save_file(bare, tmp_path / "bare.safetensors")
    assert dit.load(tmp_path / "bare.safetensors").config.backbone == "diffit"


def test_other_relative_positions_are_another_architecture(official, tmp_path):
    _, tensors = official
    weights = weights_of(tensors)
    name = "blocks.1.attn.relative_position_index"
    assert torch.equal(weights[name], relative_position_index(4))
    save_file(weights | {name: weights[name].T.contiguous()}, tmp_path / "turned.safetensors")
    with pytest.raises(WeightsError, match=f"16-token grid in {name}, found others"):
        dit.load(tmp_path / "turned.safetensors")


@pytest.mark.parametrize("name", ISOTROPIC)
def test_a_bare_state_dict_tells_its_design(name, tmp_path):
    model = dit.build(name, in_channels=3)
    save_file(model.state_dict(), tmp_path / "bare.safetensors")
    assert dit.load(tmp_path / "bare.safetensors").config == model.config


@pytest.mark.parametrize("name", ["DiffiT-C-32", "UNet-C"])
def test_a_bare_u_shape_needs_its_config(name, tmp_path):
    model, path = dit.build(name), tmp_path / "bare.safetensors"
    save_file(model.state_dict(), path)
    with pytest.raises(WeightsError, match=f"bare tensors of a {KINDS[name]}.*give the config"):
        dit.load(path)
    assert dit.load(path, config=model.config).config == model.config


@pytest.mark.parametrize("name", KINDS)
def test_our_files_hold_every_backbone(name, tmp_path):
    model, path = dit.build(name), tmp_path / "m.safetensors"
    torch.nn.init.normal_(next(model.parameters()))
    save(path, model)
    loaded = dit.load(path)
    assert loaded.config == model.config and not loaded.training
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    trained = {key for key, value in model.named_parameters() if value.requires_grad}
    assert trained == {key for key, value in loaded.named_parameters() if value.requires_grad}


@pytest.mark.parametrize("given", KINDS)
@pytest.mark.parametrize("stored", KINDS)
def test_weights_of_one_network_given_to_another(given, stored, tmp_path):
    """Whether the file says what it is, or its tensors alone do."""
    if given == stored:
        return
    model = dit.build(stored)
    save(tmp_path / "ours.safetensors", model)
    with pytest.raises(WeightsError) as error:
        dit.load(tmp_path / "ours.safetensors", config=preset(given))
    assert f"weights of a {KINDS[given]}, as the config given" in str(error.value)
    assert f"found those of a {KINDS[stored]}; leave the config out" in str(error.value)
    save_file(model.state_dict(), tmp_path / "bare.safetensors")
    with pytest.raises(WeightsError) as error:
        dit.load(tmp_path / "bare.safetensors", config=preset(given))
    assert f"it is of a {KINDS[stored]}, and the config of a {KINDS[given]}" in str(error.value)


@pytest.mark.parametrize("name", list(KINDS)[1:])
def test_diffusers_has_no_place_for_them(name):
    fields = {} if name == "DiffiT-C-32" else {"in_channels": 4}
    with pytest.raises(WeightsError, match=f"it is a {KINDS[name]}, and diffusers' DiT is dit, adaln-zero"):
        check_exportable(preset(name, **fields))


def test_a_config_that_is_not_the_files_is_refused(tmp_path):
    """An EDM model's weights fit a DDPM model of the same sizes, and would draw garbage."""
    model, path = dit.build("UNet-C", formulation="edm", learn_sigma=False), tmp_path / "m.safetensors"
    save(path, model)
    assert dit.load(path, config=model.config).config == model.config
    with pytest.raises(WeightsError, match="formulation 'ddpm', in the file 'edm'; leave the config out"):
        dit.load(path, config=replace(model.config, formulation="ddpm"))


def test_a_dit_with_an_index_buffer_is_not_loaded(tmp_path):
    model = dit.build("DiT-N/8")
    extra = {"blocks.0.attn.relative_position_index": torch.zeros(16, 16, dtype=torch.long)}
    save_file(model.state_dict() | extra, tmp_path / "bare.safetensors")
    with pytest.raises(WeightsError, match="unexpected blocks.0.attn.relative_position_index"):
        dit.load(tmp_path / "bare.safetensors")


def test_sizes_of_a_u_shape_tell_no_heads(tmp_path):
    """(128, 4) is DiT-N's, and DiffiT-CIFAR-32's too: heads are those of the isotropic presets."""
    model = dit.build("DiT-N/8")
    save_file(model.state_dict(), tmp_path / "bare.safetensors")
    assert dit.load(tmp_path / "bare.safetensors").config.num_heads == 2
