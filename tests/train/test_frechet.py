"""The Frechet distance, where its value is known."""

import numpy as np
import pytest

from train.frechet import Gaussian


def random_gaussian(seed: int, size: int = 6) -> Gaussian:
    generator = np.random.default_rng(seed)
    factor = generator.normal(size=(size, size))
    return Gaussian(generator.normal(size=size), factor @ factor.T)


def test_it_is_the_textbooks_with_a_general_matrix_root():
    for seed in range(5):
        a, b = random_gaussian(seed), random_gaussian(seed + 100)
        cross = np.sqrt(np.linalg.eigvals(a.covariance @ b.covariance).real).sum()  # of the root's trace
        expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance + b.covariance) - 2 * cross
        assert a.distance(b) == pytest.approx(expected, rel=1e-8)
        assert b.distance(a) == pytest.approx(expected, rel=1e-8)


def test_independent_features_in_closed_form():
    """Of normals with deviations s and r, each dimension adds (m - n)^2 + (s - r)^2."""
    a = Gaussian(np.array([0.0, 2.0]), np.diag([4.0, 9.0]))
    b = Gaussian(np.array([1.0, 5.0]), np.diag([1.0, 9.0]))
    assert a.distance(b) == pytest.approx(1 + 9 + 1)
    assert a.distance(a) == pytest.approx(0, abs=1e-12)


def test_features_that_never_vary_are_fine():
    a = Gaussian(np.zeros(3), np.diag([1.0, 0.0, 0.0]))
    b = Gaussian(np.zeros(3), np.diag([0.0, 4.0, 0.0]))
    assert a.distance(b) == pytest.approx(5)


def test_it_finds_mean_and_covariance():
    features = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32) * [1, 2, 3, 4] + 7
    found = Gaussian.of(features)
    np.testing.assert_allclose(found.mean, features.mean(axis=0))
    np.testing.assert_allclose(found.covariance, np.cov(features.T))


@pytest.mark.parametrize(
    ("features", "said"),
    [
        (np.zeros((1, 4)), r"\(1, 4\).*N at least 2"),
        (np.zeros(4), "at least 2"),
        (np.full((3, 2), np.nan), "finite"),
    ],
)
def test_what_is_no_set_of_features_is_refused(features, said):
    with pytest.raises(ValueError, match=said):
        Gaussian.of(features)
