"""Training data by what a config says: which pictures, how many, of what size, channels and labels."""

import json
import pickle

import numpy as np
import pytest
import torch

from tests.train.picture_files import parquet_folder, picture, picture_folder
from train import data, solids, stored
from train.config import TrainConfig
from train.data import PictureData, SolidsData, StoredData, open_data, open_pictures, solids_cache


def config(**settings) -> TrainConfig:
    return TrainConfig(**({"image_size": 8, "model": "DiT-N/8", "num_workers": 0} | settings))


def everything(source) -> tuple[torch.Tensor, torch.Tensor]:
    """All pictures, unmirrored, and their labels."""
    n = len(source)
    return source.fetch(np.arange(n), np.zeros(n, bool), np.arange(n))


def as_tensor(*numbers: int) -> torch.Tensor:
    """What the network should see of `picture(number)`."""
    rows = np.stack([np.asarray(picture(number)) for number in numbers])
    return torch.from_numpy(rows).permute(0, 3, 1, 2).float() / 127.5 - 1


@pytest.fixture(params=["stored", "decoded when fetched"])
def how(request, cache, monkeypatch):
    """Either way of holding a folder's pictures."""
    if request.param != "stored":
        monkeypatch.setattr(stored, "LIMIT", 0)
    return StoredData if request.param == "stored" else PictureData


# --- folders ---


def test_a_folder_is_its_pictures_with_their_labels(tmp_path, how):
    source = open_data(config(data=str(picture_folder(tmp_path / "set"))))
    assert type(source) is how and len(source) == 12 and source.blocks is None
    assert source.info.classes == ("a", "b", "c") and source.info.channels == 3 and source.info.side == 8
    assert source.info.name == str(tmp_path / "set")
    x0, y = everything(source)
    assert x0.dtype == torch.float32 and x0.is_contiguous() and y.dtype == torch.int64
    assert y.tolist() == [0, 1, 2] * 4
    assert torch.equal(x0, as_tensor(0, 100, 200, 1, 101, 201, 2, 102, 202, 3, 103, 203))


def test_pictures_are_fetched_in_any_order_and_mirrored_where_told(tmp_path, how):
    source = open_data(config(data=str(picture_folder(tmp_path / "set"))))
    x0, y = source.fetch(np.array([5, 0, 5]), np.array([True, False, False]), np.zeros(3, np.int64))
    assert torch.equal(x0, torch.stack([as_tensor(201)[0].flip(-1), as_tensor(0)[0], as_tensor(201)[0]]))
    assert y.tolist() == [2, 0, 2]


def test_data_pickles(tmp_path, how):
    source = open_data(config(data=str(picture_folder(tmp_path / "set"))))
    small = pickle.dumps(source)
    for one, other in zip(everything(source), everything(pickle.loads(small)), strict=True):
        assert torch.equal(one, other)
    assert len(small) < 5000  # the pictures themselves stay where they are


def test_the_first_so_many_are_learnt(tmp_path, how):
    folder = str(picture_folder(tmp_path / "set"))
    assert torch.equal(
        everything(open_data(config(data=folder, num_pictures=4)))[0], as_tensor(0, 100, 200, 1)
    )
    with pytest.raises(
        ValueError, match="num_pictures is 13, but .*set has 12 pictures; give at most so many"
    ):
        open_data(config(data=folder, num_pictures=13))


def test_overfitting_takes_pictures_of_all_classes_from_all_over_the_set(tmp_path, how):
    folder = str(picture_folder(tmp_path / "set"))
    x0, y = everything(open_data(config(data=folder, overfit=5)))
    assert sorted(y.tolist()) == [0, 0, 1, 1, 2]
    assert torch.equal(x0, as_tensor(0, 100, 200, 2, 102))
    assert len(open_data(config(data=folder, overfit=12))) == 12
    for settings in ({"overfit": 13}, {"overfit": 5, "num_pictures": 4}):
        with pytest.raises(ValueError, match="overfit is .*; give at most so many"):
            open_data(config(data=folder, **settings))


