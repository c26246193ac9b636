"""Files of named tensors, safetensors and torch checkpoints alike, read piece by piece and never executed."""

import argparse
import json
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

PICKLES = (".pt", ".pth", ".bin", ".ckpt")


class WeightsError(ValueError):
    """A weights file that cannot be used; the message names it, what was expected and what was found."""


class TensorFile:
    """The tensors of a file, or of the parts of one, by name. Opening reads names and shapes only.

    What `read` returns lies in the file, mapped into memory: nothing is copied, untouched parts cost nothing,
    and a group's pages are given back with the last of its tensors.
    """

    def __init__(self, path: Path) -> None:
        """path: a safetensors file, the index of several, or a torch checkpoint (.pt, .pth, .bin, .ckpt).

        Raises:
            WeightsError: damaged, incomplete, or a pickle of more than tensors.
        """
        self.path = path
        self.metadata: dict[str, str] = {}  # of a safetensors file
        self.extras: dict[str, Any] = {}  # of a checkpoint: what it holds besides weights; of a config, all
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.parts: dict[str, Path] = {}  # name -> the file that holds it
        self.float32: set[str] = set()  # names of what is stored in single precision
        for part in _parts_of(path):
            shapes = self._scan_checkpoint(part) if part.suffix in PICKLES else self._scan_safetensors(part)
            self.shapes |= shapes
            self.parts |= dict.fromkeys(shapes, part)

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Some of the tensors, as stored, on the CPU. Raises WeightsError for a damaged file."""
        wanted: dict[Path, list[str]] = {}
        for name in names:
            wanted.setdefault(self.parts[name], []).append(name)
        found = {}
        for part, inside in wanted.items():
            if part.suffix in PICKLES:
                tensors = _weights_of(_unpickle(part))
                found |= {name: tensors[name] for name in inside}
            else:
                with opened(part) as file:
                    found |= {name: file.get_tensor(name) for name in inside}
        return found

    def _scan_safetensors(self, part: Path) -> dict[str, tuple[int, ...]]:
        with opened(part) as file:
            self.metadata |= file.metadata() or {}
            slices = {name: file.get_slice(name) for name in file.keys()}
            self.float32 |= {name for name, tensor in slices.items() if tensor.get_dtype() == "F32"}
            return {name: tuple(tensor.get_shape()) for name, tensor in slices.items()}

    def _scan_checkpoint(self, part: Path) -> dict[str, tuple[int, ...]]:
        content = _unpickle(part)
        self.extras |= {name: value if name == "config" else ... for name, value in content.items()}
        tensors = _weights_of(content)
        self.float32 |= {name for name, tensor in tensors.items() if tensor.dtype == torch.float32}
        return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A safetensors file, as safe_open gives it. Raises WeightsError for a damaged one."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path}: expected a whole safetensors file, found {path.stat().st_size:,} bytes that are not "
            f"one ({error}); copy or download it again"
        ) from error


def _parts_of(path: Path) -> list[Path]:
    """The file itself, or the files that an index lists."""
    if path.suffix != ".json":
        return [path]
    try:
        names = sorted(set(json.loads(path.read_text())["weight_map"].values()))
        parts = [path.parent / Path(name).name for name in names]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(
            f"{path}: expected an index with a weight_map, found a broken one; download it again"
        ) from error
    if missing := [part.name for part in parts if not part.is_file()]:
        raise WeightsError(
            f"{path}: expected the parts that it lists, {', '.join(missing)} missing; download them"
        )
    return parts


def _unpickle(path: Path) -> dict[str, Any]:
    """A checkpoint's content, its tensors mapped from the file. Only tensors and plain values are built.

    Raises:
        WeightsError: damaged, no dictionary, or it names code that reading it would run.
    """
    try:
        # Training scripts of DiT and fast-DiT keep their arguments inside: a Namespace is a plain record.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols: what cannot be read is an error below
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_archive(path))
    except Exception as error:  # a damaged file raises nearly anything
        reason = " ".join(str(error).split())
        if code := re.search(r"GLOBAL `?([\w.]+)", reason):
            raise WeightsError(
                f"{path}: refused, since reading it would run {code[1]}; nothing was run; "
                "ask its maker for a safetensors file, or for a checkpoint of tensors alone"
            ) from error
        if "Unsupported operand" in reason and (protocol := _protocol_of(path)) > 3:
            raise WeightsError(
                f"{path}: expected a checkpoint of pickle protocol 2, as torch.save writes, found protocol "
                f"{protocol}, which cannot be read without running it; save it again with torch.save"
            ) from error
        reason = re.sub(r"^Weights only load failed.*?: ", "", reason).split(". ")[0][:120]
        raise WeightsError(
            f"{path}: expected a whole torch checkpoint, found {path.stat().st_size:,} bytes that are not "
            f"one ({reason or type(error).__name__}); copy or download it again"
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: expected a dictionary of tensors, found a {type(content).__name__}")
    return content


def _protocol_of(path: Path) -> int:
    """The pickle protocol of a checkpoint; 0 if that cannot be told."""
    if _is_archive(path):
        with zipfile.ZipFile(path) as archive:
            name = next((name for name in archive.namelist() if name.endswith("data.pkl")), None)
            start = archive.open(name).read(2) if name else b""
    else:
        with path.open("rb") as file:
            start = file.read(2)
    return start[1] if len(start) == 2 and start[0] == 0x80 else 0  # the opcode PROTO


def _is_archive(path: Path) -> bool:
    """Whether a checkpoint has the format that can be mapped: a zip archive, torch's own since 1.6."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _weights_of(content: dict[str, Any]) -> dict[str, Tensor]:
    """The state dict of a checkpoint: its average, else its model, else itself."""
    for key in ("ema", "model", "state_dict"):
        if isinstance(content.get(key), dict):
            content = content[key]
            break
    return {
        name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)
    }
