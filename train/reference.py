"""The real pictures that generated ones are compared with, as an extractor sees them; looked at only once."""

import hashlib
import json
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from dit.files import atomic_write, sha256
from dit.remote import cache_dir
from train import solids
from train.adm import Batch, read_batch
from train.classifier import HELD_OUT_SEED
from train.data import open_pictures, solids_cache
from train.features import Extractor
from train.frechet import Gaussian
from train.neighbours import K, radii
from train.picture_data import PictureData
from train.pictures import DataInfo

SOLIDS_PICTURES = 5000  # where no number is given: there is no end to them
CHUNK = 1000  # pictures decoded at a time
FEWEST = 2  # pictures that have a covariance


@dataclass(frozen=True, kw_only=True)
class RealPictures:
    """Which real pictures.

    Raises:
        ValueError: a number below 2.
    """

    name: str = solids.SOLIDS  # or a folder, a data set as `open_pictures` takes it, an .npz of ADM's suite
    pictures: int = 0  # at most so many, evenly from the set; 0: all of it, of solids 5,000
    split: str = "train"  # of a data set
    side: int = 32  # pixels of the generated pictures, to which others are cropped
    channels: int = 3  # of the model: 1 compares in grey

    def __post_init__(self) -> None:
        if self.pictures and self.pictures < FEWEST:
            raise ValueError(f"reference_pictures is {self.pictures}; give at least {FEWEST}, or 0 for all")


@dataclass(frozen=True)
class Reference:
    """Real pictures, as an extractor sees them."""

    told: dict[str, Any]  # which they are, as JSON values
    pool: Gaussian  # of the pooled features
    spatial: Gaussian | None  # of the inner map
    features: np.ndarray | None  # (R, D) float32 pooled; None where a file has moments alone
    radii: np.ndarray | None  # (R,) of the features' surroundings, see `neighbours`
    further: np.ndarray | None  # (M, D) of as many further real pictures, where there are some

    @property
    def pictures(self) -> int:
        """How many there are; 0 if a file does not tell."""
        return int(self.told.get("pictures") or 0)


