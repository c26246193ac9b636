"""Pictures of every mode and shape as the network's squares."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from train import decode
from train.decode import centre_crop, is_grey, pixels, read_picture
from train.pictures import UnreadablePicture


def encoded(image: Image.Image, kind: str, **settings: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def noise(width: int, height: int, channels: int = 3) -> np.ndarray:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def read(data: bytes) -> Image.Image:
    return read_picture(data, "x")


# --- modes ---


def test_rgb_and_grey_come_through_as_they_are():
    colour, grey = noise(6, 6), noise(6, 6, 1)
    assert (pixels(read(encoded(Image.fromarray(colour), "png")), 6, 3) == colour).all()
    square = pixels(read(encoded(Image.fromarray(grey), "png")), 6, 1)
    assert square.shape == (6, 6, 1) and square.dtype == np.uint8 and (square[..., 0] == grey).all()
    assert (pixels(Image.fromarray(grey), 6, 3) == grey[..., None]).all()


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white_and_half_of_it_half(kind):
    alpha = Image.fromarray(np.array([[0, 0], [255, 255]], np.uint8))
    image = Image.new("L" if kind == "LA" else "RGB", (2, 2), 0)
    image.putalpha(alpha)
    if kind == "P":
        image = image.quantize(4)
    stored = read(encoded(image, "png"))
    assert stored.mode == kind
    assert pixels(stored, 2, 3)[..., 0].tolist() == [[255, 255], [0, 0]]
    half = Image.new("RGBA", (2, 2), (0, 0, 0, 128))
    assert abs(int(pixels(half, 2, 1)[0, 0, 0]) - 127) <= 1


def test_a_colour_that_is_named_transparent_is_white():
    stored = read(encoded(Image.new("RGB", (2, 2), (9, 8, 7)), "png", transparency=(9, 8, 7)))
    assert (pixels(stored, 2, 3) == 255).all()


def test_palettes_bits_and_print_colours_become_rgb():
    red = Image.new("RGB", (4, 4), (255, 0, 0))
    assert pixels(read(encoded(red.quantize(2), "png")), 4, 3)[0, 0].tolist() == [255, 0, 0]
    assert pixels(read(encoded(red.quantize(2), "gif")), 4, 3)[0, 0].tolist() == [255, 0, 0]
    bits = Image.fromarray(np.eye(4, dtype=bool))
    assert (pixels(read(encoded(bits, "png")), 4, 1)[..., 0] == np.eye(4) * 255).all()
    printed = read(encoded(red.convert("CMYK"), "jpeg", quality=95))
    assert printed.mode == "CMYK" and np.abs(pixels(printed, 4, 3)[0, 0] - np.array([255.0, 0, 0])).max() < 8


def test_16_bits_and_floats_are_scaled_to_8():
    deep = np.array([[0, 257], [32896, 65535]], np.uint16)
    stored = read(encoded(Image.fromarray(deep), "png"))
    assert stored.mode.startswith("I") and pixels(stored, 2, 1)[..., 0].tolist() == [[0, 1], [128, 255]]
    floats = read(encoded(Image.fromarray(np.array([[0, 0.5], [0.25, 1]], np.float32)), "tiff"))
    assert floats.mode == "F" and pixels(floats, 2, 3)[..., 2].tolist() == [[0, 128], [64, 255]]
    for wrong in (np.array([[0.0, 2.0]], np.float32), np.array([[-1, 3]], np.int32)):
        with pytest.raises(UnreadablePicture, match="run from .* expected 0 to .*; store it with 8 bits"):
            pixels(Image.fromarray(wrong), 2, 1)


def test_grey_is_what_is_stored_without_colour():
    modes = {"1": True, "L": True, "LA": True, "I;16": True, "RGB": False, "P": False, "CMYK": False}
    assert {mode: is_grey(Image.new(mode, (2, 2))) for mode in modes} == modes


# --- the crop ---


def adm(image: Image.Image, size: int) -> np.ndarray:
    """center_crop_arr of guided-diffusion, word for word."""
    while min(*image.size) >= 2 * size:
        image = image.resize(tuple(x // 2 for x in image.size), resample=Image.BOX)
    scale = size / min(*image.size)
    image = image.resize(tuple(round(x * scale) for x in image.size), resample=Image.BICUBIC)
    arr = np.array(image)
    crop_y = (arr.shape[0] - size) // 2
    crop_x = (arr.shape[1] - size) // 2
    return arr[crop_y : crop_y + size, crop_x : crop_x + size]


@pytest.mark.parametrize(
    "size", [(16, 16), (33, 50), (50, 33), (71, 64), (200, 37), (10, 12), (1, 1), (1, 9)]
)
def test_the_crop_is_adms(size):
    image = Image.fromarray(noise(*size))
    cropped = centre_crop(image, 16)
    assert cropped.shape == (16, 16, 3) and (cropped == adm(image, 16)).all()


def test_the_crop_keeps_the_middle():
    wide = Image.new("RGB", (40, 20), "white")
    wide.paste("black", (10, 0, 30, 20))
    assert (centre_crop(wide, 20) == 0).all()


def test_the_picture_stands_as_the_camera_was_held():
    image = Image.new("L", (4, 4), 0)
    image.putpixel((0, 0), 255)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter to the right
    turned = read(encoded(image, "png", exif=exif))
    assert turned.getpixel((3, 0)) == 255 and turned.getpixel((0, 0)) == 0


# --- what cannot be read ---


def test_damaged_pictures_are_named():
    whole = encoded(Image.fromarray(noise(64, 64)), "jpeg")
    for data in (
        whole[: len(whole) // 2],
        whole[:30],
        b"",
        b"GIF89a",
        b"<html>",
        encoded(Image.new("L", (9, 9)), "png")[:40],
    ):
        with pytest.raises(UnreadablePicture, match=r"^a/b.jpg: \S+"):
            read_picture(data, "a/b.jpg")


def test_a_file_that_is_gone_is_named(tmp_path):
    with pytest.raises(UnreadablePicture, match="^gone: .*No such file"):
        read_picture(tmp_path / "gone.png", "gone")


def test_pictures_that_would_fill_the_memory_are_refused(monkeypatch):
    monkeypatch.setattr(decode, "MAX_PIXELS", 5000)
    assert read(encoded(Image.new("1", (100, 50)), "png")).size == (100, 50)
    with pytest.raises(UnreadablePicture, match="x: 101 x 50 are more than 5,000 pixels"):
        read(encoded(Image.new("1", (101, 50)), "png"))
    with pytest.raises(UnreadablePicture, match="4000 x 1 is too narrow for a square of 16"):
        centre_crop(Image.new("RGB", (4000, 1)), 16)


def test_a_bomb_by_pillows_own_measure_is_unreadable():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UnreadablePicture, match="^x: "):
            read(encoded(Image.new("1", (20000, 10000)), "png"))


def test_short_memory_is_no_fault_of_the_picture(monkeypatch):
    def short(*_):
        raise MemoryError

    monkeypatch.setattr(Image, "open", short)
    with pytest.raises(MemoryError):
        read(b"x")
