"""Several processes train as one does: same pictures, same noise, same weights but for rounding."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.train.forked import command, ended, start, wait_until
from train import grid
from train.__main__ import main
from train.batches import Batches
from train.checkpoint import checkpoints, step_of
from train.config import TrainConfig
from train.data import open_data
from train.preemption import RESUME_ME

SETTINGS = ["smoke", "--depth=2", "--device=cpu", "--image-size=16", "--num-pictures=64", "--batch-size=8"]
SETTINGS += ["--compile=no", "--precision=fp32", "--tracker=none", "--log-every=5", "--checkpoint-every=10"]
STEPS = 30
FIRST_STEPS = ["--total-steps=10", "--sample-every=1000", "--micro-batch=2"]


def work(arguments: list[str]) -> int:
    """In one of the processes that torchrun would start."""
    grid.CALLS = 4  # grids would take most of the time
    return main([*SETTINGS, *arguments])


def start_all(world: int, arguments: list[str], folder: Path) -> tuple[list[BaseProcess], list[Path]]:
    """As many processes, which train together, and where each writes what it has to say."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        store = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    store["WORLD_SIZE"] = str(world)
    logs = [folder / f"rank{rank}.log" for rank in range(world)]
    return [
        start(work, arguments, log, RANK=str(rank), LOCAL_RANK=str(rank), **store)
        for rank, log in enumerate(logs)
    ], logs


def run(world: int, arguments: list[str], folder: Path) -> None:
    processes, logs = start_all(world, arguments, folder)
    assert list(map(ended, processes)) == [0] * world, "\n".join(log.read_text()[-2000:] for log in logs)


