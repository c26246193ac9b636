"""Evaluating a model end to end: what is drawn, what is counted, what is written."""

import hashlib
import importlib.util
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import dit
from dit.classifier import DEFAULT, Classifier, ClassifierConfig, load
from dit.classifier import save as save_classifier
from dit.digest import digest_of
from dit.files import sha256
from dit.speed import machine
from dit.weights import WeightsError, describe, save
from tests.train.picture_files import picture_folder
from train import evaluate, judging, solids
from train.draws import Draw, draw
from train.evaluate import Evaluation, grid, main, record
from train.features import ClassifierFeatures
from train.judging import check
from train.result_table import table

QUICK = ["--pictures-per-class", "3", "--steps", "2", "--batch-size", "7", "--device", "cpu"]
QUICK += ["--resamples", "20"]


@pytest.fixture(autouse=True)
def few_references(monkeypatch):
    """Real pictures to compare with: drawing ten thousand takes a minute."""
    monkeypatch.setattr(judging, "SOLIDS_PICTURES", 60)


def tiny(**overrides):
    settings = {"input_size": 32, "in_channels": 3, "num_classes": 10, "prediction": "v"} | overrides
    torch.manual_seed(0)
    model = dit.build("DiT-N/8", **settings)
    for parameter in model.parameters():
        if not parameter.any():  # a fresh model predicts zeros, whatever its class: see adaLN-zero
            torch.nn.init.normal_(parameter, std=0.2)
    model.provenance = {"classes": list(solids.CLASSES), "dataset": "solids"}
    return model.eval()


@pytest.fixture
def weights(tmp_path):
    model = tiny()
    save(tmp_path / "tiny.safetensors", model, model.provenance, dtype=torch.float16)
    return tmp_path / "tiny.safetensors"


def contents(path):
    with safe_open(path, framework="pt") as file:
        return load_file(path), file.metadata()


def test_a_model_is_evaluated_end_to_end(weights, tmp_path, capsys):
    before = weights.read_bytes()
    out, sheet = tmp_path / "new" / "results.json", tmp_path / "grid.png"
    files = ["--out", str(out), "--grid", str(sheet), "--grid-columns", "2", "--grid-scale", "4"]
    assert main([str(weights), *QUICK, *files, "--seed", "5", "--guidance-scale", "1.5"]) == 0
    results = json.loads(out.read_text())
    assert results["weights"] == "tiny.safetensors"
    assert results["sha256"] == hashlib.sha256(before).hexdigest()
    settings = ("sampler", "steps", "guidance_scale", "eta", "seed", "pictures_per_class")
    assert [results[name] for name in settings] == ["ddim", 2, 1.5, 0.0, 5, 3]
    assert tuple(results["accuracy"]["per_class"]) == solids.CLASSES
    assert results["accuracy"]["overall"] == pytest.approx(
        np.mean([*results["accuracy"]["per_class"].values()])
    )
    assert results["classifier"]["held_out"] == load().provenance["held_out"]
    assert results["classifier"]["sha256"] == hashlib.sha256(DEFAULT.read_bytes()).hexdigest()
    assert results["commit"]
    assert (results["network"], results["machine"]) == (digest_of(dit.load(weights)), machine())
    assert (results["classes"], results["pictures"], results["guidance_interval"]) == (10, 30, None)
    assert results["extractor"] == {"name": "classifier", "file": DEFAULT.name,
                                    "sha256": results["classifier"]["sha256"]}  # fmt: skip
    assert results["reference"] == {"name": "solids", "pictures": 60, "seed": 1, "version": solids.VERSION}
    said = capsys.readouterr()
    printed = said.out.splitlines()
    assert printed[0].split() == ["class", "generated", "real"] and printed[11].split()[0] == "all"
    assert [line.split()[0] for line in printed[1:11]] == list(solids.CLASSES)
    distances = results["frechet"]
    assert printed[12].startswith(f"Frechet     {distances['distance']:>10.3f}  (")
    assert printed[12].endswith(f"real pictures {distances['real']:.3f}")
    assert [line.split()[0] for line in printed[12:]] == [
        "Frechet", "spatial", "kernel", "score", "precision", "recall",
    ]  # fmt: skip
    assert "FID" not in said.out  # which is of another network
    assert said.err.count("warning: 30 generated pictures are no more than the features") == 1
    assert distances["distance"] > distances["real"] > 0  # pictures of noise
    assert (distances["reference_pictures"], distances["reference_seed"]) == (60, 1)
    assert Image.open(sheet).size == (2 * 129 - 1, 10 * 129 - 1)
    assert weights.read_bytes() == before  # without --record the weights stay as they are


def test_the_table_shows_generated_beside_real():
    shares = {"overall": 0.5, "per_class": {"a": 0.25, "b": 0.75}}
    real = {"overall": 1.0, "per_class": {"a": 0.995, "b": 1.0}}
    lines = table({"accuracy": shares, "classifier": {"held_out": real}}).splitlines()
    assert [line.split() for line in lines] == [
        ["class", "generated", "real"],
        ["a", "25.0%", "99.5%"],
        ["b", "75.0%", "100.0%"],
        ["all", "50.0%", "100.0%"],
    ]
    assert len({len(line) for line in lines}) == 1


