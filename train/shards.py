"""Latents on disk: shards of safetensors that say what they are, and an index.json that speaks for all.

A shard holds the posteriors of consecutive pictures of a set: "posterior" (n, 2, 2, C, s, s) float16, of each
picture first as it is, then mirrored, and of both first the mean, then the deviation, scaled as the
transformer sees latents; and "labels" (n,) int64. Half precision is enough: its step is a thousandth of a
value, and none comes near 65,504, its largest number.
"""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from dit.files import atomic_write, discard_partials
from dit.published import size_of
from dit.tensors import WeightsError, opened
from train.pictures import Pictures
from train.record import commit

FORMAT = "dit-lab-latents/1"
INDEX = "index.json"
FLIPS, MOMENTS = 2, 2  # as it is and mirrored; mean and deviation
HALF, LABEL = 2, 8  # bytes of a number of a posterior, and of a label
AGAIN = "give the python -m train.encode command again that made it, which makes what is missing"
SAFETENSORS_KEY = "latents"  # one key for all: the order of several would differ from file to file


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides the stored numbers but for rounding; those of a folder are the same throughout."""

    data: str  # as it was given: a path, or OWNER/NAME
    split: str
    classes: tuple[str, ...]
    pictures: int  # of the set, or its first so many
    pictures_sha256: str  # see digest_of_pictures
    autoencoder: str  # a name, a repository or the full path of a folder
    encoder_sha256: str  # of its weights
    scale: float  # by which its latents are multiplied
    side: int  # of the pictures, in pixels
    latent_side: int
    channels: int  # of latents
    shard_size: int  # pictures

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Settings":
        """From the values of an index. Raises KeyError."""
        kept = {field.name: values[field.name] for field in fields(cls)}
        return cls(**kept | {"classes": tuple(kept["classes"])})

    @property
    def num_shards(self) -> int:
        return -(-self.pictures // self.shard_size)

    @property
    def row_bytes(self) -> int:
        """Bytes of one picture."""
        return posterior_bytes(self.channels, self.latent_side) + LABEL

    def rows(self, shard: int) -> range:
        """The pictures of a shard, by their place in the set."""
        start = shard * self.shard_size
        return range(start, min(start + self.shard_size, self.pictures))

    def digest(self) -> str:
        """Stands in every shard, so that those of other settings are not taken for ours."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Shard:
    """What the index says of a shard."""

    name: str
    pictures: int  # those that could be read
    bytes: int  # of the file
    sha256: str  # of its tensors: posteriors, then labels


def posterior_bytes(channels: int, latent_side: int) -> int:
    """Bytes of one picture's latents: both flips, mean and deviation, in half precision."""
    return FLIPS * MOMENTS * channels * latent_side**2 * HALF


def shard_path(folder: Path, shard: int) -> Path:
    """Where a shard lies."""
    return folder / f"shard-{shard:05d}.safetensors"


def digest_of_pictures(pictures: Pictures, count: int) -> str:
    """By which a set that was changed in between is found: of the first `count` titles and labels.

    Of a set that is read piece by piece, whose labels are not known beforehand: of where it comes from.
    """
    if not isinstance(pictures.labels, np.ndarray):
        return pictures.fingerprint()
    digest = hashlib.sha256(np.ascontiguousarray(pictures.labels[:count], np.int64).tobytes())
    for index in range(count):
        digest.update(pictures.title(index).encode() + b"\0")
    return digest.hexdigest()


# ---- a shard -----------------------------------------------------------------------------------------------


def write_shard(
    folder: Path,
    settings: Settings,
    shard: int,
    posterior: Tensor,
    labels: Tensor,
    skipped: list[dict[str, str]],
    precision: str,
) -> None:
    """Write a shard atomically. The same content gives the same bytes.

    posterior: (n, 2, 2, C, s, s) float16; labels: (n,) int64; skipped: titles and reasons.

    Raises:
        OSError: the disk is full, or cannot be written to.
    """
    path = shard_path(folder, shard)
    header = {
        "format": FORMAT,
        "settings": settings.digest(),
        "shard": shard,
        "sha256": _digest(posterior, labels),
        "skipped": skipped,
        "precision": precision,
    }
    metadata = {SAFETENSORS_KEY: json.dumps(header, sort_keys=True)}
    tensors = {"posterior": posterior.contiguous(), "labels": labels.contiguous()}
    try:
        atomic_write(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))
    except FileNotFoundError:
        if problem(folder, settings, shard):
            raise
        # Another process has written the same, and cleared away our temporary file when all was done.
    except (OSError, SafetensorError) as error:
        done = sum(shard_path(folder, k).exists() for k in range(settings.num_shards))
        needed = posterior.nbytes + labels.nbytes
        raise OSError(
            f"{path}: expected to write {size_of(needed)}, found: {error}; {done} of {settings.num_shards} "
            f"shards are done and stay; make room for {size_of(bytes_left(folder, settings))}, and the same "
            "command goes on"
        ) from error


def header_of(path: Path) -> dict[str, Any]:
    """What a shard says of itself, without reading its tensors.

    Raises:
        WeightsError: missing, truncated, or no shard of latents.
    """
    if not path.exists():
        raise WeightsError(f"{path}: expected a shard of latents, found no file")
    with opened(path) as file:
        stored = (file.metadata() or {}).get(SAFETENSORS_KEY, "{}")
        shape = tuple(file.get_slice("posterior").get_shape()) if "posterior" in file.keys() else ()
    header = json.loads(stored)
    if header.get("format") != FORMAT or not shape:
        raise WeightsError(f"{path}: expected a shard of format {FORMAT}, found another file")
    return header | {"shape": shape}


