"""Training data, opened by what a config says of it."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from filelock import FileLock
from torch import Tensor
from tqdm import tqdm

from dit.files import atomic_write, discard_partials, reserve
from dit.remote import cache_dir
from train import solids
from train.config import TrainConfig
from train.decode import is_grey
from train.folder import FolderPictures, has_pictures
from train.loader import workers_for
from train.picture_data import PictureData
from train.pictures import DataInfo, Pictures, UnreadablePicture
from train.stored import StoredData, fits, store

CHUNK = 1000  # pictures rendered between two updates of the progress bar
NUM_SOLIDS = 100_000  # where no number is given, since there is no end to them
SAMPLE = 100  # pictures looked at to see whether a set is grey
LATENTS = "dit-lab-latents"  # how the format of a folder of latents begins, in its index.json


class Data(Protocol):
    """Pictures, or latents of them, as the network gets them. Pickles, for the loader's processes."""

    info: DataInfo
    blocks: np.ndarray | None  # for `Order`: sizes of the consecutive parts that are read whole

    def __len__(self) -> int: ...

    def fetch(self, indices: np.ndarray, mirrored: np.ndarray, seeds: np.ndarray) -> tuple[Tensor, Tensor]:
        """x0 (n, C, side, side) float32, in [-1, 1] or latents as they are scaled, and y (n,) int64.

        indices: (n,) int64. mirrored: (n,) bool. seeds: (n,) int64, for all else that is random of a row.
        """
        ...


def open_pictures(name: str, split: str = "train", streaming: bool = False) -> Pictures:
    """A folder of pictures, a folder with parquet files, or OWNER/NAME of a dataset on the Hub.

    streaming: read the latter two piece by piece, instead of keeping all of a set on this disk.

    Raises:
        ValueError: nothing of that name, no pictures in it, or something else is wrong with it.
        HubError: the Hub cannot be reached, or does not let us in.
    """
    from train.hub_data import has_parquet, open_hub_data  # only here: they need `datasets`, and are slow

    folder = Path(name).expanduser()
    if folder.is_dir() and not has_parquet(folder):
        if streaming and has_pictures(folder):
            raise ValueError(f"{name}: a folder of pictures is never copied; leave --streaming out")
        return FolderPictures(name, split)
    if folder.is_file():
        raise ValueError(f"{name}: is a file; unpack it, and give the folder of pictures")
    return open_hub_data(name, split, streaming)


def open_data(config: TrainConfig, report: Path | None = None) -> Data:
    """The data that a config names, with what it says of number, size, channels and labels.

    report: a file that gets a line of JSON for each picture that cannot be read.

    Raises:
        ValueError: there is no such data, or it is not such as the config wants it; the message says what to
            do.
        HubError: the Hub cannot be reached, or does not let us in.
    """
    if config.data == solids.SOLIDS:
        return SolidsData.of(config)
    if _is_latents(Path(config.data).expanduser()):
        from train.latents import LatentData

        for name, neutral in (("channels", "auto"), ("split", "train"), ("streaming", False)):
            if (value := getattr(config, name)) != neutral:
                raise ValueError(
                    f"{name} is {value!r}, but {config.data} holds latents, for which that was decided when "
                    "they were encoded; leave it out"
                )
        return LatentData(Path(config.data).expanduser(), config)
    pictures = open_pictures(config.data, config.split, config.streaming)
    if config.class_conditional:
        check_classes(pictures)
    places = chosen(config, len(pictures), pictures.labels if config.class_conditional else None)
    channels, sampled = _channels(config, pictures, places)
    classes = pictures.classes if config.class_conditional else ()
    info = DataInfo(config.data, classes, channels, config.image_size)
    coloured_is_fine = not sampled or channels == 3
    blocks = None if config.overfit else _first_blocks(pictures.blocks, len(places))
    data = PictureData(pictures, info, places, blocks, report, coloured_is_fine)
    _tell_of_missing_classes(data)
    if (config.streaming and not config.overfit) or not fits(data):
        return data
    return store(data, workers_for(data) if config.num_workers < 0 else config.num_workers)


def check_classes(pictures: Pictures) -> None:
    """Raises ValueError unless there are labels to tell a model of."""
    if not pictures.classes:
        raise ValueError(
            f"{pictures.name} has no labels; train without them: --no-class-conditional; or make a "
            "sub-folder for each class"
        )
    if len(pictures.classes) == 1:
        raise ValueError(
            f"{pictures.name} has only one class, {pictures.classes[0]}, so that there is nothing to choose "
            "from; train without classes: --no-class-conditional"
        )


def _tell_of_missing_classes(data: PictureData) -> None:
    """Say on the terminal which classes have no pictures, as far as labels are known."""
    labels, classes = data.pictures.labels, data.info.classes
    if not classes or not isinstance(labels, np.ndarray):
        return
    if absent := sorted(set(range(len(classes))) - set(labels[data.places].tolist())):
        told = (
            f"{data.info.name}: {len(absent)} of {len(classes)} classes, such as {classes[absent[0]]}, have"
        )
        tqdm.write(f"{told} no pictures among the {len(data)} that are learnt", file=sys.stderr)


