"""Pictures as files and as HTML."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from gradio.processing_utils import save_pil_to_cache
from PIL import Image

from dit.pictures import png, read_settings, with_settings
from ui.pictures import figure_html

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
SETTINGS = {"model": "big", "class": 'a "quoted" <class>', "seed": 3, "steps": 5}


def test_a_png_carries_pixels_and_settings_exactly() -> None:
    image = Image.open(io.BytesIO(png(PIXELS[0], SETTINGS)))
    assert np.array_equal(np.asarray(image), PIXELS[0])
    assert read_settings(image) == SETTINGS


def test_gradio_saves_an_images_settings_with_it(tmp_path: Path) -> None:
    saved = save_pil_to_cache(with_settings(PIXELS[0], SETTINGS), str(tmp_path), format="png")
    with Image.open(saved) as image:
        assert read_settings(image) == SETTINGS and np.array_equal(np.asarray(image), PIXELS[0])


def test_a_picture_without_settings_says_so() -> None:
    file = io.BytesIO()
    with pytest.raises(ValueError, match="no 'dit-lab' text chunk"):
        Image.fromarray(PIXELS[0]).save(file, format="png")
        read_settings(Image.open(file))


def test_figures_have_alternative_texts_and_downloads_with_settings() -> None:
    text = figure_html(PIXELS, ["one <b>", "two"], [SETTINGS, SETTINGS])
    assert re.findall(r'alt="([^"]*)"', text) == ["one &lt;b&gt;", "two"]
    links = re.findall(r'href="data:image/png;base64,([^"]+)" download="([^"]+)"', text)
    assert len(links) == 2 and "<class>" not in links[0][1]
    for pixels, (data, _) in zip(PIXELS, links, strict=True):
        image = Image.open(io.BytesIO(base64.b64decode(data)))
        assert np.array_equal(np.asarray(image), pixels) and read_settings(image) == SETTINGS


def test_frames_on_the_way_are_no_downloads() -> None:
    assert "download=" not in figure_html(PIXELS, ["one", "two"])
