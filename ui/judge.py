"""The class check: what a bundled classifier takes a picture for, beside what was asked for."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dit.classifier import CLASSIFIERS, Classifier, load
from ui.request import Request


@dataclass(frozen=True)
class Verdict:
    """What a classifier says of some pictures of one class."""

    wanted: str
    found: tuple[str, ...]  # one a picture

    @property
    def right(self) -> int:
        """How many were taken for what was asked for."""
        return self.found.count(self.wanted)

    @property
    def passed(self) -> bool:
        """Whether all were."""
        return self.right == len(self.found)

    @property
    def text(self) -> str:
        """In words: looks like a cone; looks like a cube; 3 of 4 look like a cone."""
        if len(self.found) == 1:
            return f"looks like {with_article(self.found[0])}"
        if self.right:
            look = "looks" if self.right == 1 else "look"
            return f"{self.right} of {len(self.found)} {look} like {with_article(self.wanted)}"
        [(most, _)] = Counter(self.found).most_common(1)
        return (
            f"none of {len(self.found)} looks like {with_article(self.wanted)}; rather {with_article(most)}"
        )

    @property
    def mark(self) -> str:
        """A tick or a cross."""
        return "✓" if self.passed else "✗"


class Judge:
    """The bundled classifiers, each for models of its own classes and side."""

    def __init__(self, classifiers: Sequence[Classifier]) -> None:
        self.classifiers = tuple(classifiers)

    @classmethod
    def bundled(cls, folder: Path = CLASSIFIERS) -> "Judge":
        """All classifiers of a folder. Raises WeightsError for a file that is none."""
        return cls([load(path) for path in sorted(folder.glob("*.safetensors"))])

    def check(self, request: Request, pictures: np.ndarray) -> Verdict | None:
        """The verdict on a request's pictures (N, H, W, 3) uint8; None if no classifier knows its classes."""
        rung = request.rung
        for classifier in self.classifiers:
            config = classifier.config
            if tuple(config.classes) == rung.classes and config.side == rung.side:
                found = [config.classes[label] for label in classifier.classify(pictures)]
                return Verdict(config.classes[request.label], tuple(found))
        return None


def with_article(noun: str) -> str:
    """A cone, an octahedron."""
    return f"{'an' if noun[:1].lower() in tuple('aeiou') else 'a'} {noun}"
