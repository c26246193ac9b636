"""How sure a measured number is: the same number of sets that were drawn again from the set at hand."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Resampling:
    """How often to draw a set again, and from which seed.

    Raises:
        ValueError: too few to tell where the middle 95% end.
    """

    times: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if self.times < 20:
            raise ValueError(f"resamples is {self.times}; an interval that holds 95% needs at least 20")

    def interval(
        self,
        estimate: float,
        number: int,
        statistic: Callable[[np.ndarray], float],
        limits: tuple[float, float] = (-math.inf, math.inf),
    ) -> list[float]:
        """[low, high]: where 95% of measurements lie, on other sets of as many pictures.

        The bootstrap (Efron 1979): `statistic` gets the places (number,) of pictures drawn with replacement.
        What it finds is shifted so that its mean is the estimate: a set with pictures twice is like a smaller
        one, whose distances are larger, and that is no uncertainty. limits: of what the measure can be.
        """
        generator = np.random.default_rng(self.seed)
        rounds = tqdm(range(self.times), desc="resampling", leave=False, delay=5)
        found = np.array([statistic(generator.integers(number, size=number)) for _ in rounds])
        beyond = 100 * (1 - CONFIDENCE) / 2
        low, high = np.percentile(found - found.mean() + estimate, [beyond, 100 - beyond])
        return [float(np.clip(low, *limits)), float(np.clip(high, *limits))]
