"""Grids of pictures: who decodes latents, and that those who only help to draw need no autoencoder."""

import pytest
import torch

from train.grid import Preview, decoder_for, draw_grid
from train.pictures import DataInfo

LATENTS = DataInfo("latents", ("a", "b"), 4, 8, autoencoder="/nowhere")


def test_pixels_need_no_decoder():
    assert decoder_for(DataInfo("pixels", (), 3, 8)) is None
    assert decoder_for(DataInfo("pixels", (), 1, 8), shown=False) is None


def test_who_only_helps_to_draw_loads_no_autoencoder(random_model, capsys):
    decoder = decoder_for(LATENTS, shown=False)
    assert isinstance(decoder, Preview) and not capsys.readouterr().err
    model = random_model(in_channels=4, num_classes=2)
    image = draw_grid(model, torch.device("cpu"), decoder)
    assert image.size == (8 * 17 - 1, 2 * 17 - 1)  # eight of each class, doubled, with lines between


def test_latents_without_their_autoencoder_are_shown_roughly_and_it_is_said_so(capsys):
    assert isinstance(decoder_for(LATENTS), Preview)
    assert "rough linear preview" in capsys.readouterr().err


@pytest.mark.parametrize("classes", [0, 30])
def test_of_many_classes_ten_are_drawn_and_of_none_a_row(random_model, classes):
    image = draw_grid(random_model(num_classes=classes), torch.device("cpu"), None)
    assert image.size[1] == (10 * 17 - 1 if classes else 16)
