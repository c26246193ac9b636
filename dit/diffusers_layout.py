"""How diffusers stores a DiT: its configs, its names for our tensors, its copies of the embedders."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dit.authors_layout import LABELS
from dit.config import ModelConfig
from dit.tensors import TensorFile, WeightsError

DIFFUSERS_CLASSES = ("DiTTransformer2DModel", "Transformer2DModel")  # the second is what it was called first
DIFFUSERS_FILES = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.bin.index.json",
)
DIFFUSERS_NULL = 1000  # the null class of its DiTPipeline, however many classes a model has

# What diffusers' DiT config may say besides sizes, and what we compute.
DIFFUSERS_FIXED = {
    "norm_type": ("ada_norm_zero",),
    "activation_fn": ("gelu-approximate",),
    "attention_bias": (True,),
    "norm_elementwise_affine": (False, None),
    "cross_attention_dim": (None,),
    "num_vector_embeds": (None,),
    "use_linear_projection": (False, None),
}
SCHEDULE_FIXED = {
    "num_train_timesteps": (1000,),
    "beta_schedule": ("linear",),
    "beta_start": (1e-4,),
    "beta_end": (2e-2,),
    "trained_betas": (None,),
    "rescale_betas_zero_snr": (False, None),
}
FLOWS = ("FlowMatch", "EDM")  # in the names of diffusers' schedulers of other processes
PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v"}


def diffusers_config(path: Path, values: dict[str, Any]) -> ModelConfig:
    """The model that a transformer/config.json of diffusers describes, computed as diffusers computes it.

    Raises:
        WeightsError: another architecture, or a variant of DiT that neither the paper nor we have.
    """
    if values.get("_class_name") not in DIFFUSERS_CLASSES:
        raise WeightsError(
            f"{path}: expected a {DIFFUSERS_CLASSES[0]}, found {values.get('_class_name')}; "
            "this is another architecture"
        )
    _check(path, values, DIFFUSERS_FIXED)
    try:
        channels, heads = values.get("in_channels", 4), values.get("num_attention_heads", 16)
        outputs = values.get("out_channels") or channels
        if outputs not in (channels, 2 * channels):
            raise ValueError(f"out_channels is {outputs}; it must be {channels} or {2 * channels}")
        return ModelConfig(
            hidden_size=heads * values.get("attention_head_dim", 72),
            depth=values.get("num_layers", 28),
            num_heads=heads,
            patch_size=values.get("patch_size", 2),
            input_size=values.get("sample_size", 32),
            in_channels=channels,
            num_classes=values.get("num_embeds_ada_norm", 1000),
            learn_sigma=outputs == 2 * channels,
            frequency_shift=1,
            mlp_norm_eps=values.get("norm_eps", 1e-5),
        )
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{path}: expected the sizes of a DiT, found a broken config: {error}") from error


def scheduled_prediction(path: Path) -> str:
    values = read_json(path)
    _check(path, values, SCHEDULE_FIXED)
    if any(flow in str(values.get("_class_name")) for flow in FLOWS):
        raise WeightsError(
            f"{path}: expected _class_name of a scheduler for DiT's noise, such as DDIMScheduler, "
            f"found {values['_class_name']}"
        )
    if (said := values.get("prediction_type", "epsilon")) not in PREDICTIONS:
        raise WeightsError(f"{path}: expected prediction_type {' or '.join(PREDICTIONS)}, found {said!r}")
    return PREDICTIONS[said]


def _check(path: Path, values: dict[str, Any], fixed: dict[str, tuple]) -> None:
    for name, allowed in fixed.items():
        if values.get(name, allowed[0]) not in allowed:
            raise WeightsError(
                f"{path}: expected {name} {allowed[0]!r}, as in every DiT, found {values[name]!r}"
            )


def read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise WeightsError(
            f"{path.parent}: expected a diffusers folder, or weights.safetensors in it, found no {path.name}"
        ) from error
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: expected JSON, found {error}; download it again") from error
    if not isinstance(values, dict):
        raise WeightsError(f"{path}: expected a JSON object, found {type(values).__name__}")
    return values


def diffusers_names(config: ModelConfig) -> dict[str, tuple[str, ...]]:
    """Our tensors -> diffusers' of the same content; where there are several, they are the rows of ours."""
    layers = {
        "x_embedder.proj": ("pos_embed.proj",),
        "final_layer.adaLN_modulation.1": ("proj_out_1",),
        "final_layer.linear": ("proj_out_2",),
    }
    tables = {}
    for i in range(config.depth):
        ours, theirs = f"blocks.{i}", f"transformer_blocks.{i}"
        layers |= {
            f"{ours}.adaLN_modulation.1": (f"{theirs}.norm1.linear",),
            f"{ours}.attn.qkv": tuple(f"{theirs}.attn1.to_{part}" for part in "qkv"),
            f"{ours}.attn.proj": (f"{theirs}.attn1.to_out.0",),
            f"{ours}.mlp.fc1": (f"{theirs}.ff.net.0.proj",),
            f"{ours}.mlp.fc2": (f"{theirs}.ff.net.2",),
        }
        if i == 0 or config.block_embedders:
            own, embedding = f"embedders.{i - 1}." if i else "", f"{theirs}.norm1.emb"
            layers[f"{own}t_embedder.mlp.0"] = (f"{embedding}.timestep_embedder.linear_1",)
            layers[f"{own}t_embedder.mlp.2"] = (f"{embedding}.timestep_embedder.linear_2",)
            if config.num_classes:
                tables[f"{own}{LABELS}"] = (f"{embedding}.class_embedder.embedding_table.weight",)
    parts = {
        f"{ours}.{part}": tuple(f"{name}.{part}" for name in theirs)
        for ours, theirs in layers.items()
        for part in ("weight", "bias")
    }
    return parts | tables


