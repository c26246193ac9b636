"""Ending a run from outside: a signal asks for it, and the run ends after a step, with a checkpoint."""

import signal
import threading
from types import FrameType

RESUME_ME = 75  # exit status: EX_TEMPFAIL of sysexits.h, "try again later"
SIGNALS = ("SIGTERM", "SIGUSR1", "SIGINT")  # a scheduler's, a batch system's warning, Ctrl-C


class Preempted(Exception):
    """The run was asked to end, has written a checkpoint, and goes on from it with the same command."""


class Preemption:
    """Whether a signal has asked the run to end, while the block lasts; a second Ctrl-C does not wait."""

    def __init__(self) -> None:
        self.asked = ""  # the signal's name
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Preemption":
        if threading.current_thread() is threading.main_thread():  # only there can signals be caught
            for name in SIGNALS:
                if hasattr(signal, name):
                    number = getattr(signal, name)
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if name == "SIGINT" and self.asked == name:
            raise KeyboardInterrupt
        self.asked = name
