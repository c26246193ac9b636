"""Export: stock diffusers opens the folder and draws what we draw, and we know the model again."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import dit
from dit import export
from dit.autoencoder import load_autoencoder
from dit.export import check_exportable, export_diffusers, refit_timesteps
from dit.layers import sinusoids
from dit.layouts import FORMAT
from dit.pipeline import Pipeline
from dit.settings import SampleSettings
from dit.weights import WeightsError, describe, load, zoo

TRANSFORMER = Path("transformer/diffusion_pytorch_model.safetensors")
FILES = ["model_index.json", "scheduler/scheduler_config.json", "transformer/config.json", str(TRANSFORMER)]
FILES += ["vae/config.json", "vae/diffusion_pytorch_model.safetensors"]
PROVENANCE = {"classes": ["cube", "cone"] * 5, "name": "a model", "images_seen": 640_000, "ü": [1.5, None]}


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def wish(**fields: Any) -> SampleSettings:
    fixed = {"classes": [3, 7], "seeds": [5, 6], "steps": 4, "spacing": "leading"}
    return SampleSettings(**(fixed | fields))


def stock_pictures(folder: Path, guidance: float = 1.0) -> np.ndarray:
    """What stock diffusers draws of such a folder from the noise of `wish`, in [0, 255]."""
    from diffusers import DiTPipeline

    pipeline = DiTPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in wish().seeds]
    fixed = {"num_inference_steps": 4, "output_type": "np", "generator": generators}
    return pipeline(class_labels=[3, 7], guidance_scale=guidance, **fixed).images * 255


@pytest.fixture(scope="module")
def latent_model(random_model):
    """Makes small random models of latents."""

    def make(**fields: Any) -> dit.DiT:
        model = random_model(**({"in_channels": 4} | fields))
        for name, parameter in model.named_parameters():
            if name.startswith("final_layer.linear"):
                parameter.data.mul_(3)  # pictures that differ by more than their rounding
        model.provenance = {}
        return model

    return make


# --- stock diffusers draws the same ---


@pytest.mark.parametrize(
    ("fields", "guidance"),
    [
        ({}, 4.0),
        ({}, 1.0),
        ({"num_classes": 1000}, 4.0),
        ({"num_classes": 0}, 1.0),
        ({"class_dropout_prob": 0.0}, 1.0),
        ({"prediction": "v"}, 4.0),
        ({"learn_sigma": False}, 4.0),
        ({"prediction": "v", "learn_sigma": False, "num_classes": 0}, 1.0),
        ({"block_embedders": True, "depth": 3, "mlp_norm_eps": 1e-3}, 4.0),
        ({"frequency_shift": 1, "patch_size": 4, "num_heads": 4}, 4.0),
    ],
    ids=str,
)
def test_stock_diffusers_draws_the_same_pictures(fields, guidance, latent_model, vae_folder, tmp_path):
    model = latent_model(**fields)
    assert export_diffusers(model, tmp_path / "out", str(vae_folder)) == tmp_path / "out"
    assert sorted(files_in(tmp_path / "out")) == sorted(FILES)
    pipeline = Pipeline.load(tmp_path / "out")
    drawn = pipeline.generate(wish(guidance_scale=guidance)).x0
    stock = stock_pictures(tmp_path / "out", guidance)
    assert drawn.shape == stock.shape == (2, 64, 64, 3) and drawn.std() > 10
    assert abs(stock - drawn).max() <= 1
    if guidance > 1:
        assert abs(stock_pictures(tmp_path / "out") - stock).max() > 5  # the null class is where it looks
    plain = Pipeline(model, "cpu", pipeline.autoencoder).generate(wish(guidance_scale=guidance)).x0
    if model.config.frequency_shift:  # then nothing had to be refitted
        assert abs(plain.astype(int) - drawn).max() <= 1


@pytest.mark.parametrize(
    "fields", [{}, {"mlp_norm_eps": 1e-3}, {"block_embedders": True}, {"patch_size": 4}], ids=str
)
def test_stock_diffusers_predicts_the_same_noise(fields, latent_model, vae_folder, tmp_path):
    from diffusers import DiTTransformer2DModel

    export_diffusers(latent_model(**fields), tmp_path, str(vae_folder))
    ours, stock = load(tmp_path), DiTTransformer2DModel.from_pretrained(tmp_path / "transformer")
    torch.manual_seed(0)
    x, t, y = torch.randn(3, 4, 8, 8), torch.tensor([0, 500, 999]), torch.tensor([0, 9, 10])
    with torch.no_grad():
        expected = stock(x, timestep=t, class_labels=y).sample
        torch.testing.assert_close(ours(x, t, y), expected, atol=1e-5, rtol=1e-5)


def test_guiding_a_model_without_classes_changes_nothing(latent_model, vae_folder, tmp_path):
    """Its labels are all zero: the two halves of stock diffusers' batch are the same."""
    export_diffusers(latent_model(num_classes=0), tmp_path / "out", str(vae_folder))
    guided, plain = stock_pictures(tmp_path / "out", 4.0), stock_pictures(tmp_path / "out")
    assert abs(guided - plain).max() < 0.1


