"""From a stored picture to the square of bytes that the network learns: decoding, modes, the centre crop."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from train.pictures import UnreadablePicture

MAX_PIXELS = 100_000_000  # of one picture: more is a mistake, or an attack on the memory
GREY = ("1", "L", "LA", "La", "I", "F")  # Pillow's modes without colour; those of 16 bits begin with I;16


def read_picture(source: Path | bytes, title: str) -> Image.Image:
    """Decode a file, or its content, and turn it as its camera says; of several frames the first.

    Raises:
        UnreadablePicture: it is damaged, too large, no picture at all, or cannot be read from the disk.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnreadablePicture(f"{title}: {_size(image)} are more than {MAX_PIXELS:,} pixels")
            image.load()
            return ImageOps.exif_transpose(image)
    except (MemoryError, UnreadablePicture):
        raise
    except Exception as error:  # decoding a damaged file raises nearly anything
        reason = "it is no picture that Pillow knows" if "cannot identify" in str(error) else str(error)
        raise UnreadablePicture(f"{title}: {' '.join(reason.split()) or type(error).__name__}") from error


def is_grey(image: Image.Image) -> bool:
    """Whether a picture is stored without colour."""
    return image.mode in GREY or image.mode.startswith("I;16")


def pixels(image: Image.Image, side: int, channels: int) -> np.ndarray:
    """The picture as the network's square: uint8 (side, side, channels), of 1 (grey) or 3 channels (RGB).

    Transparent parts become white.

    Raises:
        UnreadablePicture: numbers of a range that is not known, or a side that cannot be scaled to a square.
    """
    plain = _eight_bits(image)
    if plain.has_transparency_data:
        plain = plain.convert("RGBA")
        plain = Image.alpha_composite(Image.new("RGBA", plain.size, "white"), plain)
    try:
        plain = plain.convert("L" if channels == 1 else "RGB")
    except ValueError as error:
        raise UnreadablePicture(f"mode {image.mode} cannot be shown as RGB: {error}") from error
    return centre_crop(plain, side).reshape(side, side, channels)


def centre_crop(image: Image.Image, side: int) -> np.ndarray:
    """The middle square, scaled to the side: uint8 (side, side[, 3]); smaller pictures are enlarged.

    As ADM has it (Dhariwal & Nichol, 2105.05233, image_datasets.py), and DiT after it: halved by averaging
    while the short side is at least twice as long, then bicubic.

    Raises:
        UnreadablePicture: a side so much longer than the other that it cannot be scaled.
    """
    if side * side * max(image.size) / min(image.size) > MAX_PIXELS:
        raise UnreadablePicture(f"{_size(image)} is too narrow for a square of {side}")
    while min(image.size) >= 2 * side:
        image = image.resize((image.width // 2, image.height // 2), resample=Image.Resampling.BOX)
    scale = side / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    array = np.asarray(image.resize(size, resample=Image.Resampling.BICUBIC))
    top, left = (array.shape[0] - side) // 2, (array.shape[1] - side) // 2
    return array[top : top + side, left : left + side]


def _eight_bits(image: Image.Image) -> Image.Image:
    """Pictures of 16 bits and of floats from 0 to 1, scaled to 8 bits; all others as they are."""
    if not (image.mode in ("I", "F") or image.mode.startswith("I;16")):
        return image
    values = np.asarray(image).astype(np.float64)
    most = 1 if image.mode == "F" else 65535
    if not (values.min() >= 0 and values.max() <= most):
        raise UnreadablePicture(
            f"its numbers, of mode {image.mode}, run from {values.min():g} to {values.max():g}; expected 0 "
            f"to {most}; store it with 8 bits a channel"
        )
    return Image.fromarray(np.round(values * (255 / most)).astype(np.uint8))


def _size(image: Image.Image) -> str:
    return f"{image.width} x {image.height}"
