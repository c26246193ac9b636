"""Others' files: their numbers come out, their sizes are told, what we would draw wrongly is refused."""

import argparse
import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import dit
from dit import remote, samplers
from dit.autoencoder import load_autoencoder
from dit.config import ModelConfig
from dit.diffusers_layout import SCHEDULE_FIXED, diffusers_copies, diffusers_names
from dit.diffusion import linear_schedule, timesteps
from dit.export import transformer_config
from dit.layouts import FORMAT
from dit.pipeline import Pipeline, guided
from dit.presets import preset
from dit.settings import SampleSettings
from dit.weights import WeightsError, describe, load, save
from tests.weights_files import write_hollow

DATA = Path(__file__).parent.parent / "data"
WEIGHTS = "diffusion_pytorch_model.safetensors"
EMBEDDERS = ("timestep_embedder.linear_1", "timestep_embedder.linear_2", "class_embedder.embedding_table")


def edit(path: Path, **values: Any) -> None:
    """Set fields of a JSON file; ... removes one."""
    changed = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in changed.items() if value is not ...}))


@pytest.fixture
def folder(pipeline_folder, tmp_path) -> Path:
    """A copy of the golden pipeline that may be changed."""
    return shutil.copytree(pipeline_folder, tmp_path / "pipeline")


# --- the golden numbers of diffusers ---


@pytest.mark.parametrize("part", ["", "transformer"])
def test_forward_equals_diffusers(part, pipeline_folder):
    golden = load_file(DATA / "diffusers_forward.safetensors")
    model = load(pipeline_folder / part)
    with torch.no_grad():
        output = model(golden["in.x"], golden["in.t"], golden["in.y"])
    assert golden["out.forward"].abs().max() > 0.1
    torch.testing.assert_close(output, golden["out.forward"], atol=1e-5, rtol=0)


def test_the_golden_folder_explains_itself(pipeline_folder):
    config, provenance = describe(pipeline_folder)
    expected = ModelConfig(hidden_size=64, depth=3, num_heads=4, input_size=8)
    assert config == replace(expected, frequency_shift=1, mlp_norm_eps=1e-5, block_embedders=True)
    assert provenance["name"] == "diffusers_pipeline"
    named = [f"class number {y}" for y in range(10)]
    assert provenance["classes"] == named + [f"class {y}" for y in range(10, 1000)]
    assert provenance["autoencoder"] == str(pipeline_folder / "vae")


@pytest.fixture(scope="module")
def sampled() -> dict[str, Tensor]:
    """What diffusers drew: 10 DDIM steps, guidance 4 on all channels."""
    return load_file(DATA / "diffusers_sample.safetensors")


def wish(sampled: dict[str, Tensor], **fields: Any) -> SampleSettings:
    classes = sampled["in.y"].tolist()
    fixed = {"steps": 10, "guidance_scale": 4.0, "spacing": "leading"}
    return SampleSettings(classes=classes, seeds=[0] * len(classes), **(fixed | fields))


def test_pictures_equal_diffusers_before_they_are_rounded(sampled, pipeline_folder):
    denoiser = guided(load(pipeline_folder), wish(sampled))
    steps = timesteps(10, "leading")
    with torch.no_grad():
        *_, last = samplers.ddim(denoiser, sampled["in.x_T"], linear_schedule().alpha_bar, steps)
        decoded = load_autoencoder(pipeline_folder / "vae").decode(last.x_t)
    pictures = (decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    assert sampled["out.images"].std() > 0.1
    torch.testing.assert_close(pictures, sampled["out.images"], atol=1e-3, rtol=0)


def test_pictures_equal_diffusers(sampled, pipeline_folder):
    pipeline = Pipeline.load(pipeline_folder)
    expected = sampled["out.images"].numpy() * 255
    frame = pipeline.generate(wish(sampled), x_T=sampled["in.x_T"])
    assert frame.done and frame.x0.shape == expected.shape
    assert abs(frame.x0 - expected).max() <= 0.51
    even = pipeline.generate(wish(sampled, spacing="even"), x_T=sampled["in.x_T"])
    assert abs(even.x0 - expected).max() > 5


# --- stock models of other sizes ---


def stock(agree: bool = True, seed: int = 0, **fields: Any) -> torch.nn.Module:
    """diffusers' model with random weights. agree: its blocks embed alike, as the authors' one does."""
    from diffusers import DiTTransformer2DModel

    sizes = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 3, "sample_size": 8}
    sizes |= {"out_channels": 8, "num_embeds_ada_norm": 10}
    model = DiTTransformer2DModel(**(sizes | fields)).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.normal_(std=0.2, generator=generator)
    if agree:
        for block in model.transformer_blocks:
            block.norm1.emb = model.transformer_blocks[0].norm1.emb
    return model