@pytest.mark.parametrize("dropout", [0.1, 0.0])
def test_labels_beyond_the_classes_are_the_null_class(dropout, latent_model, vae_folder, tmp_path):
    """Label 1000 is what stock diffusers guides away from; the mean, where training dropped no labels."""
    model = latent_model(class_dropout_prob=dropout)
    export_diffusers(model, tmp_path, str(vae_folder))
    table = model.y_embedder.embedding_table.weight.detach()
    null = table[10] if dropout else table.mean(dim=0)
    for block in range(2):
        name = f"transformer_blocks.{block}.norm1.emb.class_embedder.embedding_table.weight"
        exported = load_file(tmp_path / TRANSFORMER)[name]
        assert exported.shape == (1001, 32)
        torch.testing.assert_close(exported, torch.cat([table[:10], null.expand(991, -1)]))


def test_stock_diffusers_knows_the_names(latent_model, vae_folder, tmp_path):
    from diffusers import DiTPipeline

    model = latent_model()
    model.provenance = {"classes": ["cat, tomcat", "dog", *map(str, range(8))]}
    export_diffusers(model, tmp_path, str(vae_folder))
    pipeline = DiTPipeline.from_pretrained(tmp_path)
    assert pipeline.get_label_ids(["tomcat", "dog", "cat"]) == [0, 1, 0]
    assert type(pipeline.scheduler).__name__ == "DDIMScheduler"


def test_the_small_autoencoder_goes_with_it(latent_model, tmp_path):
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    sizes = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    AutoencoderTiny(**sizes).save_pretrained(tmp_path / "tiny")
    model = latent_model()
    model.provenance = {"autoencoder": str(tmp_path / "tiny")}  # taken where none is given
    export_diffusers(model, tmp_path / "out")
    drawn = Pipeline.load(tmp_path / "out").generate(wish(guidance_scale=4.0)).x0
    assert abs(stock_pictures(tmp_path / "out", 4.0) - drawn).max() <= 1


# --- we know the model again ---


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"num_classes": 0},
        {"num_classes": 1000},
        {"class_dropout_prob": 0.0},
        {"class_dropout_prob": 0.3, "prediction": "v", "learn_sigma": False},
        {"block_embedders": True, "mlp_norm_eps": 1e-5},
        {"frequency_shift": 1},
    ],
    ids=str,
)
def test_config_provenance_and_tensors_come_back(fields, latent_model, vae_folder, tmp_path):
    model = latent_model(**fields)
    model.provenance = PROVENANCE
    export_diffusers(model, tmp_path, str(vae_folder))
    loaded = load(tmp_path)
    assert describe(tmp_path) == (loaded.config, loaded.provenance)
    assert loaded.config == replace(model.config, frequency_shift=1)
    assert loaded.provenance == PROVENANCE | {"autoencoder": str(tmp_path / "vae")}
    assert describe(tmp_path / "transformer") == (loaded.config, PROVENANCE)
    for name, tensor in model.state_dict().items():
        if "t_embedder.mlp.0" not in name or model.config.frequency_shift:
            assert torch.equal(loaded.state_dict()[name], tensor), name


def test_a_second_export_is_the_same(latent_model, vae_folder, tmp_path):
    """What has diffusers' frequencies already is not refitted again."""
    export_diffusers(latent_model(), tmp_path / "one", str(vae_folder))
    again = load(tmp_path / "one")
    export_diffusers(again, tmp_path / "two", str(vae_folder))
    one, two = (load_file(tmp_path / name / TRANSFORMER) for name in ("one", "two"))
    assert set(one) == set(two) and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(dtype, latent_model, vae_folder, tmp_path):
    export_diffusers(latent_model(), tmp_path / "whole", str(vae_folder))
    export_diffusers(latent_model(), tmp_path / "half", str(vae_folder), dtype=dtype)
    whole, half = (load_file(tmp_path / name / TRANSFORMER) for name in ("whole", "half"))
    assert {tensor.dtype for tensor in half.values()} == {dtype}
    assert all(torch.equal(half[name], whole[name].to(dtype)) for name in whole)


def test_no_path_of_the_exporter_travels_along(latent_model, vae_folder, tmp_path):
    """Where a loaded pipeline's autoencoder lies on this disk is nobody else's business."""
    export_diffusers(latent_model(), tmp_path / "one", str(vae_folder))
    export_diffusers(load(tmp_path / "one"), tmp_path / "two")
    content = files_in(tmp_path / "two")
    assert [name for name in content if str(tmp_path).encode() in content[name]] == []


@pytest.mark.parametrize(
    "own", ["{", "{}", "[]", '{"config": {"depth": 1}, "provenance": {}}', '{"config": 3}']
)
def test_a_broken_header_is_named(own, latent_model, vae_folder, tmp_path):
    export_diffusers(latent_model(), tmp_path, str(vae_folder))
    path = tmp_path / TRANSFORMER
    save_file(load_file(path), path, metadata={"format": "pt", FORMAT: own})
    with pytest.raises(WeightsError, match=f"{TRANSFORMER}: expected"):
        load(tmp_path)


