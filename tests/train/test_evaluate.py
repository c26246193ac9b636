"""Evaluating a model end to end: what is drawn, what is counted, what is written."""

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import dit
from dit.files import sha256
from dit.weights import WeightsError, describe, save
from train import evaluate, solids
from train.classifier import DEFAULT, Classifier, ClassifierConfig, load
from train.classifier import save as save_classifier
from train.evaluate import Evaluation, check, draw, grid, main, record, table

QUICK = ["--pictures-per-class", "3", "--steps", "2", "--batch-size", "7", "--device", "cpu"]


@pytest.fixture(autouse=True)
def few_references(monkeypatch):
    """Real pictures to compare with: drawing ten thousand takes a minute."""
    monkeypatch.setattr(evaluate, "REFERENCE_PICTURES", 60)


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
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["class", "generated", "real"] and printed[-2].split()[0] == "all"
    distances = results["frechet"]
    assert printed[-1].split() == ["Frechet", f"{distances['distance']:.3f}", f"{distances['real']:.3f}"]
    assert distances["distance"] > distances["real"] > 0  # pictures of noise
    assert [line.split()[0] for line in printed[1:-2]] == list(solids.CLASSES)
    assert Image.open(sheet).size == (2 * 129 - 1, 10 * 129 - 1)
    assert weights.read_bytes() == before  # without --record the weights stay as they are


def test_pictures_follow_from_class_and_seed_alone():
    pipeline = dit.Pipeline(tiny())
    evaluation = Evaluation(
        weights="", pictures_per_class=2, steps=2, seed=40, batch_size=7, guidance_scale=1.5
    )
    pictures, labels = draw(pipeline, evaluation)
    assert pictures.shape == (20, 32, 32, 3) and pictures.dtype == np.uint8
    assert labels.tolist() == [*range(10)] * 2
    for k in (0, 6, 7, 19):
        settings = dit.SampleSettings(classes=[k % 10], seeds=[40 + k], steps=2, guidance_scale=1.5)
        alone = pipeline.generate(settings).x0[0]
        assert np.abs(alone.astype(int) - pictures[k]).max() <= 1, k  # batches differ in rounding
    assert len({picture.tobytes() for picture in pictures}) == 20
    other = dit.SampleSettings(classes=[1], seeds=[40], steps=2, guidance_scale=1.5)
    assert np.abs(pipeline.generate(other).x0[0].astype(int) - pictures[0]).max() > 10  # the class matters


@pytest.mark.parametrize("change", [{"sampler": "ddpm"}, {"eta": 1.0}, {"guidance_scale": 4.0}, {"steps": 3}])
def test_every_setting_reaches_the_sampler(change):
    pipeline = dit.Pipeline(tiny())
    evaluation = Evaluation(
        weights="", **{"pictures_per_class": 1, "steps": 2, "guidance_scale": 1.5} | change
    )
    pictures, _ = draw(pipeline, evaluation)
    settings = {"steps": 2, "guidance_scale": 1.5}
    direct = {"classes": list(range(10)), "seeds": list(range(10))}
    changed = pipeline.generate(dit.SampleSettings(**direct, **settings | change)).x0
    unchanged = pipeline.generate(dit.SampleSettings(**direct, **settings)).x0
    assert (pictures == changed).all() and (pictures != unchanged).any()


def test_perfect_and_mislabelled_pictures_are_counted_as_such(weights, monkeypatch):
    pictures, labels = solids.render(range(100), seed=6)
    monkeypatch.setattr(evaluate, "draw", lambda *_: (pictures, labels))
    evaluation = Evaluation(weights=str(weights), device="cpu")
    results, drawn = evaluate.evaluate(evaluation)
    assert drawn is pictures and results["accuracy"]["overall"] >= 0.97
    swapped = np.where(labels == 0, 1, np.where(labels == 1, 0, labels))
    monkeypatch.setattr(evaluate, "draw", lambda *_: (pictures, swapped))
    wrong = evaluate.evaluate(evaluation)[0]["accuracy"]
    assert wrong["per_class"]["sphere"] <= 0.1 and wrong["per_class"]["cube"] <= 0.1
    assert wrong["per_class"]["star"] >= 0.9
    assert wrong["overall"] == pytest.approx(0.8, abs=0.03)


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
    judge, model = load(), tiny()
    check(model, judge)
    for classes in (None, ["cat"], list(reversed(solids.CLASSES))):
        model.provenance = {"classes": classes}
        with pytest.raises(ValueError, match="the model has 10 classes.*evaluate a model trained on those"):
            check(model, judge)
    check(tiny(num_classes=0), judge)  # nothing is asked of it
    for other in (tiny(input_size=64), tiny(in_channels=1)):
        with pytest.raises(ValueError, match="channels of side.*evaluate a model of that size"):
            check(other, judge)
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
    assert capsys.readouterr().out.splitlines()[-1].split()[0] == "Frechet"
    assert describe(path)[1]["results"]["frechet"] == results["frechet"]
    assert Image.open(sheet).size[1] > 10 * 32  # ten rows, as of other models


def test_an_unmeasured_classifier_is_refused(tmp_path):
    save_classifier(tmp_path / "c.safetensors", Classifier(ClassifierConfig()), {})
    with pytest.raises(ValueError, match="no held_out accuracy.*python -m train.classifier"):
        check(tiny(), load(tmp_path / "c.safetensors"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sampler", "dopri5"], "sampler is 'dopri5'; choose one of"),
        (["--steps", "0"], "steps is 0; it must be from 1"),
        (["--guidance-scale", "-1"], "guidance_scale is -1.0"),
        (["--classifier", "none.safetensors"], "no such classifier"),
    ],
)
def test_bad_settings_end_with_a_message(weights, capsys, arguments, message):
    assert main([str(weights), *QUICK, *arguments]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["pictures_per_class", "batch_size", "grid_columns", "grid_scale"])
def test_sizes_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 0; it must be at least 1"):
        Evaluation(weights="x", **{name: 0})


def test_real_pictures_are_as_near_as_real_ones_come_and_spoilt_ones_are_not():
    judge, real = load(), solids.render(range(300), seed=5, side=32)[0]
    found = evaluate.frechet(judge, real)
    assert found["distance"] == pytest.approx(found["real"], rel=1.0)
    assert (found["reference_pictures"], found["reference_seed"]) == (60, 1)
    spheres = solids.render(range(0, 3000, 10), seed=5, side=32)[0]
    assert evaluate.frechet(judge, spheres)["distance"] > 3 * found["distance"]
    assert evaluate.frechet(judge, 255 - real)["distance"] > 1.2 * found["distance"]