def save_stock(model: torch.nn.Module, folder: Path, **how: Any) -> Path:
    """The folder of a stock model. Embedders that blocks share are copied, as a file needs it."""
    for block in model.transformer_blocks:
        block.norm1.emb = copy.deepcopy(block.norm1.emb)
    model.save_pretrained(folder, **how)
    return folder


def assert_same_output(loaded: torch.nn.Module, model: torch.nn.Module, atol: float = 1e-5) -> None:
    """loaded: ours. model: diffusers'."""
    torch.manual_seed(0)
    side, null = loaded.config.input_size, loaded.config.num_classes
    x, t = torch.randn(4, loaded.config.in_channels, side, side), torch.tensor([0, 1, 500, 999])
    y = torch.tensor([0, 3, null - 1, null])
    with torch.no_grad():
        expected = model(x, timestep=t, class_labels=y).sample
        assert expected.std() > 0.1
        torch.testing.assert_close(loaded(x, t, y), expected, atol=atol, rtol=1e-5)


@pytest.mark.parametrize("agree", [True, False])
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {}),
        ({"patch_size": 1}, {"patch_size": 1}),
        ({"patch_size": 4}, {"patch_size": 4}),
        ({"out_channels": 4}, {"learn_sigma": False}),
        ({"out_channels": None}, {"learn_sigma": False}),
        ({"norm_eps": 1e-6}, {"mlp_norm_eps": 1e-6}),
        ({"norm_eps": 1e-3}, {"mlp_norm_eps": 1e-3}),
        ({"num_embeds_ada_norm": 1000}, {"num_classes": 1000}),
        ({"in_channels": 3, "out_channels": 6}, {"in_channels": 3}),
        ({"num_attention_heads": 3, "attention_head_dim": 8, "num_layers": 1}, {"hidden_size": 24}),
    ],
    ids=str,
)
def test_other_sizes_equal_diffusers(fields, expected, agree, tmp_path):
    model = stock(agree, **fields)
    loaded = load(save_stock(model, tmp_path))
    for name, value in expected.items():
        assert getattr(loaded.config, name) == value
    assert loaded.config.frequency_shift == 1
    assert loaded.config.block_embedders is (not agree and len(model.transformer_blocks) > 1)
    assert_same_output(loaded, model)


def test_the_norms_epsilon_matters(tmp_path):
    """So that the comparison above can fail."""
    model = stock(norm_eps=1e-3)
    loaded = load(save_stock(model, tmp_path))
    for block in loaded.blocks:
        block.mlp_norm_eps = 1e-6
    with pytest.raises(AssertionError, match="not close"):
        assert_same_output(loaded, model)


def test_one_block_that_embeds_otherwise_is_noticed(tmp_path):
    model = stock()
    save_stock(model, tmp_path)
    for name in EMBEDDERS:
        changed = load_file(tmp_path / WEIGHTS)
        changed[f"transformer_blocks.2.norm1.emb.{name}.weight"][0, 0] += 1
        save_file(changed, tmp_path / WEIGHTS)
        assert describe(tmp_path)[0].block_embedders
        save_stock(model, tmp_path)
    assert not describe(tmp_path)[0].block_embedders


