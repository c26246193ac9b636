"""The loader alone, against what a training step of the same side consumes on this machine.

python -m benchmarks.loader [--pictures 400] [--steps 20] [--readme]
"""

import os
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor

import dit
from benchmarks.readme import command, write_block
from dit.diffusion import training_losses
from dit.speed import machine
from train import solids
from train.data import Data
from train.folder import FolderPictures
from train.loader import load_ahead
from train.order import Order
from train.picture_data import PictureData
from train.pictures import DataInfo
from train.stored import store

BATCH = 32
WORKERS = (0, 1, 2)  # processes; 0: a thread
DRAWN = 20  # different pictures; drawing large ones takes longer than all else
WARM_UP = 8  # batches that are not counted: processes begin, and files come into memory


class Make:
    """What the loop asks for at each step, without the draws of noise."""

    def __init__(self, data: Data) -> None:
        self.data, self.order = data, Order(len(data), BATCH, seed=0, blocks=data.blocks)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        indices = self.order.indices(step)
        return self.data.fetch(indices, indices % 2 == 0, indices)


def folder_of(place: Path, pictures: int, size: tuple[int, int], ending: str) -> FolderPictures:
    """Files of shaded solids, a sub-folder a class, cut out of larger ones so that they are of any shape."""
    rows, labels = solids.render(range(min(pictures, DRAWN)), 0, max(size))
    for index in range(pictures):
        path = place / solids.CLASSES[labels[index % DRAWN]] / f"{index}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        row = rows[index % DRAWN, : size[1], : size[0]]
        Image.fromarray(row).save(path, **({"quality": 90} if ending == ".jpg" else {}))
    return FolderPictures(place)


def loaded(data: Data, workers: int, steps: int) -> float:
    """Pictures a second that the loader makes."""
    with closing(load_ahead(Make(data), 0, WARM_UP + steps, workers)) as batches:
        for _ in range(WARM_UP):
            next(batches)
        began = time.perf_counter()
        for _ in range(steps):
            next(batches)
    return steps * BATCH / (time.perf_counter() - began)


def consumed(model_name: str, side: int, batch: int) -> float:
    """Pictures a second of training steps: forward, backward and AdamW, in float32 on the CPU."""
    model = dit.build(model_name, input_size=side, in_channels=3, num_classes=10).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    x0, y, t = torch.randn(batch, 3, side, side), torch.arange(batch) % 10, torch.arange(batch) * 50
    for step in range(3):
        if step == 1:
            began = time.perf_counter()
        training_losses(model, x0, t, y)["loss"].mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return 2 * batch / (time.perf_counter() - began)


def main(pictures: int = 400, steps: int = 20, readme: bool = False) -> None:
    """Time each set with each number of processes, and one model at its side.

    Args:
        pictures: files of each set.
        steps: batches timed, of 32 pictures.
        readme: write the table into README.md.
    """
    heads = ("a thread", "1 process", "2 processes")
    lines = [f"| pictures/s of the loader | {' | '.join(heads)} | a training step uses |", "|---" * 5 + "|"]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DITLAB_CACHE"] = folder
        small = _data(folder_of(Path(folder) / "small", pictures, (32, 32), ".png"), 32)
        large = _data(folder_of(Path(folder) / "large", pictures, (500, 400), ".jpg"), 256)
        small_step, large_step = (
            f"{consumed(model, side, batch):.1f} ({model})"
            for model, side, batch in (("DiT-M/2", 32, 16), ("DiT-S/8", 256, 2))
        )
        for name, data, step in (
            ("32 px, decoded once and kept", store(small, 0), small_step),
            ("32 px, PNG files", small, small_step),
            ("256 px, of JPEG files of 500 x 400", large, large_step),
        ):
            cells = [f"{loaded(data, workers, steps):.0f}" for workers in WORKERS]
            lines.append(f"| {name} | {' | '.join(cells)} | {step} |")
            print(lines[-1], flush=True)
    typed = command("benchmarks.loader", pictures=pictures, steps=steps)
    lines.append(f"\nBatches of {BATCH}; {machine()}; {typed}")
    print("\n".join(lines))
    if readme:
        write_block("loader", lines)


def _data(pictures: FolderPictures, side: int) -> PictureData:
    info = DataInfo(pictures.name, pictures.classes, 3, side)
    return PictureData(pictures, info, np.arange(len(pictures)))


if __name__ == "__main__":
    tyro.cli(main)
