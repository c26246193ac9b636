"""`python -m dit.sample`: one PNG whose settings draw it again, or one line of error and no file."""

import os
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dit import sample
from dit.classes import imagenet_classes
from dit.pictures import read_settings
from dit.pipeline import Pipeline
from dit.sample import SHOWN, Sample, draw, labels_of, parse_classes
from dit.settings import SampleSettings
from dit.weights import WeightsError, save

CLASSES = ["sphere", "cube, die", "cylinder", "cone", "torus"]


@pytest.fixture(scope="module")
def model_file(random_model, tmp_path_factory) -> Path:
    """A small model of 8 x 8 pixels and five classes."""
    path = tmp_path_factory.mktemp("models") / "pixels.safetensors"
    provenance = {"classes": CLASSES, "commit": "abc", "results": {"guidance_scale": 1.75}}
    save(path, random_model(num_classes=5), provenance)
    return path


@pytest.fixture(scope="module")
def plain_file(random_model, tmp_path_factory) -> Path:
    """One without classes."""
    path = tmp_path_factory.mktemp("models") / "plain.safetensors"
    save(path, random_model(num_classes=0))
    return path


def wish(model: Path, out: Path, **fields: Any) -> Sample:
    return Sample(model=str(model), out=out, **({"steps": 3, "device": "cpu"} | fields))


def cells(path: Path, side: int) -> list[np.ndarray]:
    """The pictures of a sheet, row by row, the white lines left out."""
    sheet = np.asarray(Image.open(path))
    rows, columns = (sheet.shape[0] + 1) // (side + 1), (sheet.shape[1] + 1) // (side + 1)
    assert sheet.shape == (rows * (side + 1) - 1, columns * (side + 1) - 1, 3)
    return [
        sheet[y * (side + 1) :, x * (side + 1) :][:side, :side] for y in range(rows) for x in range(columns)
    ]


def drawn_again(described: dict[str, Any], **load: Any) -> np.ndarray:
    """A picture from nothing but what is written about it."""
    of = described
    settings = SampleSettings(
        classes=[of["label"]],
        seeds=[of["seed"]],
        guided_channels=None if of["guided_channels"] == "all" else of["guided_channels"],
        guidance_interval=None if of["guidance_interval"] == "all" else tuple(of["guidance_interval"]),
        **{
            name: of[name]
            for name in ("steps", "guidance_scale", "sampler", "spacing", "eta", "guidance_schedule")
        },
    )
    return Pipeline.load(of["model"], **load).generate(settings).x0[0]


# --- pictures ---


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"sampler": "ddpm", "guidance": 3.0},
        {"sampler": "dpm-solver++", "seed": 2**40},
        {"sampler": "dpm-solver++", "spacing": "leading"},
        {"guidance": 4.0, "guided_channels": 1, "columns": 2, "classes": "cone,die,1"},
        {"eta": 0.5, "guidance": 3.0, "guidance_interval": (300.0, 700.0)},
    ],
    ids=str,
)
def test_the_settings_inside_draw_the_pictures_again(fields, model_file, tmp_path):
    out = tmp_path / "out.png"
    assert draw(wish(model_file, out, **fields)) == out
    assert list(tmp_path.iterdir()) == [out]
    settings = read_settings(Image.open(out))
    assert settings["columns"] == fields.get("columns", 4)
    pictures = cells(out, 8)
    described = settings["pictures"]
    labels = [3, 1, 1] if "classes" in fields else [0, 1, 2, 3, 4]
    assert [of["label"] for of in described] == labels
    assert [of["class"] for of in described] == [CLASSES[y] for y in labels]
    assert [of["seed"] for of in described] == [fields.get("seed", 0) + i for i in range(len(labels))]
    columns, rows = (2, 2) if "columns" in fields else (4, 2)
    assert Image.open(out).size == (9 * columns - 1, 9 * rows - 1)  # of the last row, the rest is white
    assert all((blank == 255).all() for blank in pictures[len(described) :])
    for picture, of in zip(pictures, described, strict=False):
        assert of["model"] == str(model_file) and of["commit"] == "abc"
        spacing = "linspace" if fields.get("sampler") == "dpm-solver++" else "even"
        asked = {"steps": 3, "sampler": "ddim", "spacing": spacing, "guided_channels": "all"} | fields
        assert all(of[name] == asked[name] for name in ("steps", "sampler", "spacing", "guided_channels"))
        assert of["eta"] == fields.get("eta", 0.0)
        assert of["guidance_interval"] == (list(fields.get("guidance_interval", ())) or "all")
        assert of["guidance_scale"] == fields.get("guidance", 1.75)  # else as the model was evaluated
        assert abs(drawn_again(of).astype(int) - picture).max() <= 1
    assert abs(pictures[0].astype(int) - pictures[1]).max() > 20


