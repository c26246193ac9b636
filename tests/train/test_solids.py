"""The embedded data set: reproducible to the bit, labelled by index, and visible."""

import hashlib

import numpy as np
import pytest

from train import solids
from train.solids import CLASSES, render


@pytest.fixture(scope="module")
def sample():
    return render(range(400), seed=3)


def test_shapes_types_and_labels(sample):
    pictures, labels = sample
    assert pictures.shape == (400, 32, 32, 3) and pictures.dtype == np.uint8
    assert labels.dtype == np.int64 and len(CLASSES) == len(set(CLASSES)) == 10
    assert (labels == np.arange(400) % 10).all()


def test_a_picture_does_not_depend_on_its_batch_its_order_or_the_threads(sample, monkeypatch):
    pictures, _ = sample
    rng = np.random.default_rng(0)
    for threads in (1, 2, 3, None, 1, 2):
        chosen = rng.permutation(400)[: rng.integers(1, 60)]
        again, labels = render(chosen, seed=3, threads=threads)
        assert (again == pictures[chosen]).all()
        assert (labels == chosen % 10).all()
    monkeypatch.setattr(solids, "_TILE", 30_000)
    assert (render(np.arange(90)[::-1], seed=3)[0] == pictures[:90][::-1]).all()


def test_repeated_and_huge_indices():
    last = 2**62 + 7
    pictures, labels = render([last, 5, last])
    assert (pictures[0] == pictures[2]).all() and (pictures[0] != pictures[1]).any()
    assert list(labels) == [last % 10, 5, last % 10]


def test_known_pictures():
    """Pictures are part of the format: a checkpoint's training data has to stay what it was."""
    pictures, _ = render(range(50), seed=0)
    assert (
        hashlib.sha256(pictures.tobytes()).hexdigest()
        == "b466ab00dded49d6a26fc50f7d2d51cbfad17656311d0d91ad95847e4ce2899d"
    )


def test_seeds_and_indices_give_different_pictures(sample):
    pictures, _ = sample
    other, _ = render(range(400), seed=4)
    everything = {x.tobytes() for x in np.concatenate([pictures, other])}
    assert len(everything) == 800


@pytest.mark.parametrize("side", [8, 9, 33, 64])
def test_any_side_shows_the_same_scene(side):
    pictures, _ = render(range(20), side=side)
    assert pictures.shape == (20, side, side, 3)
    small, _ = render(range(20), side=8)
    means = [x.reshape(20, -1, 3).mean(1) for x in (pictures.astype(float), small.astype(float))]
    assert np.abs(means[0] - means[1]).max() < 12
    assert (render([13], side=side)[0][0] == pictures[13]).all()


def test_every_picture_shows_a_solid_well_inside_the_frame(sample):
    pictures = sample[0][:200].astype(float)
    border = np.concatenate([pictures[:, :2].reshape(200, -1, 3), pictures[:, :, :2].reshape(200, -1, 3)], 1)
    # A pixel belongs to the solid or its shadow if it differs from every colour of the border.
    far = np.abs(pictures.reshape(200, -1, 1, 3) - border[:, None, ::4]).sum(-1).min(-1) > 40
    share = far.reshape(200, -1).mean(1)
    assert share.min() > 0.06 and share.max() < 0.75
    assert np.median(share) > 0.2
    assert 60 < pictures.mean() < 200 and pictures.std() > 35
    assert pictures.min() < 40 and pictures.max() > 240


def test_the_hues_cover_the_circle_and_the_classes_differ(sample):
    pictures, labels = sample
    middle = pictures[labels != CLASSES.index("torus"), 14:18, 14:18].astype(float).mean((1, 2))
    strongest = np.bincount(middle.argmax(1), minlength=3) / len(middle)
    assert strongest.min() > 0.15
    # A linear classifier on the silhouette-like distance from the backdrop does far better than chance.
    train, test = (
        np.abs(x - x[:, :1, :1]).sum(-1).reshape(len(x), -1)
        for x in (render(range(600), 5, 16)[0].astype(float), render(range(300), 6, 16)[0].astype(float))
    )
    ridge = train.T @ train + 3e5 * np.eye(256)
    weights = np.linalg.solve(ridge, train.T @ np.eye(10)[np.arange(600) % 10])
    assert ((test @ weights).argmax(1) == np.arange(300) % 10).mean() > 0.4


def test_an_empty_request_is_an_empty_answer():
    pictures, labels = render([])
    assert pictures.shape == (0, 32, 32, 3) and labels.shape == (0,) and labels.dtype == np.int64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"indices": [1, -2]}, r"indices is \[1, -2\].*integers >= 0"),
        ({"indices": [0.0, 1.0]}, r"indices is .*integers >= 0"),
        ({"indices": [True]}, r"indices is .*integers"),
        ({"indices": 3}, r"indices is 3.*one-dimensional"),
        ({"indices": [[1]]}, r"indices is .*one-dimensional"),
        ({"indices": [2**63]}, r"indices is .*integers"),
        ({"indices": [0], "side": 7}, r"side is 7.*from 8"),
        ({"indices": [0], "side": 32.0}, r"side is 32.0.*integer"),
        ({"indices": [0], "seed": -1}, r"seed is -1.*from 0"),
        ({"indices": [0], "seed": 1.5}, r"seed is 1.5.*integer"),
        ({"indices": [0], "threads": 0}, r"threads is 0.*from 1"),
    ],
)
def test_bad_arguments_are_refused_with_value_constraint_and_remedy(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        render(**arguments)
    assert "pass " in str(error.value)
