"""Twenty kills at moments of no one's choosing: the run ends as if there had been none."""

import random
import time
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import multiprocessing

from train.checkpoint import checkpoints, step_of
from train.hardware import select
from train.loop import train
from train.recipes import RECIPES

KILLS = 20
CONFIG = replace(
    RECIPES["smoke"],
    image_size=16,
    num_pictures=64,
    batch_size=8,
    micro_batch=8,
    total_steps=120,
    log_every=3,
    checkpoint_every=5,
    sample_every=60,
    precision="fp32",
    tracker="none",
)


def run(run_dir: Path) -> None:
    torch.set_num_threads(1)
    train(CONFIG, run_dir, select("cpu", "fp32"))


def reached(run_dir: Path) -> int:
    return max((step_of(saved) for saved in checkpoints(run_dir)), default=0)


def test_twenty_kills_leave_no_trace(tmp_path):
    """Each process is killed some time after it has got further, or before, as the dice say."""
    train(CONFIG, tmp_path / "whole", select("cpu", "fp32"))
    context, dice, killed = multiprocessing.get_context("forkserver"), random.Random(0), tmp_path / "killed"
    context.set_forkserver_preload(["train.loop"])  # so that a process is there at once
    before = []
    for _ in range(KILLS):
        before.append(reached(killed))
        aim, process = min(before[-1] + dice.randint(0, 9), 110), context.Process(target=run, args=(killed,))
        process.start()
        deadline = time.monotonic() + 100
        while reached(killed) < aim:
            assert process.is_alive() and time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(dice.random() * 0.2)
        process.kill()
        process.join()
        assert process.exitcode == -9
    assert len(set(before)) > KILLS / 3 and reached(killed) < CONFIG.total_steps
    run(killed)
    one, other = (load_file(folder / "weights.safetensors") for folder in (killed, tmp_path / "whole"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    left = {path.relative_to(killed) for path in killed.rglob("*") if path.name != ".lock"}
    whole = tmp_path / "whole"
    assert left == {path.relative_to(whole) for path in whole.rglob("*") if path.name != ".lock"}
