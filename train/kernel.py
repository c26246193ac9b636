"""Kernel distance between two sets of features: the measure behind KID, with features of any kind."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

SUBSETS = 100
SUBSET_SIZE = 1000


@dataclass(frozen=True)
class KernelDistance:
    """Squared maximum mean discrepancy, averaged over subsets."""

    distance: float
    std: float  # between subsets
    subsets: int
    subset_size: int
    influence: np.ndarray  # (n,) how far each picture of the first set pulls; of those in a subset


def polynomial(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """k(x, y) = (x . y / D + 1)^3. x: (n, D). y: (m, D). -> (n, m)."""
    base = x @ y.T
    base /= x.shape[1]
    base += 1
    return base * base * base


def kernel_distance(
    features: np.ndarray,
    reference: np.ndarray,
    subsets: int = SUBSETS,
    subset_size: int = SUBSET_SIZE,
    seed: int = 0,
) -> KernelDistance:
    """The unbiased estimate of Binkowski et al. 2018 (1801.01401), section 4 and Eq. 4, over random subsets.

    It may come out below 0. Subsets are as large as the smaller set where that is below `subset_size`.

    The influence of picture x is 2 (E k(x, x') - E k(x, y)), the estimate's derivative (Hajek projection): it
    varies from set to set as the influences' mean does, which is cheap to draw again.

    features: (N, D). reference: (M, D).

    Raises:
        ValueError: fewer than two of either.
    """
    if (least := min(len(features), len(reference))) < 2:
        raise ValueError(f"a set has {least} features; the kernel distance needs at least 2 of each")
    size, generator = min(subset_size, least), np.random.default_rng(seed)
    features, reference = features.astype(np.float64), reference.astype(np.float64)
    found, total, times = [], np.zeros(len(features)), np.zeros(len(features))
    own, others = _subsets(len(features), size, generator), _subsets(len(reference), size, generator)
    for _ in range(subsets):
        places = next(own)
        x, y = features[places], reference[next(others)]
        within, between = _off_diagonal(polynomial(x, x)), polynomial(x, y)
        real = _off_diagonal(polynomial(y, y)).sum() / (size * (size - 1))
        found.append(within.sum() / (size * (size - 1)) + real - 2 * between.mean())
        total[places] += 2 * within.sum(1) / (size - 1) - 2 * between.mean(1)
        times[places] += 1
    influence = total[times > 0] / times[times > 0]
    return KernelDistance(float(np.mean(found)), float(np.std(found)), subsets, size, influence)


def _subsets(number: int, size: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Places (size,) of one subset after the other; none comes again before the others had their turn."""
    while True:
        order = generator.permutation(number)
        yield from (order[start : start + size] for start in range(0, number - size + 1, size))


def _off_diagonal(kernel: np.ndarray) -> np.ndarray:
    np.fill_diagonal(kernel, 0)
    return kernel
