"""Pictures decoded once and for all: a memory map of bytes under the cache, read as fast as memory."""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from tqdm import tqdm

from dit.files import atomic_write, discard_partials, reserve
from dit.remote import cache_dir
from train.loader import load_ahead
from train.picture_data import PictureData, note, to_network
from train.pictures import DataInfo

VERSION = 1  # of how pictures are decoded and cropped; raise it whenever they come out otherwise
LIMIT = 2 * 2**30  # bytes of decoded pictures; larger sets are decoded anew each epoch
CHUNK = 256  # pictures decoded together
FEW = 2000  # pictures that are decoded sooner than other processes have begun


class StoredData:
    """Pictures that lie decoded in one file, (m, side, side, C) uint8."""

    blocks = None

    def __init__(
        self, path: Path, info: DataInfo, labels: np.ndarray, places: np.ndarray | None = None
    ) -> None:
        """labels: (n,) of these pictures. places: (n,) which of the file's they are; None: all, in order."""
        self.path, self.info, self.labels = path, info, labels.astype(np.int64)
        self.places = places
        self.skipped: dict[str, str] = {}  # title -> reason, of pictures that were left out
        self.pictures = np.load(path, mmap_mode="r")

    def __len__(self) -> int:
        return len(self.labels)

    def fetch(self, indices: np.ndarray, mirrored: np.ndarray, seeds: np.ndarray) -> tuple[Tensor, Tensor]:
        """Pictures by number (n,), mirrored where told (n,): x0 (n, C, side, side) in [-1, 1] and y (n,)."""
        indices = np.asarray(indices)
        rows = self.pictures[indices if self.places is None else self.places[indices]]
        y = self.labels[indices] if self.info.classes else np.zeros(len(indices), np.int64)
        return to_network(rows, mirrored), torch.from_numpy(y)

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name != "pictures"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self.pictures = np.load(self.path, mmap_mode="r")


def fits(data: PictureData) -> bool:
    """Whether a set is small enough, decoded, to be stored on this disk."""
    size = len(data) * data.info.side**2 * data.info.channels
    cache_dir().mkdir(parents=True, exist_ok=True)
    return size <= LIMIT and 2 * size < shutil.disk_usage(cache_dir()).free


def store(data: PictureData, num_workers: int) -> StoredData:
    """The same data decoded: at once if that was done before, else now, with a progress bar.

    Raises:
        ValueError: too many pictures in a row cannot be read.
    """
    path = cache_dir() / f"pictures-{data.info.side}px-{_key(data)}.npy"
    rest = path.with_suffix(".npz")  # labels and what was left out; written first
    with FileLock(path.parent / ".lock"):  # a second process waits, and finds it done
        if not path.exists():
            discard_partials(path.parent, recursive=False)  # below it others write, under other locks
            atomic_write(path, lambda temporary: _decode(data, temporary, rest, num_workers))
            told = (
                f"{data.info.name}: decoded pictures are kept in {path} ({path.stat().st_size / 1e6:.0f} MB)"
            )
            tqdm.write(told, file=sys.stderr)
    with np.load(rest) as kept:
        stored = StoredData(path, data.info, kept["labels"])
        stored.skipped = json.loads(str(kept["skipped"]))
    note(data.report, stored.skipped)
    return stored


def _key(data: PictureData) -> str:
    digest = hashlib.sha256(data.pictures.fingerprint().encode())
    digest.update(data.places.astype(np.int64).tobytes())
    digest.update(repr((VERSION, data.info, data.coloured_is_fine)).encode())
    return digest.hexdigest()[:16]


def _decode(data: PictureData, path: Path, rest: Path, num_workers: int) -> None:
    n, side, channels = len(data), data.info.side, data.info.channels
    pictures = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(n, side, side, channels))
    reserve(path)
    labels, skipped = np.zeros(n, np.int64), {}
    with tqdm(total=n, desc="decoding pictures", unit=" pictures") as bar:
        chunks = load_ahead(_Chunks(data), 0, -(-n // CHUNK), num_workers if n > FEW else 0)
        for start, (rows, y, left_out) in zip(range(0, n, CHUNK), chunks, strict=True):
            pictures[start : start + len(rows)], labels[start : start + len(rows)] = rows, y
            skipped |= left_out
            bar.update(len(rows))
    pictures.flush()
    atomic_write(rest, lambda temporary: _save(temporary, labels, json.dumps(skipped)))


def _save(path: Path, labels: np.ndarray, skipped: str) -> None:
    with path.open("wb") as file:
        np.savez(file, labels=labels, skipped=np.array(skipped))


class _Chunks:
    """Decodes CHUNK pictures after another, in whatever process."""

    def __init__(self, data: PictureData) -> None:
        self.data = data

    def __call__(self, chunk: int) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
        start = chunk * CHUNK
        rows, y = self.data.decoded(np.arange(start, min(start + CHUNK, len(self.data))))
        return rows, y, dict(self.data.skipped)