def test_pictures_of_latents_are_drawn_again(pipeline_folder, tmp_path):
    draw(wish(pipeline_folder, tmp_path / "out.png", classes="7,999", columns=1))
    pictures, settings = cells(tmp_path / "out.png", 64), read_settings(Image.open(tmp_path / "out.png"))
    assert len(pictures) == 2 and settings["columns"] == 1
    assert [of["class"] for of in settings["pictures"]] == ["class number 7", "class 999"]
    for picture, of in zip(pictures, settings["pictures"], strict=True):
        assert of["guidance_scale"] == 4.0
        assert abs(drawn_again(of).astype(int) - picture).max() <= 1


@pytest.mark.parametrize(
    ("field", "value"), [("dtype", "bfloat16"), ("autoencoder", "vae"), ("tiling", True)]
)
def test_whatever_else_decides_a_picture_is_inside_too(field, value, pipeline_folder, vae_folder, tmp_path):
    value = str(vae_folder) if field == "autoencoder" else value
    draw(wish(pipeline_folder, tmp_path / "out.png", classes="7", **{field: value}))
    (of,) = read_settings(Image.open(tmp_path / "out.png"))["pictures"]
    assert of.get(field) == value


def test_half_precision_and_another_autoencoder_are_used(pipeline_folder, vae_folder, tmp_path, monkeypatch):
    asked = []
    original = Pipeline.load
    monkeypatch.setattr(Pipeline, "load", lambda *a, **k: asked.append((a, k)) or original(*a, **k))
    fields = {"dtype": "bfloat16", "autoencoder": str(vae_folder), "tiling": True, "classes": "7"}
    draw(wish(pipeline_folder, tmp_path / "out.png", **fields))
    expected = {"dtype": torch.bfloat16, "autoencoder": str(vae_folder), "tiling": True}
    assert asked == [((str(pipeline_folder), torch.device("cpu")), expected)]


@pytest.mark.parametrize(("pictures", "count"), [(None, 4), (1, 1), (6, 6)])
def test_an_unconditional_model_draws_as_many_as_asked(pictures, count, plain_file, tmp_path):
    draw(wish(plain_file, tmp_path / "out.png", pictures=pictures))
    described = read_settings(Image.open(tmp_path / "out.png"))["pictures"]
    assert [of["seed"] for of in described] == list(range(count))
    assert {of["class"] for of in described} == {None} and {of["guidance_scale"] for of in described} == {1.0}


def test_an_unconditional_model_has_no_classes(plain_file, tmp_path):
    with pytest.raises(ValueError, match="classes is '1,2', but this model is unconditional; leave it out"):
        draw(wish(plain_file, tmp_path / "out.png", classes="1,2"))


@pytest.mark.parametrize(
    ("classes", "pictures", "labels"),
    [("cone,die", 5, [3, 1, 3, 1, 3]), ("4,3,2", 2, [4, 3]), (None, 7, [0, 1, 2, 3, 4, 0, 1])],
)
def test_the_classes_take_turns(classes, pictures, labels):
    assert labels_of(classes, pictures, tuple(CLASSES)) == labels


def test_what_is_shown_of_a_model():
    assert parse_classes(None, imagenet_classes()) == list(SHOWN)
    assert sorted(SHOWN) == [88, 207, 279, 360, 387, 417, 974, 979]  # the DiT authors' sample.py
    assert parse_classes(None, ("a", "b")) == [0, 1]
    assert parse_classes(None, tuple(map(str, range(40)))) == list(range(16))


