"""Datasets in the Hub's layout: local folders of parquet, and a Hub on the loopback."""

import os
import pickle
import time
from pathlib import Path

import datasets
import numpy as np
import pytest
from huggingface_hub import HfFileSystem

from dit.download import HubError
from tests.dit.conftest import connect
from tests.hub import serve
from tests.train.picture_files import parquet_folder, picture, picture_folder
from train import streamed
from train.data import open_pictures
from train.hub_data import has_parquet
from train.pictures import UnreadablePicture

COMMIT = "0123456789" * 4


@pytest.fixture(autouse=True)
def own_home(tmp_path, cache, monkeypatch):
    """Arrow files of `datasets` and the cache of row groups are the test's own."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "arrow")
    monkeypatch.setattr(datasets.config, "HF_MODULES_CACHE", tmp_path / "modules")
    datasets.disable_progress_bars()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub without any repository."""
    with serve(tmp_path / "store") as hub:
        use(monkeypatch, hub.endpoint, tmp_path / "home")
        yield hub


def use(monkeypatch: pytest.MonkeyPatch, endpoint: str, home: Path) -> None:
    connect(monkeypatch, endpoint, home)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", endpoint)
    monkeypatch.setattr(
        datasets.config, "HUB_DATASETS_URL", endpoint + "/datasets/{repo_id}/resolve/{revision}/{path}"
    )
    HfFileSystem.clear_instance_cache()


def check(pictures, rows=60):
    """It holds what `parquet_folder` has put there, whatever way it is read."""
    assert len(pictures) == rows and pictures.classes == ("a", "b", "c")
    for index in (rows - 1, 0, 17, 42, 30):
        assert (np.asarray(pictures.picture(index)) == np.asarray(picture(index))).all()
        assert pictures.labels[index] == index % 3
    assert pictures.title(17) == "row 17 of train"


# --- folders ---


@pytest.mark.parametrize("streaming", [False, True])
def test_a_folder_of_parquet_files_is_read_by_number(tmp_path, streaming):
    folder = str(parquet_folder(tmp_path / "set"))
    pictures = open_pictures(folder, streaming=streaming)
    check(pictures)
    assert pictures.name == folder
    assert pictures.blocks is None if not streaming else pictures.blocks.tolist() == [10] * 6
    check(pickle.loads(pickle.dumps(pictures)))
    assert pictures.fingerprint() == open_pictures(folder, streaming=streaming).fingerprint()


@pytest.mark.parametrize("streaming", [False, True])
def test_the_split_is_chosen_and_has_to_be_there(tmp_path, streaming):
    parquet_folder(tmp_path / "set")
    folder = str(parquet_folder(tmp_path / "set", rows=9, files=1, split="test"))
    assert len(open_pictures(folder, "test", streaming)) == 9
    assert len(open_pictures(folder, "train", streaming)) == 60
    with pytest.raises(ValueError, match="has no split|has no such split.*") as caught:
        open_pictures(folder, "validation", streaming)
    assert "choose one of" in str(caught.value) and "--split" in str(caught.value)
    assert "train" in str(caught.value) and "test" in str(caught.value)


@pytest.mark.parametrize("streaming", [False, True])
def test_several_columns_are_told_apart_by_name_or_by_what_is_asked(tmp_path, streaming, capsys):
    mask = [{"bytes": b"x", "path": None}] * 60
    folder = str(parquet_folder(tmp_path / "set", mask=mask, coarse=[i % 2 for i in range(60)]))
    check(open_pictures(folder, streaming=streaming))
    assert "of the columns img, mask, img is used" in capsys.readouterr().err
    coarse = open_pictures(f"{folder}:label=coarse,image=img", streaming=streaming)
    assert coarse.classes == ("0", "1") and [int(coarse.labels[i]) for i in range(4)] == [0, 1, 0, 1]
    assert open_pictures(f"{folder}:label=none", streaming=streaming).classes == ()
    with pytest.raises(UnreadablePicture, match="^row 3 of train: "):
        open_pictures(f"{folder}:image=mask", streaming=streaming).picture(3)
    for wrong, message in (
        (":image=x", "has no column 'x' of that kind; choose one of img, mask"),
        (":label=x", "has no column 'x' of that kind; choose one of label"),
        (":colour=x", "no 'colour' to choose; choose of subset, image, label, revision"),
    ):
        with pytest.raises(ValueError, match=message):
            open_pictures(folder + wrong, streaming=streaming)


