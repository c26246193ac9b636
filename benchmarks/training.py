"""Our training step against a plain port of the field's usual loop: same model, same batches, in turn.

The peer is what facebookresearch/DiT's train.py does: eager, AdamW as it comes, the average by a loop over
the parameters. Each side is a process of its own, as it would be; batches are made before the clock starts.

python -m benchmarks.training [--rounds 7] [--steps 3] [--models DiT-N/4 DiT-T/4] [--device auto] [--readme]
"""

import copy
import statistics
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection

import torch
import tyro
from torch import Tensor

from benchmarks.readme import command, write_block
from dit.diffusion import training_losses
from dit.flops import macs
from dit.speed import machine
from train.batch import Batch
from train.batches import Batches
from train.ceiling import matmul_ceiling, mfu
from train.config import TrainConfig
from train.data import open_data
from train.hardware import Hardware, select
from train.loop import gradients
from train.state import fresh_state

EMA_DECAY = 0.9999
SIDES = {"usual loop": "no", "ours, eager": "no", "ours, compiled": "yes"}  # and whether they are compiled
USUAL, OURS = "usual loop", "ours, compiled"


class Ours:
    """The steps of train.loop, on batches that are there, without what is recorded of them."""

    def __init__(self, config: TrainConfig, batches: list[Batch], hardware: Hardware) -> None:
        self.config, self.batches, self.hardware = config, batches, hardware
        self.state = fresh_state(config, config.network(), hardware)

    def step(self, number: int) -> Tensor:
        """One optimizer step; returns the mean loss."""
        config, state, hardware = self.config, self.state, self.hardware
        batch = self.batches[number % len(self.batches)]
        terms, _, norm = gradients(config, state, batch, config.batch_size, hardware)
        done = hardware.update(state.optimizer, config.lr, norm.isfinite())
        state.ema.update([hardware.number(1 - EMA_DECAY) * done])
        hardware.end_step()
        return terms["loss"].mean()


class Peer:
    """The usual loop."""

    def __init__(self, config: TrainConfig, batches: list[Batch], device: torch.device, bf16: bool) -> None:
        self.batches, self.device, self.bf16 = batches, device, bf16
        eager = Hardware(device, bf16)
        self.model = fresh_state(config, config.network(), eager).model
        self.ema = copy.deepcopy(self.model)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=config.lr, weight_decay=0)

    def step(self, number: int) -> Tensor:
        """One optimizer step; returns the mean loss."""
        batch = self.batches[number % len(self.batches)]
        x0, t, y, noise = (value.to(self.device) for value in (batch.x0, batch.t, batch.y, batch.noise))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            loss = training_losses(self.model, x0, t, y, noise)["loss"].mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            for average, parameter in zip(self.ema.parameters(), self.model.parameters(), strict=True):
                average.mul_(EMA_DECAY).add_(parameter, alpha=1 - EMA_DECAY)
        return loss.detach()


def serve(side: str, config: TrainConfig, device: str, line: Connection) -> None:
    """Be one side: told how many steps to take, answer with the losses and with the seconds of a step."""
    hardware, data = select(device), open_data(config)
    make = Batches(config, config.network(data.info), data, range(config.batch_size))
    batches = [make(step) for step in range(4)]
    if side == USUAL:
        step = Peer(config, batches, hardware.device, hardware.bf16).step
    else:
        step = Ours(config, batches, hardware).step
    number = 0
    while steps := line.recv():
        began = time.perf_counter()
        losses = [step(number + i) for i in range(steps)]
        losses = [float(loss) for loss in losses]  # waits for the device
        line.send((losses, (time.perf_counter() - began) / steps))
        number += steps


def compare(name: str, batch_size: int, hardware: Hardware, rounds: int, steps: int) -> str:
    """All sides in turn on one model; returns a row of the table.

    Raises:
        ArithmeticError: they do not learn the same.
    """
    context, lines, processes = get_context("spawn"), {}, []
    for side, compiled in SIDES.items():
        config = TrainConfig(
            model=name, prediction="v", lr=1e-3, batch_size=batch_size, num_pictures=1000, compile=compiled
        )
        lines[side], theirs = context.Pipe()
        arguments = (side, config, str(hardware.device), theirs)
        processes.append(context.Process(target=serve, args=arguments, daemon=True))
        processes[-1].start()

    def ask(side: str, steps: int) -> tuple[list[float], float]:
        lines[side].send(steps)
        return lines[side].recv()

    first = {side: ask(side, 2)[0] for side in SIDES}  # warms up
    for side, losses in first.items():
        if max(abs(a - b) for a, b in zip(losses, first[USUAL], strict=True)) > 1e-3:
            raise ArithmeticError(f"{name}: {side} has losses {losses}, the usual loop {first[USUAL]}")
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side in SIDES:
            times[side].append(ask(side, steps)[1])
    for side, process in zip(SIDES, processes, strict=True):
        lines[side].send(0)
        process.join()
    speeds = {side: batch_size / statistics.median(taken) for side, taken in times.items()}
    network = config.network(open_data(config).info)
    used = mfu(macs(network), speeds[OURS], matmul_ceiling(hardware.device, hardware.bf16))
    pairs = [a / b for a, b in zip(times[USUAL], times[OURS], strict=True)]
    spread = f"**{speeds[OURS] / speeds[USUAL]:.2f}** ({min(pairs):.2f} to {max(pairs):.2f})"
    cells = " | ".join(f"{speed:.1f}" for speed in speeds.values())
    return f"| {name} | {batch_size} | {cells} | {spread} | {used:.0%} |"


def main(
    rounds: int = 7,
    steps: int = 3,
    models: tuple[str, ...] = ("DiT-N/4", "DiT-T/4", "DiT-C/4"),
    batch_size: int = 64,
    device: str = "auto",
    readme: bool = False,
) -> None:
    """Compare at the sizes of the bundled models.

    Args:
        rounds: how often each side runs.
        steps: optimizer steps of one run.
        models: presets, trained on solids of 32 pixels.
        batch_size: pictures a step.
        device: what to train on.
        readme: write the table into README.md.
    """
    hardware = select(device)
    lines = [
        "| model | batch | usual loop, images/s | ours, eager | ours, compiled | ratio, compiled | MFU |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for name in models:
        lines.append(compare(name, batch_size, hardware, rounds, steps))
        print(lines[-1], flush=True)
    typed = command("benchmarks.training", rounds=rounds, steps=steps, batch_size=batch_size, device=device)
    taken = f"Medians of {rounds} rounds in turn, {steps} steps each"
    lines.append(f"\n{taken}; {hardware.describe()}; {machine()}; {typed}")
    print(lines[-1])
    if readme:
        write_block("training", lines)


if __name__ == "__main__":
    tyro.cli(main)