@pytest.mark.parametrize(
    ("text", "labels"), [("0", [0]), (" 4 , cube ", [4, 1]), ("Die,TORUS,3", [1, 4, 3]), ("1,1", [1, 1])]
)
def test_classes_by_number_or_name(text, labels):
    assert parse_classes(text, tuple(CLASSES)) == labels


@pytest.mark.parametrize("kind", ["pixels", "latents"])
@pytest.mark.parametrize("pictures", [2, 5])  # of two together: one batch, or three
def test_the_progress_ends_where_it_said(kind, pictures, model_file, pipeline_folder, tmp_path, monkeypatch):
    bars = []
    original = sample.tqdm

    def kept(*arguments, **more):
        bars.append(original(*arguments, **more))
        return bars[-1]

    monkeypatch.setattr(sample, "tqdm", kept)
    monkeypatch.setattr(sample, "BATCH", 2)
    source = model_file if kind == "pixels" else pipeline_folder
    draw(wish(source, tmp_path / "out.png", classes="1,2", pictures=pictures))
    (bar,) = bars
    assert bar.n == bar.total > 0


def test_pictures_do_not_depend_on_how_many_are_drawn_together(model_file, tmp_path, monkeypatch):
    draw(wish(model_file, tmp_path / "one.png", pictures=5))
    monkeypatch.setattr(sample, "BATCH", 2)
    draw(wish(model_file, tmp_path / "many.png", pictures=5))
    one, many = (Image.open(tmp_path / f"{name}.png") for name in ("one", "many"))
    assert read_settings(one) == read_settings(many)
    assert np.abs(np.asarray(one).astype(int) - np.asarray(many)).max() <= 1
    assert len({picture.tobytes() for picture in cells(tmp_path / "many.png", 8)[:5]}) == 5


# --- errors ---


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"out": "picture.jpg"}, "out is .*picture.jpg; it must be a .png"),
        ({"out": "nowhere/picture.png"}, "out is .*nowhere/picture.png; it must be a .png in a folder"),
        ({"out": "folder.png"}, "out is .*folder.png"),
        ({"out": ""}, "out is"),
        ({"columns": 0}, "columns is 0; it must be at least 1"),
        ({"columns": -2}, "columns is -2"),
        ({"pictures": 0}, "pictures is 0; it must be at least 1"),
        ({"device": "nonsense"}, "device 'nonsense' cannot be used here"),
    ],
    ids=str,
)
def test_what_can_be_seen_at_once_is_refused_at_once(fields, said, model_file, tmp_path, monkeypatch):
    monkeypatch.setattr(Pipeline, "load", lambda *a, **k: pytest.fail("a model is loaded in vain"))
    (tmp_path / "folder.png").mkdir()
    out = tmp_path / fields.get("out", "out.png")
    with pytest.raises(ValueError, match=said):
        draw(wish(model_file, out, **{name: value for name, value in fields.items() if name != "out"}))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"classes": "5"}, "class is 5; this model has classes 0 to 4"),
        ({"classes": "-1"}, "class is -1; this model has classes 0 to 4"),
        ({"classes": "cube,dodecahedron"}, "no class is called 'dodecahedron'"),
        ({"classes": ""}, "no class is called ''"),
        ({"classes": "1,"}, "no class is called ''"),
        ({"classes": "--5"}, "'--5'"),
        ({"classes": "²"}, "no class is called '²'"),
        ({"classes": "1.5"}, "no class is called '1.5'"),
        ({"steps": 0}, "steps is 0; it must be from 1 to 1000"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63 - 3}, f"seed is {2**63}"),
        ({"sampler": "dopri5"}, "sampler is 'dopri5'; choose one of auto, ddim"),
        ({"guidance": -1.0}, "guidance_scale is -1.0"),
        ({"guidance_interval": (700.0, 300.0)}, "guidance_interval is (700.0, 300.0); give lowest and"),
        ({"eta": 1.5}, "eta is 1.5; it must be from 0"),
        ({"eta": 0.5, "sampler": "ddpm"}, "only the ddim sampler has an eta"),
        ({"guidance": float("nan")}, "guidance_scale is nan"),
        ({"guided_channels": 4}, "guided_channels is 4"),
    ],
    ids=str,
)
def test_settings_that_a_model_cannot_serve_are_refused(fields, said, model_file, tmp_path):
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        draw(wish(model_file, tmp_path / "out.png", **fields))
    assert "invalid literal" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_name_of_several_classes_is_refused(random_model, tmp_path):
    save(tmp_path / "m.safetensors", random_model(num_classes=1000))  # ImageNet's, where nothing else is said
    with pytest.raises(ValueError, match=r"'crane' may be 134 \(crane \(the bird\)\), 517 .*give the number"):
        draw(wish(tmp_path / "m.safetensors", tmp_path / "out.png", classes="goldfish,crane"))
    assert not (tmp_path / "out.png").exists()


