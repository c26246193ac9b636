"""Ending a command from outside, by a signal, such that the same command goes on later."""

import os
import signal
import threading
from types import FrameType

RESUME_ME = 75  # exit status: EX_TEMPFAIL of sysexits.h, "try again later"
SIGNALS = ("SIGTERM", "SIGUSR1", "SIGINT")  # a scheduler's, a batch system's warning, Ctrl-C


class Preempted(Exception):
    """The command was asked to end, by the signal of the message, and goes on when it is given again."""


class Preemption:
    """While the block lasts, a signal raises Preempted; once `waits` is set, it is noted in `asked` only.

    Then the command ends where it can, with a checkpoint; a second Ctrl-C does not wait for that.
    """

    def __init__(self) -> None:
        self.waits = False
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
        if not self.waits:
            raise Preempted(f"{name}: stopped")
        if os.environ.get("RANK", "0") == "0":  # not print: this may have interrupted one
            os.write(2, f"\n{name}: ending after this step, with a checkpoint\n".encode())
