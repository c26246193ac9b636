"""Frechet distance between two sets of features: the measure behind FID, with features of any kind."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Gaussian:
    """The normal distribution that a set of features is taken for."""

    mean: np.ndarray  # (D,) float64
    covariance: np.ndarray  # (D, D) float64

    @classmethod
    def of(cls, features: np.ndarray, counts: np.ndarray | None = None) -> "Gaussian":
        """Mean and unbiased covariance, in float64, as ADM's evaluator has them.

        features: (N, D), at least two of them. counts: (N,) how often each of them occurs; None: once.

        Raises:
            ValueError: fewer than two, or numbers that are not finite.
        """
        n = len(features) if counts is None else int(counts.sum())
        if features.ndim != 2 or n < 2:
            raise ValueError(f"features are {features.shape}; a distribution needs (N, D), N at least 2")
        if not np.isfinite(features).all():
            raise ValueError("features must be finite; the pictures or the classifier are broken")
        features = features.astype(np.float64)
        mean = (features.sum(0) if counts is None else counts @ features) / n
        features -= mean
        if counts is not None:
            features *= np.sqrt(counts)[:, None]
        return cls(mean, features.T @ features / (n - 1))

    @cached_property
    def root(self) -> np.ndarray:
        """Of the covariance, (D, D): symmetric, and itself a covariance; rounding below 0 is cut off."""
        values, vectors = np.linalg.eigh(self.covariance)
        return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T

    def distance(self, other: "Gaussian") -> float:
        """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), Heusel et al. 2017 (1706.08500), section 3.

        The trace of the root is that of (C1^(1/2) C2 C1^(1/2))^(1/2), whose matrices are symmetric: singular
        ones, as few pictures make, do no harm. Of self the root is kept: let self be the one that stays.
        """
        values = np.linalg.eigvalsh(self.root @ other.covariance @ self.root)
        between = float(((self.mean - other.mean) ** 2).sum())
        spread = np.trace(self.covariance) + np.trace(other.covariance)
        return between + float(spread - 2 * np.sqrt(values.clip(min=0)).sum())
