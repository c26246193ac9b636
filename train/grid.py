"""The grids of pictures that a run draws on its way: with the same noise, so that only the weights differ."""

import sys

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from dit.autoencoder import LATENT_CHANNELS, LATENT_TO_RGB, Autoencoder, load_autoencoder
from dit.pictures import contact_sheet
from dit.pipeline import Pipeline
from dit.settings import SampleSettings
from dit.tensors import WeightsError
from train.pictures import DataInfo

COLUMNS, MOST_ROWS, CALLS, GUIDANCE = 8, 10, 25, 2.0
TOGETHER = 80  # pictures drawn at once
LARGE = 64  # pixels: smaller pictures are shown twice as large


class Preview:
    """Stands in for an autoencoder that is not at hand: latents by a linear map to RGB, a pixel each."""

    source, channels, factor = "a linear preview", LATENT_CHANNELS, 1

    def to(self, device: torch.device | str) -> "Preview":
        """Nothing has to be moved."""
        return self

    def preview(self, latents: Tensor) -> Tensor:
        """(N, 4, h, w), scaled -> (N, 3, h, w)."""
        return torch.einsum("nchw,cd->ndhw", latents, latents.new_tensor(LATENT_TO_RGB))

    decode = preview


def decoder_for(info: DataInfo, shown: bool = True) -> Autoencoder | Preview | None:
    """What makes pictures of what the model draws: nothing for pixels, else the autoencoder of the latents.

    Where that one cannot be loaded, a preview, and it is said so: a run does not end by it. A preview also
    where nobody is shown the pictures, as in processes that only help to draw.
    """
    if info.channels in (1, 3):
        return None
    if not shown:
        return Preview()
    try:
        return load_autoencoder(info.autoencoder)
    except WeightsError as error:
        tqdm.write(f"samples are shown by a rough linear preview, as {error}", file=sys.stderr)
        return Preview()


def draw_grid(model: nn.Module, device: torch.device, decoder: Autoencoder | Preview | None) -> Image.Image:
    """Eight pictures of each class, a row a class; of many classes, of ten spread over them."""
    config = model.config
    rows = min(config.num_classes or 1, MOST_ROWS)
    of_row = [row * max(config.num_classes, 1) // rows for row in range(rows)]
    pairs = [(y, seed) for y in of_row for seed in range(COLUMNS)]
    pipeline = Pipeline(model, device, decoder)
    drawn = []
    for start in range(0, len(pairs), TOGETHER):
        classes, seeds = zip(*pairs[start : start + TOGETHER], strict=True)
        settings = SampleSettings(
            classes=list(classes),
            seeds=list(seeds),
            steps=(CALLS + 1) // 2 if config.formulation == "edm" else CALLS,
            guidance_scale=GUIDANCE if config.has_null_class else 1.0,
        )
        drawn.append(pipeline.generate(settings).x0)
    pictures = np.concatenate(drawn)
    scale = 1 if pictures.shape[1] >= LARGE else 2
    return contact_sheet(pictures.reshape(rows, COLUMNS, *pictures.shape[1:]), scale=scale)
