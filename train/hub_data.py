"""Datasets in the Hub's layout: OWNER/NAME, or a folder with parquet files of the same form."""

import hashlib
import itertools
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from dit.download import HubError
from dit.hub_errors import explained
from dit.published import is_repo_id
from train.dataset_name import split_name
from train.decode import read_picture
from train.pictures import Pictures, UnreadablePicture

IMAGE_NAMES = ("image", "img", "picture", "jpg", "png")  # which of several columns is taken
LABEL_NAMES = ("label", "labels", "class", "cls", "fine_label")
LOOKED_AT = 100  # names of a folder
NONE = "none"  # as label: there are none


def has_parquet(folder: Path, depth: int = 2) -> bool:
    """Whether a folder is a dataset in the Hub's layout: parquet files in it, or some folders further down.

    Of each folder only the first names are looked at: a million pictures are not, to find out that they are.
    """
    inner = []
    with os.scandir(folder) as entries:
        for entry in itertools.islice(entries, LOOKED_AT):
            if entry.name.endswith(".parquet"):
                return True
            if entry.is_dir():
                inner.append(Path(entry.path))
    return depth > 0 and any(has_parquet(path, depth - 1) for path in inner)


def open_hub_data(name: str, split: str, streaming: bool) -> Pictures:
    """A dataset by its name (`train.dataset_name`): "uoft-cs/cifar100:label=coarse_label".

    streaming: read it piece by piece (`train.streamed`), instead of having all of it on this disk.

    Raises:
        ValueError: no such dataset, split or column; or it is not one of pictures.
        HubError: the Hub cannot be reached, or does not let us in.
    """
    source, keys = _found(name)
    try:
        import datasets
    except ImportError as error:
        raise ValueError(f"{name}: datasets are read with a library; pip install datasets") from error
    subset, revision = keys.get("subset"), keys.get("revision")
    if streaming:
        from train.streamed import StreamedPictures

        with _explained(source):
            builder = datasets.load_dataset_builder(source, subset, revision=revision)
        return StreamedPictures(name, builder, split, keys)
    with _explained(source):
        dataset = datasets.load_dataset(source, subset, split=split, revision=revision)
    return HubPictures(name, dataset, split, keys)


