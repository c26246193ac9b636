"""Autoencoders: latents scaled once each way, previews for nothing, and what is none of ours refused."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dit import autoencoder as autoencoders
from dit.autoencoder import LATENT_TO_RGB, Autoencoder, load_autoencoder
from dit.published import AUTOENCODERS
from dit.weights import WeightsError
from tests.weights_files import BOMBS, assert_it_would_have_run

WEIGHTS, PICKLE = "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"
SCALE = 0.18215


@pytest.fixture(scope="module")
def autoencoder(vae_folder) -> Autoencoder:
    return load_autoencoder(vae_folder)


@pytest.fixture
def folder(vae_folder, tmp_path) -> Path:
    """A copy of the small autoencoder that may be changed."""
    return shutil.copytree(vae_folder, tmp_path / "vae")


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory) -> Path:
    """An autoencoder of the small kind, with random weights."""
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    sizes = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    module = AutoencoderTiny(**sizes, num_encoder_blocks=(1,) * 4, num_decoder_blocks=(1,) * 4)
    folder = tmp_path_factory.mktemp("tiny")
    module.save_pretrained(folder)
    return folder


def to_pickle(folder: Path, **more: object) -> Path:
    """Its weights as a torch checkpoint instead."""
    torch.save(load_file(folder / WEIGHTS) | more, folder / PICKLE)
    (folder / WEIGHTS).unlink()
    return folder / PICKLE


def edit(folder: Path, **values: object) -> None:
    """Set fields of its config."""
    config = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps(config))


# --- there and back ---


def test_latents_are_scaled_on_the_way_in_and_on_the_way_out(autoencoder):
    torch.manual_seed(0)
    pixels, latents = torch.rand(2, 3, 64, 64) * 2 - 1, torch.randn(2, 4, 8, 8)
    drawn = autoencoder.encode(pixels, torch.Generator().manual_seed(1))
    posterior = autoencoder.module.encode(pixels).latent_dist
    assert drawn.shape == (2, 4, 8, 8)
    torch.testing.assert_close(drawn, SCALE * posterior.sample(torch.Generator().manual_seed(1)))
    pictures = autoencoder.decode(latents)
    assert pictures.shape == (2, 3, 64, 64)
    torch.testing.assert_close(pictures, autoencoder.module.decode(latents / SCALE).sample)
    there_and_back = autoencoder.module.decode(posterior.sample(torch.Generator().manual_seed(1))).sample
    torch.testing.assert_close(autoencoder.decode(drawn), there_and_back, atol=1e-4, rtol=1e-4)


def test_mean_and_deviation_are_scaled_and_nothing_is_drawn(autoencoder):
    torch.manual_seed(0)
    pixels = torch.rand(3, 3, 64, 64) * 2 - 1
    state = torch.get_rng_state()
    mean, deviation = autoencoder.posterior(pixels)
    assert torch.equal(torch.get_rng_state(), state)
    whole = autoencoder.module.encode(pixels).latent_dist
    torch.testing.assert_close(mean, SCALE * whole.mean)
    torch.testing.assert_close(deviation, SCALE * (0.5 * whole.logvar).exp())
    draws = torch.stack([autoencoder.encode(pixels[:1]) for _ in range(400)])
    assert ((draws.mean(dim=0) - mean[0]).abs() < 6 * deviation[0] / 20).all()
    assert ((draws.std(dim=0) / deviation[0] - 1).abs() < 0.25).all()


@pytest.mark.parametrize(("logarithm", "clamped"), [(-1e4, -30.0), (1e4, 20.0)])
def test_the_logarithm_of_the_variance_is_clamped(logarithm, clamped, folder):
    tensors = load_file(folder / WEIGHTS)
    tensors["quant_conv.bias"][4:] = logarithm
    save_file(tensors, folder / WEIGHTS)
    _, deviation = load_autoencoder(folder).posterior(torch.zeros(1, 3, 32, 32))
    torch.testing.assert_close(deviation, torch.full((1, 4, 4, 4), SCALE * math.exp(clamped / 2)))


def test_deviations_of_half_precision_come_from_logarithms_in_single(folder):
    """A variance whose logarithm bfloat16 can hold, and whose root it cannot."""
    tensors = load_file(folder / WEIGHTS)
    tensors["quant_conv.weight"][4:] = 0
    tensors["quant_conv.bias"][4:] = -20.125
    save_file(tensors, folder / WEIGHTS)
    half = load_autoencoder(folder, dtype=torch.bfloat16)
    mean, deviation = half.posterior(torch.rand(2, 3, 32, 32))
    assert mean.dtype == deviation.dtype == torch.float32
    torch.testing.assert_close(deviation, torch.full_like(deviation, SCALE * math.exp(-20.125 / 2)))


def test_the_scale_is_the_configs(folder, autoencoder):
    edit(folder, scaling_factor=0.5)
    other, latents = load_autoencoder(folder), torch.randn(1, 4, 8, 8)
    assert (autoencoder.scale, other.scale) == (SCALE, 0.5)
    torch.testing.assert_close(other.decode(latents * 0.5), autoencoder.decode(latents * SCALE))


def test_a_picture_does_not_depend_on_its_neighbours(autoencoder):
    torch.manual_seed(0)
    latents = torch.randn(3, 4, 8, 8)
    alone = torch.cat([autoencoder.decode(latents[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(autoencoder.decode(latents), alone)


def test_it_is_frozen(autoencoder):
    assert not autoencoder.module.training
    assert not any(parameter.requires_grad for parameter in autoencoder.module.parameters())
    assert (autoencoder.factor, autoencoder.channels) == (8, 4)


@pytest.mark.parametrize("kind", ["vae_folder", "tiny_folder"])
def test_half_precision_takes_and_gives_float32(kind, request):
    folder = request.getfixturevalue(kind)
    whole, half = load_autoencoder(folder), load_autoencoder(folder, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.module.parameters()} == {torch.bfloat16}
    torch.manual_seed(0)
    latents, pixels = torch.randn(1, 4, 8, 8), torch.rand(1, 3, 64, 64)
    expected, decoded = whole.decode(latents), half.decode(latents)
    assert decoded.dtype == half.encode(pixels).dtype == torch.float32
    assert 0 < (decoded - expected).abs().mean() < 0.1 * expected.std()


# --- previews ---


def test_a_preview_is_a_linear_map_of_each_latent_pixel(autoencoder):
    latents = torch.randn(2, 4, 5, 7)
    preview = autoencoder.preview(latents)
    assert preview.shape == (2, 3, 5, 7)
    torch.testing.assert_close(autoencoder.preview(3 * latents), 3 * preview)
    moved = latents.clone()
    moved[1, :, 4, 0] += 1
    changed = (autoencoder.preview(moved) != preview).any(dim=1).nonzero().tolist()
    assert changed == [[1, 4, 0]]
    for channel in range(4):
        unit = torch.zeros(1, 4, 1, 1)
        unit[0, channel] = 1
        assert autoencoder.preview(unit).flatten().tolist() == pytest.approx(LATENT_TO_RGB[channel])


# --- tiles ---


def test_tiles_give_nearly_the_same_picture(vae_folder, autoencoder):
    """Each tile is normalised by itself, so that a small difference remains."""
    torch.manual_seed(0)
    tiled = load_autoencoder(vae_folder, tiling=True)
    large, small = torch.randn(1, 4, 40, 40), torch.randn(2, 4, 32, 32)
    whole, parts = autoencoder.decode(large), tiled.decode(large)
    assert parts.shape == (1, 3, 320, 320)
    assert 0 < (parts - whole).abs().mean() < 0.1 * whole.std()
    torch.testing.assert_close(tiled.decode(small), autoencoder.decode(small))  # one tile


def test_tiles_keep_activations_small(vae_folder, autoencoder):
    sizes = []
    for model in (autoencoder, load_autoencoder(vae_folder, tiling=True)):
        handle = model.module.decoder.conv_in.register_forward_hook(
            lambda module, inputs, output: sizes.append(inputs[0].shape[-1])
        )
        model.decode(torch.zeros(1, 4, 40, 40))
        handle.remove()
    assert sizes[0] == 40 and len(sizes) == 5 and max(sizes[1:]) == 32


# --- the small kind ---


def test_the_small_autoencoder(tiny_folder):
    small = load_autoencoder(tiny_folder, tiling=True)  # it needs no tiles
    assert small.tiny and (small.factor, small.channels, small.scale) == (8, 4, 1.0)
    torch.manual_seed(0)
    latents, pixels = torch.randn(2, 4, 8, 8), torch.rand(2, 3, 64, 64) * 2 - 1
    decoded = small.decode(latents)
    assert decoded.shape == (2, 3, 64, 64) and small.encode(pixels).shape == (2, 4, 8, 8)
    torch.testing.assert_close(decoded, small.module.decode(latents).sample)
    torch.testing.assert_close(small.encode(pixels), small.module.encode(pixels).latents)
    mean, deviation = small.posterior(pixels)
    assert torch.equal(mean, small.encode(pixels)) and torch.equal(deviation, torch.zeros_like(mean))
    assert small.preview(latents).shape == (2, 3, 8, 8)  # linear too: a frame a step would add up


# --- where it comes from ---


@pytest.mark.parametrize(("name", "inside"), [("ft-mse", ""), ("original", "vae"), ("taesd", "")])
def test_names_are_commits_of_repositories(name, inside, pipeline_folder, vae_folder, monkeypatch):
    asked = []
    here = pipeline_folder if inside else vae_folder
    monkeypatch.setattr(autoencoders, "fetch", lambda *wanted: asked.append(wanted) or here)
    assert load_autoencoder(name).source == name
    assert asked == [AUTOENCODERS[name]] and asked[0][2] == inside


def test_any_repository_will_do(vae_folder, monkeypatch):
    asked = []
    monkeypatch.setattr(
        autoencoders, "fetch", lambda *wanted, **more: asked.append((wanted, more)) or vae_folder
    )
    assert load_autoencoder("somebody/their-vae").source == "somebody/their-vae"
    assert asked == [(("somebody/their-vae",), {"folder": ""})]


@pytest.mark.parametrize("name", ["nonsense", "ft_mse", "/no/where", "a/b/c"])
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(WeightsError, match=f"{name}: no such folder.*original, ft-mse, ft-ema, taesd"):
        load_autoencoder(name)


# --- folders that can be used, and others ---


def test_a_pickle_of_tensors_is_the_same(folder, autoencoder):
    to_pickle(folder)
    latents = torch.randn(1, 4, 8, 8)
    assert torch.equal(load_autoencoder(folder).decode(latents), autoencoder.decode(latents))


@pytest.mark.parametrize("callee", BOMBS)
def test_a_pickle_that_would_run_code_is_refused(callee, folder, tmp_path):
    trace = tmp_path / "trace"
    path = to_pickle(folder, more=BOMBS[callee](trace))
    with pytest.raises(WeightsError, match=str(folder)) as error:
        load_autoencoder(folder)
    assert "\n" not in str(error.value)
    assert_it_would_have_run(path, trace)


def test_safetensors_are_read_where_there_are_both(folder, tmp_path):
    good, trace = (folder / WEIGHTS).read_bytes(), tmp_path / "trace"
    to_pickle(folder, more=BOMBS["system"](trace))
    (folder / WEIGHTS).write_bytes(good)
    load_autoencoder(folder)
    assert_it_would_have_run(folder / PICKLE, trace)


def test_attention_by_its_older_names(folder, autoencoder):
    """As in CompVis/stable-diffusion-v1-4 and stabilityai's two."""
    older = {"to_q.": "query.", "to_k.": "key.", "to_v.": "value.", "to_out.0.": "proj_attn."}
    tensors = {}
    for name, tensor in load_file(folder / WEIGHTS).items():
        for new, old in older.items():
            name = name.replace(new, old)
        tensors[name] = tensor
    assert any("proj_attn" in name for name in tensors)
    save_file(tensors, folder / WEIGHTS)
    latents = torch.randn(1, 4, 8, 8)
    assert torch.equal(load_autoencoder(folder).decode(latents), autoencoder.decode(latents))


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("name", ["decoder.conv_in.weight", "post_quant_conv.bias", "encoder.conv_out.bias"])
def test_a_missing_tensor_is_refused(name, pickled, folder):
    """diffusers would draw random numbers for it, and warn."""
    tensors = load_file(folder / WEIGHTS)
    del tensors[name]
    save_file(tensors, folder / WEIGHTS)
    if pickled:
        to_pickle(folder)
    with pytest.raises(WeightsError, match=name):
        load_autoencoder(folder)