def test_a_missing_norm_eps_is_diffusers_default(tmp_path):
    """The published DiT-XL-2 folders have none."""
    model = stock(norm_eps=1e-5)
    edit(save_stock(model, tmp_path) / "config.json", norm_eps=...)
    loaded = load(tmp_path)
    assert loaded.config.mlp_norm_eps == 1e-5
    assert_same_output(loaded, model)


def test_the_class_by_its_older_name(tmp_path):
    """As the config.json of facebook/DiT-XL-2-256 has it."""
    model = stock()
    edit(
        save_stock(model, tmp_path) / "config.json",
        _class_name="Transformer2DModel",
        cross_attention_dim=None,
        num_vector_embeds=None,
        only_cross_attention=False,
        use_linear_projection=False,
        norm_eps=...,
    )
    assert_same_output(load(tmp_path), model)


def how_saved(kind: str) -> dict[str, Any]:
    return {"safe_serialization": "bin" not in kind} | ({"max_shard_size": "40KB"} if "parts" in kind else {})


@pytest.mark.parametrize("agree", [True, False])
@pytest.mark.parametrize("kind", ["bin", "safetensors parts", "bin parts"])
def test_other_containers_equal_diffusers(kind, agree, tmp_path):
    model = stock(agree)
    save_stock(model, tmp_path, **how_saved(kind))
    names = [path.name for path in tmp_path.glob("*.bin" if "bin" in kind else "*.safetensors")]
    assert len(names) > 2 if "parts" in kind else names == ["diffusion_pytorch_model.bin"]
    loaded = load(tmp_path)
    assert loaded.config.block_embedders is not agree
    assert_same_output(loaded, model)


def test_a_missing_part_is_named(tmp_path):
    save_stock(stock(), tmp_path, max_shard_size="40KB")
    part = sorted(tmp_path.glob("*-00002-of-*"))[0]
    part.unlink()
    with pytest.raises(WeightsError, match=f"{part.name} missing"):
        load(tmp_path)


def test_half_precision_files_are_what_they_say(tmp_path):
    model = stock()
    expected = load(save_stock(model, tmp_path / "whole"))
    save_stock(model.to(torch.float16), tmp_path / "half")
    loaded = load(tmp_path / "half")
    for name, tensor in loaded.state_dict().items():
        kept = expected.state_dict()[name]
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, kept if name == "pos_embed" else kept.half().float()), name


# --- published weights ---


def test_published_weights_compute_as_they_were_trained(pipeline_folder, monkeypatch):
    """diffusers' folder says frequencies over 127 and 1e-5; the authors' code trained with 128 and 1e-6."""
    asked = []
    monkeypatch.setattr(remote, "fetch", lambda *wanted: asked.append(wanted) or pipeline_folder)
    model = load("DiT-XL/2-256")
    assert asked == [("facebook/DiT-XL-2-256", "eab87f77abd5aef071a632f08807fbaab0b704d0")]
    assert (model.config.frequency_shift, model.config.mlp_norm_eps) == (0, 1e-6)
    assert model.blocks[1].mlp_norm_eps == 1e-6 and model.t_embedder.frequency_shift == 0
    assert model.provenance["licence"] == "CC-BY-NC 4.0" and model.provenance["classes"] == "imagenet"
    assert model.provenance["autoencoder"] == str(pipeline_folder / "vae")
    assert load("DiT-XL-2-256").config == model.config
    assert load(pipeline_folder).config.frequency_shift == 1


# --- the scheduler ---


@pytest.mark.parametrize(
    ("said", "prediction"), [("epsilon", "epsilon"), ("v_prediction", "v"), (..., "epsilon")]
)
def test_the_prediction_is_the_schedulers(said, prediction, folder):
    edit(folder / "scheduler" / "scheduler_config.json", prediction_type=said)
    assert describe(folder)[0].prediction == load(folder).config.prediction == prediction
    assert load(folder / "transformer").config.prediction == "epsilon"  # it has no scheduler


