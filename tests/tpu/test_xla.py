"""Training through torch_xla: the curve of plain torch, compiled once, sharded, resumed, on four devices."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_xla
import torch_xla.debug.metrics as xla_metrics
from PIL import Image
from safetensors.torch import load_file

import dit
from train.batch import Batch
from train.checkpoint import checkpoints
from train.config import TrainConfig
from train.hardware import Hardware, select
from train.loop import train
from train.objective import draw_levels, losses
from train.xla import XlaHardware

XLA, CPU = select("tpu", "fp32"), Hardware(torch.device("cpu"), False)

STEPS, SAMPLES, SAVES = 50, 16, 12  # length of a run; of the stretches between grids, between checkpoints
TINY = TrainConfig(
    model="DiT-N/8",
    depth=1,
    prediction="v",
    image_size=16,
    num_pictures=64,
    num_workers=0,
    batch_size=8,
    total_steps=STEPS,
    lr=1e-3,
    lr_warmup_steps=8,
    grad_clip=1.0,
    ema_decay=0.8,
    log_every=1,
    sample_every=SAMPLES,
    checkpoint_every=SAVES,
    keep_every=SAVES,
    tracker="none",
)
SHORT = replace(TINY, total_steps=4, sample_every=1000, checkpoint_every=4)


class Watched(XlaHardware):
    """Notes how much was compiled up to each step, and what the optimizer holds."""

    def __init__(self, bf16: bool = False) -> None:
        super().__init__(bf16)
        self.compiled: list[int] = []

    def seed(self, seed: int, step: int) -> None:
        super().seed(seed, step)
        self.compiled.append(compilations())

    def optimizer(self, parameters, config):
        self.made = super().optimizer(parameters, config)
        return self.made


def poisoned(kind: type[Hardware], *arguments: object) -> Hardware:
    """Hardware on which the pictures of the third step are infinite."""

    class Poisoned(kind):
        def seed(self, seed: int, step: int) -> None:
            super().seed(seed, step)
            self.step = step

        def put(self, batch: Batch) -> Batch:
            return super().put(replace(batch, x0=batch.x0 / 0) if self.step == 2 else batch)

    return Poisoned(*arguments)


def compilations() -> int:
    """How many programs XLA has compiled in this process."""
    times = xla_metrics.metric_data("CompileTime")
    return times[0] if times else 0


def curve(run_dir: Path) -> dict[int, float]:
    """Step -> loss, as metrics.jsonl has it."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["loss"] for row in rows}


def weights(run_dir: Path) -> torch.Tensor:
    """All averaged weights, one after the other."""
    return torch.cat(
        [value.flatten() for _, value in sorted(load_file(run_dir / "weights.safetensors").items())]
    )


def close(one: dict[int, float], other: dict[int, float], rel: float = 2e-4) -> bool:
    """Whether two curves are of the same steps, and the same up to rounding, which training magnifies."""
    return one == pytest.approx(other, rel=rel)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, Watched]:
    """A run in one go, and the hardware that watched it."""
    run_dir, hardware = tmp_path_factory.mktemp("xla") / "run", Watched()
    train(TINY, run_dir, hardware)
    return run_dir, hardware


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """The same run without torch_xla."""
    run_dir = tmp_path_factory.mktemp("plain") / "run"
    train(replace(TINY, sample_every=1000), run_dir, CPU)
    return run_dir


def test_the_curve_is_that_of_plain_torch(whole, plain):
    assert XLA.devices == 4 and len(curve(plain)) == STEPS
    assert close(curve(whole[0]), curve(plain))
    assert torch.allclose(weights(whole[0]), weights(plain), atol=2e-3)


def test_nothing_is_compiled_after_the_first_steps_but_the_first_grid_and_checkpoint(whole):
    """Rates, decays, checkpoints and grids change from step to step; programs must not."""
    compiled = whole[1].compiled
    assert len(compiled) == STEPS
    assert compiled[SAVES - 1] == compiled[4] > 0
    assert compiled[-1] == compiled[SAMPLES + 1]


def test_grids_show_what_plain_torch_draws(whole, plain):
    """From the last checkpoint, drawn by the other; colours may be off by one where they are rounded."""
    name = f"step_{STEPS:08d}.png"
    one, other = (np.asarray(Image.open(path / "samples" / name)).astype(int) for path in (whole[0], plain))
    assert one.shape == other.shape and abs(one - other).max() <= 8
    assert one.std() > 10


