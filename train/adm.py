"""The files of ADM's evaluation suite (github.com/openai/guided-diffusion, evaluations): samples, references.

Samples: `arr_0` (N, H, W, 3) uint8, and of a conditional model `arr_1` (N,) labels. A reference batch has
samples too, or the moments of Inception's features, or both: `mu` (2048,) and `sigma` (2048, 2048) of the
pooled ones, `mu_s` (2023,) and `sigma_s` (2023, 2023) of an inner map.
"""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dit.files import atomic_write
from train.frechet import Gaussian

MOMENTS = (("mu", "sigma"), ("mu_s", "sigma_s"))


def write_samples(path: Path, pictures: np.ndarray, labels: np.ndarray | None = None) -> None:
    """pictures: (N, H, W, 3) uint8. labels: (N,) of a conditional model. Nothing is compressed, as there."""
    arrays = [pictures] if labels is None else [pictures, labels]

    def save(temporary: Path) -> None:
        with temporary.open("wb") as file:  # by name numpy would add an ending
            np.savez(file, *arrays)

    atomic_write(path, save)


@dataclass(frozen=True)
class Batch:
    """What a reference batch holds; at least one of the two."""

    pictures: np.ndarray | None  # (N, H, W, 3) uint8
    moments: tuple[Gaussian, Gaussian] | None  # of the pooled features, and of the inner map


def read_batch(path: Path) -> Batch:
    """A reference batch, or a file of samples.

    Raises:
        ValueError: not such a file; the message says what is wrong with it.
    """
    try:
        with zipfile.ZipFile(path), np.load(path) as file:  # of a lone array numpy makes no archive
            arrays = {name: file[name] for name in file.files if name != "arr_1"}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError) as error:
        raise ValueError(f"{path}: cannot be read as .npz ({error}); give a file of ADM's suite") from error
    for name, array in arrays.items():
        if not (isinstance(array, np.ndarray) and np.issubdtype(array.dtype, np.number)):
            raise ValueError(f"{path}: {name} holds no numbers; give a file of ADM's suite")
    names = [name for pair in MOMENTS for name in pair]
    present = [name for name in names if name in arrays]
    if "arr_0" not in arrays and present != names:
        raise ValueError(
            f"{path}: holds {', '.join(sorted(arrays)) or 'nothing'}; a reference has arr_0 (pictures), or "
            f"all of {', '.join(names)}"
        )
    if present and present != names:
        raise ValueError(f"{path}: holds {', '.join(present)} alone of {', '.join(names)}; give all or none")
    pictures = _pictures(path, arrays["arr_0"]) if "arr_0" in arrays else None
    moments = tuple(_gaussian(path, arrays, *pair) for pair in MOMENTS) if present else None
    return Batch(pictures, moments)


def _pictures(path: Path, pictures: np.ndarray) -> np.ndarray:
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3:
        raise ValueError(
            f"{path}: arr_0 is {pictures.dtype} {pictures.shape}; pictures are uint8 (N, H, W, 3)"
        )
    return pictures


def _gaussian(path: Path, arrays: dict[str, np.ndarray], mean: str, covariance: str) -> Gaussian:
    mu, sigma = arrays[mean], arrays[covariance]
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        raise ValueError(
            f"{path}: {mean} is {mu.shape} and {covariance} {sigma.shape}; expected (D,) and (D, D)"
        )
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise ValueError(f"{path}: {mean} and {covariance} must be finite; the file is damaged")
    return Gaussian(mu.astype(np.float64), sigma.astype(np.float64))
