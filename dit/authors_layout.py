"""Which network a bare state dict is of, by its names and shapes: the authors' files of DiT and DiffiT."""

import math

import torch

from dit.config import U_SHAPED, ModelConfig
from dit.diffit import relative_position_index
from dit.presets import MODELS
from dit.tensors import TensorFile, WeightsError

LABELS = "y_embedder.embedding_table.weight"
INDEX = ".attn.relative_position_index"  # a buffer of DiffiT's files; computed here, not stored


def kind_of(config: ModelConfig) -> str:
    """A network's kind in words, for errors."""
    return f"{config.backbone}, {config.conditioning}" if config.backbone == "dit" else config.backbone


def kind_of_tensors(shapes: dict[str, tuple[int, ...]]) -> str:
    """The kind of network that tensors are of, as `kind_of` says it; "another architecture" if of none."""
    first = "blocks.0."
    if any(name.startswith("unet.") for name in shapes):
        return "unet"
    if "tokenizer.weight" in shapes:
        return "diffit-image"
    if f"{first}attn.qkv_temb.weight" in shapes:
        return "diffit"
    if f"{first}cross_attn.q.weight" in shapes:
        return "dit, cross-attention"
    if f"{first}norm1.weight" in shapes and "x_embedder.proj.weight" in shapes:
        return "dit, in-context"
    rows = shapes.get(f"{first}adaLN_modulation.1.weight", (0, 0))
    if len(rows) == 2 and rows[1] and rows[0] in (4 * rows[1], 6 * rows[1]):
        return "dit, adaln-zero" if rows[0] == 6 * rows[1] else "dit, adaln"
    return "another architecture"


def authors_config(file: TensorFile) -> ModelConfig:
    """The config that a state dict in the authors' layouts must have had.

    Raises:
        WeightsError: another architecture, or its shapes do not tell all.
    """
    shapes, kind = file.shapes, kind_of_tensors(file.shapes)
    if kind in ("unet", "diffit-image"):
        raise WeightsError(
            f"{file.path}: expected a file with its config inside, found bare tensors of a {kind}, which do "
            "not tell it; give the config: dit.load(path, config=...)"
        )
    try:
        width, channels, patch, _ = shapes["x_embedder.proj.weight"]
        tokens = shapes["pos_embed"][1]
        depth = 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("blocks."))
        outputs = shapes["final_layer.linear.bias"][0] // patch**2
        mlp = shapes["blocks.0.mlp.fc1.bias"][0]
        labels = shapes[LABELS][0] if LABELS in shapes else 0
        if kind == "diffit":
            fields = {
                "backbone": "diffit",
                "num_heads": shapes["blocks.0.attn.relative_position_bias_table"][1],
            }
        else:
            fields = {"conditioning": kind.removeprefix("dit, "), "num_heads": _heads(file, width, depth)}
    except (KeyError, ValueError, IndexError) as error:
        if isinstance(error, WeightsError):
            raise
        known = ", ".join(sorted(shapes)[:3]) or "none"
        raise WeightsError(
            f"{file.path}: expected a DiT in the authors' layout (x_embedder.proj.weight, pos_embed, "
            f"blocks.0.attn.qkv.weight, ...), found {len(shapes)} tensors ({known}, ...); this is another "
            "architecture"
        ) from error
    try:
        return ModelConfig(
            hidden_size=width,
            depth=depth,
            patch_size=patch,
            input_size=math.isqrt(tokens) * patch,
            in_channels=channels,
            mlp_ratio=mlp / width,
            num_classes=max(0, labels - 1),  # the authors' last row is the null class
            learn_sigma=outputs == 2 * channels,
            qk_norm="blocks.0.attn.q_norm.weight" in shapes,
            **fields,
        )
    except ValueError as error:
        raise WeightsError(f"{file.path}: expected the shapes of a DiT, found others: {error}") from error


def _heads(file: TensorFile, width: int, depth: int) -> int:
    """The number of heads of the presets of this size. Raises WeightsError if that is not one number."""
    heads = {
        config.num_heads
        for config in MODELS.values()
        if config.backbone not in U_SHAPED and (config.hidden_size, config.depth) == (width, depth)
    }
    if len(heads) != 1:
        raise WeightsError(
            f"{file.path}: expected the sizes of a preset, found hidden_size {width} and depth {depth}, and "
            "a state dict does not tell the number of heads; give the config: dit.load(path, config=...)"
        )
    return heads.pop()


def index_buffers(file: TensorFile, config: ModelConfig) -> set[str]:
    """DiffiT's index buffers in a file, which need not be read again: they are what we compute.

    Raises:
        WeightsError: one is not, so that its model would attend to other places than ours.
    """
    if config.backbone != "diffit":
        return set()
    names = {name for name in file.shapes if name.endswith(INDEX)}
    expected = relative_position_index(config.input_size // config.patch_size)
    for name in sorted(names):
        if not torch.equal(file.read([name])[name], expected):
            raise WeightsError(
                f"{file.path}: expected the relative positions of a {expected.shape[0]}-token grid in "
                f"{name}, found others; this is another architecture"
            )
    return names