def test_the_grid_has_a_row_a_class_and_white_lines_between():
    pictures = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    sheet = np.asarray(grid(pictures, classes=2, columns=5, scale=2))
    assert sheet.shape == (9, 14, 3)
    assert sheet[::5, ::5, 0].tolist() == [[0, 2, 4], [1, 3, 5]]
    assert (sheet[4] == 255).all() and (sheet[:, [4, 9]] == 255).all()
    assert (np.delete(np.delete(sheet, 4, 0), [4, 9], 1) < 6).all()
    assert grid(pictures, classes=2, columns=1, scale=1).size == (2, 5)
    assert grid(pictures, classes=4, columns=3, scale=1).size == (2, 11)  # as many as each class has
    assert grid(pictures, classes=100, columns=3, scale=1).size == (2, 17)  # of those classes that have some


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
def test_recording_adds_results_and_keeps_every_bit_of_the_rest(tmp_path, dtype):
    model, path = tiny(), tmp_path / "tiny.safetensors"
    save(path, model, model.provenance, dtype=dtype)
    tensors, metadata = contents(path)
    record(path, {"accuracy": 0.1, "sha256": "stale"})
    record(path, {"accuracy": 0.5, "sha256": "stale"})
    after, new_metadata = contents(path)
    assert set(after) == set(tensors)
    for name, tensor in tensors.items():
        assert after[name].dtype == tensor.dtype and after[name].shape == tensor.shape
        assert torch.equal(after[name].view(torch.uint8), tensor.view(torch.uint8)), name
    config, provenance = describe(path)
    assert config == model.config
    assert provenance == model.provenance | {"results": {"accuracy": 0.5}}
    assert {k: v for k, v in new_metadata.items() if k != "provenance"} == {
        k: v for k, v in metadata.items() if k != "provenance"
    }
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.safetensors"]


def test_recording_from_the_command_line_matches_the_json(weights, tmp_path):
    out = tmp_path / "results.json"
    assert main([str(weights), *QUICK, "--record", "--out", str(out)]) == 0
    results = json.loads(out.read_text())
    assert results.pop("sha256") == sha256(weights)  # of the file as it now is
    assert describe(weights)[1]["results"] == results
    dit.load(weights)


def test_files_that_are_no_weights_are_not_touched(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"x": torch.zeros(1)}, path, metadata={"format": "other"})
    before = path.read_bytes()
    with pytest.raises(WeightsError, match="other"):
        record(path, {})
    assert path.read_bytes() == before
    with pytest.raises(WeightsError, match="no such file"):
        record(tmp_path / "none.safetensors", {})


def test_a_model_of_other_classes_is_refused(weights, tmp_path, capsys):
    judge, model = ClassifierFeatures(), tiny()
    check(model, judge, 32)
    for classes in (None, ["cat"], list(reversed(solids.CLASSES))):
        model.provenance = {"classes": classes}
        with pytest.raises(ValueError, match="the model has 10 classes.*evaluate a model trained on those"):
            check(model, judge, 32)
    check(tiny(num_classes=0), judge, 32)  # nothing is asked of it
    for other, side in ((tiny(input_size=64), 64), (tiny(in_channels=1), 32)):
        with pytest.raises(ValueError, match="channels of side.*evaluate a model of that size"):
            check(other, judge, side)
    model.provenance = {"classes": ["cat"]}
    save(weights, model, model.provenance)
    out = tmp_path / "results.json"
    assert main([str(weights), *QUICK, "--out", str(out)]) == 1
    assert "named ['cat']" in capsys.readouterr().err and not out.exists()


def test_an_unconditional_model_has_a_distance_and_no_accuracy(tmp_path, capsys):
    model, path = tiny(num_classes=0), tmp_path / "free.safetensors"
    save(path, model, {"classes": []})
    out, sheet = tmp_path / "results.json", tmp_path / "grid.png"
    options = ["--out", str(out), "--grid", str(sheet), "--record"]
    assert main([str(path), *QUICK, *options]) == 0
    results = json.loads(out.read_text())
    assert results["guidance_scale"] == 1  # it cannot be guided
    assert "accuracy" not in results and results["frechet"]["distance"] > 0
    assert capsys.readouterr().out.splitlines()[0].split()[0] == "Frechet"
    assert (results["classes"], results["pictures"]) == (0, 30)
    assert describe(path)[1]["results"]["frechet"] == results["frechet"]
    assert Image.open(sheet).size[1] > 10 * 32  # ten rows, as of other models