def test_labels_are_left_out_where_they_are_not_wanted(tmp_path, how):
    source = open_data(config(data=str(picture_folder(tmp_path / "set")), class_conditional=False))
    assert source.info.classes == () and set(everything(source)[1].tolist()) == {0}


def test_data_without_labels_needs_a_model_without(tmp_path, how):
    plain = str(picture_folder(tmp_path / "plain", classes=""))
    with pytest.raises(ValueError, match="has no labels; .* --no-class-conditional"):
        open_data(config(data=plain))
    source = open_data(config(data=plain, class_conditional=False))
    assert torch.equal(everything(source)[0], as_tensor(0, 1, 2, 3))
    one = str(picture_folder(tmp_path / "one", classes="a"))
    with pytest.raises(ValueError, match="has only one class, a, .* --no-class-conditional"):
        open_data(config(data=one))
    assert len(open_data(config(data=one, class_conditional=False))) == 4


def test_channels_follow_the_pictures_or_the_config(tmp_path, how, capsys):
    grey, colour = (str(picture_folder(tmp_path / m, mode=m)) for m in ("L", "RGB"))
    source = open_data(config(data=grey))
    assert source.info.channels == 1 and everything(source)[0].shape == (12, 1, 8, 8)
    assert "pictures are grey: one channel (--channels rgb for three)" in capsys.readouterr().err
    assert everything(open_data(config(data=grey, channels="rgb")))[0].shape == (12, 3, 8, 8)
    assert everything(open_data(config(data=colour, channels="grey")))[0].shape == (12, 1, 8, 8)
    assert "colours" not in capsys.readouterr().err
    picture(7).save(tmp_path / "L" / "b" / "2.png")  # a single one has colours
    assert open_data(config(data=grey)).info.channels == 3


def test_colours_beyond_the_sample_are_told(tmp_path, how, monkeypatch, capsys):
    monkeypatch.setattr(data, "SAMPLE", 2)
    folder = picture_folder(tmp_path / "set", mode="L")
    picture(7).save(folder / "c" / "3.png")
    source = open_data(config(data=str(folder)), report=tmp_path / "skipped.jsonl")
    assert everything(source)[0].shape == (12, 1, 8, 8)
    assert "c/3.png is used in grey: it has colours" in capsys.readouterr().err
    assert json.loads((tmp_path / "skipped.jsonl").read_text())["picture"] == "c/3.png"


def test_classes_without_pictures_are_told(tmp_path, cache, capsys):
    folder = str(picture_folder(tmp_path / "set"))
    open_data(config(data=folder, num_pictures=2))
    assert "1 of 3 classes, such as c, have no pictures among the 2" in capsys.readouterr().err
    open_data(config(data=folder))
    assert "no pictures" not in capsys.readouterr().err


