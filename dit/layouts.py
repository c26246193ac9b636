"""How others name and cut the tensors of a DiT: the authors' checkpoints, and diffusers' folders."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dit.authors_layout import authors_config, index_buffers, kind_of
from dit.config import ModelConfig
from dit.diffusers_layout import (
    DIFFUSERS_FILES,
    diffusers_config,
    diffusers_copies,
    diffusers_names,
    embedders_agree,
    read_json,
    scheduled_prediction,
)
from dit.tensors import TensorFile, WeightsError

FORMAT = "dit-lab/1"  # of our own files


@dataclass
class Stored:
    """A model at rest: its config, where it comes from, and which stored tensors make up each of ours."""

    file: TensorFile
    config: ModelConfig
    provenance: dict[str, Any]
    # Our tensor -> theirs; several are its rows, none: it is computed. None: all have our own names.
    sources: dict[str, tuple[str, ...]] | None = None
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
        if (path / "state.json").is_file():
            raise WeightsError(
                f"{path} is a checkpoint, to go on training from; the averaged weights of its run are "
                f"{path.parent.parent / 'weights.safetensors'}"
            )
        return _with_autoencoder(_open_diffusers(path), path)
    file = TensorFile(path)
    provenance: dict[str, Any] = {}
    if file.metadata.get("format") == FORMAT:
        found, provenance = parse_header(path, file.metadata)
        config = _agreeing(path, config, found)
    elif isinstance(file.extras.get("config"), dict):  # our checkpoints
        config = _agreeing(path, config, _config_of(path, file.extras["config"]))
    elif "optimizer" in file.extras and config is None:
        raise WeightsError(
            f"{path}: expected a checkpoint with its config inside, found one from before they had any; "
            "load the weights.safetensors of its run"
        )
    else:
        config = config or authors_config(file)
    return Stored(file, config, provenance, copies=index_buffers(file, config))


def _agreeing(path: Path, given: ModelConfig | None, found: ModelConfig) -> ModelConfig:
    """The file's own config. Raises WeightsError where another is given."""
    if given and kind_of(given) != kind_of(found):
        raise WeightsError(
            f"{path}: expected weights of a {kind_of(given)}, as the config given, found those of a "
            f"{kind_of(found)}; leave the config out: the file has its own"
        )
    if given and given != found:
        own = found.to_dict()
        differ = [f"{k} {v!r}, in the file {own[k]!r}" for k, v in given.to_dict().items() if v != own[k]]
        raise WeightsError(
            f"{path}: expected the config given, found another: {'; '.join(differ)}; leave the config out: "
            "the file has its own"
        )
    return found


def _with_autoencoder(found: Stored, folder: Path) -> Stored:
    """Note the autoencoder that lies beside a model."""
    if (folder / "vae" / "config.json").is_file():
        found.provenance = found.provenance | {"autoencoder": str((folder / "vae").resolve())}
    return found


def parse_header(path: Path, metadata: dict[str, str]) -> tuple[ModelConfig, dict[str, Any]]:
    """Config and provenance of one of our files. Raises WeightsError where they are broken."""
    try:
        provenance = json.loads(metadata.get("provenance", "{}"))
        config = ModelConfig.from_dict(json.loads(metadata["config"]))
        if not isinstance(provenance, dict):
            raise TypeError(f"provenance is a {type(provenance).__name__}, not an object")
        return config, provenance
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: expected a model config inside, found a broken one: {error}") from error


def _config_of(path: Path, values: dict[str, Any]) -> ModelConfig:
    return parse_header(path, {"config": json.dumps(values)})[0]


# --- diffusers ---


def _open_diffusers(folder: Path) -> Stored:
    index = read_json(folder / "model_index.json") if (folder / "model_index.json").is_file() else {}
    home = folder / "transformer" if index else folder
    values = read_json(home / "config.json")
    weights = next((home / name for name in DIFFUSERS_FILES if (home / name).is_file()), None)
    if weights is None:
        raise WeightsError(
            f"{home}: expected {' or '.join(DIFFUSERS_FILES[::2])}, found neither; download it again"
        )
    scheduler = folder / "scheduler" / "scheduler_config.json"
    config = diffusers_config(home / "config.json", values)
    provenance: dict[str, Any] = {"name": _name_of(folder)}
    if scheduler.is_file():
        config = replace(config, prediction=scheduled_prediction(scheduler))
    labels = index.get("id2label")
    if isinstance(labels, dict) and labels:
        provenance["classes"] = [str(labels.get(str(y), f"class {y}")) for y in range(config.num_classes)]
    file = TensorFile(weights)
    if FORMAT in file.metadata:  # exported by us: it says what the layout cannot
        try:
            own = json.loads(file.metadata[FORMAT])
            texts = {name: json.dumps(own[name]) for name in ("config", "provenance")}
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(
                f"{weights}: expected our header inside, found a broken one: {error}"
            ) from error
        config, provenance = parse_header(weights, texts)
    elif not embedders_agree(file, config.depth):
        config = replace(config, block_embedders=True)
    sources = diffusers_names(config)
    return Stored(file, config, provenance, sources | {"pos_embed": ()}, set(diffusers_copies(config)))


def _name_of(folder: Path) -> str:
    """A folder's name; of one in the Hub's cache, whose own name is a commit, the repository's."""
    folder = folder.resolve()
    in_cache = folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--")
    return folder.parent.parent.name.split("--")[-1] if in_cache else folder.name
