"""Datasets larger than the disk: row groups of parquet files, fetched when a picture of them is asked for.

Any picture can be had by its number, so a run resumes, and shares its steps among processes, as with any
other set. A few row groups are kept in the cache, where all processes find what one has fetched.
"""

import hashlib
import os
import sys
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import Image
from tqdm import tqdm

from dit.download import HubError
from dit.hub_errors import explained, unreachable
from dit.remote import cache_dir
from train.hub_data import columns, decoded
from train.order import WINDOW

OPEN = 2 * WINDOW  # row groups that a process keeps at hand: those of two windows of the order
KEPT = 4 * WINDOW  # row groups in the cache
FOOTERS = 16  # files whose lists of row groups are fetched at once
RETRIES = 6  # of a row group that does not come, over two minutes
REMOTE = "hf://"


class StreamedPictures:
    """A split of a dataset of parquet files, here or on the Hub. `blocks` are the row groups."""

    def __init__(self, name: str, builder: Any, split: str, keys: dict[str, str]) -> None:
        """builder: of `datasets`, for this dataset.

        Raises:
            ValueError: no such split or columns, not parquet, or labels that are not known beforehand.
            HubError: the Hub cannot be reached.
        """
        import pyarrow.parquet as pq
        from datasets import Features

        self.name, self._split = name, split
        self._files = _files(name, builder, split)
        with ThreadPoolExecutor(FOOTERS) as pool, explained(name, None):
            footers = list(
                tqdm(
                    pool.map(lambda file: pq.read_metadata(_opened(file)), self._files),
                    total=len(self._files),
                    desc="looking at the files",
                    unit="file",
                    disable=len(self._files) < FOOTERS,
                )
            )
        groups = [
            (file, group) for file, footer in enumerate(footers) for group in range(footer.num_row_groups)
        ]
        sizes = [footers[file].row_group(group).num_rows for file, group in groups]
        self._groups = [place for place, size in zip(groups, sizes, strict=True) if size]
        self.blocks = np.array([size for size in sizes if size], np.int64)
        if not len(self.blocks):
            raise ValueError(f"{name}: split {split!r} has no pictures; choose another with --split")
        self._ends = np.cumsum(self.blocks).tolist()
        features = builder.info.features or Features.from_arrow_schema(footers[0].schema.to_arrow_schema())
        self._image, self._label = columns(name, features, keys)
        self._feature = features[self._label] if self._label else None
        self.classes = self._class_names(footers) if self._label else ()
        self.labels = _Labels(self) if self.classes else np.zeros(len(self), np.int64)
        self._tables: OrderedDict[int, Any] = OrderedDict()

    def __len__(self) -> int:
        return self._ends[-1]

    def title(self, index: int) -> str:
        """The row, counted from 0."""
        return f"row {index} of {self._split}"

    def picture(self, index: int) -> Image.Image:
        """The decoded picture. Raises UnreadablePicture, and HubError if its row group does not come."""
        return decoded(self._cell(index, self._image), self.title(index))

    def fingerprint(self) -> str:
        """A digest of the files' addresses, which hold the commit, and of their row groups."""
        text = "\n".join([self.name, self._split, *self._files, *map(str, self.blocks)])
        return hashlib.sha256(text.encode()).hexdigest()

    def label(self, index: int) -> int:
        """The label of a picture. Raises ValueError if it has none."""
        value = self._cell(index, self._label)
        if value is None or not 0 <= int(value) < len(self.classes):
            raise ValueError(
                f"{self.name}: {self.title(index)} has the label {value}, of {len(self.classes)} classes; "
                "choose another --split, or train without labels: --no-class-conditional"
            )
        return int(value)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_tables": OrderedDict()}

    def _cell(self, index: int, column: str) -> Any:
        block = bisect_right(self._ends, index)
        row = index - (self._ends[block - 1] if block else 0)
        return self._table(block).column(column)[row].as_py()

    def _class_names(self, footers: list) -> tuple[str, ...]:
        """From the type of the column, or, if that is plain numbers, from the largest that footers tell."""
        if names := getattr(self._feature, "names", None):
            return tuple(names)
        largest = -1
        for footer in footers:
            paths = [footer.schema.column(i).path for i in range(footer.num_columns)]
            place = paths.index(self._label)
            for group in range(footer.num_row_groups):
                told = footer.row_group(group).column(place).statistics
                if told is None or not told.has_min_max or not isinstance(told.max, int):
                    raise ValueError(
                        f"{self.name}: column {self._label} does not tell its classes beforehand; leave "
                        "--streaming out, or train without labels: --no-class-conditional"
                    )
                largest = max(largest, told.max)
        return tuple(str(label) for label in range(largest + 1))

    # --- row groups ---

    def _table(self, block: int) -> Any:
        """A row group, memory-mapped from the cache; fetched if it is not there."""
        import pyarrow as pa

        while block not in self._tables:
            path = self._path(block)
            if not path.exists():
                self._fetch(block, path)
            try:
                with pa.memory_map(str(path)) as source:
                    self._tables[block] = pa.ipc.open_file(source).read_all()
                os.utime(path)  # the cache drops what was not opened for longest
            except FileNotFoundError:  # dropped by another process meanwhile
                continue
            except pa.ArrowInvalid:  # what a power cut left
                path.unlink(missing_ok=True)
            while len(self._tables) > OPEN:
                self._tables.popitem(last=False)
        self._tables.move_to_end(block)
        return self._tables[block]

    def _path(self, block: int) -> Path:
        file, group = self._groups[block]
        key = f"{self._files[file]}\0{group}\0{self._image}\0{self._label}"
        return cache_dir() / "streamed" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.arrow"

    def _fetch(self, block: int, path: Path) -> None:
        """Write a row group to the cache, and drop those that were not used for longest."""
        import pyarrow as pa

        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / f".{block % KEPT}.lock"):  # a second process waits, and finds it done
            if path.exists():
                return
            table = self._read(block)
            temporary = path.with_name(
                f"{path.name}.partial"
            )  # which, left by a kill, is dropped as they are
            try:
                with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                    writer.write_table(table)
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        used = sorted(path.parent.glob("*.arrow*"), key=_last_used)
        for old in used[: max(0, len(used) - KEPT)]:
            old.unlink(missing_ok=True)

    def _read(self, block: int) -> Any:
        """A row group from its file; a connection that fails is tried again."""
        import pyarrow.parquet as pq

        file, group = self._groups[block]
        wanted = [self._image] + ([self._label] if self._label else [])
        for attempt in range(RETRIES):
            try:
                with explained(self.name, None):
                    return pq.ParquetFile(_opened(self._files[file]), pre_buffer=True).read_row_group(
                        group, wanted
                    )
            except HubError as error:
                if attempt == RETRIES - 1 or not isinstance(error.__cause__, (*unreachable(), OSError)):
                    raise
                wait = 2.0 ** (attempt + 1)
                tqdm.write(f"{error}; next try in {wait:.0f} s", file=sys.stderr)
                time.sleep(wait)
        raise AssertionError("unreachable")


