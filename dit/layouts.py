"""How others name and cut the tensors of a DiT: the authors' checkpoints, and diffusers' folders."""

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from dit.config import MODELS, ModelConfig
from dit.tensors import PICKLES, TensorFile, WeightsError

FORMAT = "dit-lab/1"  # of our own files
DIFFUSERS_CLASSES = ("DiTTransformer2DModel", "Transformer2DModel")  # the second is what it was called first
DIFFUSERS_FILES = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.bin.index.json",
)
DIFFUSERS_NULL = 1000  # the null class of its DiTPipeline, however many classes a model has
LABELS = "y_embedder.embedding_table.weight"

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
}
PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v"}


@dataclass
class Stored:
    """A model at rest: its config, where it comes from, and which stored tensors make up each of ours."""

    file: TensorFile
    config: ModelConfig
    provenance: dict[str, Any]
    sources: dict[str, tuple[str, ...]]  # our tensor -> theirs; several are its rows, none: it is computed
    copies: set[str] = field(default_factory=set)  # theirs that repeat others, and are not read


def open_stored(path: Path, config: ModelConfig | None = None) -> Stored:
    """What a weights file or a diffusers folder holds, without reading a tensor that need not be.

    path: our file, a bare state dict in the authors' layout, a checkpoint with `ema` or `model` inside, a
    folder of a diffusers pipeline or of its transformer, or a folder with our weights.safetensors.
    config: for a bare state dict whose sizes are no preset's.

    Raises:
        WeightsError: damaged, of another architecture, or not enough to know the model by.
    """
    if path.is_dir():
        if (path / "weights.safetensors").is_file():
            return _with_autoencoder(open_stored(path / "weights.safetensors", config), path)
        return _with_autoencoder(_open_diffusers(path), path)
    file = TensorFile(path)
    provenance: dict[str, Any] = {}
    if file.metadata.get("format") == FORMAT:
        found, provenance = parse_header(path, file.metadata)
        config = config or found
    elif isinstance(file.extras.get("config"), dict):  # our checkpoints
        config = config or _config_of(path, file.extras["config"])
    elif "optimizer" in file.extras and config is None:
        raise WeightsError(
            f"{path}: expected a checkpoint with its config inside, found one from before they had any; "
            "load the weights.safetensors of its run"
        )
    else:
        config = config or _authors_config(file)
    return Stored(file, config, provenance, {name: (name,) for name in _names_of(config)})


def _with_autoencoder(found: Stored, folder: Path) -> Stored:
    """Note the autoencoder that lies beside a model."""
    if (folder / "vae" / "config.json").is_file():
        found.provenance = found.provenance | {"autoencoder": str(folder / "vae")}
    return found


def parse_header(path: Path, metadata: dict[str, str]) -> tuple[ModelConfig, dict[str, Any]]:
    """Config and provenance of one of our files. Raises WeightsError where they are broken."""
    try:
        provenance = json.loads(metadata.get("provenance", "{}"))
        return ModelConfig.from_dict(json.loads(metadata["config"])), provenance
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: expected a model config inside, found a broken one: {error}") from error


def _config_of(path: Path, values: dict[str, Any]) -> ModelConfig:
    return parse_header(path, {"config": json.dumps(values)})[0]


def _names_of(config: ModelConfig) -> list[str]:
    from dit.dit import DiT

    with torch.device("meta"):
        return list(DiT(config).state_dict())