@pytest.mark.parametrize("length", [0, 8, 1000, -1])
@pytest.mark.parametrize("pickled", [False, True])
def test_a_truncated_file_is_named(pickled, length, folder):
    path = to_pickle(folder) if pickled else folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(WeightsError, match=f"{folder}: expected a whole autoencoder"):
        load_autoencoder(folder)


@pytest.mark.parametrize("missing", ["config.json", WEIGHTS])
def test_an_incomplete_folder_is_named(missing, folder):
    (folder / missing).unlink()
    with pytest.raises(WeightsError, match=f"{folder}: expected a whole autoencoder"):
        load_autoencoder(folder)


@pytest.mark.parametrize("kind", ["UNet2DConditionModel", "AutoencoderDC", "VQModel", None])
def test_another_class_is_refused(kind, folder):
    edit(folder, _class_name=kind)
    with pytest.raises(WeightsError, match=f"expected AutoencoderKL or AutoencoderTiny, found {kind}"):
        load_autoencoder(folder)


def test_other_latents_are_refused(tmp_path):
    from diffusers import AutoencoderKL

    AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=16).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=f"{tmp_path}: expected 4 latent channels.*found 16"):
        load_autoencoder(tmp_path)


@pytest.mark.parametrize(
    "config", ["{", "[]", {"scaling_factor": None}, {"block_out_channels": [32]}, {"latent_channels": "4"}]
)
def test_a_broken_config_is_named(config, folder):
    if isinstance(config, dict):
        edit(folder, **config)
    else:
        (folder / "config.json").write_text(config)
    with pytest.raises(WeightsError, match=str(folder)):
        load_autoencoder(folder)