def test_an_unknown_model_or_autoencoder_lists_the_known(model_file, pipeline_folder, tmp_path):
    with pytest.raises(WeightsError, match="DiT-Q/3: no such file.*DiT-XL/2-256"):
        draw(wish(Path("DiT-Q/3"), tmp_path / "out.png"))
    with pytest.raises(WeightsError, match="nonsense: no such folder.*ft-mse"):
        draw(wish(pipeline_folder, tmp_path / "out.png", autoencoder="nonsense"))
    assert list(tmp_path.iterdir()) == []


def test_an_old_picture_stays_until_the_new_one_is_whole(model_file, tmp_path, monkeypatch):
    out = tmp_path / "out.png"
    out.write_bytes(b"old")

    def failing(*arguments):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing)
        with pytest.raises(OSError, match="disk full"):
            draw(wish(model_file, out))
    assert out.read_bytes() == b"old" and list(tmp_path.iterdir()) == [out]
    draw(wish(model_file, out))
    assert read_settings(Image.open(out))


# --- the command ---


def run(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and error of the command, run as a script in this process."""
    monkeypatch.setattr(sys, "argv", ["dit.sample", "--device=cpu", *arguments])
    monkeypatch.delitem(sys.modules, "dit.sample")
    with pytest.raises(SystemExit) as end:
        runpy.run_module("dit.sample", run_name="__main__", alter_sys=True)
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


def test_the_command_prints_where_the_picture_is(model_file, tmp_path, capsys, monkeypatch):
    arguments = [f"--model={model_file}", f"--out={tmp_path / 'out.png'}", "--steps=2", "--classes=die,4"]
    status, out, err = run(monkeypatch, capsys, *arguments)
    assert status == 0 and out == f"{tmp_path / 'out.png'}\n"
    assert "2/2" in err  # the progress
    assert len(read_settings(Image.open(tmp_path / "out.png"))["pictures"]) == 2


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--model=DiT-Q/3", "DiT-Q/3: no such file or folder"),
        ("--classes=7", "class is 7"),
        ("--steps=1001", "steps is 1001"),
        ("--out=out.gif", "out is out.gif"),
    ],
)
def test_an_error_is_one_line_and_status_1(argument, said, model_file, tmp_path, capsys, monkeypatch):
    arguments = {"--model": model_file, "--out": tmp_path / "out.png", "--steps": 2}
    given = [f"{name}={value}" for name, value in arguments.items() if name not in argument]
    status, out, err = run(monkeypatch, capsys, *given, argument)
    assert status == 1 and out == ""
    assert err.startswith("error: ") and said in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_flag_is_refused(model_file, tmp_path, capsys, monkeypatch):
    status, _, err = run(monkeypatch, capsys, f"--model={model_file}", f"--out={tmp_path}/o.png", "--step=3")
    assert status not in (0, 1) and "--steps" in err
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_leaves_nothing(model_file, tmp_path, project):
    arguments = [f"--model={model_file}", f"--out={tmp_path / 'out.png'}", "--steps=1000", "--device=cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "dit.sample", *arguments, f"--classes={','.join(['1'] * 400)}"],
        cwd=project,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell's & ignores it
    )
    try:
        shown = b""
        while not re.search(rb"[1-9]\d*/\d*000", shown):  # it draws
            shown += (got := os.read(process.stderr.fileno(), 1000))
            assert got, shown.decode()
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=200)
        assert not re.search(rb"\b(\d+)/\1\b", shown + rest)  # it did not draw to the end before
    finally:
        process.kill()
    assert process.returncode == 130
    assert rest.decode().endswith("stopped; nothing was written\n") and b"Traceback" not in rest
    assert list(tmp_path.iterdir()) == []