def test_a_flow_model_trains_and_draws_as_in_plain_torch(tmp_path):
    config = replace(TINY, model="DiffiT-N/8", formulation="flow", prediction="epsilon")
    config = replace(config, total_steps=3, sample_every=3, checkpoint_every=3)
    for name, hardware in (("xla", XLA), ("cpu", CPU)):
        train(config, tmp_path / name, hardware)
    assert close(curve(tmp_path / "xla"), curve(tmp_path / "cpu"))
    one, other = (
        np.asarray(Image.open(next((tmp_path / name / "samples").iterdir()))) for name in ("xla", "cpu")
    )
    assert abs(one.astype(int) - other).mean() < 1


@pytest.mark.parametrize("name", ["DiffiT-C-32", "UNet-C"])  # EDM's formulation; convolutions of diffusers
@torch.no_grad()
def test_u_shapes_compute_as_in_plain_torch(name):
    model = dit.build(name, channel_mult=(1, 2), input_size=16, in_channels=3, num_classes=10).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.normal_(std=0.1, generator=generator)
    x0, noise = torch.randn(2, 8, 3, 16, 16, generator=generator)
    batch = Batch(x0, torch.arange(8), draw_levels(TINY, model.config, 8, generator), noise)
    expected = losses(TINY, model, batch)["loss"]
    found = XLA.to_host(losses(TINY, XLA.place(model, TINY), XLA.put(batch))["loss"])
    assert torch.allclose(found, expected, rtol=1e-4) and expected.std() > 1e-3


def test_what_a_network_draws_is_a_function_of_seed_and_step():
    draws = []
    for seed, step in ((0, 0), (0, 1), (1, 0), (10**12, 10**6), (0, 0)):
        XLA.seed(seed, step)
        draws.append(tuple(torch.rand(3, device=XLA.device).tolist()))
    assert draws[0] == draws[-1] and len(set(draws)) == 4


# --- other ways to compute the same ---


def test_fsdp_trains_alike_and_keeps_weights_moments_and_averages_in_parts(whole, tmp_path):
    hardware = Watched()
    config = replace(TINY, total_steps=20, parallel="fsdp", checkpoint_every=8, sample_every=8)
    train(config, tmp_path / "run", hardware)
    assert close(curve(tmp_path / "run"), {step: curve(whole[0])[step] for step in range(1, 21)})
    assert hardware.compiled[-1] == hardware.compiled[9]
    parts = 0
    for parameter, state in hardware.made.state.items():
        shardings = {
            torch_xla._XLAC._get_xla_sharding_spec(tensor)
            for tensor in (parameter, state["exp_avg"], state["exp_avg_sq"])
        }
        assert len(shardings) == 1, shardings
        parts += parameter.numel() if "devices=[" in shardings.pop() else 0
    assert parts > 0.99 * sum(parameter.numel() for parameter in hardware.made.state)


@pytest.mark.parametrize(
    "setting", [{"remat": True}, {"micro_batch": 1}, {"remat": True, "parallel": "fsdp"}]
)
def test_less_memory_gives_the_same_curve(whole, tmp_path, setting):
    train(replace(SHORT, **setting), tmp_path / "run", XLA)
    assert close(curve(tmp_path / "run"), {step: curve(whole[0])[step] for step in range(1, 5)})


def test_rematerialised_blocks_run_twice(monkeypatch, tmp_path):
    from dit.layers import Attention

    calls, forward = [], Attention.forward
    monkeypatch.setattr(
        Attention, "forward", lambda self, x: calls.append(torch.is_grad_enabled()) or forward(self, x)
    )
    train(replace(SHORT, total_steps=1, checkpoint_every=1, remat=True), tmp_path / "run", XLA)
    assert calls[:2] == [False, True]  # without gradients, and again with them


def test_bf16_is_of_the_products_alone(whole, tmp_path):
    train(SHORT, tmp_path / "run", XlaHardware(bf16=True))
    one, other = curve(tmp_path / "run"), {step: curve(whole[0])[step] for step in range(1, 5)}
    assert close(one, other, rel=2e-2)
    assert not close(one, other, rel=1e-6)
    state = load_file(next((checkpoints(tmp_path / "run")[-1]).glob("*.safetensors")))
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}


