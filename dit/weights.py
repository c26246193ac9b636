"""Weights files that explain themselves: safetensors with config and provenance in the metadata."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dit import remote
from dit.authors_layout import LABELS, kind_of, kind_of_tensors
from dit.backbone import Backbone
from dit.config import ModelConfig
from dit.diffusers_layout import DIFFUSERS_NULL
from dit.files import atomic_write
from dit.layers import LAYER_NORM_EPS, sincos_position_table
from dit.layouts import FORMAT, Stored, open_stored
from dit.models import network
from dit.presets import MODELS, preset
from dit.published import PUBLISHED, Published, is_repo_id, published
from dit.tensors import PICKLES, WeightsError, opened

ZOO = Path(__file__).resolve().parent.parent / "assets" / "zoo"
BACKBONES = ZOO / "backbones"
MODEL_NAME = re.compile(r"(Di(T|ffiT)-[A-Z]+[/-]\d+|UNet-[A-Z]+).*")  # nobody's repository
SHARE = 1 / 16  # of a file that may be in memory twice while it is converted


def save(
    path: Path | str,
    model: nn.Module,
    provenance: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a model's weights, config and provenance to one safetensors file, atomically.

    dtype: of what was trained; the fixed position table stays float32, since rounding it would shift it.

    provenance: JSON values: dataset, recipe, images seen, commit, class names, measured results.
    """
    write_weights(path, model.state_dict(), model.config, provenance, dtype)