def test_columns_that_cannot_be_told_apart_are_refused(tmp_path):
    cells = [{"bytes": b"x", "path": None}] * 60
    folder = str(parquet_folder(tmp_path / "set", img=None, left=cells, right=cells))
    with pytest.raises(ValueError, match="several columns that may be meant, left, right; .*:image=left"):
        open_pictures(folder)
    empty = str(parquet_folder(tmp_path / "none", img=None))
    with pytest.raises(ValueError, match="no column of pictures, only label"):
        open_pictures(empty)


def test_labels_are_numbers_names_or_absent(tmp_path):
    def opened(name, labels, streaming=False):
        return open_pictures(
            str(parquet_folder(tmp_path / name, label=labels) if labels != "keep" else tmp_path / name),
            streaming=streaming,
        )

    names = opened("names", ["dog" if i % 2 else "cat" for i in range(60)])
    assert names.classes == ("cat", "dog") and names.labels[:3].tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match="does not tell its classes beforehand; leave --streaming out"):
        opened("names", "keep", streaming=True)
    for streaming in (False, True):
        numbers = opened("numbers", [i % 5 for i in range(60)], streaming)
        assert numbers.classes == tuple("01234") and numbers.labels[8] == 3
    assert open_pictures(str(parquet_folder(tmp_path / "without", label=None))).classes == ()
    assert opened("test split", [-1] * 60).classes == ()
    hidden = opened("test split", "keep", streaming=True)
    with pytest.raises(ValueError, match="row 4 of train has the label -1, of 3 classes; choose another"):
        hidden.labels[4]
    with pytest.raises(ValueError, match="1 of 60 rows have no label, such as row 59; .*:label=none"):
        opened("some", [*range(59), None])
    with pytest.raises(ValueError, match="column label is of .*float64.*; labels must be numbers"):
        opened("floats", [0.5] * 60)


def test_a_folder_of_pictures_is_not_taken_for_a_dataset(tmp_path):
    assert len(open_pictures(str(picture_folder(tmp_path / "set")))) == 12


# --- row groups ---


def reads(monkeypatch) -> list[int]:
    """The row groups that were read from their files."""
    blocks, read = [], streamed.StreamedPictures._read
    monkeypatch.setattr(
        streamed.StreamedPictures, "_read", lambda self, block: blocks.append(block) or read(self, block)
    )
    return blocks


def test_a_row_group_is_read_once_for_all_processes(tmp_path, monkeypatch):
    folder, blocks = str(parquet_folder(tmp_path / "set")), reads(monkeypatch)
    one = open_pictures(folder, streaming=True)
    for index in (0, 9, 10, 3, 59, 12):
        one.picture(index)
    assert blocks == [0, 1, 5]
    other = pickle.loads(pickle.dumps(one))
    for index in (5, 15, 55):
        other.picture(index)
    assert blocks == [0, 1, 5]