class HubPictures:
    """A split of a dataset that lies on this disk, memory-mapped by `datasets`."""

    blocks = None

    def __init__(self, name: str, dataset: Any, split: str, keys: dict[str, str]) -> None:
        from datasets import Image as ImageFeature

        self.name, self._split = name, split
        self._image, label = columns(name, dataset.features, keys)
        wanted = [self._image] + ([label] if label else [])
        self._rows = dataset.select_columns(wanted).cast_column(self._image, ImageFeature(decode=False))
        self.classes: tuple[str, ...] = ()
        self.labels = np.zeros(len(dataset), np.int64)
        if label:
            stored = dataset.data.column(label)
            self.classes, self.labels = as_labels(name, dataset.features[label], label, stored)
        if not len(dataset):
            raise ValueError(f"{name}: split {split!r} has no pictures; choose another with --split")

    def __len__(self) -> int:
        return len(self.labels)

    def title(self, index: int) -> str:
        """The row, counted from 0."""
        return f"row {index} of {self._split}"

    def picture(self, index: int) -> Image.Image:
        """The decoded picture. Raises UnreadablePicture."""
        return decoded(self._rows[index][self._image], self.title(index))

    def fingerprint(self) -> str:
        """A digest of the files' names, sizes and times."""
        digest = hashlib.sha256(f"{self.name}\0{self._split}\0{len(self)}\0{self._image}".encode())
        for file in self._rows.cache_files:
            stat = Path(file["filename"]).stat()
            digest.update(f"{file['filename']}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        digest.update(self.labels.tobytes())
        return digest.hexdigest()


def decoded(stored: Any, title: str) -> Image.Image:
    """The picture of one cell: {"bytes": ..., "path": ...}. Raises UnreadablePicture."""
    if stored is None:
        raise UnreadablePicture(f"{title}: the row holds no picture")
    source = stored["bytes"] if stored["bytes"] is not None else Path(stored["path"] or "")
    return read_picture(source, title)


def columns(name: str, features: Any, keys: dict[str, str]) -> tuple[str, str | None]:
    """The columns of pictures and of labels, chosen by type, then by name; of labels None if there are none.

    Raises:
        ValueError: no such columns, or several of which none can be preferred.
    """
    from datasets import ClassLabel
    from datasets import Image as ImageFeature

    pictures = [column for column, feature in features.items() if isinstance(feature, ImageFeature)]
    if not pictures:
        raise ValueError(
            f"{name}: has no column of pictures, only {', '.join(features)}; give a dataset that has one"
        )
    image = _column(name, "image", pictures, IMAGE_NAMES, keys.get("image"))
    if keys.get("label") == NONE:
        return image, None
    if (asked := keys.get("label")) and asked in features:
        return image, asked
    labels = [column for column, feature in features.items() if isinstance(feature, ClassLabel)]
    labels = labels or [column for column in LABEL_NAMES if getattr(features.get(column), "dtype", None)]
    if not labels and not asked:
        return image, None
    return image, _column(name, "label", labels, LABEL_NAMES, asked)


def _column(name: str, key: str, found: list[str], usual: tuple[str, ...], asked: str | None) -> str:
    if asked and asked not in found:
        raise ValueError(f"{name}: has no column {asked!r} of that kind; choose one of {', '.join(found)}")
    if asked or len(found) == 1:
        return asked or found[0]
    for column in usual:
        if column in found:
            others = f"{name}: of the columns {', '.join(found)}, {column} is used"
            tqdm.write(f"{others} ({name.split(':')[0]}:{key}=... chooses)", file=sys.stderr)
            return column
    raise ValueError(
        f"{name}: has several columns that may be meant, {', '.join(found)}; choose: "
        f"{name.split(':')[0]}:{key}={found[0]}"
    )


def as_labels(name: str, feature: Any, column: str, stored: Any) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the classes, and labels (n,) int64, of a column of class labels, numbers or texts.

    stored: the column, of pyarrow. Without a label in any row, as in a test split, there are no classes.

    Raises:
        ValueError: rows without a label among others, or values that cannot be classes.
    """
    values = np.array(stored.to_pylist(), object)
    missing = np.array([value is None or value == -1 for value in values], bool)
    if missing.all():
        return (), np.zeros(len(values), np.int64)
    if missing.any():
        raise ValueError(
            f"{name}: {missing.sum()} of {len(values)} rows have no {column}, such as row "
            f"{np.flatnonzero(missing)[0]}; mend them, or leave labels out: {name.split(':')[0]}:label={NONE}"
        )
    if names := getattr(feature, "names", None):
        return tuple(names), values.astype(np.int64)
    kinds = {type(value) for value in values}
    if not kinds <= {int, bool} and kinds != {str}:
        raise ValueError(
            f"{name}: column {column} is of {feature}; labels must be numbers 0, 1, ... or names; choose "
            f"another column: {name.split(':')[0]}:label=COLUMN"
        )
    if kinds == {str}:
        classes, labels = np.unique(values.astype(str), return_inverse=True)
        return tuple(map(str, classes)), labels.astype(np.int64)
    labels = values.astype(np.int64)
    if labels.min() < 0:
        raise ValueError(f"{name}: column {column} has the label {labels.min()}; labels begin at 0")
    return tuple(str(label) for label in range(labels.max() + 1)), labels


def _found(name: str) -> tuple[str, dict[str, str]]:
    """A folder that is there or OWNER/NAME, and what stands behind it."""
    source, keys = split_name(name)
    folder = Path(source).expanduser()
    if folder.is_dir():
        return str(folder), keys
    if not is_repo_id(source):
        raise ValueError(
            f"{source}: there is no such folder; correct the name, bring the folder back, or give a "
            "dataset on the Hub as OWNER/NAME"
        )
    return source, keys


@contextmanager
def _explained(source: str) -> Iterator[None]:
    """Turn what `datasets` raises into errors of one line that say what to do."""
    from datasets import exceptions
    from huggingface_hub import constants, errors

    with explained(source, None):
        try:
            yield
        except exceptions.DatasetNotFoundError as error:
            if "gated" in str(error):
                page = f"{constants.ENDPOINT}/datasets/{source}"
                advice = f"gated; accept its terms at {page}, then: hf auth login"
            elif "Revision" in str(error):
                advice = "there is no such revision of it; give a branch, tag or commit that it has"
            else:
                advice = (
                    "there is no such folder here, and no such dataset on the Hub; correct the name, or, if "
                    "it is private, log in: hf auth login"
                )
            raise HubError(f"{source}: {advice}") from error
        except (exceptions.DatasetsError, FileNotFoundError) as error:
            cause = " ".join(str(error.__cause__ or error).split())[:200]
            raise ValueError(f"{source}: expected a dataset of pictures, found none: {cause}") from error
        except (errors.HFValidationError, json.JSONDecodeError):
            raise
        except ValueError as error:
            raise ValueError(f"{source}: {_advice(source, ' '.join(str(error).split()))}") from error


def _advice(source: str, message: str) -> str:
    """What a message of `datasets` means here."""
    found = re.search(r"\[.*\]", message)
    choice = found[0].strip("[]").replace("'", "").replace('"', "") if found else ""
    if "split" in message and choice:
        return f"has no such split; choose one of {choice} with --split"
    if "onfig" in message and choice:
        first = choice.split(",")[0]
        return f"consists of several datasets, {choice}; choose one: {source}:subset={first}"
    return message[:300]