class _Labels(Sequence[int]):
    """The labels of a streamed set: read with their pictures, or all at once if an array is asked for."""

    def __init__(self, pictures: StreamedPictures) -> None:
        self._pictures = pictures

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> int:
        return self._pictures.label(int(index))


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _files(name: str, builder: Any, split: str) -> list[str]:
    """Paths and addresses of a split's parquet files."""
    found = builder.config.data_files
    if not found:  # `datasets` has gone back to what it has in its cache
        raise HubError(
            f"{name}: the Hub cannot be reached, and streaming reads from there; what is on this disk is "
            "opened without --streaming"
        )
    if split not in found:
        raise ValueError(
            f"{name}: has no split {split!r}; choose one of {', '.join(map(str, found))} with --split"
        )
    files = [str(file) for file in found[split]]
    if not all(file.endswith(".parquet") for file in files):
        raise ValueError(
            f"{name}: its files, such as {files[0].rsplit('/', 1)[-1]}, are not parquet, so that single "
            f"pictures cannot be had; leave --streaming out, or try {name.split(':')[0]}:revision="
            "refs/convert/parquet, where the Hub keeps a copy in parquet of most datasets"
        )
    return files


def _opened(file: str) -> Any:
    """A file here or on the Hub, to be read in pieces."""
    if not file.startswith(REMOTE):
        return file
    from huggingface_hub import HfFileSystem

    return HfFileSystem().open(file.removeprefix(REMOTE), "rb", cache_type="none")
