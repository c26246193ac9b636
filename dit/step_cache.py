"""Step caching: a block's attention and MLP compute at some steps only, and serve again at those between.

FORA (2407.01425): neighbouring steps ask these branches nearly the same. Training-free. What the conditioning
does (modulation, gates, the final layer) stays live, so that each step still knows its noise level.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Cost:
    """Forward passes of one picture: whole ones, and those whose branches were not computed."""

    whole: int = 0
    reused: int = 0

    @property
    def passes(self) -> int:
        """All of them."""
        return self.whole + self.reused

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.whole + other.whole, self.reused + other.reused)


class Rhythm:
    """Which network calls of a walk are whole."""

    def __init__(self, every: int) -> None:
        """every: 1 for all of them."""
        self.every, self._calls, self._kept = every, 0, 0

    def is_whole(self, passes: int) -> bool:
        """Whether the next call is, of 1 or, guided, 2 passes a picture.

        Every `every`-th is, and one of more passes than what was kept: where guidance begins in the middle of
        a walk, there is nothing of the null class to reuse.
        """
        whole = self._calls % self.every == 0 or passes > self._kept
        self._calls += 1
        if whole:
            self._kept = passes
        return whole


def costs(passes: Iterable[int], every: int) -> list[Cost]:
    """What each network call of a walk costs a picture. passes: of the calls in order, 1 or 2 each."""
    rhythm = Rhythm(every)
    return [Cost(whole=count) if rhythm.is_whole(count) else Cost(reused=count) for count in passes]


class StepCache:
    """What a model's branches gave last, for one walk. The model's forward pass takes it as `run`.

    A guided batch has its conditional half first. So both halves are kept apart, and a call without guidance
    takes the first.
    """

    def __init__(self, every: int) -> None:
        self._rhythm = Rhythm(every)
        self._whole, self._rows = True, 0
        self._kept: dict[nn.Module, Tensor] = {}

    def begin(self, passes: int, rows: int) -> None:
        """Before each network call. passes: 1 or 2 a picture. rows: of its batch, both halves together."""
        self._whole, self._rows = self._rhythm.is_whole(passes), rows

    def __call__(self, branch: nn.Module, inputs: Callable[[], tuple[Tensor, ...]]) -> Tensor:
        """(n, T, D) of a branch of a block. inputs: makes what it is called with, where it is called."""
        if self._whole:
            self._kept[branch] = branch(*inputs())
        return self._kept[branch][: self._rows]
