"""How sure and how varied what a classifier sees is: the Inception Score's formula, with any classifier."""

import numpy as np

SPLITS = 10


def class_scores(probabilities: np.ndarray, splits: int = SPLITS) -> np.ndarray:
    """exp(mean KL(p(y|x) || p(y))) of each split, in order: Salimans et al. 2016 (1606.03498), section 4.

    From 1 (all pictures look alike, or like anything) to the number of classes (each picture like one, all
    classes as often). Fewer pictures than splits make as many splits.

    probabilities: (N, K) of each class. -> (splits,) float64.
    """
    p = probabilities.astype(np.float64)
    negative_entropy = (p * np.log(np.where(p > 0, p, 1))).sum(1)
    found = []
    for part in np.array_split(np.arange(len(p)), min(splits, len(p))):
        mean = p[part].mean(0)
        found.append(negative_entropy[part].mean() - (mean * np.log(np.where(mean > 0, mean, 1))).sum())
    return np.exp(np.array(found))
