"""Pictures of any set as training data: decoded when they are asked for."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dit.pipeline import from_pictures
from train.decode import is_grey, pixels
from train.pictures import DataInfo, Pictures, UnreadablePicture

MOST_UNREADABLE = 100  # in a row; more is no chance


class PictureData:
    """Some of the pictures of a set, each decoded and cropped when it is fetched.

    One that cannot be read is replaced by the next that can, label and all, and said so once: on the
    terminal, in `skipped`, and in the file `report`.
    """

    def __init__(
        self,
        pictures: Pictures,
        info: DataInfo,
        places: np.ndarray,
        blocks: np.ndarray | None = None,
        report: Path | None = None,
        coloured_is_fine: bool = True,
    ) -> None:
        """places: (n,) which pictures of the set these are. report: gets a line of JSON each skipped picture.

        coloured_is_fine: to learn in grey what has colours; else it is said of each such picture.
        """
        self.pictures, self.info, self.places, self.blocks = pictures, info, places, blocks
        self.report, self.coloured_is_fine = report, coloured_is_fine
        self.skipped: dict[str, str] = {}  # title -> reason, of what this process has met

    def __len__(self) -> int:
        return len(self.places)

    def fetch(self, indices: np.ndarray, mirrored: np.ndarray, seeds: np.ndarray) -> tuple[Tensor, Tensor]:
        """Pictures by number (n,), mirrored where told (n,): x0 (n, C, side, side) in [-1, 1] and y (n,).

        Raises:
            ValueError: too many pictures in a row cannot be read.
        """
        rows, y = self.decoded(np.asarray(indices))
        return to_network(rows, mirrored), torch.from_numpy(y)

    def decoded(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pictures as bytes (n, side, side, C) uint8, and their labels (n,) int64."""
        side, channels = self.info.side, self.info.channels
        rows, y = np.empty((len(indices), side, side, channels), np.uint8), np.zeros(len(indices), np.int64)
        for row in np.argsort(indices, kind="stable"):  # those that are stored together one after the other
            rows[row], y[row] = self._readable(int(indices[row]))
        return rows, y

    def _readable(self, index: int) -> tuple[np.ndarray, int]:
        """A picture (side, side, C) uint8 and its label, or those of the next one that can be read."""
        for further in range(MOST_UNREADABLE):
            place = int(self.places[(index + further) % len(self)])
            title = self.pictures.title(place)
            if title in self.skipped and not self.skipped[title].startswith(COLOURED):
                continue
            try:
                image = self.pictures.picture(place)
                square = pixels(image, self.info.side, self.info.channels)
            except UnreadablePicture as error:
                self._note(title, str(error).removeprefix(f"{title}: "))
                continue
            if not self.coloured_is_fine and title not in self.skipped and not is_grey(image):
                self._note(title, COLOURED)
            return square, int(self.pictures.labels[place]) if self.info.classes else 0
        raise ValueError(
            f"{self.info.name}: {MOST_UNREADABLE} pictures in a row cannot be read, such as {title}: "
            f"{self.skipped[title]}; are they whole, and is their disk there?"
        )

    def _note(self, title: str, reason: str) -> None:
        """Say once, over all processes that share a report, what is wrong with a picture."""
        self.skipped[title] = reason
        if note(self.report, {title: reason}):
            done = "is used in grey" if reason == COLOURED else "is left out"
            tqdm.write(f"{self.info.name}: {title} {done}: {reason}", file=sys.stderr)


COLOURED = "it has colours, where a sample of the set had none; --channels rgb keeps them"


def note(report: Path | None, skipped: dict[str, str]) -> bool:
    """Add a line of JSON to the report for each picture that it does not name yet; whether there was one."""
    if report is None:
        return bool(skipped)
    known = report.read_text().splitlines() if report.exists() else []
    lines = [json.dumps({"picture": title, "reason": reason}) for title, reason in skipped.items()]
    new = [line for line in lines if line not in known]
    if new:
        with report.open("a") as file:
            file.write("".join(f"{line}\n" for line in new))
    return bool(new)


def to_network(rows: np.ndarray, mirrored: np.ndarray) -> Tensor:
    """Bytes (n, side, side, C), some mirrored (n,) -> float32 (n, C, side, side) in [-1, 1]."""
    x0 = from_pictures(rows)
    where = torch.from_numpy(np.array(mirrored, bool))[:, None, None, None]
    return (torch.where(where, x0.flip(-1), x0) if where.any() else x0).contiguous()
