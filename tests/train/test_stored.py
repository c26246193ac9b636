"""Pictures decoded once: kept, found again, and made anew when the set has changed."""

import json
import os

import numpy as np
import pytest

from tests.train.picture_files import picture, picture_folder
from train import picture_data, stored
from train.config import TrainConfig
from train.data import open_data
from train.folder import FolderPictures
from train.stored import StoredData


@pytest.fixture
def folder(tmp_path, cache):
    return picture_folder(tmp_path / "set")


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """The places of all pictures that were decoded."""
    places, read = [], FolderPictures.picture
    monkeypatch.setattr(FolderPictures, "picture", lambda self, i: places.append(i) or read(self, i))
    return places


def opened(folder, **settings):
    report = settings.pop("report", None)
    return open_data(
        TrainConfig(
            **({"data": str(folder), "image_size": 8, "model": "DiT-N/8", "channels": "rgb"} | settings)
        ),
        report,
    )


def files(cache):
    return sorted(path.name for path in cache.glob("pictures-*.npy"))


def test_pictures_are_decoded_once(folder, cache, decoded, capsys):
    assert isinstance(opened(folder), StoredData) and sorted(decoded) == list(range(12))
    assert "decoded pictures are kept in" in capsys.readouterr().err
    source = opened(folder)
    assert len(decoded) == 12 and len(files(cache)) == 1
    assert not source.pictures.flags.writeable and source.pictures.shape == (12, 8, 8, 3)
    assert (source.pictures[4] == np.asarray(picture(101))).all()


def test_other_settings_are_another_file(folder, cache):
    for number, settings in enumerate(
        ({}, {"image_size": 16}, {"channels": "grey"}, {"num_pictures": 5}, {"overfit": 5}), start=1
    ):
        assert len(opened(folder, **settings)) == (5 if number > 3 else 12)
        assert len(files(cache)) == number


def test_a_changed_set_is_decoded_anew(folder, cache):
    opened(folder)
    picture(7).save(folder / "a" / "0.png")
    os.utime(folder / "a" / "0.png", ns=(5, 5))
    source = opened(folder)
    assert len(files(cache)) == 2 and (source.pictures[0] == np.asarray(picture(7))).all()


def test_what_breaks_off_leaves_nothing(folder, cache, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(FolderPictures, "picture", lambda self, i: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            opened(folder)
    assert files(cache) == [] and not list(cache.glob(".*.partial"))
    assert len(opened(folder)) == 12


def test_what_a_kill_left_goes_and_what_others_write_stays(folder, cache):
    """Below the cache others write, under locks of their own: blocks of streamed sets, say."""
    left, others = cache / ".pictures-8px-x.npy.1.partial", cache / "streamed" / ".a.arrow.1.partial"
    others.parent.mkdir(parents=True)
    for path in (left, others):
        path.touch()
    opened(folder)
    assert not left.exists() and others.exists()


def test_what_was_left_out_is_known_each_time(folder, tmp_path, capsys):
    (folder / "b" / "1.png").write_bytes(b"broken")
    for run in ("first", "second"):
        report = tmp_path / f"{run}.jsonl"
        source = opened(folder, report=report)
        assert list(source.skipped) == ["b/1.png"]
        (line,) = map(json.loads, report.read_text().splitlines())
        assert line == {"picture": "b/1.png", "reason": "it is no picture that Pillow knows"}
    assert capsys.readouterr().err.count("b/1.png is left out") == 1
    assert source.labels[4] == 2 and (source.pictures[4] == source.pictures[5]).all()  # the next in its place


def test_large_sets_and_full_disks_are_decoded_when_fetched(folder, monkeypatch):
    size = 12 * 8 * 8 * 3
    monkeypatch.setattr(stored, "LIMIT", size)
    assert isinstance(opened(folder), StoredData)
    monkeypatch.setattr(stored, "LIMIT", size - 1)
    assert isinstance(opened(folder), picture_data.PictureData)
    monkeypatch.setattr(stored, "LIMIT", size)
    usage = type("usage", (), {"free": 2 * size})
    monkeypatch.setattr(stored.shutil, "disk_usage", lambda _: usage)
    assert isinstance(opened(folder), picture_data.PictureData)


def test_processes_decode_what_a_thread_decodes(folder, cache, monkeypatch):
    expected = np.array(opened(folder, num_workers=0).pictures)
    for path in cache.glob("pictures-*"):
        path.unlink()
    monkeypatch.setattr(stored, "FEW", 0)
    made = []
    ahead = stored.load_ahead
    monkeypatch.setattr(
        stored, "load_ahead", lambda *arguments: made.append(arguments[3]) or ahead(*arguments)
    )
    assert (opened(folder, num_workers=1).pictures == expected).all() and made == [1]
