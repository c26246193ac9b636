"""Pictures as the page shows them: crisp pixels, alternative texts, downloads with every setting inside."""

import base64
import html
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from dit.pictures import png

CSS = """
.dl-pictures { display: grid; gap: 10px; grid-template-columns: repeat(var(--columns), minmax(0, 1fr));
  max-width: calc(var(--columns) * 250px); margin: 0 auto; }
.dl-pictures figure { margin: 0; position: relative; }
.dl-pictures img { width: 100%; aspect-ratio: 1; image-rendering: pixelated; display: block;
  border-radius: 8px; background: var(--background-fill-secondary); }
.dl-smooth img { image-rendering: auto; }
.dl-pictures figcaption { display: flex; justify-content: space-between; font-size: 12px; line-height: 1.8;
  color: var(--dl-faint); }
.dl-pictures .dl-empty { aspect-ratio: 1; border-radius: 8px; border: 1px dashed var(--border-color-primary);
  display: grid; place-items: center; color: var(--dl-faint); padding: 1em; text-align: center;
  }
"""


def figure_html(
    pictures: np.ndarray,
    captions: Sequence[str],
    settings: Sequence[dict[str, Any]] | None = None,
    smooth: bool = False,
) -> str:
    """Pictures (N, H, W, 3) uint8 as a grid; with settings, each can be downloaded with them inside.

    smooth: enlarge softly, as suits previews of latents and large pictures, rather than in crisp pixels.
    """
    figures = []
    for i, (pixels, caption) in enumerate(zip(pictures, captions, strict=True)):
        source = data_url(png(pixels, settings[i] if settings else None))
        text, link = html.escape(caption), ""
        if settings:
            parts = (str(settings[i][key]).split(",")[0] for key in ("class", "seed", "steps"))
            name = "-".join(re.sub(r"[^\w.-]+", "_", part) for part in parts)
            link = (
                f'<a href="{source}" download="dit-lab-{name}.png" title="with every setting inside">PNG</a>'
            )
        figures.append(
            f'<figure><img src="{source}" alt="{text}" decoding="sync">'
            f"<figcaption><span>{text}</span>{link}</figcaption></figure>"
        )
    columns = min(len(figures), 4) if len(figures) > 4 else min(len(figures), 2)
    soft = " dl-smooth" if smooth else ""
    return f'<div class="dl-pictures{soft}" style="--columns: {columns}">{"".join(figures)}</div>'


def empty_html(message: str) -> str:
    """What stands in the pictures' place before there are any."""
    box = f'<div class="dl-empty">{html.escape(message)}</div>'
    return f'<div class="dl-pictures" style="--columns: 1">{box}</div>'


def data_url(file: bytes) -> str:
    """A PNG file as the source of an img."""
    return "data:image/png;base64," + base64.b64encode(file).decode()
