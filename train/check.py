"""`python -m train.check DATA`: what is in a set of pictures, before it is trained on."""

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from tqdm import tqdm

from dit.command import exit_status
from dit.files import atomic_write
from dit.pictures import sheet_of
from train import solids
from train.data import open_pictures
from train.decode import is_grey, pixels
from train.pictures import Pictures, UnreadablePicture

UNEVEN = 10  # times as many pictures of one class as of another
FEW = 200  # pictures, below which a model learns them by heart
SHOWN = 8  # pictures of a class in the preview
MOST_ROWS = 12  # classes in it
NAMED = 20  # unreadable pictures that are printed; a report has them all


@dataclass(frozen=True)
class Check:
    """Look at every picture of a set: classes, sizes, and what cannot be read. Nothing is written."""

    data: tyro.conf.Positional[str]
    """solids, a folder of pictures, or a dataset on the Hub: OWNER/NAME"""
    split: str = "train"
    """of a dataset in the Hub's layout"""
    image_size: int = 32
    """side that the pictures will be scaled to (pixels)"""
    most: int = 0
    """look at so many only, evenly over the set (pictures); 0: at all"""
    preview: Path | None = None
    """.png file to write: some pictures of each class, as a model will see them"""
    json: bool = False
    """print all of it as JSON"""

    def __post_init__(self) -> None:
        for name, least in (("image_size", solids.MIN_SIDE), ("most", 0)):
            if (value := getattr(self, name)) < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}")


@dataclass(frozen=True)
class DataReport:
    """What was found."""

    name: str
    pictures: int  # of the set; 0: without end
    looked_at: int
    classes: dict[str, int]  # pictures of each, all of them counted; none: without labels
    unreadable: list[dict[str, str]]  # picture and reason, of those looked at
    sizes: list[tuple[int, int]]  # width and height of the smallest, the middle and the largest, by area
    enlarged: int  # of those looked at: a side shorter than the pictures will have
    grey: bool  # all that were looked at are

    def warnings(self) -> list[str]:
        """What a reader should know before training, a sentence each."""
        found, counts = [], {name: count for name, count in self.classes.items() if count}
        if self.unreadable:
            found.append(f"{len(self.unreadable):,} pictures cannot be read, and are left out of a training.")
        empty = [name for name in self.classes if name not in counts]
        if empty and self.pictures:
            found.append(f"{_classes(len(empty))}, such as {empty[0]}, without a picture.")
        if counts and max(counts.values()) > UNEVEN * min(counts.values()):
            most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
            found.append(
                f"{most} has {counts[most]:,} pictures and {least} {counts[least]:,}: the model will know "
                "the former better."
            )
        if len(self.classes) == 1:
            found.append("There is only one class; train without classes: --no-class-conditional.")
        if 0 < self.pictures < FEW:
            found.append(f"{self.pictures} pictures are few: a model learns them by heart.")
        if self.enlarged:
            share = self.enlarged / max(1, self.looked_at - len(self.unreadable))
            found.append(f"{share:.0%} of the pictures are smaller than asked for, and will be blurred.")
        return found

    def text(self) -> str:
        """For a reader: a line each."""
        lines = [("pictures", f"{self.pictures:,}" if self.pictures else "as many as one likes, by code")]
        if self.pictures and self.looked_at < self.pictures:
            lines.append(("looked at", f"{self.looked_at:,}, evenly over the set"))
        lines.append(("classes", f"{len(self.classes):,}" if self.classes else "none: without labels"))
        lines += [("", f"{name}: {count:,}") for name, count in self.classes.items() if self.pictures]
        if self.sizes:
            sizes = ", ".join("{} x {}".format(*size) for size in dict.fromkeys(self.sizes))
            lines.append(("sizes", f"{sizes}{', grey' if self.grey else ''}"))
        lines += [("not read", f"{bad['picture']}: {bad['reason']}") for bad in self.unreadable[:NAMED]]
        if (more := len(self.unreadable) - NAMED) > 0:
            lines.append(("", f"and {more:,} more"))
        lines += [("note", warning) for warning in self.warnings()]
        return "\n".join(f"{title:<12}{text}".rstrip() for title, text in lines)

    def told(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self) | {"warnings": self.warnings()}