def write_weights(
    path: Path | str,
    state: dict[str, Tensor],
    config: ModelConfig,
    provenance: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """`save` of a state dict, such as one of averaged weights."""
    tensors = {
        name: tensor.detach().to("cpu", torch.float32 if name == "pos_embed" else dtype).contiguous()
        for name, tensor in state.items()
    }
    header = {"format": FORMAT, "config": config.to_dict(), "provenance": provenance or {}}
    write_tensors(Path(path), tensors, header)


def write_tensors(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write a safetensors file atomically. header: "format", a string, and JSON values. Raises OSError."""
    metadata = {name: value if name == "format" else json.dumps(value) for name, value in header.items()}
    try:
        atomic_write(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))
    except SafetensorError as error:  # mostly of a full disk
        raise OSError(f"{path}: could not be written: {error}; make room, and try again") from error


def read_header(path: Path, expected: str) -> dict[str, Any]:
    """The header that `write_tensors` wrote, without reading a tensor. expected: its format.

    Raises:
        WeightsError: truncated, or of another format.
    """
    with opened(path) as file:
        metadata = file.metadata() or {}
    if metadata.get("format") != expected:
        raise WeightsError(
            f"{path}: expected a file of format {expected!r} with its config inside, "
            f"found format {metadata.get('format')!r}; give a file that this project has written"
        )
    try:
        return {name: value if name == "format" else json.loads(value) for name, value in metadata.items()}
    except ValueError as error:
        raise WeightsError(f"{path}: expected a header of JSON, found a broken one: {error}") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, as stored, on the CPU. Raises WeightsError for a damaged file."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path}: expected readable tensors, found {error}; copy or download it again"
        ) from error


def set_provenance(path: Path, provenance: dict[str, Any]) -> None:
    """Replace a model file's provenance, atomically; its tensors and config stay as they are.

    Raises:
        WeightsError: not a model's weights file.
    """
    write_tensors(path, read_tensors(path), read_header(path, FORMAT) | {"provenance": provenance})


def zoo() -> dict[str, Path]:
    """The bundled weights of the ladder: name -> file. A file's name is its model's, a dash for the slash."""
    return {path.stem: path for path in sorted(ZOO.glob("*.safetensors"))}


def bundled() -> dict[str, Path]:
    """All bundled weights: the ladder's, and the backbones that were compared at equal compute."""
    return zoo() | {path.stem: path for path in sorted(BACKBONES.glob("*.safetensors"))}


def locate(source: Path | str, revision: str | None = None) -> Path:
    """The file or folder that a source means: a path, a bundled model's name, a published one's, a Hub repo.

    What is on the Hub is downloaded, unless it is in the cache already.

    Raises:
        WeightsError: none of them; the message lists the names there are. Or it cannot be downloaded.
    """
    path = Path(source)
    here = path if path.exists() else bundled().get(str(source).replace("/", "-"))
    name = None if here else published(str(source))
    if revision and (here or name):
        raise WeightsError(f"{source}: revision {revision!r} is for OWNER/NAME on the Hub; leave it out here")
    if here:
        return here
    if name:
        return remote.fetch(PUBLISHED[name].repo_id, PUBLISHED[name].revision)
    names = [*bundled(), *PUBLISHED]
    is_file_name = path.suffix in (".safetensors", *PICKLES)
    if is_file_name or MODEL_NAME.fullmatch(str(source)) or not is_repo_id(str(source)):
        near = [name for name in names if name.replace("/", "-").startswith(f"{source}-".replace("/", "-"))]
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        if not near and str(source) in MODELS:
            hint = f" with weights (python -m train --model {source} makes some)"
        raise WeightsError(
            f"{source}: no such file or folder, and no model of that name{hint}; "
            f"there are {', '.join(names)}; or give OWNER/NAME on the Hub"
        )
    try:
        return remote.fetch(str(source), revision)
    except WeightsError as error:
        raise WeightsError(f"{error} (and no model is called so here: there are {names})") from error


def stored(source: Path | str, config: ModelConfig | None = None, revision: str | None = None) -> Stored:
    """Config, provenance and whereabouts of the tensors of any source that `load` takes.

    Raises:
        WeightsError: see `load`.
    """
    found = open_stored(locate(source, revision), config)
    if not Path(source).exists() and (name := published(str(source))):
        # diffusers would compute these weights otherwise than the authors' code, which trained them.
        found.config = replace(found.config, frequency_shift=0, mlp_norm_eps=LAYER_NORM_EPS)
        found.provenance |= PUBLISHED[name].provenance()
    return found


def describe(source: Path | str) -> tuple[ModelConfig, dict[str, Any]]:
    """Config and provenance of a source, without reading its tensors.

    Raises:
        WeightsError: see `load`.
    """
    found = stored(source)
    return found.config, found.provenance


def load(
    source: Path | str,
    device: torch.device | str = "cpu",
    *,
    dtype: torch.dtype = torch.float32,
    config: ModelConfig | None = None,
    revision: str | None = None,
) -> Backbone:
    """A model in evaluation mode, from wherever its weights are.

    source: the name of a bundled model or of a published one (`published.PUBLISHED`); a file of ours, the DiT
    authors' or fast-DiT's checkpoint; a folder of diffusers; a repository on the Hub that holds either.
    dtype: of all weights. float32 weights on a CPU stay in the file, mapped; else they are read part by part,
    so that little is in memory twice.
    config: for a bare state dict whose sizes are no preset's. revision: of a repository; commit, tag, branch.

    Nothing is unpickled but tensors. Every tensor must be there, none may be left over, all shapes must fit.

    Raises:
        WeightsError: no such source, not reachable, damaged, of another architecture; missing, unexpected or
            wrong-shape tensors, each named.
    """
    device, found = torch.device(device), stored(source, config, revision)
    model, rows = _outline(found)
    state: dict[str, Tensor] = {}
    for names in _groups(found, rows, keep=device == torch.device("cpu") and dtype == torch.float32):
        tensors = found.file.read(name for ours in names for name in found.sources[ours])
        for ours in names:
            parts = [tensors[name] for name in found.sources[ours]]
            if ours in rows:
                parts = [parts[0][rows[ours]]]
            state[ours] = _assembled(parts, found.config).to(device, dtype)
        tensors = parts = None  # and with them the pages of the file that they touched
    model.load_state_dict(state, strict=True, assign=True)
    if hasattr(model, "pos_embed"):
        model.pos_embed.requires_grad_(False)  # assigning has made it one that is trained
    return model.eval()


def outline(source: Path | str, config: ModelConfig | None = None, revision: str | None = None) -> Backbone:
    """The model that `load` would make, on the meta device: config, provenance and shapes, no weights.

    Raises:
        WeightsError: see `load`.
    """
    return _outline(stored(source, config, revision))[0]


def published_outline(model: Published) -> Backbone:
    """`outline` of a published model that need not be on this disk."""
    with torch.device("meta"):
        empty = network(preset("DiT-XL/2", input_size=model.side // 8))
    empty.provenance = model.provenance()
    return empty.eval()


def _outline(found: Stored) -> tuple[Backbone, dict[str, list[int]]]:
    """The empty model of what is stored, and what `_check_shapes` returns."""
    with torch.device("meta"):
        model = network(found.config)
    model.provenance = found.provenance
    found.sources = found.sources or {name: (name,) for name in model.state_dict()}
    return model.eval(), _check_shapes(found, model)


def _assembled(parts: list[Tensor], config: ModelConfig) -> Tensor:
    """One of our tensors from the stored ones: the rows of several, or the position table of none."""
    if not parts:
        return sincos_position_table(config.hidden_size, config.input_size // config.patch_size)[None]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _groups(found: Stored, rows: dict[str, list[int]], keep: bool) -> list[list[str]]:
    """Our tensors in groups to be read together, so that what is copied leaves memory soon.

    keep: those that are stored as the model needs them stay in the file, all in one group. The others come in
    parts of a SHARE of the file: then no more than that is in memory twice.
    """
    kept, parts, size = [], [[]], 0
    limit = SHARE * sum(map(math.prod, found.file.shapes.values()))
    for name, theirs in found.sources.items():
        if keep and len(theirs) == 1 and name not in rows and theirs[0] in found.file.float32:
            kept.append(name)
            continue
        parts[-1].append(name)
        size += sum(math.prod(found.file.shapes[source]) for source in theirs)
        if size > limit:
            parts, size = [*parts, []], 0
    return [kept, *parts]


def _check_shapes(found: Stored, model: Backbone) -> dict[str, list[int]]:
    """Compare what is stored with what the model needs, in the names of the file.

    Returns the rows to take of a label table that diffusers made larger: classes, then the null class.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    expected, rows = {}, {}
    for ours, theirs in found.sources.items():
        length, *rest = shapes[ours]
        for name in theirs:
            expected[name] = (length // len(theirs), *rest)
        widened = theirs != (ours,) and ours.endswith(LABELS)
        if widened and found.file.shapes.get(theirs[0]) == (DIFFUSERS_NULL + 1, *rest):
            expected[theirs[0]] = (DIFFUSERS_NULL + 1, *rest)
            classes = found.config.num_classes
            rows[ours] = [*range(classes), DIFFUSERS_NULL][:length] if length <= DIFFUSERS_NULL else []
    actual = {name: shape for name, shape in found.file.shapes.items() if name not in found.copies}
    if problems := _differences(expected, actual):
        wanted, there = kind_of(found.config), kind_of_tensors(actual)
        own = all(theirs == (ours,) for ours, theirs in found.sources.items())
        hint = (
            f"it is of a {there}, and the config of a {wanted}; give the weights' own config, or none: "
            if own and wanted != there
            else ""
        )
        raise WeightsError(f"{found.file.path}: its tensors are not those of its config: {hint}{problems}")
    return {name: chosen for name, chosen in rows.items() if chosen}


def _differences(expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]) -> str:
    """What distinguishes two tables of shapes, as one sentence; empty if nothing does."""
    lines = [f"missing {name} {expected[name]}" for name in sorted(set(expected) - set(found))]
    lines += [f"unexpected {name} {found[name]}" for name in sorted(set(found) - set(expected))]
    lines += [
        f"{name}: expected {expected[name]}, found {found[name]}"
        for name in sorted(set(expected) & set(found))
        if expected[name] != found[name]
    ]
    shown = "; ".join(lines[:8])
    return f"{shown}; and {len(lines) - 8} more" if len(lines) > 8 else shown
