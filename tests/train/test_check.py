"""`python -m train.check`: what it finds in a set of pictures, and what it says of it."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from tests.train.picture_files import parquet_folder, picture, picture_folder
from train.check import Check, DataReport, inspect, main
from train.solids import CLASSES


@pytest.fixture
def folder(tmp_path):
    """Three classes of 4 pictures of 8 x 8; one of b is damaged, one of c is no picture, one of a larger."""
    folder = picture_folder(tmp_path / "pictures")
    whole = (folder / "b" / "1.png").read_bytes()
    (folder / "b" / "1.png").write_bytes(whole[: len(whole) // 2])
    (folder / "c" / "0.png").write_text("no picture")
    Image.new("RGB", (40, 20)).save(folder / "a" / "3.png")
    return folder


def test_classes_sizes_and_what_cannot_be_read(folder):
    report = inspect(Check(data=str(folder)))
    assert (report.name, report.pictures, report.looked_at) == ("pictures", 12, 12)
    assert report.classes == {"a": 4, "b": 4, "c": 4}
    assert report.sizes == [(8, 8), (8, 8), (40, 20)] and report.enlarged == 10 and not report.grey
    bad = {entry["picture"]: entry["reason"] for entry in report.unreadable}
    assert set(bad) == {"b/1.png", "c/0.png"} and "no picture that Pillow knows" in bad["c/0.png"]
    text = report.text()
    assert "b/1.png: " in text and "sizes       8 x 8, 40 x 20\n" in text
    assert "2 pictures cannot be read, and are left out" in text
    assert "12 pictures are few" in text and "100% of the pictures are smaller" in text


def test_a_part_is_looked_at_evenly_and_all_are_counted(folder):
    report = inspect(Check(data=str(folder), most=3, image_size=8))
    assert (report.pictures, report.looked_at, report.enlarged) == (12, 3, 0)
    assert sum(report.classes.values()) == 12
    assert "looked at   3, evenly over the set" in report.text()


def test_the_preview_has_a_row_of_each_class_without_what_cannot_be_read(folder, tmp_path):
    inspect(Check(data=str(folder), image_size=8, preview=tmp_path / "out" / "preview.png"))
    with Image.open(tmp_path / "out" / "preview.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    side = 64 + 1  # 8 pixels, eightfold, and a line
    assert pixels.shape == (3 * side - 1, 8 * side - 1, 3)
    assert (pixels[0:64:8, 0:64:8] == np.asarray(picture(0))).all()
    assert (pixels[side : side + 64 : 8, side : side + 64 : 8] == np.asarray(picture(102))).all()
    assert (pixels[side:, 4 * side :] == 255).all()


def test_grey_ones_and_those_without_labels(tmp_path):
    report = inspect(Check(data=str(picture_folder(tmp_path, classes="", mode="L"))))
    assert report.grey and report.classes == {} and "none: without labels" in report.text()


def test_datasets_in_the_hubs_layout(tmp_path):
    report = inspect(Check(data=str(parquet_folder(tmp_path / "set", rows=30))))
    assert report.classes == {"a": 10, "b": 10, "c": 10} and not report.unreadable


def test_solids_are_endless(tmp_path):
    report = inspect(Check(data="solids", image_size=16, preview=tmp_path / "p.png"))
    assert report.pictures == 0 and list(report.classes) == list(CLASSES) and not report.warnings()
    with Image.open(tmp_path / "p.png") as image:
        assert image.size == (8 * 65 - 1, 10 * 65 - 1)
    with pytest.raises(ValueError, match="image_size is 2048; solids have at most 1024"):
        inspect(Check(data="solids", image_size=2048))


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ({"a": 3000, "b": 100}, "a has 3,000 pictures and b 100"),
        ({"a": 3000, "b": 3000, "c": 0}, "1 class is, such as c, without a picture"),
        ({"a": 3000}, "only one class; train without classes: --no-class-conditional"),
    ],
)
def test_what_is_uneven_is_told(classes, said):
    report = DataReport("x", sum(classes.values()), 6100, classes, [], [(64, 64)] * 3, 0, False)
    assert any(said in warning for warning in report.warnings())
    even = DataReport("x", 6000, 6000, {"a": 3000, "b": 3000}, [], [(64, 64)] * 3, 0, False)
    assert even.warnings() == []


def test_the_command_tells_it_as_text_or_as_json(folder, tmp_path, capsys):
    assert main([str(folder)]) == 0
    assert "pictures    12\n" in capsys.readouterr().out
    assert main([str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["classes"] == {"a": 4, "b": 4, "c": 4} and len(told["unreadable"]) == 2 and told["warnings"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere/at/all"], "there is no such folder"),
        (["."], "there are no pictures in it|lie beside"),
        (["solids", "--image-size", "4"], "image_size is 4; it must be at least 8"),
        (["solids", "--most", "-1"], "most is -1; it must be at least 0"),
    ],
)
def test_what_is_wrong_is_said(arguments, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        status = main(arguments)
    except SystemExit as end:
        status = end.code
    assert status
    assert re.search(said, " ".join(capsys.readouterr().err.split()))


def test_a_set_of_which_nothing_can_be_read_is_refused(tmp_path):
    (tmp_path / "a.png").write_text("no")
    with pytest.raises(ValueError, match="none of 1 pictures can be read, such as a.png"):
        inspect(Check(data=str(tmp_path)))
