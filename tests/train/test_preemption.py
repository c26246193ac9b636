"""Signals that ask a run to end: it does, with a checkpoint, and goes on as if nothing had been."""

import os
import signal

import pytest
import torch
from safetensors.torch import load_file

from tests.train.forked import command, ended, start, wait_until
from tests.train.picture_files import picture
from train import solids
from train.__main__ import main
from train.checkpoint import checkpoints, step_of
from train.preemption import RESUME_ME, Preempted, Preemption

SETTINGS = [
    "smoke",
    "--depth=2",
    "--device=cpu",
    "--image-size=16",
    "--num-pictures=64",
    "--batch-size=8",
    "--micro-batch=8",
]
SETTINGS += [
    "--compile=no",
    "--precision=fp32",
    "--tracker=none",
    "--sample-every=100000",
    "--checkpoint-every=100000",
]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_a_signal_is_noted_and_handlers_are_put_back(name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with Preemption() as preemption:
        preemption.waits = True
        assert preemption.asked == ""
        os.kill(os.getpid(), number)
        assert preemption.asked == name
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_does_not_wait():
    with Preemption() as preemption, pytest.raises(KeyboardInterrupt):
        preemption.waits = True
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_where_nothing_is_to_be_saved_a_signal_ends_the_command_at_once():
    with Preemption(), pytest.raises(Preempted, match="SIGTERM: stopped"):
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_while_data_are_prepared(name, tmp_path, monkeypatch, capsys):
    drawn = solids.render

    def render(*arguments):
        os.kill(os.getpid(), getattr(signal, name))
        return drawn(*arguments)

    monkeypatch.setenv("DITLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(solids, "render", render)
    run_dir, settings = tmp_path / "run", [*SETTINGS, "--total-steps=1"]
    assert main([*settings, f"--run-dir={run_dir}"]) == RESUME_ME
    assert f"{name}: stopped; the same command continues" in capsys.readouterr().err
    assert not checkpoints(run_dir) and not list((tmp_path / "cache").glob("*.npy"))
    monkeypatch.setattr(solids, "render", drawn)
    assert main([*settings, f"--run-dir={run_dir}"]) == 0


@pytest.mark.parametrize(("name", "command_line"), [("SIGTERM", True), ("SIGUSR1", False)])
def test_a_preempted_run_says_so_and_goes_on(name, command_line, tmp_path, monkeypatch):
    monkeypatch.setattr("train.grid.CALLS", 4)  # a grid is drawn at the end
    run_dir, log = tmp_path / "run", tmp_path / "log"
    words = [*SETTINGS, "--total-steps=100000", "--log-every=1", f"--run-dir={run_dir}"]
    process = command(["-m", "train", *words], log) if command_line else start(main, words, log)
    wait_until((run_dir / "metrics.jsonl").exists, process, log)
    os.kill(process.pid, getattr(signal, name))
    assert ended(process) == RESUME_ME, log.read_text()
    assert f"{name}: stopped with a checkpoint" in log.read_text()
    (saved,) = checkpoints(run_dir)
    steps = step_of(saved) + 3
    assert main([*SETTINGS, f"--total-steps={steps}", "--log-every=1", f"--run-dir={run_dir}"]) == 0
    whole = tmp_path / "whole"
    assert main([*SETTINGS, f"--total-steps={steps}", "--log-every=1", f"--run-dir={whole}"]) == 0
    one, other = (load_file(folder / "weights.safetensors") for folder in (run_dir, whole))
    assert all(torch.equal(one[key], other[key]) for key in one)


DECODES = """
import os, sys
import train.stored
from train.__main__ import main

if __name__ == "__main__":
    os.setpgrp()
    train.stored.LIMIT = 0  # pictures are decoded for each step, which takes longer than the step
    sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_to_all_processes_of_a_run_that_waits_for_its_data(name, tmp_path):
    """As batch systems send it. Those that load and the one that started them have to outlive it a little."""
    pictures, run_dir, log = tmp_path / "pictures", tmp_path / "run", tmp_path / "log"
    for label in "ab":
        (pictures / label).mkdir(parents=True)
        for number in range(8):
            picture(number, side=1000).save(pictures / label / f"{number}.png")
    words = [*SETTINGS, f"--data={pictures}", "--num-pictures=0", "--depth=1", "--num-workers=1"]
    words += ["--total-steps=100000", "--log-every=1", f"--run-dir={run_dir}"]
    process = command(["-c", DECODES, *words], log)
    wait_until((run_dir / "metrics.jsonl").exists, process, log)
    os.killpg(process.pid, getattr(signal, name))
    assert ended(process) == RESUME_ME, log.read_text()
    assert f"{name}: stopped with a checkpoint" in log.read_text()
    assert "Traceback" not in log.read_text() and len(checkpoints(run_dir)) == 1
