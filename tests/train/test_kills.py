"""Twenty kills at moments of no one's choosing: the run ends as if there had been none."""

import random
import time
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.train.forked import ended, start, wait_until
from train import grid, loop
from train.checkpoint import checkpoints, step_of
from train.hardware import select
from train.recipes import RECIPES

KILLS = 20
ENDLESS = 10**6  # steps: no process comes to the end before it is killed, on any machine
IGNORED = {".lock", "changes.jsonl"}  # the latter: that ENDLESS was not what the run was to come to
CONFIG = replace(
    RECIPES["smoke"],
    depth=2,
    image_size=16,
    num_pictures=64,
    batch_size=8,
    micro_batch=8,
    log_every=3,
    checkpoint_every=5,
    sample_every=60,
    precision="fp32",
    compile="no",
    tracker="none",
)


def run(given: tuple[Path, int]) -> None:
    """So many steps, in a process of its own."""
    run_dir, steps = given
    grid.CALLS = 4  # grids would take most of the time
    loop.train(replace(CONFIG, total_steps=steps), run_dir, select("cpu", "fp32"))


def reached(run_dir: Path) -> int:
    return max((step_of(saved) for saved in checkpoints(run_dir)), default=0)


def test_twenty_kills_leave_no_trace(tmp_path):
    """Each process is killed some time after it has got further, or before, as the dice say."""
    whole, killed, log, dice = tmp_path / "whole", tmp_path / "killed", tmp_path / "log", random.Random(0)
    before = []
    for _ in range(KILLS):
        before.append(reached(killed))
        aim, process = before[-1] + dice.randint(0, 9), start(run, (killed, ENDLESS), log)
        wait_until(lambda aim=aim: reached(killed) >= aim, process, log)
        time.sleep(dice.random() * 0.2)
        process.kill()
        assert ended(process) == -9
    assert len(set(before)) > KILLS / 3
    steps = reached(killed) + 2 * CONFIG.checkpoint_every
    undisturbed = start(run, (whole, steps), tmp_path / "log of the whole")
    assert ended(start(run, (killed, steps), log)) == ended(undisturbed) == 0, log.read_text()
    one, other = (load_file(folder / "weights.safetensors") for folder in (killed, whole))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    left, expected = (
        {path.relative_to(folder) for path in folder.rglob("*") if path.name not in IGNORED}
        for folder in (killed, whole)
    )
    assert left == expected