def test_few_row_groups_are_kept_and_those_last_used(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(streamed, "KEPT", 3)
    folder, blocks = str(parquet_folder(tmp_path / "set")), reads(monkeypatch)

    def show(*indices):
        """As a process that has nothing at hand."""
        pictures = open_pictures(folder, streaming=True)
        for index in indices:
            assert (np.asarray(pictures.picture(index)) == np.asarray(picture(index))).all()
            time.sleep(0.02)  # so that times of files differ

    show(0, 10, 20)
    show(5)  # row group 0 is now the last used
    show(30)  # drops row group 1
    assert blocks == [0, 1, 2, 3] and len(list((cache / "streamed").glob("*.arrow"))) == 3
    show(0, 20, 30)
    assert blocks == [0, 1, 2, 3]
    show(10)
    assert blocks == [0, 1, 2, 3, 1]


def test_what_a_power_cut_left_is_fetched_again(tmp_path, cache, monkeypatch):
    folder, blocks = str(parquet_folder(tmp_path / "set")), reads(monkeypatch)
    open_pictures(folder, streaming=True).picture(0)
    (path,) = (cache / "streamed").glob("*.arrow")
    path.write_bytes(path.read_bytes()[:100])
    check(open_pictures(folder, streaming=True))
    assert blocks.count(0) == 2


# --- the Hub ---


def test_a_dataset_is_downloaded_once(tmp_path, hub, monkeypatch):
    hub.add("datasets/o/set", parquet_folder(tmp_path / "set"), COMMIT)
    check(open_pictures("o/set"))
    assert hub.count("/storage/") == 2
    check(open_pictures("o/set"))
    assert hub.count("/storage/") == 2
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    check(open_pictures("o/set"))


def test_a_streamed_dataset_is_never_downloaded_whole(tmp_path, hub, cache):
    folder = parquet_folder(tmp_path / "set", rows=400, files=2, group=20)
    hub.add("datasets/o/set", folder, COMMIT)
    pictures = open_pictures("o/set", streaming=True)
    assert pictures.blocks.tolist() == [20] * 20
    for index in (399, 0, 17, 5):
        assert (np.asarray(pictures.picture(index)) == np.asarray(picture(index))).all()
    kept = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    assert 0 < kept < sum(path.stat().st_size for path in folder.rglob("*.parquet")) / 5
    assert all(text != "bytes=0-" for _, text in hub.ranges) and hub.ranges
    assert not list((tmp_path / "home").rglob("*.parquet"))


def test_a_hub_that_fails_for_a_moment_is_asked_again(tmp_path, hub, monkeypatch, capsys):
    hub.add("datasets/o/set", parquet_folder(tmp_path / "set"), COMMIT)
    pictures = open_pictures("o/set", streaming=True)
    waits, read = [], streamed._opened
    monkeypatch.setattr(streamed.time, "sleep", waits.append)
    down = [ConnectionError("broken"), ConnectionError("still")]
    monkeypatch.setattr(streamed, "_opened", lambda file: _raise(down.pop()) if down else read(file))
    check(pictures)
    assert waits == [2, 4] and "cannot be reached (still)" in capsys.readouterr().err
    down += [ConnectionError("for good")] * streamed.RETRIES
    with pytest.raises(HubError, match="cannot be reached"):
        pictures.picture(25)


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("streaming", [False, True])
def test_what_the_hub_refuses_is_explained(tmp_path, hub, streaming):
    folder = parquet_folder(tmp_path / "set")
    hub.add("datasets/o/set", folder, COMMIT)
    hub.add("datasets/o/gated", folder, COMMIT, gated=True)
    for name, message in (
        ("o/sett", "no such folder here, and no such dataset on the Hub; correct the name"),
        ("o/gated", "gated; accept its terms at .*/datasets/o/gated, then: hf auth login"),
        ("o/set:revision=v9", "no such revision of it"),
    ):
        with pytest.raises(HubError, match=message):
            open_pictures(name, streaming=streaming)
    with pytest.raises(ValueError, match="consists of several datasets, default; .* o/set:subset=default"):
        open_pictures("o/set:subset=x", streaming=streaming)


@pytest.mark.parametrize("streaming", [False, True])
def test_without_a_network_it_is_said(tmp_path, hub, monkeypatch, streaming):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="o/set: the Hub at .* cannot be reached"):
        open_pictures("o/set", streaming=streaming)


def test_a_dataset_of_other_files_is_not_streamed(tmp_path, hub):
    hub.add("datasets/o/set", picture_folder(tmp_path / "set"), COMMIT)
    with pytest.raises(ValueError, match="are not parquet.* leave --streaming out"):
        open_pictures("o/set", streaming=True)


def test_parquet_is_found_where_the_hub_puts_it_and_not_sought_among_many_pictures(tmp_path, monkeypatch):
    for place in ("root", "deeper/data", "deepest/subset/split"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "train-00000-of-00001.parquet").touch()
        assert has_parquet(tmp_path / place.split("/")[0])
    many = tmp_path / "many" / "class"
    many.mkdir(parents=True)
    for i in range(500):
        (many / f"{i}.jpg").touch()
    looked_at, scandir = [], os.scandir

    class Noting:
        def __init__(self, folder):
            self.entries = scandir(folder)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.entries.close()

        def __iter__(self):
            for entry in self.entries:
                looked_at.append(entry.name)
                yield entry

    monkeypatch.setattr(os, "scandir", Noting)
    assert not has_parquet(many.parent)
    assert len(looked_at) < 200
