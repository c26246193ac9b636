"""The Train tab's part of the address: what a link brings is what its controls may have, or is told."""

from pathlib import Path

import gradio as gr
import pytest

from tests.run_folders import write_run
from tests.ui.test_share import NASTY
from ui import train_address, train_view
from ui.limits import USUAL
from ui.runs import Runs
from ui.share import Share
from ui.train_form import Form
from ui.upload_store import UploadStore

FORM = {
    "train-source": "hub", "train-hub": "uoft-cs/cifar10:label=none", "train-preset": "DiT-E/4",
    "train-side": "16", "train-images": "800", "train-batch": "8", "train-lr": "0.002",
    "train-dropout": "0.25", "train-seed": "7", "train-classes": "0", "train-mirror": "0",
}  # fmt: skip


@pytest.fixture
def share(tmp_path: Path) -> Share:
    """Of a tab with two runs."""
    for name in ("first", "second"):
        write_run(tmp_path, name)
    made, runs = Share(), Runs(tmp_path)
    with gr.Blocks():
        fields, _, _ = train_view.build(runs, UploadStore(tmp_path, USUAL))
        runs_of = [gr.Dropdown([], allow_custom_value=True, multiselect=many) for many in (False, True)]
        train_address.register(made, runs, fields, *runs_of)
    return made


def test_a_link_brings_all_that_decides_a_run_and_what_is_looked_at(share: Share) -> None:
    taken, said = share.read((FORM | {"run": "first", "run-others": "second"}).items())
    assert said == []
    assert taken == {
        "train-source": "hub", "train-hub": "uoft-cs/cifar10:label=none", "train-preset": "DiT-E/4",
        "train-side": 16, "train-images": 800, "train-batch": 8, "train-lr": 0.002, "train-dropout": 0.25,
        "train-seed": 7, "train-classes": False, "train-mirror": False, "run": "first",
        "run-others": ["second"],
    }  # fmt: skip


def test_what_is_this_machines_or_the_visitors_own_is_not_in_it(share: Share) -> None:
    known = {entry.component.elem_id for entry in share.entries}
    assert known & {"train-upload", "train-folder", "train-name", "push-token", "push-name"} == set()
    assert set(FORM) <= known and set(share.keys) == {*FORM, "run", "run-others"}


@pytest.mark.parametrize(
    ("key", "text", "value", "said"),
    [
        ("train-source", "a .zip", None, "not one of the choices"),
        ("train-hub", "/etc/passwd", None, "it is no dataset on the Hub; give OWNER/NAME"),
        ("train-hub", "--run-dir=x/y", None, "it is no dataset on the Hub"),
        ("train-hub", "a/b:revision=../c", None, "it is no dataset on the Hub"),
        ("train-hub", "a" + "漢" * 100 + "/b", None, "it is no dataset on the Hub"),
        ("train-hub", "tests/ui", None, "it is no dataset on the Hub"),
        ("train-hub", "a/" + "b" * 200, None, "it is no dataset on the Hub"),
        ("train-preset", "DiT-XL/2", None, "not one of the choices"),
        ("train-side", "17", None, "not one of the choices"),
        ("train-images", "-3", 32, "beyond its limit; 32 is taken"),
        ("train-images", "8", 32, "train-images does not fit the rest; 32 is taken"),
        ("train-batch", "99999", 1024, "beyond its limit; 1024 is taken"),
        ("train-lr", "0", 1e-7, "beyond its limit"),
        ("train-lr", "nan", None, "must be a number"),
        ("train-dropout", "1", 0.99, "beyond its limit; 0.99 is taken"),
        ("train-classes", "yes", None, "not one of the choices"),
        ("train-folder", "/home", None, "'train-folder' is not known here"),
        (
            "run",
            "third",
            None,
            "run is 'third', but there is no run of this name here; the latest one is shown",
        ),
        ("run", "../first", None, "there is no run of this name here"),
        ("run-others", "first,third", None, "there is no run called 'third' here to compare with"),
    ],
)
def test_what_cannot_be_is_told(share: Share, key: str, text: str, value: object, said: str) -> None:
    taken, complaints = share.read([(key, text)])
    assert taken == ({} if value is None else {key: value})
    assert len(complaints) == 1 and said in complaints[0]


def test_nothing_in_it_is_an_error_and_what_is_taken_can_be_shown_and_trained(share: Share) -> None:
    controls = {entry.key: entry.component for entry in share.entries}
    for key in share.keys:
        for text in NASTY:
            for name, value in share.read([(key, text)])[0].items():
                controls[name].postprocess(value)
    named = {"image_size": "side", "batch_size": "batch", "guidance_dropout": "dropout"}
    for extreme in ("-1e999", "1e999"):
        taken, _ = share.read([(key, extreme) for key in FORM])
        sent = {
            field: taken.get(f"train-{named.get(field, field)}", usual)
            for field, usual in vars(Form()).items()
        }
        assert vars(Form.of(sent)) == sent


def test_without_runs_none_is_promised(tmp_path: Path) -> None:
    made, runs = Share(), Runs(tmp_path)
    with gr.Blocks():
        fields, _, _ = train_view.build(runs, UploadStore(tmp_path, USUAL))
        train_address.register(made, runs, fields, gr.Dropdown([]), gr.Dropdown([], multiselect=True))
    assert made.read([("run", "x")])[1] == ["run is 'x', but there is no run of this name here"]
