"""Pictures as files: PNG with every setting inside, and tables of pictures for the eye."""

import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

METADATA_KEY = "dit-lab"  # of the PNG text chunk that holds the settings as JSON


def png(image: np.ndarray | Image.Image, settings: Any = None) -> bytes:
    """A picture, (H, W, 3) uint8 or of Pillow, as PNG, with its settings (JSON values) in a text chunk."""
    info = PngInfo()
    if settings is not None:
        info.add_text(METADATA_KEY, json.dumps(settings))
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, format="png", pnginfo=info, compress_level=1)
    return file.getvalue()


def with_settings(pixels: np.ndarray, settings: dict[str, Any]) -> Image.Image:
    """A picture (H, W, 3) uint8 whose `info` holds its settings; Gradio writes them into its PNG."""
    image = Image.fromarray(pixels)
    image.info[METADATA_KEY] = json.dumps(settings)
    return image


def read_settings(image: Image.Image) -> Any:
    """The settings inside a PNG that `png` wrote. Raises ValueError if there are none."""
    if METADATA_KEY not in image.info:
        raise ValueError(f"this picture has no {METADATA_KEY!r} text chunk, so its settings are not known")
    return json.loads(image.info[METADATA_KEY])


def contact_sheet(pictures: np.ndarray, scale: int = 1) -> Image.Image:
    """A table of pictures, each pixel enlarged to scale x scale, with white lines of one pixel between.

    pictures: (rows, columns, H, W, 3) uint8.
    """
    rows, columns = pictures.shape[:2]
    large = pictures.repeat(scale, axis=2).repeat(scale, axis=3)
    lined = np.pad(large, ((0, 0), (0, 0), (0, 1), (0, 1), (0, 0)), constant_values=255)
    height, width = lined.shape[2:4]
    sheet = lined.swapaxes(1, 2).reshape(rows * height, columns * width, 3)
    return Image.fromarray(np.ascontiguousarray(sheet[:-1, :-1]))


def sheet_of(pictures: Sequence[np.ndarray], columns: int, scale: int = 1) -> Image.Image:
    """Any number of pictures (H, W, 3) uint8 as a table, row by row; the last row is filled with white."""
    rows = -(-len(pictures) // columns)
    blank = np.full_like(pictures[0], 255)
    filled = [*pictures, *[blank] * (rows * columns - len(pictures))]
    return contact_sheet(np.stack(filled).reshape(rows, columns, *pictures[0].shape), scale)