def test_a_folder_without_a_scheduler_predicts_noise(folder):
    shutil.rmtree(folder / "scheduler")
    assert describe(folder)[0].prediction == "epsilon"


@pytest.mark.parametrize("name", ["DDIMScheduler", "DDPMScheduler", "DPMSolverMultistepScheduler"])
def test_who_walks_does_not_matter(name, folder):
    edit(
        folder / "scheduler" / "scheduler_config.json", _class_name=name, **dict.fromkeys(SCHEDULE_FIXED, ...)
    )
    assert describe(folder)[0].prediction == "epsilon"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("beta_start", 0.00085),
        ("beta_end", 0.012),
        ("beta_schedule", "scaled_linear"),
        ("num_train_timesteps", 500),
        ("prediction_type", "sample"),
        ("trained_betas", [0.1, 0.2]),
        ("rescale_betas_zero_snr", True),
        ("_class_name", "FlowMatchEulerDiscreteScheduler"),
    ],
)
@pytest.mark.parametrize("use", [load, describe])
def test_other_noise_is_refused(use, field, value, folder):
    edit(folder / "scheduler" / "scheduler_config.json", **{field: value})
    with pytest.raises(WeightsError, match="scheduler_config.json: expected ") as error:
        use(folder)
    assert field.strip("_") in str(error.value) and str(value) in str(error.value)


# --- models that are none of ours ---


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("norm_type", "ada_norm_single"),
        ("norm_type", "layer_norm"),
        ("activation_fn", "geglu"),
        ("activation_fn", "gelu"),
        ("attention_bias", False),
        ("norm_elementwise_affine", True),
        ("cross_attention_dim", 768),
        ("num_vector_embeds", 16),
        ("use_linear_projection", True),
        ("_class_name", "UNet2DConditionModel"),
        ("_class_name", "PixArtTransformer2DModel"),
        ("_class_name", None),
        ("_class_name", ...),
        ("out_channels", 6),
        ("num_layers", "three"),
        ("num_layers", None),
        ("num_layers", 0),
        ("patch_size", 3),
        ("sample_size", [8, 8]),
        ("num_attention_heads", None),
        ("num_attention_heads", "4"),
        ("num_embeds_ada_norm", None),
        ("in_channels", None),
        ("norm_eps", None),
        ("norm_eps", -1),
    ],
    ids=str,
)
@pytest.mark.parametrize("use", [load, describe])
def test_what_a_dit_does_not_compute_is_refused(use, field, value, folder):
    edit(folder / "transformer" / "config.json", **{field: value})
    with pytest.raises(WeightsError, match="transformer/config.json: expected ") as error:
        use(folder)
    assert str(None if value is ... else value) in str(error.value)


@pytest.mark.parametrize("field", ["num_layers", "attention_head_dim", "patch_size", "in_channels"])
def test_sizes_that_the_tensors_do_not_have_are_refused(field, folder):
    path = folder / "transformer" / "config.json"
    edit(path, **{field: 2 * json.loads(path.read_text())[field]})
    with pytest.raises(WeightsError, match=f"{WEIGHTS}: its tensors are not those of its config"):
        load(folder)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("transformer/config.json", "{"),
        ("transformer/config.json", "[]"),
        ("transformer/config.json", "<html>"),
        ("scheduler/scheduler_config.json", "not json"),
        ("model_index.json", "3"),
    ],
)
def test_a_broken_json_file_is_named(path, content, folder):
    (folder / path).write_text(content)
    with pytest.raises(WeightsError, match=f"{path}: expected"):
        describe(folder)


def test_a_folder_without_weights_is_named(folder):
    (folder / "transformer" / WEIGHTS).unlink()
    with pytest.raises(WeightsError, match="transformer: expected diffusion_pytorch_model.safetensors or"):
        load(folder)


