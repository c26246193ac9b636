"""Where labels stand in a drawing: near their points, and over nothing."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

RADIUS = 6.5  # of a point's mark
LETTER = 0.62  # width of a letter, in font sizes
LINE = 1.1  # height of a line of text, in font sizes
GAP = 8.0  # between two labels side by side
CLEAR = 5.0  # between a label and the marks of others, once a line leads to its own
SHORT = 2  # letters of a label that fits above its point


@dataclass(frozen=True)
class Box:
    """A rectangle on the canvas; y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box") -> bool:
        """Whether the two share an area."""
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom

    def within(self, other: "Box") -> bool:
        """Whether it lies inside entirely."""
        across = self.left >= other.left and self.right <= other.right
        return across and self.top >= other.top and self.bottom <= other.bottom

    def distance(self, x: float, y: float) -> float:
        """Of a place from it; 0 inside."""
        return math.hypot(max(self.left - x, x - self.right, 0), max(self.top - y, y - self.bottom, 0))


@dataclass(frozen=True)
class Placed:
    """Where a label stands."""

    box: Box
    side: int  # of the point: 1 right of it, -1 left, 0 above or below; the text begins or ends there
    leader: tuple[float, float] | None  # where the line ends that leads here from a point further off


def place_labels(
    points: Sequence[tuple[float, float]],
    labels: Sequence[str],
    plot: Box,
    font: float,
    leaders: bool = True,
    drawn: Sequence[Box] = (),
) -> list[Placed | None]:
    """A place for each label, near its point, or None where there is none.

    No label covers a point or another label, and none stands nearer to another point than to its own, unless
    a line leads there. Earlier labels have the choice, but for those who would get nothing.

    points: places on the canvas. leaders: whether lines may lead to labels further off. drawn: what else no
    label may cover, though such lines may cross it.
    """
    order, best = list(range(len(labels))), {}
    for _ in labels:
        placed = _in_order(order, points, labels, plot, font, (leaders, drawn))
        best = max(best, placed, key=len)
        without = [i for i in order if labels[i] and i not in placed]
        if not without:
            break
        order = [*without, *(i for i in order if i not in without)]
    return [best.get(i) for i in range(len(labels))]


def _in_order(
    order: Sequence[int],
    points: Sequence[tuple[float, float]],
    labels: Sequence[str],
    plot: Box,
    font: float,
    further: tuple[bool, Sequence[Box]],
) -> dict[int, Placed]:
    """The places by index, of those that find one. further: `leaders` and `drawn`."""
    leaders, drawn = further
    marks = [Box(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS) for x, y in points]
    taken: list[Box] = []
    placed: dict[int, Placed] = {}
    for i in order:
        label = labels[i]
        others = [point for j, point in enumerate(points) if j != i]

        def fits(place: Placed, i: int = i, others: Sequence[tuple[float, float]] = others) -> bool:
            if not place.box.within(plot) or any(map(place.box.meets, (*marks, *taken, *drawn))):
                return False
            nearest = min((place.box.distance(*other) for other in others), default=math.inf)
            if place.leader is None:
                return place.box.distance(*points[i]) < nearest
            return nearest > RADIUS + CLEAR and not _crosses(points[i], place.leader, (*marks, *taken), i)

        found = next(filter(fits, _candidates(*points[i], label, font, leaders)), None) if label else None
        if found:
            taken.append(Box(found.box.left - GAP, found.box.top, found.box.right + GAP, found.box.bottom))
            placed[i] = found
    return placed


def _candidates(x: float, y: float, label: str, font: float, leaders: bool) -> Iterator[Placed]:
    """Places around a point, the nearest first; from some distance on a line must lead there."""
    width, height = len(label) * font * LETTER, font * LINE
    beside, above = [(1, 0), (-1, 0)], [(0, -1), (0, 1)]
    straight = [*above, *beside] if len(label) <= SHORT else [*beside, *above]
    for distance in (2, 12, 20, 28, 38, 50, 64) if leaders else (2,):
        for right, down in (*straight, (1, -1), (-1, 1), (1, 1), (-1, -1)):
            reach = (RADIUS + distance) * (0.75 if right and down else 1.0)
            near_x, near_y = x + right * reach, y + down * reach
            left, top = near_x - width * (1 - right) / 2, near_y - height * (1 - down) / 2
            box = Box(left, top, left + width, top + height)
            yield Placed(box, right, (near_x, near_y) if distance > 6 else None)


def _crosses(start: tuple[float, float], end: tuple[float, float], boxes: Sequence[Box], own: int) -> bool:
    """Whether the line runs through one of the boxes, its own mark left out."""
    for step in range(1, 21):
        x, y = (a + (b - a) * step / 20 for a, b in zip(start, end, strict=True))
        if any(
            box.left < x < box.right and box.top < y < box.bottom for box in (*boxes[:own], *boxes[own + 1 :])
        ):
            return True
    return False
