"""A model as a diffusers folder, which stock DiTPipeline.from_pretrained opens and samples."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dit.authors_layout import LABELS, kind_of
from dit.autoencoder import LATENT_CHANNELS, autoencoder_of, load_autoencoder
from dit.backbone import Backbone
from dit.classes import class_names
from dit.config import FREQUENCIES, ModelConfig
from dit.diffusers_layout import DIFFUSERS_NULL, diffusers_copies, to_diffusers
from dit.files import atomic_write
from dit.layers import sinusoids
from dit.layouts import FORMAT
from dit.tensors import TensorFile
from dit.weights import WeightsError, write_tensors

RIDGE = 1e-2  # on the refitted timestep weights: with less they grow large and fit no better


def check_exportable(config: ModelConfig) -> None:
    """Raises WeightsError if diffusers' DiTPipeline has no place for such a model; says why."""
    reasons = []
    if not config.is_latent:
        reasons.append("it draws pixels, and DiTPipeline decodes latents: train on latents to export")
    elif config.in_channels != LATENT_CHANNELS:
        reasons.append(
            f"its latents have {config.in_channels} channels, and the autoencoder's {LATENT_CHANNELS}"
        )
    if config.num_classes > DIFFUSERS_NULL:
        reasons.append(
            f"it has {config.num_classes} classes, and DiTPipeline's null class is {DIFFUSERS_NULL}"
        )
    if config.backbone != "dit" or config.conditioning != "adaln-zero":
        reasons.append(f"it is a {kind_of(config)}, and diffusers' DiT is dit, adaln-zero")
    if config.formulation != "ddpm":
        reasons.append(f"its formulation is {config.formulation}, and DiTPipeline's schedulers are of ddpm")
    if config.qk_norm:
        reasons.append("its queries and keys are normalised (qk_norm), and those of diffusers' DiT are not")
    if config.mlp_ratio != 4:
        reasons.append(f"its mlp_ratio is {config.mlp_ratio}, and diffusers' is always 4")
    if reasons:
        raise WeightsError(f"this model cannot be a diffusers folder: {'; '.join(reasons)}")


def export_diffusers(
    model: Backbone, folder: Path, autoencoder: str | None = None, dtype: torch.dtype = torch.float32
) -> Path:
    """Write a model of latents as a folder of DiTPipeline: transformer, scheduler, autoencoder, index.

    Config and provenance travel inside the transformer's file, so that `dit.load` knows the model again.
    autoencoder: as `load_autoencoder` takes it; None: the one that the model came with.

    Raises:
        WeightsError: diffusers has no place for such a model, the autoencoder cannot be loaded, or the folder
            holds something else already.
    """
    check_exportable(model.config)
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    ours = weights.is_file() and FORMAT in TensorFile(weights).metadata
    if folder.exists() and any(folder.iterdir()) and not ours:
        raise WeightsError(f"{folder}: holds other files; give a new folder, or one of an earlier export")
    decoder = load_autoencoder(autoencoder_of(model.provenance, autoencoder))
    config, state = _as_diffusers_computes(model)
    tensors = {name: tensor.to(dtype) for name, tensor in _with_all_labels(config, state).items()}
    provenance = {k: v for k, v in model.provenance.items() if k != "autoencoder"}  # vae/ travels along
    own = {"config": config.to_dict(), "provenance": provenance}
    write_tensors(weights, tensors, {"format": "pt", FORMAT: own})
    _write(folder / "transformer" / "config.json", transformer_config(config))
    _write(folder / "scheduler" / "scheduler_config.json", scheduler_config(config))
    decoder.module.register_to_config(_name_or_path="")  # where it was on this machine
    decoder.module.save_pretrained(folder / "vae")
    names = class_names(model.provenance, config.num_classes)
    _write(folder / "model_index.json", _index(type(decoder.module).__name__, names))
    return folder


def _write(path: Path, values: dict[str, Any]) -> None:
    atomic_write(path, lambda temporary: temporary.write_text(json.dumps(values, indent=2) + "\n"))


