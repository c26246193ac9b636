"""Weights files that explain themselves: safetensors with config and provenance in the metadata."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dit.config import ModelConfig
from dit.dit import DiT

ZOO = Path(__file__).resolve().parent.parent / "assets" / "zoo"
FORMAT = "dit-lab/1"
PARTIAL = ".partial"  # ending of a file that is being written; what a kill leaves has it


class WeightsError(ValueError):
    """A weights file that cannot be used; the message names it, what was expected and what was found."""


def atomic_write(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write(temporary)` beside `path`, then rename over it: readers see the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp made it private
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def discard_partials(folder: Path) -> None:
    """Remove, below a folder, what killed processes left of `atomic_write`; nobody else may write there."""
    for left in folder.rglob(f".*{PARTIAL}"):
        left.unlink()


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
    tensors = {
        name: tensor.detach().to("cpu", torch.float32 if name == "pos_embed" else dtype).contiguous()
        for name, tensor in model.state_dict().items()
    }
    header = {"format": FORMAT, "config": model.config.to_dict(), "provenance": provenance or {}}
    write_tensors(Path(path), tensors, header)


def write_tensors(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write a safetensors file atomically. header: "format", a string, and JSON values."""
    metadata = {name: value if name == "format" else json.dumps(value) for name, value in header.items()}
    atomic_write(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))


def read_header(path: Path, expected: str) -> dict[str, Any]:
    """The header that `write_tensors` wrote, without reading a tensor. expected: its format.

    Raises:
        WeightsError: truncated, or of another format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path}: expected a whole safetensors file, found {path.stat().st_size:,} bytes that are not "
            f"one ({error}); copy or download it again"
        ) from error
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
    """The bundled weights: name -> file. A file's name is its model's, with a dash for the slash."""
    return {path.stem: path for path in sorted(ZOO.glob("*.safetensors"))}


def locate(source: Path | str) -> Path:
    """The weights file that a source means: a path, or the name of a bundled model.

    Raises:
        WeightsError: neither; the message lists the bundled names.
    """
    if (path := Path(source)).is_file():
        return path
    if (name := str(source).replace("/", "-")) in zoo():
        return zoo()[name]
    raise WeightsError(
        f"{source}: no such file and no bundled model of that name; bundled are {', '.join(zoo()) or 'none'}"
    )


def describe(source: Path | str) -> tuple[ModelConfig, dict[str, Any]]:
    """Config and provenance of a weights file, without reading its tensors.

    Raises:
        WeightsError: no such file, truncated, or not written by this project.
    """
    path = locate(source)
    header = read_header(path, FORMAT)
    try:
        return ModelConfig.from_dict(header["config"]), header.get("provenance", {})
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: expected a model config inside, found a broken one: {error}") from error


def load(source: Path | str, device: torch.device | str = "cpu") -> DiT:
    """A model in evaluation mode, float32, from a bundled name or a weights file.

    Nothing is unpickled. Every tensor must be there, none may be left over, and all shapes must fit.

    Raises:
        WeightsError: see `describe`; also missing, unexpected or wrong-shape tensors, each named.
    """
    path = locate(source)
    config, provenance = describe(path)
    with torch.device("meta"):
        model = DiT(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
            if problems := _differences(expected, found):
                raise WeightsError(f"{path}: its tensors are not those of its config: {problems}")
            state = {name: file.get_tensor(name).to(device, torch.float32) for name in expected}
    except SafetensorError as error:
        raise WeightsError(
            f"{path}: expected readable tensors, found {error}; copy or download it again"
        ) from error
    model.load_state_dict(state, strict=True, assign=True)
    model.pos_embed.requires_grad_(False)
    model.provenance = provenance
    return model.eval()


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