# --- other frequencies ---


@pytest.fixture(scope="module")
def trained() -> dit.DiT:
    """A bundled model: what random weights make of a timestep would be no measure."""
    return load(zoo()["DiT-T-4-solids"])


def test_the_refit_meets_a_trained_embedder(trained):
    """Every timestep's embedding by diffusers' frequencies, against ours: far nearer than doing nothing."""
    first, last = trained.t_embedder.mlp[0], trained.t_embedder.mlp[2]
    t = torch.arange(1000)
    with torch.no_grad():
        weight, bias = refit_timesteps(first.weight, first.bias)
        assert weight.shape == first.weight.shape and bias.shape == first.bias.shape
        assert weight.dtype == bias.dtype == torch.float32 and weight.is_contiguous()

        def embedded(weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
            return last(torch.nn.functional.silu(sinusoids(t, shift=1) @ weight.T + bias))

        wanted = trained.t_embedder(t)
        nothing = (embedded(first.weight, first.bias) - wanted).square().mean().sqrt()
        refitted = (embedded(weight, bias) - wanted).square().mean().sqrt()
    assert nothing > 0.05 * wanted.std()  # there is something to mend
    assert refitted < nothing / 3
    assert weight.abs().max() < 20 * first.weight.abs().max()  # half precision can still hold it


def test_the_refit_makes_the_pictures_the_models(trained, vae_folder, tmp_path, monkeypatch):
    """A trained model's blocks between layers for latents: pictures as the model's, but for a tenth."""
    torch.manual_seed(0)
    model = dit.build(replace(trained.config, in_channels=4, input_size=8, patch_size=2))
    known = trained.state_dict()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name in known and known[name].shape == tensor.shape:
                tensor.copy_(known[name])
            elif name != "pos_embed":
                tensor.normal_(std=0.2)
    drawn = Pipeline(model.eval(), "cpu", load_autoencoder(vae_folder)).generate(wish()).x0.astype(float)

    def off(name: str) -> float:
        export_diffusers(model, tmp_path / name, str(vae_folder))
        return abs(Pipeline.load(tmp_path / name).generate(wish()).x0 - drawn).mean()

    refitted = off("refitted")
    monkeypatch.setattr(export, "refit_timesteps", lambda weight, bias: (weight, bias))
    untouched = off("untouched")
    assert drawn.std() > 10 and untouched > 0.5
    assert refitted < untouched / 5


# --- what cannot be exported ---


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"in_channels": 3}, "draws pixels"),
        ({"in_channels": 1}, "draws pixels"),
        ({"num_classes": 2000}, "2000 classes.*1000"),
        ({"mlp_ratio": 3.0}, "mlp_ratio is 3.0.*always 4"),
        ({"in_channels": 3, "mlp_ratio": 2.5, "num_classes": 1001}, "pixels.*1001 classes.*mlp_ratio is 2.5"),
        ({"in_channels": 8}, "8 channels"),
        ({"formulation": "flow", "prediction": "velocity", "learn_sigma": False}, "formulation is flow"),
        ({"qk_norm": True}, "queries and keys are normalised"),
    ],
    ids=str,
)
def test_a_model_that_has_no_place_there_is_refused(fields, said, random_model, vae_folder, tmp_path):
    model = random_model(**({"in_channels": 4} | fields))
    with pytest.raises(WeightsError, match=said):
        export_diffusers(model, tmp_path / "out", str(vae_folder))
    assert not (tmp_path / "out").exists()


def test_a_thousand_classes_can_be_exported(random_model):
    check_exportable(random_model(in_channels=4, num_classes=1000).config)


def test_a_wrong_autoencoder_leaves_nothing_behind(latent_model, tmp_path):
    with pytest.raises(WeightsError, match="nonsense: no such folder"):
        export_diffusers(latent_model(), tmp_path / "out", "nonsense")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["a file", "a folder", "another pipeline", "somebody's DiT"])
def test_a_folder_of_something_else_is_left_alone(
    content, latent_model, pipeline_folder, vae_folder, tmp_path
):
    folder = tmp_path / "out"
    if content == "somebody's DiT":
        shutil.copytree(pipeline_folder, folder)
    else:
        (folder / "unet").mkdir(parents=True)
        if content == "a file":
            (folder / "thesis.txt").write_text("years of work")
        if content == "another pipeline":
            (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    before = files_in(folder)
    with pytest.raises(WeightsError, match=f"{folder}: holds other files"):
        export_diffusers(latent_model(), folder, str(vae_folder))
    assert files_in(folder) == before


@pytest.mark.parametrize("earlier", [False, True])
def test_an_empty_folder_or_an_earlier_export_is_written_to(earlier, latent_model, vae_folder, tmp_path):
    if earlier:
        export_diffusers(latent_model(num_classes=0), tmp_path, str(vae_folder))
    export_diffusers(latent_model(), tmp_path, str(vae_folder))
    assert load(tmp_path).config.num_classes == 10
    assert sorted(files_in(tmp_path)) == sorted(FILES)
