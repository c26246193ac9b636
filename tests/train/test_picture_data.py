"""Pictures that cannot be read: replaced, named, written down, and in the end an error."""

import json

import numpy as np
import pytest

from tests.train.picture_files import picture, picture_folder
from train import picture_data
from train.folder import FolderPictures
from train.picture_data import PictureData
from train.pictures import DataInfo


@pytest.fixture
def folder(tmp_path):
    folder = picture_folder(tmp_path / "set")
    (folder / "a" / "2.png").write_bytes(b"broken")  # number 6
    (folder / "b" / "2.png").write_bytes((folder / "b" / "2.png").read_bytes()[:50])  # number 7
    (folder / "c" / "3.png").unlink()  # the last: number 11
    (folder / "c" / "3.png").touch()
    return folder


def make(folder, report=None, classes=("a", "b", "c")):
    info = DataInfo("set", classes, 3, 8)
    return PictureData(FolderPictures(folder), info, np.arange(12), report=report)


def test_the_next_readable_one_takes_the_place_label_and_all(folder, capsys):
    source = make(folder)
    rows, y = source.decoded(np.array([11, 6, 8, 7]))
    assert y.tolist() == [0, 2, 2, 2]
    for row, number in zip(rows, (0, 202, 202, 202), strict=True):
        assert (row == np.asarray(picture(number))).all()
    assert set(source.skipped) == {"a/2.png", "b/2.png", "c/3.png"}
    told = capsys.readouterr().err
    assert all(told.count(f"set: {title} is left out: ") == 1 for title in source.skipped)
    source.decoded(np.arange(12))
    assert capsys.readouterr().err == ""  # once is enough


def test_processes_share_a_report_and_say_it_once(folder, tmp_path, capsys):
    report = tmp_path / "skipped.jsonl"
    for _ in range(2):  # as two processes would, or a run and its continuation
        make(folder, report).decoded(np.arange(12))
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert sorted(line["picture"] for line in lines) == ["a/2.png", "b/2.png", "c/3.png"]
    assert all(line["reason"] for line in lines)
    assert capsys.readouterr().err.count("is left out") == 3


def test_too_many_in_a_row_are_an_error(folder, monkeypatch):
    monkeypatch.setattr(picture_data, "MOST_UNREADABLE", 2)
    source = make(folder)
    source.decoded(np.array([7, 11]))
    with pytest.raises(ValueError, match="2 pictures in a row cannot be read, such as b/2.png: .*disk"):
        source.decoded(np.array([6]))


def test_a_set_of_nothing_readable_is_an_error(tmp_path):
    folder = picture_folder(tmp_path / "set")
    for path in folder.rglob("*.png"):
        path.write_bytes(b"broken")
    with pytest.raises(ValueError, match="100 pictures in a row cannot be read"):
        make(folder).fetch(np.arange(2), np.zeros(2, bool), np.zeros(2, np.int64))


def test_pictures_are_read_in_the_order_of_the_set(folder, monkeypatch):
    read, order = FolderPictures.picture, []
    monkeypatch.setattr(FolderPictures, "picture", lambda self, i: order.append(i) or read(self, i))
    make(folder).decoded(np.array([9, 2, 5, 0]))
    assert order == [0, 2, 5, 9]