def inspect(check: Check) -> DataReport:
    """Look at the pictures, with progress, and write the preview if one is asked for.

    Raises:
        ValueError: there are no such pictures.
        HubError: the Hub cannot be reached, or does not let us in.
    """
    if check.data == solids.SOLIDS:
        return _of_solids(check)
    pictures = open_pictures(check.data, check.split)
    n = len(pictures)
    places = np.arange(n) if not 0 < check.most < n else np.arange(check.most) * n // check.most
    unreadable, sizes, grey, enlarged = [], [], True, 0
    for place, found in tqdm(_seen(pictures, places), "looking at pictures", len(places), unit=" pictures"):
        if isinstance(found, str):
            title = pictures.title(place)
            unreadable.append({"picture": title, "reason": found.removeprefix(f"{title}: ")})
            continue
        size, is_grey_too = found
        sizes.append(size)
        grey, enlarged = grey and is_grey_too, enlarged + (min(size) < check.image_size)
    if not sizes:
        raise ValueError(
            f"{check.data}: none of {len(places):,} pictures can be read, such as "
            f"{unreadable[0]['picture']}: {unreadable[0]['reason']}"
        )
    counts = Counter(pictures.labels.tolist()) if pictures.classes else {}
    if check.preview:
        _write_preview(check, _rows(pictures, check.image_size, places))
    return DataReport(
        Path(check.data).name if Path(check.data).expanduser().is_dir() else check.data,
        n,
        len(places),
        {name: counts.get(label, 0) for label, name in enumerate(pictures.classes)},
        unreadable,
        _three(sizes),
        enlarged,
        grey,
    )


def _seen(pictures: Pictures, places: np.ndarray) -> Iterator[tuple[int, str | tuple[tuple[int, int], bool]]]:
    """Each place with the size of its picture and whether it is grey; or with what is wrong with it."""

    def look(place: int) -> tuple[int, str | tuple[tuple[int, int], bool]]:
        try:
            image = pictures.picture(place)
            return place, (image.size, is_grey(image))
        except UnreadablePicture as error:
            return place, str(error)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes beside Python
        yield from pool.map(look, places.tolist())


def _three(sizes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    ordered = sorted(sizes, key=lambda size: size[0] * size[1])
    return [ordered[0], ordered[len(ordered) // 2], ordered[-1]]


def _of_solids(check: Check) -> DataReport:
    if check.image_size > solids.MAX_SIDE:
        raise ValueError(f"image_size is {check.image_size}; solids have at most {solids.MAX_SIDE}")
    if check.preview:
        drawn, labels = solids.render(range(SHOWN * len(solids.CLASSES)), 0, check.image_size)
        _write_preview(check, [list(drawn[labels == label]) for label in range(len(solids.CLASSES))])
    size = (check.image_size, check.image_size)
    return DataReport(solids.SOLIDS, 0, 0, dict.fromkeys(solids.CLASSES, 0), [], [size] * 3, 0, False)


def _rows(pictures: Pictures, side: int, places: np.ndarray) -> list[list[np.ndarray]]:
    """The first few readable pictures of the first classes, (side, side, 3) uint8 each; one row without."""
    rows = []
    for label in range(min(max(1, len(pictures.classes)), MOST_ROWS)):
        own = places[pictures.labels[places] == label].tolist()
        row = (square for place in own if (square := _square(pictures, place, side)) is not None)
        rows.append([square for square, _ in zip(row, range(SHOWN), strict=False)])
    return rows


def _square(pictures: Pictures, place: int, side: int) -> np.ndarray | None:
    try:
        return pixels(pictures.picture(place), side, 3)
    except UnreadablePicture:
        return None


def _write_preview(check: Check, rows: list[list[np.ndarray]]) -> None:
    blank = np.full((check.image_size, check.image_size, 3), 255, np.uint8)
    filled = [picture for row in rows for picture in [*row[:SHOWN], *[blank] * (SHOWN - len(row))]]
    image = sheet_of(filled, SHOWN, max(1, 64 // check.image_size))
    atomic_write(check.preview, partial(image.save, format="png"))


def _classes(count: int) -> str:
    return "1 class is" if count == 1 else f"{count:,} classes are"


def main(arguments: list[str]) -> int:
    """Look, and tell. Returns the exit status."""

    def told() -> None:
        check = tyro.cli(Check, prog="python -m train.check", args=arguments)
        report = inspect(check)
        print(json.dumps(report.told()) if check.json else report.text())

    return exit_status(told, "stopped")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