@pytest.mark.parametrize("labels", [["cat", "dog"], {"0": ["cat"]}, "cat"], ids=str)
def test_odd_names_of_classes_do_not_break_loading(labels, folder):
    """Who sampled a model with such an index did so by number."""
    edit(folder / "model_index.json", id2label=labels)
    try:
        describe(folder)
    except WeightsError as error:
        assert "model_index.json" in str(error)


# --- tensors that are not there, or too many ---


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


@pytest.mark.parametrize("agree", [True, False])
def test_differences_are_named_as_diffusers_names_them(agree, tmp_path):
    def change(tensors):
        del tensors["transformer_blocks.1.attn1.to_k.weight"]
        del tensors["proj_out_1.bias"]
        tensors["transformer_blocks.0.attn2.to_q.weight"] = torch.zeros(2)
        tensors["proj_out_2.bias"] = torch.zeros(5)
        tensors["transformer_blocks.2.attn1.to_v.bias"] = torch.zeros(33)

    rewrite(save_stock(stock(agree), tmp_path), change)
    with pytest.raises(WeightsError) as error:
        load(tmp_path)
    message = str(error.value)
    assert WEIGHTS in message and "blocks.1.attn.qkv" not in message
    assert "missing transformer_blocks.1.attn1.to_k.weight (32, 32)" in message
    assert "missing proj_out_1.bias (64,)" in message
    assert "unexpected transformer_blocks.0.attn2.to_q.weight (2,)" in message
    assert "proj_out_2.bias: expected (32,), found (5,)" in message
    assert "transformer_blocks.2.attn1.to_v.bias: expected (32,), found (33,)" in message


@pytest.mark.parametrize("agree", [True, False])
@pytest.mark.parametrize("block", [0, 1, 2])
@pytest.mark.parametrize("name", EMBEDDERS)
def test_a_missing_or_misshapen_copy_is_named(name, block, agree, tmp_path):
    name = f"transformer_blocks.{block}.norm1.emb.{name}.weight"
    model = stock(agree)
    rewrite(save_stock(model, tmp_path), lambda tensors: tensors.pop(name))
    with pytest.raises(WeightsError, match=f"{WEIGHTS}.*missing {name}"):
        load(tmp_path)
    save_stock(model, tmp_path)
    rewrite(tmp_path, lambda tensors: tensors.update({name: tensors[name][:-1].clone()}))
    with pytest.raises(WeightsError, match=rf"{name}: expected \(\d+, \d+\), found \(\d+, \d+\)"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["x.bias", f"transformer_blocks.3.norm1.emb.{EMBEDDERS[2]}.weight"])
@pytest.mark.parametrize("agree", [True, False])
def test_a_tensor_too_many_is_named(agree, name, tmp_path):
    rewrite(save_stock(stock(agree), tmp_path), lambda tensors: tensors.update({name: torch.zeros(11, 32)}))
    with pytest.raises(WeightsError, match=rf"unexpected {name} \(11, 32\)"):
        load(tmp_path)


# --- the authors' checkpoints ---

AUTHORS = [
    ("DiT-S/8", {"input_size": 16}),
    ("DiT-N/4", {}),
    ("DiT-N/2", {"input_size": 8, "num_classes": 0}),
    ("DiT-N/2", {"input_size": 8, "learn_sigma": False, "num_classes": 3}),
    ("DiT-T/8", {"mlp_ratio": 2.5, "in_channels": 3}),
    ("DiT-M/4", {"input_size": 4, "mlp_ratio": 1.0, "in_channels": 1, "num_classes": 1}),
]


@pytest.fixture(scope="module")
def filled() -> Callable[..., dit.DiT]:
    """A preset with cheap random weights."""

    def make(name: str, **fields: Any) -> dit.DiT:
        with torch.device("meta"):
            model = dit.DiT(preset(name, **fields))
        generator = torch.Generator().manual_seed(0)
        model.to_empty(device="cpu")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.uniform_(-0.1, 0.1, generator=generator)
        return model.eval()

    return make


