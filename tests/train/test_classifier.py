"""The judge of generated pictures: right about the solids, for the right reason, and careful about files."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dit.classifier import CHUNK, DEFAULT, Classifier, ClassifierConfig, load, save
from dit.pipeline import from_pictures
from dit.weights import WeightsError
from train import classifier, solids
from train.classifier import accuracy, spoil


@pytest.fixture(scope="module")
def judge():
    return load()


@pytest.fixture(scope="module")
def unseen():
    return solids.render(range(500), seed=2)


@pytest.fixture
def small():
    torch.manual_seed(0)
    return Classifier(ClassifierConfig(classes=solids.CLASSES, channels=(4, 8), side=16)).eval()


def test_the_bundled_classifier_knows_solids_it_never_saw(judge, unseen):
    pictures, labels = unseen
    found = judge.classify(pictures)
    assert found.dtype == np.int64 and found.shape == (500,)
    measured = accuracy(found, labels, solids.CLASSES)
    assert measured["overall"] >= 0.98 and min(measured["per_class"].values()) >= 0.9


def test_it_agrees_with_chance_on_shuffled_labels(judge, unseen):
    pictures, labels = unseen
    shuffled = np.random.default_rng(0).permutation(labels)
    assert 0.03 < accuracy(judge.classify(pictures), shuffled, solids.CLASSES)["overall"] < 0.2


def test_it_looks_at_the_solid_and_not_at_colour_or_crispness(judge, unseen):
    x, labels = from_pictures(unseen[0][:250]), torch.from_numpy(unseen[1][:250])
    noisy = (x + 0.06 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)
    soft = torch.nn.functional.avg_pool2d(x, 3, 1, padding=1, count_include_pad=False)
    grey = x.mean(1, keepdim=True).expand_as(x)
    views = {"mirrored": x.flip(-1), "noisy": noisy, "soft": soft, "grey": grey}
    with torch.inference_mode():
        for name, view in views.items():
            assert (judge(view).argmax(1) == labels).float().mean() >= 0.96, name


def test_the_backdrop_alone_does_not_give_the_class_away(judge, unseen):
    pictures, labels = unseen
    corners = pictures[:, :2, :2].reshape(500, 4, 3).mean(1).astype(np.uint8)
    empty = np.broadcast_to(corners[:, None, None], pictures.shape)
    assert accuracy(judge.classify(empty), labels, solids.CLASSES)["overall"] < 0.2


def test_the_file_says_what_it_is_and_is_small(judge):
    assert DEFAULT.stat().st_size < 1_000_000
    assert tuple(judge.config.classes) == solids.CLASSES and judge.config.side == 32
    assert 100_000 <= sum(p.numel() for p in judge.parameters()) <= 400_000 and not judge.training
    provenance = judge.provenance
    assert provenance["dataset"] == "solids" and provenance["pictures_seen"] > 0 and "seed" in provenance
    held_out = provenance["held_out"]
    assert held_out["pictures"] >= 2000 and held_out["seed"] == 1 and held_out["overall"] >= 0.995
    assert tuple(held_out["per_class"]) == solids.CLASSES


def test_logits_are_a_linear_function_of_the_features(judge, unseen):
    x = from_pictures(unseen[0][:20])
    assert x.shape == (20, 3, 32, 32) and x.min() >= -1 and x.max() <= 1
    with torch.inference_mode():
        features = judge.features(x)
        assert features.shape == (20, judge.config.channels[-1])
        assert judge(x).shape == (20, 10)
        torch.testing.assert_close(judge(x), features @ judge.head.weight.T + judge.head.bias)


def test_a_label_does_not_depend_on_the_other_pictures(judge, unseen):
    pictures, _ = unseen
    together = judge.classify(pictures[: CHUNK + 3])
    alone = [int(judge.classify(pictures[i : i + 1])[0]) for i in (0, 7, CHUNK, CHUNK + 2)]
    assert alone == [together[i] for i in (0, 7, CHUNK, CHUNK + 2)]
    assert judge.classify(pictures[:0]).shape == (0,)


@pytest.mark.parametrize(
    "pictures",
    [
        np.zeros((2, 32, 32, 3), np.float32),
        np.zeros((2, 3, 32, 32), np.uint8),
        np.zeros((32, 32, 3), np.uint8),
    ],
)
def test_pictures_of_another_kind_are_refused(judge, pictures):
    with pytest.raises(ValueError, match=r"pictures are .*must be uint8 \(N, 32, 32, 3\)"):
        judge.classify(pictures)


def test_accuracy_counts_each_class_for_itself():
    found, labels = np.array([0, 0, 1, 1, 1, 1]), np.array([0, 1, 1, 1, 1, 0])
    measured = accuracy(found, labels, ("a", "b"))
    assert measured == {"overall": pytest.approx(4 / 6), "per_class": {"a": 0.5, "b": 0.75}}
    with pytest.raises(ValueError, match="no picture is of class 'c'"):
        accuracy(found, labels, ("a", "b", "c"))


def test_spoiling_is_mild_bounded_repeatable_and_different_for_each_picture(unseen):
    x = from_pictures(unseen[0][:8])
    once, again = (spoil(x, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(once, again) and once.shape == x.shape and once.abs().max() <= 1
    change = (once - x).abs().mean((1, 2, 3))
    assert len(set(change.tolist())) == 8 and 0.01 < change.mean() < 0.3
    red = torch.tensor([0.5, -0.5, -0.5])[:, None, None].expand(16, 3, 32, 32)
    means = spoil(red, torch.Generator().manual_seed(5)).mean((2, 3))
    colour = means[:, 0] - means[:, 1]
    assert colour.min() < 0.3 < 0.9 < colour.max()  # from nearly grey to vivid
    flat = spoil(torch.zeros(8, 3, 32, 32), torch.Generator().manual_seed(5)).mean((1, 2, 3))
    assert flat.std() > 0.03  # brightness is a picture's own; noise alone moves a mean by some 0.002


def test_saving_and_loading_round_to_half_precision_and_keep_the_rest(small, tmp_path):
    save(tmp_path / "c.safetensors", small, {"dataset": "none"})
    back = load(tmp_path / "c.safetensors")
    assert back.config == small.config and back.provenance == {"dataset": "none"} and not back.training
    for name, tensor in small.state_dict().items():
        expected = tensor.half().float() if tensor.is_floating_point() else tensor
        assert torch.equal(back.state_dict()[name], expected), name
    assert [path.name for path in tmp_path.iterdir()] == ["c.safetensors"]


def test_missing_truncated_and_foreign_files_are_refused(small, tmp_path):
    path = tmp_path / "c.safetensors"
    with pytest.raises(WeightsError, match="no such classifier.*python -m train.classifier"):
        load(path)
    save(path, small, {})
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(WeightsError, match="expected a whole safetensors file, found"):
        load(path)
    path.write_bytes(b"GIF89a")
    with pytest.raises(WeightsError, match="found 6 bytes that are not"):
        load(path)
    save_file({"x": torch.zeros(1)}, path, metadata={"format": "dit-lab/1"})
    with pytest.raises(
        WeightsError, match="expected a file of format 'dit-lab-classifier/1'.*found format 'dit-lab/1'"
    ):
        load(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": '{"colour": 1}'}, "unknown config fields.*colour"),
        ({"config": "{"}, "expected a header of JSON, found a broken one"),
        ({"provenance": "{"}, "expected a header of JSON, found a broken one"),
        ({"config": '{"classes": ["a", "b"], "channels": []}'}, "at least one width"),
        ({"config": '{"classes": ["a", "b"], "channels": [4, 8], "side": 1}'}, "side is 1"),
    ],
)
def test_a_broken_config_is_refused(small, tmp_path, changes, message):
    path = tmp_path / "c.safetensors"
    save(path, small, {})
    rewrite(path, lambda tensors: tensors, changes)
    with pytest.raises(WeightsError, match=message):
        load(path)


def test_missing_left_over_and_misshapen_tensors_are_named(small, tmp_path):
    path = tmp_path / "c.safetensors"
    for change, message in (
        (
            lambda t: {k: v for k, v in t.items() if k != "head.bias"},
            "(?s)not those of its config.*head.bias",
        ),
        (lambda t: t | {"extra": torch.zeros(1)}, "(?s)not those of its config.*extra"),
        (lambda t: t | {"head.weight": torch.zeros(10, 9)}, "(?s)not those of its config.*head.weight"),
    ):
        save(path, small, {})
        rewrite(path, change, {})
        with pytest.raises(WeightsError, match=message):
            load(path)


def rewrite(path, change, metadata):
    with safe_open(path, framework="pt") as file:
        before = file.metadata()
    save_file(change(load_file(path)), path, metadata=before | metadata)


def test_accuracy_is_measured_on_solids_that_training_never_shows(judge, tmp_path, monkeypatch):
    monkeypatch.setenv("DITLAB_CACHE", str(tmp_path))
    shown = []

    def classify(pictures):
        shown.append(np.array(pictures))
        return np.arange(20) % 10

    monkeypatch.setattr(judge, "classify", classify)
    measured = classifier.held_out(judge, 20)
    assert measured["overall"] == 1.0 and measured["pictures"] == 20
    assert (shown[0] == solids.render(range(20), seed=measured["seed"])[0]).all()
    assert measured["seed"] != 0  # the trainer's


def test_training_writes_a_measured_classifier(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DITLAB_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "c.safetensors"
    sizes = ["--steps", "3", "--batch-size", "8", "--num-pictures", "40", "--held-out-pictures", "20"]
    assert classifier.main([*sizes, "--out", str(out)]) == 0
    model = load(out)
    assert model.provenance["pictures_seen"] == 24
    held_out = json.loads(json.dumps(model.provenance["held_out"]))
    pictures, labels = solids.render(range(20), seed=1)
    assert held_out == {
        "pictures": 20,
        "seed": 1,
        **accuracy(model.classify(pictures), labels, solids.CLASSES),
    }
    assert "all" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        classifier.main([*sizes, "--steps", "0", "--out", str(out)])
    assert "steps is 0; it must be at least 1" in capsys.readouterr().err