def _authors_config(file: TensorFile) -> ModelConfig:
    """The config that a state dict in the DiT authors' layout must have had."""
    shapes = file.shapes
    try:
        width, channels, patch, _ = shapes["x_embedder.proj.weight"]
        tokens = shapes["pos_embed"][1]
        depth = 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("blocks."))
        outputs = shapes["final_layer.linear.bias"][0] // patch**2
        mlp = shapes["blocks.0.mlp.fc1.bias"][0]
        labels = shapes[LABELS][0] if LABELS in shapes else 0
    except (KeyError, ValueError, IndexError) as error:
        known = ", ".join(sorted(shapes)[:3]) or "none"
        raise WeightsError(
            f"{file.path}: expected a DiT in the authors' layout (x_embedder.proj.weight, pos_embed, "
            f"blocks.0.attn.qkv.weight, ...), found {len(shapes)} tensors ({known}, ...); this is another "
            "architecture"
        ) from error
    heads = {
        preset.num_heads for preset in MODELS.values() if (preset.hidden_size, preset.depth) == (width, depth)
    }
    if len(heads) != 1:
        raise WeightsError(
            f"{file.path}: expected the sizes of a preset, found hidden_size {width} and depth {depth}, and "
            "a state dict does not tell the number of heads; give the config: dit.load(path, config=...)"
        )
    return ModelConfig(
        hidden_size=width,
        depth=depth,
        num_heads=heads.pop(),
        patch_size=patch,
        input_size=math.isqrt(tokens) * patch,
        in_channels=channels,
        mlp_ratio=mlp / width,
        num_classes=max(0, labels - 1),  # the authors' last row is the null class
        learn_sigma=outputs == 2 * channels,
    )


# --- diffusers ---


def _open_diffusers(folder: Path) -> Stored:
    index = _json(folder / "model_index.json") if (folder / "model_index.json").is_file() else {}
    home = folder / "transformer" if index else folder
    values = _json(home / "config.json")
    weights = next((home / name for name in DIFFUSERS_FILES if (home / name).is_file()), None)
    if weights is None:
        raise WeightsError(
            f"{home}: expected {' or '.join(DIFFUSERS_FILES[::2])}, found neither; download it again"
        )
    scheduler = folder / "scheduler" / "scheduler_config.json"
    config = diffusers_config(home / "config.json", values)
    provenance: dict[str, Any] = {}
    if scheduler.is_file():
        config = replace(config, prediction=_prediction(scheduler))
    if labels := index.get("id2label"):
        provenance["classes"] = [labels.get(str(y), f"class {y}") for y in range(config.num_classes)]
    file = TensorFile(weights)
    if FORMAT in file.metadata:  # exported by us: it says what the layout cannot
        own = json.loads(file.metadata[FORMAT])
        config = _config_of(weights, own["config"])
        provenance = own["provenance"]
    elif not _embedders_agree(file, config.depth):
        config = replace(config, block_embedders=True)
    sources = diffusers_names(config)
    return Stored(file, config, provenance, sources | {"pos_embed": ()}, set(diffusers_copies(config)))


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
    channels = values.get("in_channels", 4)
    outputs = values.get("out_channels") or channels
    if outputs not in (channels, 2 * channels):
        raise WeightsError(f"{path}: expected out_channels {channels} or {2 * channels}, found {outputs}")
    heads = values.get("num_attention_heads", 16)
    try:
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


def _prediction(path: Path) -> str:
    values = _json(path)
    _check(path, values, SCHEDULE_FIXED)
    if (said := values.get("prediction_type", "epsilon")) not in PREDICTIONS:
        raise WeightsError(f"{path}: expected prediction_type {' or '.join(PREDICTIONS)}, found {said!r}")
    return PREDICTIONS[said]


def _check(path: Path, values: dict[str, Any], fixed: dict[str, tuple]) -> None:
    for name, allowed in fixed.items():
        if values.get(name, allowed[0]) not in allowed:
            raise WeightsError(
                f"{path}: expected {name} {allowed[0]!r}, as in every DiT, found {values[name]!r}"
            )


def _json(path: Path) -> dict[str, Any]:
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


def _embedders_agree(file: TensorFile, depth: int) -> bool:
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


__all__ = ["DIFFUSERS_NULL", "FORMAT", "PICKLES", "Stored", "diffusers_names", "open_stored", "parse_header"]
