"""Frechet distance between two sets of features: the measure behind FID, with features of any kind."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Gaussian:
    """The normal distribution that a set of features is taken for."""

    mean: np.ndarray  # (D,) float64
    covariance: np.ndarray  # (D, D) float64

    @classmethod
    def of(cls, features: np.ndarray) -> "Gaussian":
        """features: (N, D), at least two of them.

        Raises:
            ValueError: fewer than two, or numbers that are not finite.
        """
        if features.ndim != 2 or len(features) < 2:
            raise ValueError(f"features are {features.shape}; a distribution needs (N, D), N at least 2")
        if not np.isfinite(features).all():
            raise ValueError("features must be finite; the pictures or the classifier are broken")
        features = features.astype(np.float64)
        return cls(features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False)))

    def distance(self, other: "Gaussian") -> float:
        """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), Heusel et al. 2017 (1706.08500), section 3.

        The trace of the root is that of (C1^(1/2) C2 C1^(1/2))^(1/2), whose matrices are symmetric.
        """
        root = _root(self.covariance)
        values = np.linalg.eigvalsh(root @ other.covariance @ root)
        between = float(((self.mean - other.mean) ** 2).sum())
        spread = np.trace(self.covariance) + np.trace(other.covariance)
        return between + float(spread - 2 * np.sqrt(values.clip(min=0)).sum())


def _root(matrix: np.ndarray) -> np.ndarray:
    """Of a symmetric matrix without negative eigenvalues; rounding may have made some."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
