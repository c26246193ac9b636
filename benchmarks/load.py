"""A crowd at the served app: what is lost or crossed, how long a cheap request takes, what memory stays.

python -m benchmarks.load [--visitors 50] [--seconds 120] [--readme]

Every visitor is a client of the API, all of them in this process, beside the server on the same machine.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import tyro

from benchmarks.browser import serve
from benchmarks.memory import memory
from benchmarks.readme import command, write_block
from benchmarks.visitors import BAD, CROSSED, DRAWN, PATIENCE, Task, Visitor, counted, crossed, crowd, quiet
from dit.speed import machine
from dit.weights import bundled
from ui.limits import USUAL

CHEAP = tuple(Task(f"DiT-{size}-4-solids", 8, label=label) for size in "EF" for label in range(2))
HEAVY = Task("DiT-N-4-solids", 40, pictures=16, guidance=2.0)
REST = 20.0  # seconds after the last has left, in which what is theirs is forgotten


def main(visitors: int = 50, seconds: float = 120, readme: bool = False) -> None:
    """Measure and print; exit status 1 if a result is lost or crossed, or if an error is no told limit.

    Args:
        visitors: at the same time.
        seconds: for which each of them asks; who waits then waits on.
        readme: write the table into README.md.
    """
    with tempfile.TemporaryDirectory() as folder, serve([], Path(folder) / "app.log") as app:
        first = Visitor(app.address, 0)
        for task in (*CHEAP, HEAVY):  # the models that are asked for
            first.ask(task)
        for _ in range(USUAL.sessions):  # each a session, as many as are kept
            first.leave(CHEAP[0], PATIENCE)
        first.close()
        before = resting(app.process)
        answers = crowd(app.address, visitors, seconds, CHEAP, HEAVY)
        empty = quiet(app.address)
        peak = memory("VmHWM", app.process)
        after = resting(app.process)
    wrong = crossed(answers, bundled())
    found = counted(answers)
    found[CROSSED] += len(wrong)
    found[DRAWN] -= len(wrong)
    cheap = [answer.seconds for answer in answers if answer.outcome == DRAWN and answer.task != HEAVY]
    lines = ["| what came of a request | how many |", "|---|---|"]
    lines += [f"| {outcome} | {found[outcome]:,} |" for outcome in dict.fromkeys([*found, *BAD])]
    lines += [
        f"| all | {len(answers):,} |",
        "",
        f"A cheap request took {np.median(cheap):.1f} s (median) and {np.percentile(cheap, 95):.1f} s (95 % "
        f"of them less). The server's memory: {before:.3f} GB before, with the models "
        f"that are asked for and all {USUAL.sessions} sessions that are kept, {peak:.3f} GB at its peak, "
        f"{after:.3f} GB after: {after / before - 1:+.1%}. The line is {'empty' if empty else 'NOT empty'} "
        "at the end.",
        f"\n{visitors} visitors for {seconds:g} s: 60 % cheap ({CHEAP[0].model} and {CHEAP[-1].model}, "
        f"{CHEAP[0].steps} steps), the others {HEAVY.pictures} pictures of {HEAVY.model} with {HEAVY.steps} "
        f"guided steps, of which a quarter is waited for; {machine()}; "
        + command("benchmarks.load", visitors=visitors, seconds=seconds),
    ]
    print("\n".join(lines))
    for answer in [*wrong, *(answer for answer in answers if answer.outcome in BAD)]:
        print(f"{answer.outcome}: {answer.task} seed {answer.seed}, {answer.seconds:.1f} s: {answer.said}")
    if readme:
        write_block("load", lines)
    if not empty or any(found[outcome] for outcome in BAD):
        raise SystemExit(1)


def resting(process: int) -> float:
    """Resident GB of a process that has nothing to do."""
    time.sleep(REST)
    return memory("VmRSS", process)


if __name__ == "__main__":
    tyro.cli(main)