def losses(run_dir: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def difference(one: Path, other: Path) -> float:
    a, b = (load_file(run_dir / "weights.safetensors") for run_dir in (one, other))
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """One process's run."""
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    arguments = [f"--total-steps={STEPS}", "--sample-every=1000", "--micro-batch=8", f"--run-dir={run_dir}"]
    assert main([*SETTINGS, *arguments]) == 0
    return run_dir


@pytest.fixture(scope="module")
def sharded(tmp_path_factory) -> Path:
    """What four processes saved at step 10, each its share of the weights; not to be written to."""
    run_dir = tmp_path_factory.mktemp("sharded") / "run"
    run(4, [*FIRST_STEPS, "--parallel=fsdp", f"--run-dir={run_dir}"], run_dir.parent)
    return run_dir


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Path:
    """The same, of processes that have all the weights; not to be written to."""
    run_dir = tmp_path_factory.mktemp("copied") / "run"
    run(4, [*FIRST_STEPS, "--parallel=ddp", f"--run-dir={run_dir}"], run_dir.parent)
    return run_dir


@pytest.mark.parametrize(
    ("processes", "extra"),
    [
        (1, ["--micro-batch=2"]),  # gradients of four parts added up
        (1, ["--micro-batch=8", "--remat"]),
        (1, ["--micro-batch=8", "--parallel=fsdp"]),
        (2, ["--micro-batch=4", "--parallel=ddp"]),
        (2, ["--micro-batch=2", "--parallel=fsdp", "--remat"]),
        (4, ["--micro-batch=1", "--parallel=ddp"]),
        (4, ["--micro-batch=2", "--parallel=fsdp"]),
    ],
    ids=lambda value: value if isinstance(value, int) else " ".join(value),
)
def test_however_the_work_is_shared_the_run_is_the_same(processes, extra, alone, tmp_path):
    """To rounding: sums over processes are taken in another order. A sharded run draws grids on its way."""
    arguments = [f"--total-steps={STEPS}", "--sample-every=20", *extra, f"--run-dir={tmp_path}"]
    run(processes, arguments, tmp_path)
    assert losses(tmp_path) == pytest.approx(losses(alone), abs=1e-5)
    assert difference(tmp_path, alone) < 1e-5
    assert {path.name for path in (tmp_path / "samples").iterdir()} == {
        f"step_{step:08d}.png" for step in (20, 30)
    }


def test_what_the_tolerance_above_would_not_let_pass(alone, tmp_path):
    """Other noise, for one step of thirty, already ends further away."""
    arguments = [f"--total-steps={STEPS}", "--sample-every=1000", "--seed=1", f"--run-dir={tmp_path}"]
    run(1, arguments, tmp_path)
    assert difference(tmp_path, alone) > 1e-3


@pytest.mark.parametrize(("saved", "then"), [("sharded", "ddp"), ("copied", "fsdp"), ("sharded", "fsdp")])
def test_a_run_saved_by_four_processes_goes_on_with_two(saved, then, alone, tmp_path, request):
    shutil.copytree(request.getfixturevalue(saved), tmp_path, dirs_exist_ok=True)
    run_dir = [f"--run-dir={tmp_path}", "--sample-every=1000"]
    assert [step_of(saved) for saved in checkpoints(tmp_path)] == [10]
    assert len(list(checkpoints(tmp_path)[0].glob("*.safetensors"))) == 4
    run(2, [f"--total-steps={STEPS}", f"--parallel={then}", "--micro-batch=4", *run_dir], tmp_path)
    assert losses(tmp_path) == pytest.approx(losses(alone), abs=1e-5)
    assert difference(tmp_path, alone) < 1e-5
    changes = [json.loads(line) for line in (tmp_path / "changes.jsonl").read_text().splitlines()]
    assert changes[0]["after"] == "step_00000010" and changes[0]["set"]["total_steps"] == STEPS


def test_a_signal_to_one_process_ends_all_at_the_same_step(tmp_path):
    arguments = ["--total-steps=100000", "--log-every=1", "--checkpoint-every=100000"]
    arguments += ["--sample-every=100000", "--micro-batch=4", f"--run-dir={tmp_path}"]
    processes, logs = start_all(2, arguments, tmp_path)
    wait_until((tmp_path / "metrics.jsonl").exists, processes[0], logs[0])
    os.kill(processes[1].pid, signal.SIGTERM)
    assert list(map(ended, processes)) == [RESUME_ME] * 2
    (saved,) = checkpoints(tmp_path)
    assert step_of(saved) >= 1 and len(list(saved.glob("*.safetensors"))) == 2
    assert "stopped with a checkpoint; the same command continues" in logs[0].read_text()


def test_a_signal_to_torchrun_is_passed_on(tmp_path):
    """As the README says it: by itself torchrun ends without a word to its processes."""
    words = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    words += ["--signals-to-handle=SIGTERM,SIGINT,SIGUSR1", "--shutdown-timeout=600", "-m", "train"]
    words += [*SETTINGS, "--total-steps=100000", "--log-every=1", "--checkpoint-every=100000"]
    words += ["--sample-every=100000", "--micro-batch=4", f"--run-dir={tmp_path}"]
    log = tmp_path / "log"
    process = command(words, log, OMP_NUM_THREADS="1")
    wait_until((tmp_path / "metrics.jsonl").exists, process, log)
    os.kill(process.pid, signal.SIGUSR1)
    ended(process)
    assert "SIGUSR1: stopped with a checkpoint; the same command continues" in log.read_text()
    (saved,) = checkpoints(tmp_path)
    assert step_of(saved) >= 1


@pytest.mark.parametrize(
    ("processes", "arguments", "message"),
    [
        (3, [], "batch_size is 8.*3"),
        (2, ["--micro-batch=3"], "micro_batch is 3.*4 pictures"),
        (2, ["--device=cpu:1"], "device is 'cpu:1'"),
    ],
)
def test_what_cannot_be_shared_is_refused(processes, arguments, message, tmp_path):
    words = [*arguments, "--total-steps=1", f"--run-dir={tmp_path / 'run'}"]
    started, logs = start_all(processes, words, tmp_path)
    assert list(map(ended, started)) == [1] * processes
    assert re.search(f"error: .*{message}", logs[0].read_text())


def test_torchrun_starts_them_as_the_readme_says(alone, project, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    settings = [
        *SETTINGS,
        "--total-steps=5",
        "--sample-every=1000",
        "--micro-batch=4",
        f"--run-dir={tmp_path}",
    ]
    command = [*launcher, "-m", "train", *settings]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == [str(tmp_path / "weights.safetensors")]  # the main process alone speaks
    assert losses(tmp_path) == pytest.approx(losses(alone)[:1], abs=1e-5)


def test_each_picture_is_seen_once_an_epoch_by_any_number_of_processes(cache):
    config = TrainConfig(model="DiT-N/8", image_size=16, num_pictures=50, batch_size=12)
    data = open_data(config)
    network = config.network(data.info)

    def walk(world: int) -> list[torch.Tensor]:
        shares = [range(rank * 12 // world, (rank + 1) * 12 // world) for rank in range(world)]
        parts = [Batches(config, network, data, rows) for rows in shares]
        return [[make(step) for make in parts] for step in range(25)]

    one, four = walk(1), walk(4)
    for whole, parts in zip(one, four, strict=True):
        for field in ("x0", "y", "t", "noise"):
            together = torch.cat([getattr(part, field) for part in parts])
            assert torch.equal(together, getattr(whole[0], field))
    order = np.concatenate([Batches(config, network, data, range(12)).indices(step) for step in range(25)])
    for epoch in range(6):
        assert sorted(order[epoch * 50 : (epoch + 1) * 50]) == list(range(50))