def test_an_unmeasured_classifier_is_refused(tmp_path):
    save_classifier(tmp_path / "c.safetensors", Classifier(ClassifierConfig(classes=solids.CLASSES)), {})
    with pytest.raises(ValueError, match="no held_out accuracy.*python -m train.classifier"):
        check(tiny(), ClassifierFeatures(tmp_path / "c.safetensors"), 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sampler", "dopri5"], "sampler is 'dopri5'; choose one of"),
        (["--steps", "0"], "steps is 0; it must be from 1"),
        (["--guidance-scale", "-1"], "guidance_scale is -1.0"),
        (["--classifier", "none.safetensors"], "no such classifier"),
        (["--reference", "no-such-set"], "no-such-set"),
        (["--guidance-interval", "9", "3"], "guidance_interval is (9.0, 3.0)"),
    ],
)
def test_bad_settings_end_with_a_message(weights, capsys, arguments, message):
    assert main([str(weights), *QUICK, *arguments]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["pictures_per_class", "batch_size", "grid_columns", "grid_scale"])
def test_sizes_below_one_are_refused(name):
    with pytest.raises(ValueError, match="samples is 1; it must be at least 2"):
        Evaluation(weights="x", samples=1)
    with pytest.raises(ValueError, match=f"{name} is 0; it must be at least 1"):
        Evaluation(weights="x", **{name: 0})


def test_what_cannot_be_measured_is_refused_before_anything_is_drawn(weights, monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "draw", lambda *_: pytest.fail("drawn"))
    with pytest.raises(ValueError, match="resamples is 3; an interval"):
        Evaluation(weights="x", resamples=3)
    assert main([str(weights), *QUICK, "--samples", "9"]) == 1
    assert "9 pictures are not one of each of 10 classes" in capsys.readouterr().err


def test_the_suites_file_holds_what_was_drawn_and_what_was_asked_for(weights, tmp_path):
    out, npz, kept = tmp_path / "results.json", tmp_path / "samples.npz", tmp_path / "work"
    files = ["--npz", str(npz), "--out", str(out), "--work-dir", str(kept)]
    arguments = [str(weights), *QUICK, "--samples", "12", "--seed", "3", *files]
    assert main(arguments) == 0
    with np.load(npz) as file:
        pictures, labels = file["arr_0"], file["arr_1"]
    assert labels.tolist() == [*range(10), 0, 1] and pictures.shape == (12, 32, 32, 3)
    wish = Draw(samples=12, steps=2, batch_size=7, seed=3, guidance_scale=2.0)
    drawn = draw([dit.Pipeline.load(weights)], wish, tmp_path / "other")[0]
    np.testing.assert_array_equal(pictures, drawn)
    results = json.loads(out.read_text())
    assert (results["pictures"], results["guidance_scale"]) == (12, 2.0)
    assert "pictures_per_class" not in results  # two of some classes, one of others
    chunks = {path: path.stat().st_mtime_ns for path in kept.rglob("*.npy")}
    assert len(chunks) == 2 and main(arguments) == 0  # nothing is drawn anew
    assert {path: path.stat().st_mtime_ns for path in kept.rglob("*.npy")} == chunks
    assert json.loads(out.read_text()) == results


def test_a_model_of_other_pictures_says_what_to_compare_with(tmp_path, capsys):
    """Of a data set without a classifier here: what is missing is named, one thing after the other."""
    model, path = tiny(num_classes=0), tmp_path / "free.safetensors"
    save(path, model, {"dataset": "flowers"})
    arguments = [str(path), *QUICK]
    assert main(arguments) == 1
    assert "no classifier is bundled for 'flowers'" in capsys.readouterr().err
    arguments += ["--classifier", str(DEFAULT)]
    assert main(arguments) == 1
    assert "the model learnt 'flowers'; say what" in capsys.readouterr().err
    folder = picture_folder(tmp_path / "flowers", per_class=4)
    assert main([*arguments, "--reference", str(folder), "--out", str(tmp_path / "results.json")]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["reference"]["pictures"] == 12 and "real" not in results["frechet"]
    assert results["frechet"]["distance"] > 0 and "accuracy" not in results
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main([*arguments, "--reference", str(empty)]) == 1
    assert "there are no pictures in it" in capsys.readouterr().err


def test_on_inceptions_features_the_measures_have_their_usual_names():
    value = {"distance": 1.5, "interval": [1.0, 2.0]}
    results = {"extractor": {"name": "inception"}, "frechet": value, "spatial": value, "kernel": value}
    assert [line.split()[0] for line in table(results).splitlines()] == ["FID", "sFID", "KID"]
    results["extractor"]["name"] = "classifier"
    assert [line.split()[0] for line in table(results).splitlines()] == ["Frechet", "spatial", "kernel"]


@pytest.mark.skipif(importlib.util.find_spec("torch_fidelity") is not None, reason="it is installed")
def test_inception_that_is_not_here_ends_with_a_message(weights, capsys):
    assert main([str(weights), *QUICK, "--features", "inception"]) == 1
    assert "pip install torch-fidelity" in capsys.readouterr().err