def test_what_is_no_data_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no such folder; correct the name, bring .* OWNER/NAME"):
        open_data(config(data="cifar10"))
    (tmp_path / "set.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match="is a file; unpack it"):
        open_pictures(str(tmp_path / "set.zip"))
    folder = str(picture_folder(tmp_path / "set"))
    with pytest.raises(ValueError, match="leave --streaming out"):
        open_pictures(folder, streaming=True)


def test_parts_that_are_read_whole_are_cut_off_with_the_pictures(tmp_path, cache):
    folder = str(parquet_folder(tmp_path / "set"))
    assert open_data(config(data=folder, streaming=True)).blocks.tolist() == [10] * 6
    assert open_data(config(data=folder, streaming=True, num_pictures=23)).blocks.tolist() == [10, 10, 3]
    assert open_data(config(data=folder, streaming=True, overfit=7)).blocks is None


# --- solids ---


@pytest.fixture
def rendered(monkeypatch) -> list[int]:
    """How many pictures each call of the renderer drew."""
    counts, render = [], solids.render

    def counting(indices, *arguments, **settings):
        counts.append(len(indices))
        return render(indices, *arguments, **settings)

    monkeypatch.setattr(solids, "render", counting)
    return counts


def test_solids_are_as_they_are_drawn():
    source = open_data(config(num_pictures=40, image_size=16))
    assert isinstance(source, SolidsData) and source.info.classes == solids.CLASSES and len(source) == 40
    x0, y = everything(source)
    pictures, labels = solids.render(range(40), 0, 16)
    assert y.tolist() == labels.tolist()
    assert torch.equal(x0, torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1)


def test_solids_have_no_end_but_a_number_by_default(monkeypatch):
    monkeypatch.setattr(data, "NUM_SOLIDS", 30)
    assert len(open_data(config(image_size=16))) == 30
    source = open_data(config(image_size=16, overfit=10))
    assert sorted(everything(source)[1].tolist()) == list(range(10))
    assert torch.equal(everything(source)[0], everything(pickle.loads(pickle.dumps(source)))[0])
    unlabelled = open_data(config(image_size=16, class_conditional=False))
    assert unlabelled.info.classes == () and set(everything(unlabelled)[1].tolist()) == {0}
    with pytest.raises(ValueError, match="overfit is 31, but solids has 30"):
        open_data(config(image_size=16, overfit=31))
    with pytest.raises(ValueError, match="solids are in colour"):
        open_data(config(image_size=16, channels="grey"))


def test_pixels_0_and_255_are_minus_1_and_1():
    source = SolidsData(4, 16)
    source.pictures = np.zeros((4, 16, 16, 3), np.uint8)
    source.pictures[:, :8] = 255
    x0, _ = everything(source)
    assert (x0[:, :, :8] == 1).all() and (x0[:, :, 8:] == -1).all()


def test_pictures_are_drawn_once(cache, rendered, monkeypatch):
    monkeypatch.setattr(data, "CHUNK", 7)
    first = np.array(solids_cache(20, 16, seed=0))
    assert rendered == [7, 7, 6]
    again = solids_cache(20, 16, seed=0)
    assert rendered == [7, 7, 6]
    assert (again == first).all() and not again.flags.writeable
    assert (first == solids.render(range(20), 0, 16)[0]).all()
    assert len(list(cache.glob("[!.]*"))) == 1


def test_other_pictures_are_another_file(cache):
    for arguments in ((20, 16, 0), (20, 24, 0), (21, 16, 0), (20, 16, 1)):
        assert solids_cache(*arguments).shape == (arguments[0], arguments[1], arguments[1], 3)
    assert len(list(cache.glob("[!.]*"))) == 4


def test_another_version_of_the_renderer_is_another_file(cache, monkeypatch):
    solids_cache(20, 16, 0)
    monkeypatch.setattr(solids, "VERSION", "next")
    solids_cache(20, 16, 0)
    assert len(list(cache.glob("[!.]*"))) == 2


def test_the_training_seed_does_not_change_the_pictures(cache):
    one, other = (open_data(config(num_pictures=20, image_size=16, seed=seed)) for seed in (0, 5))
    assert torch.equal(everything(one)[0], everything(other)[0])
    assert len(list(cache.glob("[!.]*"))) == 1


def test_a_drawing_that_fails_leaves_nothing_and_is_begun_again(cache, monkeypatch):
    render, calls = solids.render, []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return render(*arguments)

    monkeypatch.setattr(data, "CHUNK", 10)
    monkeypatch.setattr(solids, "render", failing)
    with pytest.raises(KeyboardInterrupt):
        solids_cache(20, 16, 0)
    assert list(cache.glob("[!.]*")) == []
    assert (solids_cache(20, 16, 0) == render(range(20), 0, 16)[0]).all()


def test_the_cache_lies_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("DITLAB_CACHE", str(tmp_path))
    assert data.cache_dir() == tmp_path
    for unset in ("", None):
        monkeypatch.setenv("DITLAB_CACHE", "") if unset == "" else monkeypatch.delenv("DITLAB_CACHE")
        assert data.cache_dir().parts[-2:] == (".cache", "dit-lab")


def test_a_folder_of_latents_is_told_by_its_index(tmp_path):
    (tmp_path / "index.json").write_text(json.dumps({"format": "dit-lab-latents/1"}))
    assert data._is_latents(tmp_path)
    for other in ('{"format": "other"}', "{", "[]"):
        (tmp_path / "index.json").write_text(other)
        assert not data._is_latents(tmp_path)