def open_reference(real: RealPictures, extractor: Extractor) -> Reference:
    """The reference, from the cache if it has been looked at before by this extractor.

    Raises:
        ValueError: no such pictures, fewer than two, of the wrong size, or a file that is none of ADM's.
        HubError: a data set on the Hub cannot be reached.
    """
    if real.name.lower().endswith(".npz"):
        return _of_file(real, extractor)
    if real.name == solids.SOLIDS:
        return _of_solids(real, extractor)
    pictures = open_pictures(real.name, real.split)
    found = len(pictures)
    number = min(real.pictures or found, found)
    _check_number(real.name, number)
    info = DataInfo(real.name, (), real.channels, real.side)
    data = PictureData(pictures, info, np.arange(number) * found // number)
    folder = Path(real.name).expanduser()
    told = {
        "name": folder.resolve().name if folder.is_dir() else real.name,  # not the path
        "split": real.split,
        "pictures": number,
        "of": found,
        "fingerprint": pictures.fingerprint(),
    }
    key = told | {"side": real.side, "channels": real.channels}
    return _cached(told, key, extractor, lambda: _decoded(data))


def _of_solids(real: RealPictures, extractor: Extractor) -> Reference:
    """Held-out ones, and as many others, to know what a perfect model would come to."""
    number = real.pictures or SOLIDS_PICTURES
    told = {"name": solids.SOLIDS, "pictures": number, "seed": HELD_OUT_SEED, "version": solids.VERSION}
    both = {"side": real.side, "with_others": True}

    def held_out() -> Iterator[np.ndarray]:
        yield from _chunks(solids_cache(2 * number, real.side, HELD_OUT_SEED))

    return _cached(told, told | both, extractor, held_out, number)


def _of_file(real: RealPictures, extractor: Extractor) -> Reference:
    """ADM's moments where they are of this extractor, as its evaluator prefers them; else of the pictures."""
    path = Path(real.name).expanduser()
    if not path.is_file():
        raise ValueError(f"{real.name}: no such file; give a reference batch of ADM's suite")
    batch, digest = read_batch(path), sha256(path)
    told: dict[str, Any] = {"name": path.name, "sha256": digest, "pictures": None}
    reference = None
    if batch.pictures is not None:
        pictures = _evenly(batch.pictures, real.pictures)
        _check_number(real.name, len(pictures))
        if pictures.shape[1:3] != (real.side, real.side):
            raise ValueError(
                f"{real.name}: its pictures are {pictures.shape[1]} x {pictures.shape[2]}, but the model's "
                f"are {real.side} x {real.side}; give a reference of that size"
            )
        told["pictures"] = len(pictures)
        reference = _cached(told, told, extractor, lambda: _chunks(pictures))
    if batch.moments is None or (extractor.name != "inception" and reference):
        return reference
    _check_moments(real.name, batch, extractor)
    told = told | {"moments": "of the file"}
    pool, spatial = batch.moments
    if reference is None:
        return Reference(told, pool, spatial, None, None, None)
    return replace(reference, told=told, pool=pool, spatial=spatial)


def _check_moments(name: str, batch: Batch, extractor: Extractor) -> None:
    sizes = tuple(len(gaussian.mean) for gaussian in batch.moments)
    if extractor.name != "inception" or sizes != extractor.dimensions:
        raise ValueError(
            f"{name}: its moments are of {sizes[0]} and {sizes[1]} of Inception's features, but the "
            f"extractor is {extractor.name}, with {extractor.dimensions[0]} and {extractor.dimensions[1]}; "
            "use --features inception, or a reference with pictures (arr_0)"
        )


def _check_number(name: str, number: int) -> None:
    if number < FEWEST:
        raise ValueError(
            f"{name}: has {number} pictures; a reference needs at least {FEWEST}, better thousands"
        )


def _evenly(pictures: np.ndarray, number: int) -> np.ndarray:
    """At most `number` of them, from all over the set; 0: all."""
    if not 0 < number < len(pictures):
        return pictures
    return pictures[np.arange(number) * len(pictures) // number]


def _chunks(pictures: np.ndarray) -> Iterator[np.ndarray]:
    return (pictures[start : start + CHUNK] for start in range(0, len(pictures), CHUNK))


def _decoded(data: PictureData) -> Iterator[np.ndarray]:
    """(n, side, side, 3) uint8, cropped as in training; grey ones with equal channels, as pipelines draw."""
    for indices in np.array_split(np.arange(len(data)), -(-len(data) // CHUNK)):
        yield np.broadcast_to(rows := data.decoded(indices)[0], (*rows.shape[:3], 3))


def _cached(
    told: dict[str, Any], key: dict[str, Any], extractor: Extractor, chunks: Any, number: int | None = None
) -> Reference:
    """What an extractor sees in pictures, from the cache or put there.

    key: what else decides it, beside the extractor. chunks: () -> the pictures, some at a time. number: how
    many of them are the reference; the rest are `further`.
    """
    identity = json.dumps({"layout": 1, "extractor": extractor.told(), "pictures": key}, sort_keys=True)
    path = cache_dir() / "references" / f"{hashlib.sha256(identity.encode()).hexdigest()[:24]}.npz"
    if not path.exists():
        arrays = _look(chunks(), extractor, number)

        def save(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.savez(file, **arrays)

        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(
            cache_dir() / ".lock"
        ):  # a training that begins clears away what others left unfinished
            atomic_write(path, save)
    try:
        with np.load(path) as file:
            kept = {name: file[name] for name in file.files}
        return Reference(
            told,
            Gaussian(kept["mean"], kept["covariance"]),
            Gaussian(kept["spatial_mean"], kept["spatial_covariance"]),
            kept["features"],
            kept.get("radii"),
            kept.get("others"),
        )
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: damaged ({error}); remove it, and it is made again") from error


def _look(chunks: Iterable[np.ndarray], extractor: Extractor, number: int | None) -> dict[str, np.ndarray]:
    seen = [extractor.of(chunk) for chunk in chunks]
    features = np.concatenate([part.pool for part in seen])
    spatial = np.concatenate([part.spatial for part in seen])[:number]
    arrays = {"features": features[:number]}
    if number is not None:
        arrays["others"] = features[number:]
    if len(arrays["features"]) > K:
        arrays["radii"] = radii(arrays["features"], device=extractor.device)
    for name, gaussian in (("", Gaussian.of(arrays["features"])), ("spatial_", Gaussian.of(spatial))):
        arrays |= {f"{name}mean": gaussian.mean, f"{name}covariance": gaussian.covariance}
    return arrays
