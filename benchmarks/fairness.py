"""What a cheap request waits for while dear ones are drawn: equal shares, and first come, first served.

python -m benchmarks.fairness [--rounds 3] [--cheap 12] [--heavy 3] [--readme]

The peer is the same page whose jobs are drawn one after the other, each to its end, in the order of coming.
"""

import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import tyro

from benchmarks.browser import serve
from benchmarks.load import CHEAP, HEAVY
from benchmarks.readme import command, write_block
from benchmarks.visitors import DRAWN, Visitor
from dit.speed import machine
from ui import page
from ui.opening import open_studio
from ui.serve import serve as serve_page
from ui.tickets import Batch, Part
from ui.turns import Turns

SIDES = {
    "shared in equal parts": ("app.py", "--training", "off"),
    "first come, first served": ("-m", "benchmarks.fairness", "--peer"),
}
PAUSE = 0.5  # seconds between two cheap requests


class FirstCome(Turns):
    """One job at a time, each of its own, in the order of coming."""

    def _next(self) -> Batch | None:
        if self._drawn:
            return self._drawn[0] if any(part.wants for part in self._drawn[0].parts) else None
        first = min(self._waiting, key=lambda part: part.number)
        return self._begin(first)

    def _company(self, part: Part) -> list[Part]:
        return [part]


def waits(program: tuple[str, ...], cheap: int, heavy: int) -> list[float]:
    """Seconds of cheap requests, one after the other, while so many visitors have dear ones drawn always."""
    with tempfile.TemporaryDirectory() as folder, serve([], Path(folder) / "app.log", program=program) as app:
        visitor, others = Visitor(app.address, 0), [Visitor(app.address, 1 + i) for i in range(heavy)]
        visitor.ask(HEAVY), visitor.ask(CHEAP[0])  # reads the models
        over = threading.Event()

        def keep_asking(other: Visitor) -> None:
            while not over.is_set() and other.ask(HEAVY).outcome == DRAWN:
                pass

        threads = [threading.Thread(target=keep_asking, args=[other], daemon=True) for other in others]
        for thread in threads:
            thread.start()
        time.sleep(2)
        seconds = []
        for _ in range(cheap):
            seconds.append(visitor.ask(CHEAP[0]).seconds)
            time.sleep(PAUSE)
        over.set()
        for thread in threads:
            thread.join()
        for one in (visitor, *others):
            one.close()
            if bad := [answer for answer in one.answers if answer.outcome != DRAWN]:
                raise RuntimeError(f"a request was {bad[0].outcome}, so nothing was measured: {bad[0].said}")
        return seconds


def main(rounds: int = 3, cheap: int = 12, heavy: int = 3, readme: bool = False, peer: bool = False) -> None:
    """Measure both sides in turn and print.

    Args:
        rounds: how often each side is started and asked.
        cheap: requests of a round.
        heavy: visitors who have dear requests drawn all the time.
        readme: write the table into README.md.
        peer: measure nothing, but be the peer: serve.
    """
    if peer:
        studio = open_studio()
        serve_page(page.build(studio, turns=FirstCome(studio)), None)
        return
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side, program in SIDES.items():
            seconds[side] += waits(program, cheap, heavy)
    lines = [
        "| the device is | a cheap request takes (median) | 95 % take less than | the slowest |",
        "|---|---|---|---|",
    ]
    for side, each in seconds.items():
        told = (statistics.median(each), float(np.percentile(each, 95)), max(each))
        lines.append(f"| {side} | {' | '.join(f'{value:.1f} s' for value in told)} |")
    ours, theirs = (np.percentile(each, [50, 95]) for each in seconds.values())
    ratios = " and ".join(f"{ratio:.2g}" for ratio in theirs / ours)
    lines.append(
        f"\nFirst come, first served, it takes {ratios} times as long (median, 95 %). {heavy} visitors "
        f"always have {HEAVY.pictures} pictures of {HEAVY.model} drawn with {HEAVY.steps} guided steps; the "
        f"cheap request is one of {CHEAP[0].model} with {CHEAP[0].steps} steps, {rounds * cheap} times a "
        f"side; {machine()}; " + command("benchmarks.fairness", rounds=rounds, cheap=cheap, heavy=heavy)
    )
    print("\n".join(lines))
    if readme:
        write_block("fairness", lines)


if __name__ == "__main__":
    tyro.cli(main)