def chosen(config: TrainConfig, n: int, labels: np.ndarray | None = None) -> np.ndarray:
    """Which of a set's n pictures are learnt, in order, int64: the first num_pictures, of those `overfit`.

    labels: (n,) spread the latter evenly over the classes; without them, over the set.

    Raises:
        ValueError: there are not so many.
    """
    for name, wanted in (("num_pictures", config.num_pictures), ("overfit", config.overfit)):
        if wanted > n:
            raise ValueError(f"{name} is {wanted}, but {config.data} has {n} pictures; give at most so many")
        n = wanted if wanted and name == "num_pictures" else n
    if not config.overfit:
        return np.arange(n)
    if not isinstance(labels, np.ndarray):
        return _evenly(np.arange(n), config.overfit)
    # The classes take turns, each with pictures from all over the set.
    members = [np.flatnonzero(labels[:n] == label) for label in np.unique(labels[:n])]
    counts = np.zeros(len(members), np.int64)
    while (missing := config.overfit - counts.sum()) > 0:
        open_ones = [k for k, of_class in enumerate(members) if counts[k] < len(of_class)]
        for k in open_ones[:missing]:
            counts[k] += 1
    return np.sort(np.concatenate([_evenly(m, count) for m, count in zip(members, counts, strict=True)]))


def _evenly(places: np.ndarray, count: int) -> np.ndarray:
    return places[np.arange(count) * len(places) // max(count, 1)]


def _first_blocks(blocks: np.ndarray | None, n: int) -> np.ndarray | None:
    """The sizes of the blocks that the first n pictures lie in, the last one cut off."""
    if blocks is None:
        return None
    ends = np.minimum(np.cumsum(blocks), n)
    sizes = np.diff(ends, prepend=0)
    return sizes[sizes > 0]


def _channels(config: TrainConfig, pictures: Pictures, places: np.ndarray) -> tuple[int, bool]:
    """How many channels the pictures shall have, and whether a sample of them has decided it."""
    if config.channels != "auto":
        return {"grey": 1, "rgb": 3}[config.channels], False
    found = 0
    sample = min(SAMPLE, len(places))  # of a set that is read part by part, from the first part
    for place in _evenly(places, sample) if pictures.blocks is None else places[:sample]:
        try:
            if not is_grey(pictures.picture(int(place))):
                return 3, True
            found += 1
        except UnreadablePicture:  # noted when it is fetched
            continue
    if not found:
        return 3, True
    tqdm.write(f"{config.data}: pictures are grey: one channel (--channels rgb for three)", file=sys.stderr)
    return 1, True


def _is_latents(folder: Path) -> bool:
    index = folder / "index.json"
    try:
        return str(json.loads(index.read_text())["format"]).startswith(LATENTS) if index.is_file() else False
    except (ValueError, KeyError, TypeError):
        return False


# --- solids ---


def solids_cache(num_pictures: int, side: int, seed: int) -> np.ndarray:
    """The first pictures of a seed as a read-only memory map, (num_pictures, side, side, 3) uint8.

    Drawn in one go on first use, with a progress bar, and renamed into place when whole.
    """
    return np.load(_solids_path(num_pictures, side, seed), mmap_mode="r")


def _solids_path(num_pictures: int, side: int, seed: int) -> Path:
    path = cache_dir() / f"solids-v{solids.VERSION}-{side}px-seed{seed}-{num_pictures}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / ".lock"):  # a second process waits, and finds it done
            if not path.exists():
                discard_partials(path.parent, recursive=False)  # below it others write, under other locks
                atomic_write(path, lambda temporary: _draw(temporary, num_pictures, side, seed))
    return path


def _draw(path: Path, num_pictures: int, side: int, seed: int) -> None:
    pictures = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(num_pictures, side, side, 3))
    reserve(path)
    with tqdm(total=num_pictures, desc="drawing solids", unit=" pictures") as bar:
        for start in range(0, num_pictures, CHUNK):
            stop = min(start + CHUNK, num_pictures)
            pictures[start:stop] = solids.render(range(start, stop), seed, side)[0]
            bar.update(stop - start)
    pictures.flush()


class SolidsData(StoredData):
    """The embedded dataset: pictures of solids' seed 0."""

    def __init__(self, num_pictures: int, side: int) -> None:
        info = DataInfo(solids.SOLIDS, solids.CLASSES, 3, side)
        labels = solids.labels(np.arange(num_pictures))
        super().__init__(_solids_path(num_pictures, side, seed=0), info, labels)

    @classmethod
    def of(cls, config: TrainConfig) -> "SolidsData":
        """The solids that a config names. Raises ValueError if it wants more, or others, than there are."""
        if config.channels == "grey":
            raise ValueError("channels is grey, but solids are in colour; use rgb, or data of your own")
        config = replace(config, num_pictures=config.num_pictures or NUM_SOLIDS)
        data = cls(config.num_pictures, config.image_size)
        if config.overfit:
            data.places = chosen(config, len(data), data.labels)
            data.labels = data.labels[data.places]
        if not config.class_conditional:
            data.info = replace(data.info, classes=())
        return data