def _embedder_names(block: int) -> list[str]:
    """diffusers' tensors of one block's own embedders."""
    prefix = f"transformer_blocks.{block}.norm1.emb"
    linears = [f"{prefix}.timestep_embedder.linear_{i}.{part}" for i in (1, 2) for part in ("weight", "bias")]
    return [*linears, f"{prefix}.class_embedder.embedding_table.weight"]


def diffusers_copies(config: ModelConfig) -> dict[str, str]:
    """diffusers' tensors that `diffusers_names` leaves out -> the ones they repeat.

    Every block has embedders of its own there, though training by the authors' code makes only one; and an
    unconditional model has a table of labels all the same, which repeats itself alone.
    """
    first, copies = _embedder_names(0), {}
    if not config.block_embedders:
        for block in range(1, config.depth):
            copies |= dict(zip(_embedder_names(block), first, strict=True))
    if not config.num_classes:
        copies[first[-1]] = first[-1]
    return copies


def to_diffusers(config: ModelConfig, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under diffusers' names, its copies of the embedders included."""
    tensors: dict[str, Tensor] = {}
    for ours, theirs in diffusers_names(config).items():
        parts = (part.contiguous() for part in state[ours].chunk(len(theirs)))
        tensors |= dict(zip(theirs, parts, strict=True))
    copies = diffusers_copies(config).items()
    return tensors | {copy: tensors[original].clone() for copy, original in copies if original in tensors}


def embedders_agree(file: TensorFile, depth: int) -> bool:
    """Whether all blocks embed alike, as in the conversion of a model that the DiT authors' code trained."""
    names = [_embedder_names(block) for block in range(depth)]
    if missing := [name for block in names for name in block if name not in file.shapes]:
        raise WeightsError(f"{file.path}: its tensors are not those of its config: missing {missing[0]}")
    tensors = file.read(name for block in names for name in block)
    first = [tensors[name] for name in names[0]]
    return all(
        torch.equal(tensors[name], tensor)
        for block in names[1:]
        for name, tensor in zip(block, first, strict=True)
    )
