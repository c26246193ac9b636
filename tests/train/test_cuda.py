"""What only a CUDA GPU can show: runs are exact there, and the same however they are computed."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from train.__main__ import main

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")

SETTINGS = ["smoke", "--device=cuda", "--tracker=none", "--log-every=5", "--sample-every=1000"]
SETTINGS += ["--checkpoint-every=10", "--batch-size=16"]


def run(run_dir: Path, steps: int, *more: str) -> Path:
    assert main([*SETTINGS, f"--total-steps={steps}", f"--run-dir={run_dir}", *more]) == 0
    return run_dir


def column(run_dir: Path, name: str) -> list[float]:
    return [json.loads(line)[name] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(precision, tmp_path):
    exact = ["--deterministic", f"--precision={precision}", "--compile=no"]
    whole = run(tmp_path / "whole", 20, *exact)
    run(tmp_path / "parts", 10, *exact)
    parts = run(tmp_path / "parts", 20, *exact)
    one, other = (load_file(folder / "weights.safetensors") for folder in (whole, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "how",
    [["--compile=yes"], ["--parallel=fsdp"], ["--parallel=fsdp", "--compile=yes"], ["--remat"]],
    ids=str,
)
def test_however_it_is_computed_it_is_the_same_run(how, tmp_path):
    plain = run(tmp_path / "plain", 20, "--precision=fp32", "--compile=no", "--micro-batch=8")
    choice = ["--compile=no", *how] if "--compile=yes" not in how else how
    other = run(tmp_path / "other", 20, "--precision=fp32", "--micro-batch=8", *choice)
    assert column(other, "loss") == pytest.approx(column(plain, "loss"), abs=1e-4)


def test_bf16_learns_as_float32_does(tmp_path):
    full, half = (run(tmp_path / name, 50, f"--precision={name}") for name in ("fp32", "bf16"))
    assert column(half, "loss") == pytest.approx(column(full, "loss"), rel=0.05)


def test_rematerialising_takes_less_memory(tmp_path):
    sizes = ["--batch-size=256", "--micro-batch=256", "--compile=no", "--model=DiT-S/4"]
    kept, again = (run(tmp_path / str(len(how)), 5, *sizes, *how) for how in ([], ["--remat"]))
    assert max(column(again, "memory_gb")) < 0.7 * max(column(kept, "memory_gb"))
