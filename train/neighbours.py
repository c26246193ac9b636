"""Precision and recall of one set of features to another: who lies among the other's neighbours."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

K = 3  # neighbours that make up a surrounding
MEMORY = 2**28  # bytes of distances held at once


def radii(features: np.ndarray, k: int = K, device: torch.device | str = "cpu") -> np.ndarray:
    """Of each feature, the squared distance to its k-th nearest other one: (N,) float64. features: (N, D).

    Raises:
        ValueError: there are not so many others.
    """
    if len(features) <= k:
        raise ValueError(f"{len(features)} features have no {k} neighbours each; give more than {k}")
    x = _wide(features, device)
    nearest = [block.topk(k + 1, dim=1, largest=False).values for block in _distances(x, x)]
    return torch.cat(nearest)[:, k].cpu().numpy()  # the first is itself


def within(
    features: np.ndarray, other: np.ndarray, other_radii: np.ndarray, device: torch.device | str = "cpu"
) -> np.ndarray:
    """Which of the features (N, D) lie in the surrounding of any other one: (N,) bool.

    A surrounding is the ball reaching to the k-th neighbour: Kynkaanniemi et al. 2019 (1904.06991), Eq. 1.
    Precision is the share of generated pictures within real ones' surroundings, recall that of real ones
    within generated ones' (Eq. 2). other: (M, D). other_radii: (M,) squared, from `radii`.
    """
    reach = torch.from_numpy(other_radii).to(_exact(device))
    found = [(d <= reach).any(1) for d in _distances(_wide(features, device), _wide(other, device))]
    return torch.cat(found).cpu().numpy()


def _wide(features: np.ndarray, device: torch.device | str) -> Tensor:
    """Float64: the difference of large squares is left over below."""
    return torch.from_numpy(np.ascontiguousarray(features)).to(_exact(device)).double()


def _exact(device: torch.device | str) -> torch.device:
    """The device, if it is known to have float64, as Apple's GPUs have not; else the CPU."""
    return torch.device(device if torch.device(device).type == "cuda" else "cpu")


def _distances(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Squared distances of x (N, D), some rows at a time, to all of y (M, D): blocks (n, M)."""
    rows = max(1, MEMORY // (8 * len(y)))
    lengths = (y * y).sum(1)
    for start in range(0, len(x), rows):
        part = x[start : start + rows]
        block = torch.addmm(lengths, part, y.T, alpha=-2).add_((part * part).sum(1, keepdim=True))
        yield block.clamp_(min=0)
