"""Folders of pictures as people have them."""

import os

import numpy as np
import pytest
from PIL import Image

from train.folder import FolderPictures
from train.pictures import UnreadablePicture


def put(folder, *names, value=0):
    """Small pictures, each with a shade of its own."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3), (value + number, 0, 0)).save(folder / name)
    return folder


def titles(pictures):
    return [pictures.title(index) for index in range(len(pictures))]


def test_sub_folders_are_classes_that_take_turns(tmp_path):
    put(tmp_path, "dog/b.png", "dog/a.png", "dog/deep/er/c.png", "cat/z.jpg", "ant/1.WEBP", "ant/2.png")
    pictures = FolderPictures(tmp_path)
    assert pictures.classes == ("ant", "cat", "dog") and pictures.name == str(tmp_path)
    assert titles(pictures) == [
        "ant/1.WEBP",
        "cat/z.jpg",
        "dog/a.png",
        "ant/2.png",
        "dog/b.png",
        "dog/deep/er/c.png",
    ]
    assert pictures.labels.tolist() == [0, 1, 2, 0, 2, 2] and pictures.labels.dtype == np.int64
    assert pictures.picture(2).getpixel((0, 0)) == (1, 0, 0)


def test_pictures_without_sub_folders_have_no_labels(tmp_path):
    put(tmp_path, "b.png", "a.png", "ü 3.png")
    (tmp_path / "notes").mkdir()
    pictures = FolderPictures(str(tmp_path))
    assert pictures.classes == () and pictures.labels.tolist() == [0, 0, 0]
    assert titles(pictures) == ["a.png", "b.png", "ü 3.png"] and len(pictures) == 3


def test_hidden_files_and_all_that_is_no_picture_are_left_out(tmp_path):
    put(tmp_path, "a/1.png", "a/.2.png", ".thumbs/3.png", "b/4.png", "__MACOSX/a/5.png")
    (tmp_path / "a" / "labels.csv").write_text("x")
    (tmp_path / "a" / "folder.png").mkdir()
    (tmp_path / "README.md").write_text("x")
    assert titles(FolderPictures(tmp_path)) == ["a/1.png", "b/4.png"]


def test_a_split_is_chosen_where_there_is_nothing_but_splits(tmp_path):
    put(tmp_path, "train/a/1.png", "train/b/2.png", "Val/a/3.png", "Val/b/4.png")
    assert titles(FolderPictures(tmp_path)) == ["a/1.png", "b/2.png"]
    assert titles(FolderPictures(tmp_path, "val")) == ["a/3.png", "b/4.png"]
    with pytest.raises(ValueError, match="no split 'test' in it; choose one of Val, train with --split"):
        FolderPictures(tmp_path, "test")
    put(tmp_path, "cat/5.png")
    assert FolderPictures(tmp_path).classes == ("Val", "cat", "train")
    with pytest.raises(ValueError, match="holds no splits; leave --split out"):
        FolderPictures(tmp_path, "val")


def test_word_net_ids_get_names_in_the_order_of_imagenet(tmp_path):
    put(tmp_path, "n01443537/a.JPEG", "n01440764/b.JPEG", "n99999999/c.JPEG")
    assert FolderPictures(tmp_path).classes == (
        "tench, Tinca tinca",
        "goldfish, Carassius auratus",
        "n99999999",
    )
    put(tmp_path, "dog/a.png")
    assert FolderPictures(tmp_path).classes[0] == "dog"
    assert FolderPictures(tmp_path).classes[1] == "n01440764"  # not an ImageNet layout


def test_links_are_followed_and_do_not_lead_round_in_circles(tmp_path):
    put(tmp_path / "elsewhere", "1.png", "2.png")
    put(tmp_path / "set", "a/3.png")
    (tmp_path / "set" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "a" / "4.png").symlink_to(tmp_path / "elsewhere" / "1.png")
    (tmp_path / "set" / "a" / "round").symlink_to(tmp_path / "set" / "a")
    assert titles(FolderPictures(tmp_path / "set")) == ["a/3.png", "b/1.png", "a/4.png", "b/2.png"]


def test_the_order_is_not_that_of_the_file_system(tmp_path, monkeypatch):
    put(tmp_path, "a/1.png", "a/2.png", "b/1.png", "c/1.png")
    expected = titles(FolderPictures(tmp_path))
    scandir = os.scandir

    class Reversed:
        def __init__(self, folder):
            self.entries = reversed(sorted(scandir(folder), key=lambda entry: entry.name))

        def __enter__(self):
            return self.entries

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(os, "scandir", Reversed)
    assert titles(FolderPictures(tmp_path)) == expected


def test_what_is_wrong_with_a_folder_is_said(tmp_path):
    with pytest.raises(ValueError, match="no such folder; correct the name"):
        FolderPictures(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no pictures in it; expected files such as .jpg or .png"):
        FolderPictures(tmp_path)
    put(tmp_path, "a/1.png")
    (tmp_path / "b").mkdir()
    with pytest.raises(ValueError, match="class b has no pictures; put some in, or remove the folder"):
        FolderPictures(tmp_path)
    put(tmp_path, "b/1.png", "loose.png")
    with pytest.raises(ValueError, match="1 pictures, such as loose.png, lie beside sub-folders such as a"):
        FolderPictures(tmp_path)


def test_a_damaged_picture_is_named(tmp_path):
    put(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "a/1.png").write_bytes(b"nothing")
    with pytest.raises(UnreadablePicture, match="^a/1.png: it is no picture that Pillow knows"):
        FolderPictures(tmp_path).picture(0)


def test_the_fingerprint_changes_with_the_files(tmp_path):
    put(tmp_path, "a/1.png", "b/1.png")
    before = FolderPictures(tmp_path).fingerprint()
    assert FolderPictures(tmp_path).fingerprint() == before
    os.utime(tmp_path / "a/1.png", ns=(1, 1))
    touched = FolderPictures(tmp_path).fingerprint()
    (tmp_path / "a/1.png").rename(tmp_path / "a/2.png")
    assert len({before, touched, FolderPictures(tmp_path).fingerprint()}) == 3