@pytest.mark.parametrize(("name", "fields"), AUTHORS, ids=str)
def test_the_authors_files_tell_their_config(name, fields, filled, tmp_path):
    model = filled(name, **fields)
    torch.save(model.state_dict(), tmp_path / "m.pt")
    assert describe(tmp_path / "m.pt") == (model.config, {})
    loaded = load(tmp_path / "m.pt")
    assert loaded.config == model.config and not loaded.training and not loaded.pos_embed.requires_grad
    assert loaded.blocks[0].mlp.fc1.weight.requires_grad
    for key, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor), key
    x, t = torch.randn(2, model.config.in_channels, *[model.config.input_size] * 2), torch.tensor([3, 900])
    with torch.no_grad():
        assert torch.equal(loaded(x, t, t % 2), model(x, t, t % 2))


@pytest.mark.parametrize("ending", ["pt", "pth", "ckpt", "bin", "safetensors"])
def test_the_authors_layout_in_any_container(ending, filled, tmp_path):
    model, path = filled("DiT-N/8", num_classes=10), tmp_path / f"m.{ending}"
    save_file(model.state_dict(), path) if ending == "safetensors" else torch.save(model.state_dict(), path)
    assert load(path).config == model.config


def training_checkpoint(model: dit.DiT) -> dict[str, Any]:
    """As DiT's and fast-DiT's train.py write it."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    args = argparse.Namespace(
        data_path="features", model="DiT-N/8", image_size=256, num_classes=10, epochs=14
    )
    ema = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    return {"model": model.state_dict(), "ema": ema, "opt": optimizer.state_dict(), "args": args}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("taken", ["ema", "model"])
def test_of_a_training_checkpoint_the_average_is_taken(taken, legacy, filled, tmp_path):
    content = training_checkpoint(filled("DiT-N/8", num_classes=10))
    if taken == "model":
        del content["ema"]
    torch.save(content, tmp_path / "0400000.pt", _use_new_zipfile_serialization=not legacy)
    loaded = load(tmp_path / "0400000.pt")
    assert loaded.config == preset("DiT-N/8", num_classes=10)
    for name, tensor in content[taken].items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_unknown_sizes_need_a_config(random_model, tmp_path):
    """A state dict does not tell the number of heads: 2 of 32 and 4 of 16 have the same tensors."""
    model = random_model(hidden_size=64, num_heads=4, depth=2, in_channels=4)
    torch.save(model.state_dict(), tmp_path / "m.pt")
    for use in (load, describe):
        with pytest.raises(WeightsError, match=r"m.pt: .*hidden_size 64 and depth 2.*config=") as error:
            use(tmp_path / "m.pt")
    assert "\n" not in str(error.value)
    loaded = load(tmp_path / "m.pt", config=model.config)
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([3, 900])
    with torch.no_grad():
        assert torch.equal(loaded(x, t, t % 10), model(x, t, t % 10))
        other = load(tmp_path / "m.pt", config=replace(model.config, num_heads=2))
        assert not torch.allclose(other(x, t, t % 10), model(x, t, t % 10), atol=1e-3)
    for fields in ({"depth": 4}, {"num_classes": 11}, {"input_size": 16}, {"learn_sigma": False}):
        with pytest.raises(WeightsError, match="m.pt: its tensors are not those of its config"):
            load(tmp_path / "m.pt", config=replace(model.config, **fields))


@pytest.mark.parametrize(
    "change",
    [
        lambda state: {name: state[name] for name in state if "blocks" not in name},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: state | {"x_embedder.proj.weight": torch.zeros(128, 48)},
        lambda state: state | {"pos_embed": torch.zeros(3)},
        lambda state: state | {"final_layer.linear.bias": torch.tensor(1.0)},
        lambda state: {name.replace("fc1", "w12"): tensor for name, tensor in state.items()},
        lambda state: state | {"blocks.x.attn": torch.zeros(3)},
        lambda state: {},
    ],
)
def test_another_architecture_is_named(change, filled, tmp_path):
    torch.save(change(filled("DiT-N/8", num_classes=1).state_dict()), tmp_path / "m.pt")
    with pytest.raises(WeightsError, match="m.pt: expected a DiT.*another architecture"):
        load(tmp_path / "m.pt")


@pytest.mark.parametrize(
    ("name", "shape"),
    [("pos_embed", (1, 0, 128)), ("blocks.0.mlp.fc1.bias", (0,)), ("pos_embed", (1, 15, 128))],
)
def test_sizes_of_no_model_are_named(name, shape, filled, tmp_path):
    state = filled("DiT-N/8", num_classes=1).state_dict() | {name: torch.zeros(shape)}
    torch.save(state, tmp_path / "m.pt")
    with pytest.raises(WeightsError, match="m.pt"):
        load(tmp_path / "m.pt")


# --- our own checkpoints ---


def test_checkpoints_of_our_first_version_load(random_model, tmp_path):
    """Which were one file; today's are folders, beside weights.safetensors."""
    model, average = random_model(seed=1), random_model(seed=2)
    optimizer = torch.optim.AdamW(model.parameters())
    content = {"step": 3, "config": average.config.to_dict(), "model": model.state_dict()}
    content |= {"ema": average.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(content, tmp_path / "step_00000003.pt")
    loaded = load(tmp_path / "step_00000003.pt")
    assert loaded.config == average.config
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), average.parameters(), strict=True))