def transformer_config(config: ModelConfig) -> dict[str, Any]:
    """transformer/config.json of diffusers."""
    return {
        "_class_name": "DiTTransformer2DModel",
        "activation_fn": "gelu-approximate",
        "attention_bias": True,
        "attention_head_dim": config.hidden_size // config.num_heads,
        "dropout": 0.0,
        "in_channels": config.in_channels,
        "norm_elementwise_affine": False,
        "norm_eps": config.mlp_norm_eps,
        "norm_num_groups": 32,
        "norm_type": "ada_norm_zero",
        "num_attention_heads": config.num_heads,
        "num_embeds_ada_norm": DIFFUSERS_NULL,
        "num_layers": config.depth,
        "out_channels": config.out_channels,
        "patch_size": config.patch_size,
        "sample_size": config.input_size,
        "upcast_attention": False,
    }


def scheduler_config(config: ModelConfig) -> dict[str, Any]:
    """scheduler/scheduler_config.json of diffusers: the DiT paper's noise, walked by DDIM."""
    return {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": 1000,
        "beta_schedule": "linear",
        "beta_start": 1e-4,
        "beta_end": 2e-2,
        "clip_sample": False,
        "prediction_type": "v_prediction" if config.prediction == "v" else "epsilon",
        "set_alpha_to_one": True,
        "steps_offset": 0,
        "timestep_spacing": "leading",
    }


def _index(autoencoder: str, names: tuple[str, ...]) -> dict[str, Any]:
    return {
        "_class_name": "DiTPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "transformer": ["diffusers", "DiTTransformer2DModel"],
        "vae": ["diffusers", autoencoder],
        "id2label": {str(y): name for y, name in enumerate(names)},
    }


def _as_diffusers_computes(model: Backbone) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The model's tensors, refitted where diffusers embeds timesteps by other frequencies than ours."""
    state = {name: tensor.detach().float().cpu() for name, tensor in model.state_dict().items()}
    config = model.config
    if config.frequency_shift == 0:
        config = replace(config, frequency_shift=1)
        for name in [name for name in state if name.endswith("t_embedder.mlp.0.weight")]:
            bias = name.replace(".weight", ".bias")
            state[name], state[bias] = refit_timesteps(state[name], state[bias])
    return config, state


def refit_timesteps(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """A first timestep layer for diffusers' frequencies that gives what this one gives for the authors'.

    By least squares over the thousand timesteps, ridge-regularised: diffusers divides the frequencies'
    exponents by 127 instead of 128, and its config has no field for that. The slow frequencies, on which
    trained models lean most, are met closely; a few fast ones cannot be.
    weight: (D, 256), bias: (D,) -> the same shapes.
    """
    t = torch.arange(1000)
    given = torch.cat([sinusoids(t, shift=1).double(), torch.ones(1000, 1, dtype=torch.float64)], dim=1)
    wanted = sinusoids(t).double() @ weight.double().T + bias.double()
    ridge = math.sqrt(RIDGE) * torch.eye(2 * FREQUENCIES + 1, dtype=torch.float64)
    fitted = torch.linalg.lstsq(
        torch.cat([given, ridge]), torch.cat([wanted, wanted.new_zeros(len(ridge), len(bias))])
    ).solution
    return fitted[:-1].T.float().contiguous(), fitted[-1].float()


def _with_all_labels(config: ModelConfig, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """diffusers' tensors, with the 1001 labels that DiTPipeline counts on."""
    widened = {name: _widened(table, config) for name, table in state.items() if name.endswith(LABELS)}
    tensors = to_diffusers(config, state | widened)
    empty = torch.zeros(DIFFUSERS_NULL + 1, config.hidden_size)  # the labels of an unconditional model
    return tensors | {copy: empty.clone() for copy in diffusers_copies(config) if copy not in tensors}


def _widened(table: Tensor, config: ModelConfig) -> Tensor:
    """(K + 1, D) -> (1001, D): the null class at 1000, where DiTPipeline looks, and in all rows between.

    A model without a null class has the mean of its classes there; guidance above 1 means little for it.
    """
    classes = table[: config.num_classes]
    null = table[-1:] if config.has_null_class else classes.mean(dim=0, keepdim=True)
    return torch.cat([classes, null.expand(DIFFUSERS_NULL + 1 - len(classes), -1)])
