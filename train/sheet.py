"""Pictures side by side, for the eye."""

import numpy as np
from PIL import Image


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