def test_a_checkpoint_with_its_config_needs_no_preset(random_model, tmp_path):
    model = random_model(prediction="v", num_classes=4)
    content = {"config": model.config.to_dict(), "step": 3, "model": {}, "ema": model.state_dict()}
    torch.save(content | {"optimizer": {"state": {}}}, tmp_path / "step.pt")
    assert describe(tmp_path / "step.pt")[0] == load(tmp_path / "step.pt").config == model.config


def test_a_checkpoint_from_before_configs_says_so(random_model, tmp_path):
    model = random_model()
    torch.save({"step": 3, "ema": model.state_dict(), "optimizer": {}}, tmp_path / "step.pt")
    with pytest.raises(WeightsError, match="step.pt: expected a checkpoint with its config"):
        load(tmp_path / "step.pt")
    assert load(tmp_path / "step.pt", config=model.config).config == model.config


@pytest.mark.parametrize("config", [{"depth": 1}, {"hidden_size": "x", "depth": 1, "num_heads": 1}], ids=str)
def test_a_checkpoint_with_a_broken_config_is_named(config, tmp_path):
    torch.save({"config": config, "ema": {"w": torch.ones(1)}}, tmp_path / "step.pt")
    with pytest.raises(WeightsError, match="step.pt: expected a model config"):
        load(tmp_path / "step.pt")


def test_a_folder_with_our_file_is_taken_first(folder, random_model):
    model = random_model()
    save(folder / "weights.safetensors", model, {"name": "ours"})
    assert describe(folder) == (model.config, {"name": "ours", "autoencoder": str(folder / "vae")})


# --- half precision, and memory ---


def saved(layout: str, folder: Path) -> Path:
    if layout == "diffusers":
        return save_stock(stock(agree=True), folder)
    model = load(save_stock(stock(agree=True), folder / "stock"))
    path = folder / ("m.safetensors" if layout == "ours" else "m.pt")
    save(path, model) if layout == "ours" else torch.save(model.state_dict(), path)
    return path


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("layout", ["ours", "authors", "diffusers"])
def test_half_precision_loads_and_computes(layout, dtype, tmp_path):
    source = saved(layout, tmp_path)
    config = load(tmp_path / "stock").config if layout == "authors" else None
    whole, half = load(source, config=config), load(source, config=config, dtype=dtype)
    assert {tensor.dtype for tensor in half.state_dict().values()} == {dtype}
    for name, tensor in whole.state_dict().items():
        assert torch.equal(half.state_dict()[name], tensor.to(dtype)), name
    x, t, y = torch.randn(3, 4, 8, 8), torch.tensor([1, 500, 999]), torch.tensor([0, 9, 10])
    with torch.no_grad():
        expected, output = whole(x, t, y), half(x, t, y)
    assert output.dtype == torch.float32 and expected.std() > 0.1
    error = (output - expected).square().mean().sqrt() / expected.std()
    assert 0 < error < (0.1 if dtype == torch.bfloat16 else 0.02)