def mapped(path: Path) -> tuple[Tensor, Tensor]:
    """The tensors of a shard, in the file: posterior (n, 2, 2, C, s, s) float16, labels (n,) int64.

    Raises:
        WeightsError: a damaged file.
    """
    with opened(path) as file:
        return file.get_tensor("posterior"), file.get_tensor("labels")


def problem(folder: Path, settings: Settings, shard: int, content: bool = True) -> str:
    """Why a shard cannot be used, empty if it can.

    content: compare its tensors with their digest too, which reads all of them.
    """
    path = shard_path(folder, shard)
    try:
        header = header_of(path)
        if header["settings"] != settings.digest() or header["shard"] != shard:
            return f"{path} is shard {header['shard']} of latents of other settings"
        if content and header["sha256"] != _digest(*mapped(path)):
            return f"{path} is damaged: its tensors are not those that were written"
    except (WeightsError, KeyError, ValueError) as error:
        return str(error)
    return ""


def bytes_left(folder: Path, settings: Settings) -> int:
    """Bytes of the shards that are not there."""
    missing = (k for k in range(settings.num_shards) if not shard_path(folder, k).exists())
    return settings.row_bytes * sum(len(settings.rows(k)) for k in missing)


def check_room(folder: Path, needed: int) -> int:
    """Free bytes of the disk that a folder is, or will be, on. Raises OSError if they are not enough."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise OSError(
            f"{folder}: {size_of(needed)} ({needed:,} bytes) are still to be written, but its disk has only "
            f"{size_of(free)} free; make room, choose a folder on another disk, or encode fewer with --limit"
        )
    return free


def _digest(posterior: Tensor, labels: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in (posterior, labels):
        digest.update(tensor.contiguous().numpy().reshape(-1).view(np.uint8))
    return digest.hexdigest()


# ---- the index ---------------------------------------------------------------------------------------------


def read_index(folder: Path) -> dict[str, Any]:
    """The index of a folder of latents, whole or not.

    Raises:
        ValueError: none there, damaged, or of another format.
    """
    path = folder / INDEX
    if not path.exists():
        raise ValueError(
            f"{folder}: expected a folder of latents, found no {INDEX}; make one with "
            "python -m train.encode DATA OUT"
        )
    try:
        index = json.loads(path.read_text())
        Settings.from_dict(index)
        whole = index["format"] == FORMAT and isinstance(index["complete"], bool)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: expected the index of a folder of latents, found a broken one "
            f"({type(error).__name__}: {error}); delete it, and {AGAIN}"
        ) from error
    if not whole:
        raise ValueError(
            f"{path}: expected format {FORMAT}, found {index['format']!r}; encode the data again"
        )
    return index


def claim(folder: Path, settings: Settings, dry: bool = False) -> None:
    """Say in index.json what the folder will hold, or make sure that it is the same as before.

    dry: write nothing.

    Raises:
        ValueError: the folder holds latents of other settings, and the message names what differs.
    """
    if any(folder.glob("shard-*.safetensors")):  # before the first shard there is nothing to spoil
        before, now = asdict(Settings.from_dict(read_index(folder))), asdict(settings)
        differs = [f"{k} was {_brief(before[k])}, now {_brief(now[k])}" for k in now if before[k] != now[k]]
        if differs:
            raise ValueError(
                f"{folder} holds latents of other settings: {'; '.join(differs)}; go on with its own "
                "settings, or give another folder"
            )
    elif not dry:
        _write_index(folder, settings, {"complete": False})


def finish(folder: Path, settings: Settings) -> dict[str, Any] | None:
    """Write the whole index if every shard is there, and return it; None if some are missing.

    Raises:
        ValueError: not one picture could be read.
    """
    if any(problem(folder, settings, k, content=False) for k in range(settings.num_shards)):
        return None
    shards, skipped, precisions = [], [], set()
    for path in (shard_path(folder, k) for k in range(settings.num_shards)):
        header = header_of(path)
        shards.append(Shard(path.name, header["shape"][0], path.stat().st_size, header["sha256"]))
        skipped += header["skipped"]
        precisions.add(header["precision"])
    stored = sum(shard.pictures for shard in shards)
    if not stored:
        raise ValueError(
            f"none of the {settings.pictures} pictures of {settings.data} could be read; the first: "
            f"{skipped[0]['picture']}: {skipped[0]['reason']}"
        )
    told = {"complete": True, "stored": stored, "precision": sorted(precisions), "skipped": skipped}
    try:
        _write_index(folder, settings, told | {"shards": [asdict(shard) for shard in shards]})
    except FileNotFoundError:  # another process has come to the end as well, and cleared away
        if not (folder / INDEX).exists():
            raise
    discard_partials(folder)  # whoever still writes one finds its shard done
    return read_index(folder)


def _write_index(folder: Path, settings: Settings, told: dict[str, Any]) -> None:
    index = {"format": FORMAT, **asdict(settings), "commit": commit(), **told}
    text, path = json.dumps(index, indent=1) + "\n", folder / INDEX
    try:
        atomic_write(path, lambda temporary: temporary.write_text(text))
    except FileNotFoundError:  # see finish
        raise
    except OSError as error:
        raise OSError(
            f"{path} could not be written: {error}; mend this, and the same command goes on"
        ) from error


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
