"""Each measure against its closed form or its naive formula, and all of them on pictures."""

import json
import warnings

import numpy as np
import pytest
import torch

from train import neighbours, solids
from train.adm import write_samples
from train.features import ClassifierFeatures
from train.frechet import Gaussian
from train.kernel import kernel_distance
from train.measures import measure
from train.neighbours import radii, within
from train.reference import RealPictures, open_reference
from train.resampling import Resampling
from train.score import class_scores

FEW = Resampling(times=20)


def normal(seed: int, n: int, size: int = 3, mean: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return mean + scale * np.random.default_rng(seed).normal(size=(n, size))


# --- Frechet distance: its formula is in test_frechet ---


def test_frechet_of_samples_comes_to_that_of_the_normals():
    """N(0, 1) and N(1, 4) in 3 dimensions: 3 (1 + (1 - 2)^2) = 6; small sets come out too large."""
    found = []
    for n in (50, 500, 200_000):
        a, b = Gaussian.of(normal(0, n)), Gaussian.of(normal(1, n, mean=1.0, scale=2.0))
        found.append(abs(a.distance(b) - 6))
    assert found[2] < 0.1 and found[2] < found[0]
    same = [Gaussian.of(normal(0, n)).distance(Gaussian.of(normal(1, n))) for n in (50, 500, 5000)]
    assert same[0] > 5 * same[1] > 25 * same[2] > 0  # falls as 1 / n


def test_pictures_that_occur_twice_count_twice():
    x = normal(0, 40)
    counts = np.random.default_rng(1).integers(0, 4, 40)
    many = Gaussian.of(np.repeat(x, counts, axis=0))
    counted = Gaussian.of(x, counts)
    np.testing.assert_allclose(counted.mean, many.mean)
    np.testing.assert_allclose(counted.covariance, many.covariance)


# --- kernel distance ---


def naive_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Equation 4 of Binkowski et al. 2018, term by term."""

    def k(a, b):
        return (a @ b / len(a) + 1) ** 3

    m, n = len(x), len(y)
    own = sum(k(x[i], x[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    real = sum(k(y[i], y[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return own + real - 2 * sum(k(a, b) for a in x for b in y) / (m * n)


def test_the_kernel_distance_is_the_naive_formula():
    x, y = normal(0, 12, 5), normal(1, 12, 5, mean=0.5)
    found = kernel_distance(x, y)
    assert found.distance == pytest.approx(naive_mmd(x, y), rel=1e-10)
    assert (found.subsets, found.subset_size, len(found.influence)) == (100, 12, 12)
    assert found.std == pytest.approx(0, abs=1e-10)  # each subset is the whole


def test_the_kernel_distance_of_normals_in_closed_form():
    """In one dimension k is 1 + 3xy + 3(xy)^2 + (xy)^3, so N(0, 1) and N(1, 1) are 3 + 3 + 16 = 22 apart."""
    x, y = normal(0, 40_000, 1), normal(1, 40_000, 1, mean=1.0)
    found = kernel_distance(x, y, 40, 500, seed=3)
    assert found.distance == pytest.approx(22, rel=0.1)
    again = [kernel_distance(x, y, 40, 500, seed=seed).distance for seed in (3, 4)]
    assert found.distance == again[0] != again[1]
    assert 0 < found.std < 22


def test_the_kernel_distance_is_unbiased_however_few():
    found = [kernel_distance(normal(2 * s, 8, 2), normal(2 * s + 1, 8, 2), 1).distance for s in range(500)]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(500) and min(found) < 0


def test_every_picture_takes_its_turn_in_the_subsets():
    found = kernel_distance(normal(0, 30), normal(1, 50), subsets=3, subset_size=10)
    assert (found.subset_size, len(found.influence)) == (10, 30)
    with pytest.raises(ValueError, match="1 features; the kernel distance needs at least 2"):
        kernel_distance(normal(0, 1), normal(1, 50))


def test_the_influence_tells_how_the_distance_varies():
    sets = [kernel_distance(normal(s, 300, 2, 1.0), normal(999, 300, 2), 1) for s in range(60)]
    measured = np.std([one.distance for one in sets])
    assert measured == pytest.approx(np.std(sets[0].influence) / np.sqrt(300), rel=0.3)


# --- precision and recall ---


def naive_within(x, y, k=3):
    found = []
    for a in x:
        inside = False
        for j, b in enumerate(y):
            others = sorted(np.linalg.norm(b - c) for i, c in enumerate(y) if i != j)
            inside |= np.linalg.norm(a - b) <= others[k - 1]
        found.append(inside)
    return found


@pytest.mark.parametrize("memory", [2**28, 2000])  # all at once; some rows at a time
def test_surroundings_are_those_of_the_naive_formula(monkeypatch, memory):
    monkeypatch.setattr(neighbours, "MEMORY", memory)
    x, y = normal(0, 40), normal(1, 50, mean=2.0)
    found = within(x.astype(np.float32), y, radii(y))
    assert found.tolist() == naive_within(x.astype(np.float32), y)
    assert 0.1 < found.mean() < 0.9
    assert within(y, x, radii(x)).tolist() == naive_within(y, x)


def test_precision_and_recall_where_they_are_known():
    real = normal(0, 300, 2)
    assert within(real, real, radii(real)).all()
    assert not within(real + 100, real, radii(real)).any()
    half = real[real[:, 0] < 0]  # a model that knows half of what there is
    assert within(half, real, radii(real)).all()
    assert within(real, half, radii(half)).mean() == pytest.approx(0.5, abs=0.1)
    with pytest.raises(ValueError, match="3 features have no 3 neighbours"):
        radii(real[:3])


# --- score ---


def test_the_score_is_that_of_the_textbook():
    p = np.random.default_rng(0).dirichlet(np.ones(4), 35).astype(np.float32)
    parts = [torch.from_numpy(part).double() for part in np.array_split(p, 10)]
    expected = [
        torch.distributions.kl_divergence(
            torch.distributions.Categorical(part), torch.distributions.Categorical(part.mean(0))
        ).mean()
        for part in parts
    ]
    np.testing.assert_allclose(class_scores(p), np.exp(expected), rtol=1e-6)
    assert class_scores(np.eye(4)[np.arange(40) % 4]) == pytest.approx(4)  # sure, and of every class
    assert class_scores(np.eye(4)[np.zeros(40, int)]) == pytest.approx(1)
    assert class_scores(np.full((40, 4), 0.25)) == pytest.approx(1)
    assert len(class_scores(p[:3])) == 3


# --- intervals ---


def test_intervals_hold_the_truth_as_often_as_they_say():
    held = 0
    for seed in range(200):
        x = normal(seed, 60, 1)[:, 0]
        low, high = Resampling(seed=seed).interval(x.mean(), 60, lambda at, x=x: float(x[at].mean()))
        held += low <= 0 <= high
    assert 0.88 <= held / 200 <= 0.98


def test_intervals_of_biased_measures_hold_other_sets():
    """Of the Frechet distance of small sets, whose resamples all lie above it."""
    expected = Gaussian.of(normal(0, 2000, 8))

    def interval(x):
        return Resampling().interval(
            expected.distance(Gaussian.of(x)), len(x), lambda at: expected.distance(Gaussian.of(x[at]))
        )

    others = np.array([expected.distance(Gaussian.of(normal(s, 100, 8, 0.3))) for s in range(1, 61)])
    low, high = interval(normal(100, 100, 8, 0.3))
    assert 0.7 <= ((low <= others) & (others <= high)).mean() <= 1
    assert 2 * others.std() < high - low < 6 * others.std()


def test_intervals_repeat_keep_to_limits_and_want_enough():
    values = np.array([0.0] * 2 + [1.0] * 98)
    spread = Resampling(seed=1).interval(0.98, 100, lambda at: float(values[at].mean()), (0.0, 1.0))
    assert spread == Resampling(seed=1).interval(0.98, 100, lambda at: float(values[at].mean()), (0.0, 1.0))
    assert spread[0] < 0.98 < spread[1] <= 1.0
    tight = Resampling(seed=1).interval(0.98, 100, lambda at: float(values[at].mean()), (0.97, 0.985))
    assert tight == [0.97, 0.985] and spread[0] < 0.97 and spread[1] > 0.985
    with pytest.raises(ValueError, match="resamples is 5; an interval that holds 95% needs at least 20"):
        Resampling(times=5)


# --- all together, on pictures ---


@pytest.fixture(scope="module")
def extractor() -> ClassifierFeatures:
    return ClassifierFeatures()


@pytest.fixture(scope="module")
def reference(extractor):
    return open_reference(RealPictures(pictures=200), extractor)


@pytest.fixture(scope="module")
def real():
    return solids.render(range(200), seed=5, side=32)


@pytest.fixture(scope="module")
def measured(real, extractor, reference):
    with pytest.warns(UserWarning):
        return measure(*real, extractor, reference, FEW)


def test_real_pictures_are_as_near_as_real_ones_come(measured):
    assert measured["frechet"]["distance"] == pytest.approx(measured["frechet"]["real"], rel=0.25)
    assert measured["frechet"]["reference_pictures"] == 200
    assert measured["accuracy"]["overall"] >= 0.97
    assert measured["precision"]["share"] > 0.6 and measured["recall"]["share"] > 0.6
    assert 5 < measured["score"]["mean"] <= 10
    assert abs(measured["kernel"]["distance"]) < 0.02
    assert measured["left_out"] == {}
    assert (measured["confidence"], measured["resamples"], measured["resampling_seed"]) == (0.95, 20, 0)
    assert json.loads(json.dumps(measured)) == measured
    values = {"frechet": "distance", "spatial": "distance", "kernel": "distance", "score": "mean",
              "precision": "share", "recall": "share", "accuracy": "overall"}  # fmt: skip
    for name, key in values.items():
        low, high = measured[name]["interval"]
        assert low <= measured[name][key] <= high, name


def test_the_spatial_distance_is_that_of_the_map(real, measured, extractor, reference):
    seen = Gaussian.of(extractor.of(real[0]).spatial)
    assert measured["spatial"]["distance"] == pytest.approx(reference.spatial.distance(seen))
    assert len(seen.mean) == 448


def test_spoilt_and_one_sided_pictures_are_told_from_real_ones(real, measured, extractor, reference):
    spheres = solids.render(range(0, 2000, 10), seed=5, side=32)[0]
    shuffled = np.random.default_rng(0).permuted(real[0].reshape(200, -1, 3), axis=1).reshape(real[0].shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one_class = measure(spheres, None, extractor, reference, FEW)
        noise = measure(shuffled, real[1], extractor, reference, FEW)
    assert "accuracy" not in one_class
    assert one_class["frechet"]["distance"] > 3 * measured["frechet"]["distance"]
    assert one_class["precision"]["share"] > 0.6 and one_class["recall"]["share"] < 0.3
    assert one_class["score"]["mean"] < 1.5
    assert noise["precision"]["share"] < 0.2 and noise["accuracy"]["overall"] < 0.5
    assert noise["kernel"]["distance"] > 100 * abs(measured["kernel"]["distance"])
    assert noise["spatial"]["distance"] > 3 * measured["spatial"]["distance"]


def test_mislabelled_pictures_are_counted_as_such(real, extractor, reference):
    labels = np.where(real[1] == 0, 1, np.where(real[1] == 1, 0, real[1]))
    with pytest.warns(UserWarning):
        found = measure(real[0], labels, extractor, reference, FEW)["accuracy"]
    assert found["per_class"]["sphere"] <= 0.1 and found["per_class"]["cube"] <= 0.1
    assert found["per_class"]["star"] >= 0.9 and found["overall"] == pytest.approx(0.8, abs=0.03)
    assert found["interval"][0] > 0.6 and found["interval"][1] < 0.95


def test_fewer_pictures_than_features_are_warned_of_once(real, extractor, reference):
    with pytest.warns(
        UserWarning, match=r"200 generated pictures.*spatial \(448\).*biased; take more"
    ) as told:
        measure(real[0], None, extractor, reference, FEW)
    assert len(told) == 1 and "frechet (128)" not in str(told[0].message)  # 200 are enough for these
    with pytest.warns(UserWarning, match=r"50 generated.*frechet \(128\) and spatial \(448\)"):
        measure(real[0][:50], None, extractor, reference, FEW)


def test_no_more_pictures_than_features_but_enough_are_not_warned_of(monkeypatch, real, extractor, reference):
    monkeypatch.setattr(extractor, "dimensions", (20, 199))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure(real[0], None, extractor, reference, FEW)


@pytest.mark.filterwarnings("ignore")
def test_sets_too_small_to_measure(real, extractor, reference, tmp_path):
    for few in (0, 1):
        with pytest.raises(ValueError, match=f"there are {few} pictures; measuring needs at least 2"):
            measure(real[0][:few], None, extractor, reference)
    found = measure(real[0][:3], None, extractor, reference, FEW)  # odd, but possible
    assert sorted(found["left_out"]) == ["precision", "recall"] and "precision" not in found
    write_samples(tmp_path / "two.npz", real[0][:2])
    least = open_reference(RealPictures(name=str(tmp_path / "two.npz")), extractor)
    assert sorted(measure(real[0], None, extractor, least, FEW)["left_out"]) == ["precision", "recall"]