def test_a_step_that_is_not_finite_is_skipped(tmp_path):
    """As plain torch skips it, but without looking: the same weights, and the same count."""
    train(SHORT, tmp_path / "xla", poisoned(XlaHardware, False))
    train(SHORT, tmp_path / "cpu", poisoned(Hardware, torch.device("cpu"), False))
    rows = [json.loads(line) for line in (tmp_path / "xla" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["skipped"] == 1 and "loss" not in rows[2] and "loss" in rows[3]
    assert torch.allclose(weights(tmp_path / "xla"), weights(tmp_path / "cpu"), atol=2e-4)
    state = json.loads((checkpoints(tmp_path / "xla")[-1] / "state.json").read_text())
    assert state["skipped"] == 1 and state["in_row"] == 0


# --- checkpoints ---


@pytest.mark.parametrize("first", ["xla", "cpu"])
def test_checkpoints_go_from_one_hardware_to_the_other(whole, plain, tmp_path, first):
    """Cut back to a checkpoint in the middle, and continued by the other, a run ends as in one go."""
    source, other = (whole[0], CPU) if first == "xla" else (plain, Watched())
    shutil.copytree(source, tmp_path / "run")
    for checkpoint in checkpoints(tmp_path / "run")[1:]:
        shutil.rmtree(checkpoint)
    if first == "cpu":
        train(replace(TINY, sample_every=1000, parallel="fsdp"), tmp_path / "run", other)
        assert other.compiled[-1] == other.compiled[SAVES + 1]  # after its first checkpoint
    else:
        train(replace(TINY, sample_every=1000), tmp_path / "run", other)
    assert close(curve(tmp_path / "run"), curve(whole[0]), rel=1e-3)
    assert len(curve(tmp_path / "run")) == STEPS


def command(run_dir: Path, *more: str) -> list[str]:
    """TINY, as a user would type it, that draws and saves often."""
    words = "--model DiT-N/8 --depth 1 --prediction v --image-size 16 --num-pictures 64 --num-workers 0"
    words += " --batch-size 8 --total-steps 50 --lr 1e-3 --lr-warmup-steps 8 --grad-clip 1 --ema-decay 0.8"
    words += " --log-every 1 --sample-every 16 --checkpoint-every 12 --keep-every 12 --tracker none"
    words = "smoke " + words + f" --precision fp32 --run-dir {run_dir}"
    return [sys.executable, "-m", "train", *words.split(), *more]


def test_killed_and_resumed_by_command(whole, tmp_path, project):
    """kill -9 in the middle, then a signal to stop, then the end: all by the same command."""
    run_dir, options = tmp_path / "run", {"cwd": project, "stderr": subprocess.PIPE, "text": True}
    until = {signal.SIGKILL: SAVES + 2, signal.SIGTERM: 2 * SAVES + 2}
    for sent, step in until.items():
        process = subprocess.Popen(command(run_dir, "--device", "tpu"), **options)
        deadline = time.monotonic() + 240
        while process.poll() is None and time.monotonic() < deadline:
            lines = run_dir / "metrics.jsonl"
            if lines.exists() and len(lines.read_text().splitlines()) >= step and checkpoints(run_dir):
                process.send_signal(sent)
                break
            time.sleep(0.02)
        _, told = process.communicate(timeout=120)
        assert process.returncode == (-signal.SIGKILL if sent == signal.SIGKILL else 75), told
        assert checkpoints(run_dir) and len(curve(run_dir)) < STEPS
    done = subprocess.run(command(run_dir, "--device", "tpu"), **options, stdout=subprocess.PIPE)
    assert done.returncode == 0, done.stderr
    assert curve(run_dir) == pytest.approx(curve(whole[0]), rel=1e-5)
    assert sorted(path.name for path in (run_dir / "samples").iterdir()) == sorted(
        path.name for path in (whole[0] / "samples").iterdir()
    )


# --- what is refused ---


@pytest.mark.parametrize("name", ["XLA_USE_BF16", "XLA_DOWNCAST_BF16"])
def test_an_environment_that_makes_weights_bf16_is_refused(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    with pytest.raises(ValueError, match=f"{name} is '1'.*--precision bf16"):
        select("tpu")


def test_torchrun_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="without torchrun"):
        select("tpu")


def test_torch_compile_is_refused(tmp_path):
    with pytest.raises(ValueError, match="compile is 'yes'.*leave it at auto"):
        train(replace(SHORT, compile="yes"), tmp_path / "run", XLA)


@pytest.mark.parametrize(
    ("asked", "told"), [("", "there is no TPU here, only CPU"), ("TPU", "PJRT_DEVICE is 'TPU'.*libtpu")]
)
def test_a_tpu_that_is_not_there_is_refused(tmp_path, project, asked, told):
    environment = {name: value for name, value in os.environ.items() if name != "PJRT_DEVICE"}
    environment |= {"PJRT_DEVICE": asked} if asked else {}
    done = subprocess.run(
        command(tmp_path / "run", "--device", "tpu"),
        env=environment,
        cwd=project,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and not (tmp_path / "run").exists()
    assert re.search(told, done.stderr), done.stderr
