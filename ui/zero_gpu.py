"""ZeroGPU, where Hugging Face lends a Space a GPU for a call: each job is one, of an expected length.

The call runs in a process that is forked from this one. What goes there and comes back is pickled: a model's
name and settings there, frames back; the weights are read there. The package `spaces` comes with such a
Space, and is not needed elsewhere. See huggingface.co/docs/hub/spaces-zerogpu.
"""

import math
import os
from collections.abc import Callable, Iterator

from dit.pipeline import Frame
from dit.settings import SampleSettings
from dit.speed import Speed
from ui.request import find_rung
from ui.studio import Studio

READING = 10.0  # seconds for starting CUDA and reading a small model
SPARE = 2.0  # times the expectation: who needs more than was asked for is cut off
LONGEST = 120.0  # seconds that are asked for at most: a visitor without an account has them a day
OVERHEAD, RATE = 0.02, 5e12  # seconds a call and MACs a second, guessed until a job has told better
Lent = Callable[[str, SampleSettings], Iterator[Frame]]


def is_zero_gpu() -> bool:
    """Whether this is such a Space; it says so itself."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def seconds_for(studio: Studio, name: str, settings: SampleSettings) -> int:
    """How long a job asks a GPU for, by the cost model."""
    expected = find_rung(studio.rungs, name).seconds(settings)
    return math.ceil(min(LONGEST, READING + SPARE * expected))


def borrow(studio: Studio) -> None:
    """Have a studio draw on lent GPUs from now on."""
    import spaces  # of the Space alone

    def duration(name: str, settings: SampleSettings) -> int:
        return seconds_for(studio, name, settings)

    def stream(name: str, settings: SampleSettings) -> Iterator[Frame]:
        yield from studio.pipeline(find_rung(studio.rungs, name)).stream(settings)

    for rung in studio.rungs:
        rung.speed = Speed(OVERHEAD, rung.macs_per_pass / RATE)
    studio.lent = spaces.GPU(duration=duration)(stream)
