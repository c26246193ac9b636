"""Which folders and datasets a visitor may name, and when the page takes itself to be open to others."""

from pathlib import Path

import gradio as gr
import pytest

from ui.limits import Limits, is_open
from ui.limits_html import limits_html
from ui.runs import Runs
from ui.sources import dataset_of, folder_of
from ui.train_view import FOLDER, build
from ui.upload_store import UploadStore


def test_where_all_are_lent_a_folder_stays_as_it_was_typed() -> None:
    for sent in ("/etc", "~/pictures", "pictures/", "", None, 3):
        assert folder_of(sent, Limits()) == sent


def test_lent_ones_are_taken_with_all_below_them(tmp_path: Path) -> None:
    lent = Limits(folders=(tmp_path / "a", tmp_path / "b"))
    (tmp_path / "a" / "in").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for sent in (tmp_path / "a", tmp_path / "a" / "in" / ".." / "in", tmp_path / "link" / "in"):
        assert folder_of(f" {sent} ", lent) == str(sent.resolve())
    assert folder_of("", lent) == "" and folder_of(None, lent) is None  # the form says so
    with pytest.raises(ValueError, match=f"folder is '/.*; this server lends {tmp_path}/a, "):
        folder_of(str(tmp_path), lent)
    with pytest.raises(ValueError, match="this server lends no folder of its own; upload a .zip"):
        folder_of(str(tmp_path / "a"), Limits(folders=()))


def test_datasets_are_those_of_the_hub() -> None:
    for name in (
        "uoft-cs/cifar10",
        "a/b:label=none",
        "a/b:subset=x.y,label=fine label",
        "a/b:revision=refs/convert/parquet",
        "",
        None,
    ):
        assert dataset_of(name) == name
    assert dataset_of(" a/b ") == "a/b"
    for name in ("cifar10", "tests/data", "a/b:", "a/b:label", "a//b", "https://a/b"):
        with pytest.raises(ValueError, match="give OWNER/NAME of one on the Hub"):
            dataset_of(name)
    for name in ("a/b:colour=x", "a/b:label=", "a/b:subset=../x", "a/b:revision=..", "a/b:label=\0"):
        with pytest.raises(ValueError, match="^a/b:.*(to choose; choose of|; give the name of one)"):
            dataset_of(name)


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({}, False),
        ({"GRADIO_SERVER_NAME": "127.0.0.1"}, False),
        ({"GRADIO_SERVER_NAME": "localhost"}, False),
        ({"GRADIO_SERVER_NAME": "[::1]"}, False),
        ({"GRADIO_SERVER_NAME": "0.0.0.0"}, True),
        ({"GRADIO_SERVER_NAME": "::"}, True),
        ({"GRADIO_SERVER_NAME": "192.168.0.7"}, True),
        ({"GRADIO_SHARE": "True"}, True),
        ({"SPACE_ID": "me/mine"}, True),
    ],
)
def test_whether_others_reach_the_page(
    environment: dict[str, str], told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GRADIO_SERVER_NAME", "GRADIO_SHARE", "SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_open() == told


def test_the_page_offers_folders_where_there_are_some_and_says_which(tmp_path: Path) -> None:
    for folders, offered, said in (
        (None, True, "all, as on one&#x27;s own machine"),
        ((), False, "none"),
        ((Path("/srv/pictures"), Path("/srv/b")), True, "/srv/pictures and below, /srv/b and below"),
    ):
        limits = Limits(folders=folders)
        with gr.Blocks() as demo:
            build(Runs(tmp_path), UploadStore(tmp_path, limits))
        [source] = [one for one in demo.blocks.values() if getattr(one, "elem_id", "") == "train-source"]
        assert (FOLDER in [value for _, value in source.choices]) == offered
        assert f"{said}</td>" in limits_html(limits, training=True)
