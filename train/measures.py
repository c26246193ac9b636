"""How near generated pictures are to real ones, in numbers, each with the interval that resampling gives it.

With a small classifier's features they go by the names of their formulas. FID, KID, Inception Score and sFID
are the same formulas on the standard Inception's features only.
"""

import warnings
from typing import Any

import numpy as np

from train.classifier import accuracy
from train.features import Extractor, Features
from train.frechet import Gaussian
from train.kernel import kernel_distance
from train.neighbours import K, radii, within
from train.reference import Reference
from train.resampling import CONFIDENCE, Resampling
from train.score import class_scores

POSITIVE, SHARE = (0.0, np.inf), (0.0, 1.0)  # what a distance and a share can be
FEWEST = 2  # pictures that have a covariance


def measure(
    pictures: np.ndarray,
    labels: np.ndarray | None,
    extractor: Extractor,
    reference: Reference,
    resampling: Resampling | None = None,
    spatial: bool = True,
) -> dict[str, Any]:
    """All measures of generated pictures, as JSON values.

    frechet.distance, spatial.distance (sFID's formula), kernel.distance, score.mean, precision.share,
    recall.share, accuracy.overall; an "interval" [low, high] beside each. What the reference or the number of
    pictures does not allow is in "left_out", with the reason.

    spatial: with the distance in the inner map, whose interval takes longer than all else together.
    pictures: (N, H, W, 3) uint8. labels: (N,) what they were asked to show; None: nothing, so no accuracy.

    Raises:
        ValueError: fewer than two pictures, of a size that the extractor does not take, or labels that it
            does not know.
    """
    if len(pictures) < FEWEST:
        raise ValueError(f"there are {len(pictures)} pictures; measuring needs at least {FEWEST}")
    if labels is not None and not extractor.classes:
        raise ValueError(f"{extractor.name} recognises no classes of a data set; leave the labels out")
    resampling, seen = resampling or Resampling(), extractor.of(pictures)
    _warn_of_few(len(seen), reference.pictures, extractor)
    found: dict[str, Any] = {
        "frechet": _frechet(seen.pool, reference.pool, resampling),
        "score": _score(seen, resampling),
    }
    found["frechet"]["reference_pictures"] = reference.pictures
    if reference.further is not None:
        real = reference.further[: max(FEWEST, len(seen))]  # as many as generated, where there are
        found["frechet"] |= {
            "real": reference.pool.distance(Gaussian.of(real)),
            "real_pictures": len(real),
        }
    left_out = {}
    if not spatial:
        left_out["spatial"] = "not asked for"
    elif reference.spatial is not None:
        found["spatial"] = _frechet(seen.spatial, reference.spatial, resampling)
    else:
        left_out["spatial"] = "the reference has no moments of the inner map"
    if reference.features is None:
        left_out |= dict.fromkeys(("kernel", "precision", "recall"), "the reference has moments alone")
    else:
        found["kernel"] = _kernel(seen.pool, reference.features, resampling)
        if min(len(seen), len(reference.features)) > K:
            found |= _precision_and_recall(seen.pool, reference, extractor, resampling)
        else:
            left_out |= dict.fromkeys(("precision", "recall"), f"of {K} neighbours: needs more pictures")
    if labels is not None:
        found["accuracy"] = _accuracy(seen, labels, extractor, resampling)
    return found | {
        "left_out": left_out,
        "confidence": CONFIDENCE,
        "resamples": resampling.times,
        "resampling_seed": resampling.seed,
    }


def _warn_of_few(number: int, real: int, extractor: Extractor) -> None:
    """Say once, of a set smaller than its features, that its covariance cannot be right."""
    few, whose = min((number, "generated"), (real or number, "real"))
    sizes = dict(zip(("frechet", "spatial"), extractor.dimensions, strict=True))
    if biased := {measure: size for measure, size in sizes.items() if few <= size}:
        said = " and ".join(f"{measure} ({size})" for measure, size in biased.items())
        warnings.warn(
            f"{few} {whose} pictures are no more than the features of {said}: their covariance is singular "
            f"and the distance biased; take more than {max(biased.values())}, better ten times as many",
            stacklevel=3,
        )


def _frechet(features: np.ndarray, expected: Gaussian, resampling: Resampling) -> dict[str, Any]:
    distance = expected.distance(Gaussian.of(features))

    def again(places: np.ndarray) -> float:
        counts = np.bincount(places, minlength=len(features))
        return expected.distance(Gaussian.of(features[counts > 0], counts[counts > 0]))

    interval = resampling.interval(distance, len(features), again, POSITIVE)
    return {"distance": distance, "interval": interval}


def _kernel(features: np.ndarray, real: np.ndarray, resampling: Resampling) -> dict[str, Any]:
    found = kernel_distance(features, real, seed=resampling.seed)
    interval = resampling.interval(
        found.distance, len(found.influence), lambda places: float(found.influence[places].mean())
    )
    return {
        "distance": found.distance,
        "interval": interval,
        "std": found.std,
        "subsets": found.subsets,
        "subset_size": found.subset_size,
    }


def _score(seen: Features, resampling: Resampling) -> dict[str, Any]:
    p = seen.probabilities
    scores = class_scores(p)
    mean = float(scores.mean())
    interval = resampling.interval(
        mean, len(p), lambda places: float(class_scores(p[places]).mean()), (1.0, p.shape[1])
    )
    return {"mean": mean, "interval": interval, "std": float(scores.std()), "splits": len(scores)}


def _precision_and_recall(
    features: np.ndarray, reference: Reference, extractor: Extractor, resampling: Resampling
) -> dict[str, Any]:
    """The interval of recall is over the real pictures, whose share it is: generated ones that were drawn
    twice would be their own neighbours."""
    device = extractor.device
    own = radii(features, device=device)
    real = reference.radii if reference.radii is not None else radii(reference.features, device=device)
    return {
        "precision": _share(within(features, reference.features, real, device), resampling) | {"k": K},
        "recall": _share(within(reference.features, features, own, device), resampling) | {"k": K},
    }


def _share(inside: np.ndarray, resampling: Resampling) -> dict[str, Any]:
    share = float(inside.mean())
    interval = resampling.interval(share, len(inside), lambda places: float(inside[places].mean()), SHARE)
    return {"share": share, "interval": interval}


def _accuracy(
    seen: Features, labels: np.ndarray, extractor: Extractor, resampling: Resampling
) -> dict[str, Any]:
    recognised = seen.probabilities.argmax(1)
    counted = accuracy(recognised, labels, extractor.classes)
    return counted | {"interval": _share(recognised == labels, resampling)["interval"]}
