"""Training pictures: drawn once into a cache, read in an order that is a function of seed and step."""

from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from tqdm import tqdm

from dit.pipeline import from_pictures
from dit.remote import cache_dir
from dit.weights import atomic_write, discard_partials
from train import solids

CHUNK = 1000  # pictures rendered between two updates of the progress bar


def solids_cache(num_pictures: int, side: int, seed: int) -> np.ndarray:
    """The first pictures of a seed as a read-only memory map, (num_pictures, side, side, 3) uint8.

    Drawn in one go on first use, with a progress bar, and renamed into place when whole.
    """
    path = cache_dir() / f"solids-v{solids.VERSION}-{side}px-seed{seed}-{num_pictures}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / ".lock"):  # a second process waits, and finds it done
            if not path.exists():
                discard_partials(path.parent)
                atomic_write(path, lambda temporary: _draw(temporary, num_pictures, side, seed))
    return np.load(path, mmap_mode="r")


def _draw(path: Path, num_pictures: int, side: int, seed: int) -> None:
    pictures = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(num_pictures, side, side, 3))
    with tqdm(total=num_pictures, desc="drawing solids", unit=" pictures") as bar:
        for start in range(0, num_pictures, CHUNK):
            stop = min(start + CHUNK, num_pictures)
            pictures[start:stop] = solids.render(range(start, stop), seed, side)[0]
            bar.update(stop - start)
    pictures.flush()


class SolidsData:
    """The embedded dataset as training batches."""

    classes = solids.CLASSES

    def __init__(self, num_pictures: int, side: int, seed: int, batch_size: int, flip: bool) -> None:
        """seed: of order and mirroring; the pictures themselves are those of solids' seed 0."""
        self.pictures = solids_cache(num_pictures, side, seed=0)
        self.seed, self.batch_size, self.flip = seed, batch_size, flip
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def indices(self, step: int) -> np.ndarray:
        """Which pictures step 0, 1, ... sees, (batch_size,): each once an epoch, in an order of its own."""
        per_epoch = len(self.pictures) // self.batch_size
        epoch, position = divmod(step, per_epoch)
        if epoch != self._epoch:
            self._order = np.random.default_rng([self.seed, epoch]).permutation(len(self.pictures))
            self._epoch = epoch
        return self._order[position * self.batch_size : (position + 1) * self.batch_size]

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """x0 (N, 3, H, W) float32 in [-1, 1] and labels y (N,) int64, on the CPU."""
        indices = self.indices(step)
        x0 = from_pictures(self.pictures[indices])
        if self.flip:
            mirrored = np.random.default_rng([self.seed, step, 1]).random(len(x0)) < 0.5
            x0 = torch.where(torch.from_numpy(mirrored)[:, None, None, None], x0.flip(-1), x0)
        return x0.contiguous(), torch.from_numpy(solids.labels(indices))