# Loads each file in a fork of a process that has the libraries: the peak is then of this load alone.
PROBE = """
import json, os, sys, torch
import dit
from tests.weights_files import memory

torch.set_num_threads(1)
peaks = []

def use(source, dtype, config):
    model = dit.load(source, dtype=getattr(torch, dtype), config=config and dit.ModelConfig.from_dict(config))
    for tensor in model.state_dict().values():
        tensor.sum()  # touches it all, as a forward pass does
    return sum(tensor.nbytes for tensor in model.state_dict().values())

small = (sys.argv[1], "bfloat16", None)
use(*small)
for case in json.loads(sys.argv[2]):
    reader, writer = os.pipe()
    if os.fork() == 0:
        use(*small)  # what the libraries keep for themselves is in memory from now on
        before = memory("VmRSS")
        size = use(*case)
        os.write(writer, json.dumps([size, memory("VmHWM") - before]).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as file:
        peaks.append(json.loads(file.read() or "null"))
    os.wait()
print(json.dumps(peaks))
"""
BIG = ModelConfig(hidden_size=512, depth=6, num_heads=8, input_size=16)  # 116 MB in float32


def hollow(layout: str, folder: Path) -> Path:
    """A large model without a byte on the disk."""
    with torch.device("meta"):
        model = dit.DiT(BIG)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if layout == "authors":
        with torch.serialization.skip_data():
            torch.save({name: torch.empty(shape) for name, shape in shapes.items()}, folder / "m.pt")
        return folder / "m.pt"
    if layout == "diffusers":
        (folder / "config.json").write_text(json.dumps(transformer_config(BIG)))
        theirs = {
            name: (shapes[ours][0] // len(parts), *shapes[ours][1:])
            for ours, parts in diffusers_names(BIG).items()
            for name in parts
        }
        theirs |= {copy: theirs[original] for copy, original in diffusers_copies(BIG).items()}
        write_hollow(folder / WEIGHTS, theirs)
        return folder
    metadata = {"format": FORMAT, "config": json.dumps(BIG.to_dict())}
    write_hollow(folder / "m.safetensors", shapes, "F16" if layout == "half" else "F32", **metadata)
    return folder / "m.safetensors"


CASES = [(layout, dtype) for layout in ("ours", "authors", "diffusers") for dtype in ("float32", "bfloat16")]
CASES += [("half", "float32")]


@pytest.fixture(scope="module")
def peaks(tmp_path_factory, project, pipeline_folder) -> dict[tuple[str, str], tuple[int, int]]:
    """Layout and type -> bytes of the weights, and most bytes in memory at once."""
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is counted in /proc")
    cases = []
    for layout, dtype in CASES:
        source = str(hollow(layout, tmp_path_factory.mktemp(layout)))
        cases.append((source, dtype, BIG.to_dict() if layout == "authors" else None))
    command = [sys.executable, "-c", PROBE, str(pipeline_folder), json.dumps(cases)]
    run = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return dict(zip(CASES, json.loads(run.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize(("layout", "dtype"), CASES)
def test_loading_takes_hardly_more_memory_than_the_weights(layout, dtype, peaks):
    size, peak = peaks[layout, dtype]
    assert size > (110e6 if dtype == "float32" else 55e6)
    assert 0.95 * size < peak < 1.25 * size  # less: then the measure would not see the weights
