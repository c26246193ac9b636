"""A crowd at the served app: nobody's pictures are lost or crossed, and nothing is left behind."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.browser import serve
from benchmarks.memory import memory
from benchmarks.visitors import (
    BAD,
    CANCELLED,
    CROSSED,
    DRAWN,
    LEFT,
    Answer,
    Task,
    Visitor,
    counted,
    crossed,
    crowd,
    quiet,
)

CHEAP = (Task("small", 4), Task("small", 4, label=1), Task("big", 3))
HEAVY = Task("big", 60, pictures=16)


@pytest.fixture(scope="module")
def sources(ladder_files: list[Path]) -> dict[str, Path]:
    """The weights of the models that the crowd asks for."""
    return {path.stem: path for path in ladder_files}


def test_a_crowd_gets_what_it_asked_for_and_leaves_nothing_behind(
    sources: dict[str, Path], tmp_path: Path
) -> None:
    log = tmp_path / "app.log"
    with serve(["--weights", *map(str, sources.values()), "--training", "off"], log) as app:
        # Threads and models come with the first visitors.
        warm = crowd(app.address, 8, 2, CHEAP, HEAVY, least=2)
        assert quiet(app.address)
        before = memory("VmRSS", app.process)
        answers = [*warm, *crowd(app.address, 8, 8, CHEAP, HEAVY, least=3)]
        assert quiet(app.address)
        after = memory("VmRSS", app.process)
    found = counted(answers)
    assert not any(found[outcome] for outcome in BAD), [a.said for a in answers if a.outcome in BAD]
    assert not crossed(answers, sources)
    assert found[DRAWN] > 15 and found[CANCELLED] + found[LEFT]
    assert after < 1.1 * before
    assert "Traceback" not in log.read_text()


def test_a_picture_of_somebody_else_would_be_noticed(sources: dict[str, Path], address: str) -> None:
    visitor = Visitor(address, 1)
    own = visitor.ask(CHEAP[0])
    other = visitor.ask(CHEAP[0])
    visitor.close()
    assert own.outcome == other.outcome == DRAWN and not crossed([own, other], sources)
    swapped = Answer(own.task, own.seed, DRAWN, 0.0, other.pictures)
    assert crossed([own, swapped], sources) == [swapped]
    assert not np.array_equal(own.pictures[0], other.pictures[0]) and CROSSED in BAD
