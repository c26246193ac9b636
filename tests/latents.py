"""Small folders of pictures, and their latents by the small random autoencoder."""

import contextlib
import io
from pathlib import Path

from PIL import Image

from train import solids
from train.encode import main

CLASSES = ("cone", "cube", "star")
SIDE, SHARD, NUMBER = 32, 6, 16  # pixels, pictures of a shard, and of all


def solids_folder(folder: Path, number: int = 16, classes: tuple[str, ...] = CLASSES) -> Path:
    """Pictures of solids of 48 x 40 pixels, a folder a class, or all in one if there are no classes."""
    kinds = [solids.CLASSES.index(name) for name in classes] or range(10)
    indices = [10 * (i // len(kinds)) + kinds[i % len(kinds)] for i in range(number)]
    pictures = solids.render(indices, side=48)[0][:, 4:44]
    for index, picture in zip(indices, pictures, strict=True):
        place = folder / solids.CLASSES[index % 10] if classes else folder
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(place / f"{index:04d}.png")
    return folder


def arguments(data: Path, out: Path, vae: Path, *more: str) -> list[str]:
    """Of the command, for the small autoencoder."""
    settings = [f"--image-size={SIDE}", f"--shard-size={SHARD}", "--batch-size=4", "--device=cpu"]
    return [str(data), str(out), f"--autoencoder={vae}", "--num-workers=0", *settings, *more]


def run(data: Path, out: Path, vae: Path, *more: str) -> tuple[int, str]:
    """Encode in this process: the exit status, and what the terminal would show, on one line."""
    with contextlib.redirect_stderr(io.StringIO()) as err, contextlib.redirect_stdout(err):
        try:
            status = main(arguments(data, out, vae, *more))
        except SystemExit as end:  # of a flag that cannot be
            status = int(end.code or 0)
    return status, " ".join(err.getvalue().replace("│", " ").split())


def shards(folder: Path) -> dict[str, bytes]:
    """The shards of a folder: name -> content."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("shard-*.safetensors"))}
