"""Pictures as the page shows them and as files: crisp pixels, alternative texts, every setting inside."""

import base64
import html
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

METADATA_KEY = "dit-lab"  # of the PNG text chunk that holds the settings as JSON

CSS = """
.dl-pictures { display: grid; gap: 10px; grid-template-columns: repeat(var(--columns), minmax(0, 1fr));
  max-width: calc(var(--columns) * 250px); margin: 0 auto; }
.dl-pictures figure { margin: 0; position: relative; }
.dl-pictures img { width: 100%; aspect-ratio: 1; image-rendering: pixelated; display: block;
  border-radius: 8px; background: var(--background-fill-secondary); }
.dl-pictures figcaption { display: flex; justify-content: space-between; font-size: 12px; line-height: 1.8;
  color: var(--body-text-color-subdued); }
.dl-pictures .dl-empty { aspect-ratio: 1; border-radius: 8px; border: 1px dashed var(--border-color-primary);
  display: grid; place-items: center; color: var(--body-text-color-subdued); padding: 1em; text-align: center;
  }
"""


def png(pixels: np.ndarray, settings: dict[str, Any] | None = None) -> bytes:
    """A picture (H, W, 3) uint8 as PNG, with its settings in a text chunk."""
    return _save(Image.fromarray(pixels), settings)


def with_settings(pixels: np.ndarray, settings: dict[str, Any]) -> Image.Image:
    """A picture (H, W, 3) uint8 whose `info` holds its settings; Gradio writes them into its PNG."""
    image = Image.fromarray(pixels)
    image.info[METADATA_KEY] = json.dumps(settings)
    return image


def read_settings(image: Image.Image) -> dict[str, Any]:
    """The settings inside a PNG that `png` wrote. Raises ValueError if there are none."""
    if METADATA_KEY not in image.info:
        raise ValueError(f"this picture has no {METADATA_KEY!r} text chunk, so its settings are not known")
    return json.loads(image.info[METADATA_KEY])


def _save(image: Image.Image, settings: dict[str, Any] | None) -> bytes:
    info = PngInfo()
    if settings is not None:
        info.add_text(METADATA_KEY, json.dumps(settings))
    file = io.BytesIO()
    image.save(file, format="png", pnginfo=info, compress_level=1)
    return file.getvalue()


def figure_html(
    pictures: np.ndarray, captions: Sequence[str], settings: Sequence[dict[str, Any]] | None = None
) -> str:
    """Pictures (N, H, W, 3) uint8 as a grid; with settings, each can be downloaded with them inside."""
    figures = []
    for i, (pixels, caption) in enumerate(zip(pictures, captions, strict=True)):
        source = (
            "data:image/png;base64,"
            + base64.b64encode(png(pixels, settings[i] if settings else None)).decode()
        )
        text, link = html.escape(caption), ""
        if settings:
            name = html.escape(
                "-".join(str(settings[i][key]) for key in ("class", "seed", "steps")), quote=True
            )
            link = (
                f'<a href="{source}" download="dit-lab-{name}.png" title="with every setting inside">PNG</a>'
            )
        figures.append(
            f'<figure><img src="{source}" alt="{text}" decoding="sync">'
            f"<figcaption><span>{text}</span>{link}</figcaption></figure>"
        )
    columns = min(len(figures), 4) if len(figures) > 4 else min(len(figures), 2)
    return f'<div class="dl-pictures" style="--columns: {columns}">{"".join(figures)}</div>'


def empty_html(message: str) -> str:
    """What stands in the pictures' place before there are any."""
    box = f'<div class="dl-empty">{html.escape(message)}</div>'
    return f'<div class="dl-pictures" style="--columns: 1">{box}</div>'
