"""A folder of pictures: a sub-folder for each class, or pictures without labels."""

import hashlib
import os
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
from PIL import Image

from dit.classes import imagenet_names
from train.decode import read_picture
from train.pictures import UnreadablePicture

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .avif .bmp .gif .tif .tiff .ppm .pgm .pbm .pnm .jp2 .tga".split()
)
SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing", "dev", "eval")


class FolderPictures:
    """The pictures below a folder, the classes taking turns: so the first few are a fair sample.

    Each sub-folder is a class, whatever lies deeper in it included; without any, the pictures are unlabelled.
    Hidden files, and all that is no picture by its ending, are left out. The order is that of the names.
    """

    blocks = None

    def __init__(self, folder: Path | str, split: str = "train") -> None:
        """split: which to take of a folder that holds nothing but splits, such as train and val.

        Raises:
            ValueError: no such folder or split, no pictures, a class without any, or pictures beside classes.
        """
        self.name = str(folder)
        self.root = _of_split(Path(folder).expanduser(), split)
        branches = _folders(self.root)
        loose = [entry.name for entry in _entries(self.root) if _is_picture(entry)]
        members = {branch: _pictures(self.root / branch) for branch in branches}
        full = [branch for branch in branches if members[branch]]
        if not full and not loose:
            raise ValueError(
                f"{self.root}: there are no pictures in it; expected files such as .jpg or .png, or a "
                "sub-folder of them for each class"
            )
        if full and loose:
            raise ValueError(
                f"{self.root}: {len(loose)} pictures, such as {loose[0]}, lie beside sub-folders such as "
                f"{full[0]}; move them into a sub-folder, which is their class, or elsewhere"
            )
        if full and (empty := [branch for branch in branches if not members[branch]]):
            raise ValueError(
                f"{self.root}: class {empty[0]} has no pictures; put some in, or remove the folder"
            )
        self._names = _Names([f"{branch}/{path}" for branch in full for path in members[branch]] or loose)
        known = imagenet_names() if full and all(_is_wordnet_id(branch) for branch in full) else {}
        self.classes = tuple(known.get(branch, branch) for branch in full)
        counts = [len(members[branch]) for branch in full] or [len(loose)]
        labels, turns = np.repeat(np.arange(len(counts)), counts), np.concatenate([*map(np.arange, counts)])
        self._places = np.lexsort((labels, turns))
        self.labels = labels[self._places].astype(np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def title(self, index: int) -> str:
        """The file, below the folder."""
        return self._names[int(self._places[index])]

    def picture(self, index: int) -> Image.Image:
        """The decoded picture.

        Raises:
            UnreadablePicture: it is damaged.
            ValueError: it is gone: others in its place would be training on other data.
        """
        title = self.title(index)
        try:
            return read_picture(self.root / title, title)
        except UnreadablePicture as error:
            if not isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
                raise
            raise ValueError(
                f"{self.name}: {title} was there at the start, and is gone; bring the folder back as it was, "
                "and give the same command again: it goes on from the last checkpoint"
            ) from error

    def fingerprint(self) -> str:
        """A digest of all files' names, sizes and times."""
        digest = hashlib.sha256(str(self.root.resolve()).encode())
        for index in range(len(self)):
            title = self.title(index)
            stat = os.stat(self.root / title)
            digest.update(f"{title}\0{stat.st_size}\0{stat.st_mtime_ns}\0{self.labels[index]}\n".encode())
        return digest.hexdigest()


class _Names(Sequence[str]):
    """Many names in one piece of memory: a million strings would be costly to hand to each process."""

    def __init__(self, names: Sequence[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self._text = b"".join(encoded)
        self._ends = np.array([0, *accumulate(map(len, encoded))], np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        return os.fsdecode(self._text[self._ends[index] : self._ends[index + 1]])


def has_pictures(folder: Path) -> bool:
    """Whether a picture lies anywhere below a folder."""
    return bool(_pictures(folder, first=True))


def _of_split(folder: Path, split: str) -> Path:
    """The folder itself, or the split in it if it holds nothing but splits."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder; correct the name, or give OWNER/NAME of a set")
    branches = [name for name in _folders(folder) if has_pictures(folder / name)]
    if branches and all(name.casefold() in SPLITS for name in branches):
        for name in branches:
            if name.casefold() == split.casefold():
                return folder / name
        raise ValueError(
            f"{folder}: there is no split {split!r} in it; choose one of {', '.join(branches)} with --split"
        )
    if split != "train":
        raise ValueError(f"{folder}: split is {split!r}, but the folder holds no splits; leave --split out")
    return folder


def _entries(folder: Path) -> list[os.DirEntry]:
    """What lies in a folder and is not hidden, by name."""
    with os.scandir(folder) as entries:
        shown = [entry for entry in entries if not entry.name.startswith((".", "__MACOSX"))]
    return sorted(shown, key=lambda entry: entry.name)


def _folders(folder: Path) -> list[str]:
    return [entry.name for entry in _entries(folder) if entry.is_dir()]


def _is_picture(entry: os.DirEntry) -> bool:
    return os.path.splitext(entry.name)[1].casefold() in SUFFIXES and entry.is_file()


def _pictures(folder: Path, first: bool = False) -> list[str]:
    """Paths of all pictures below a folder, links followed, in the order of their names; or of the first."""
    found, seen = [], set()

    def walk(place: Path, prefix: str) -> None:
        stat = os.stat(place)
        if (stat.st_dev, stat.st_ino) in seen:  # a link back to where we come from
            return
        seen.add((stat.st_dev, stat.st_ino))
        for entry in _entries(place):
            if first and found:
                return
            if entry.is_dir():
                walk(place / entry.name, f"{prefix}{entry.name}/")
            elif _is_picture(entry):
                found.append(prefix + entry.name)

    walk(folder, "")
    return found


def _is_wordnet_id(name: str) -> bool:
    return len(name) == 9 and name[0] == "n" and name[1:].isdigit()
