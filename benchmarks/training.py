"""Our training step against a plain port of the field's usual loop: same model, same batches, in turn.

The peer is what facebookresearch/DiT's train.py does: eager, AdamW as it comes, the average by a loop over
the parameters. Batches are made before the clock starts, for both.

python -m benchmarks.training [--rounds 7] [--steps 3] [--models DiT-N/4 DiT-T/4] [--device auto] [--readme]
"""

import copy
import statistics
import time
from collections.abc import Callable

import torch
import tyro
from torch import Tensor

from benchmarks.readme import command, machine, write_block
from dit.diffusion import training_losses
from train.batch import Batch
from train.batches import Batches
from train.config import TrainConfig
from train.data import open_data
from train.hardware import Hardware, select
from train.loop import gradients
from train.recipes import RECIPES
from train.state import fresh_state

EMA_DECAY = 0.9999


class Ours:
    """The steps of train.loop, on batches that are there."""

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


def compare(
    name: str, recipe: str, batch_size: int, hardware: Hardware, rounds: int, steps: int
) -> tuple[str, float]:
    """Both sides in turn on one model; returns a row of the table, and the ratio of the medians.

    Raises:
        ArithmeticError: the two do not learn the same.
    """
    config = TrainConfig(model=name, prediction="v", lr=1e-3, batch_size=batch_size, num_pictures=1000)
    data = open_data(config)
    make = Batches(config, config.network(data.info), data, range(batch_size))
    batches = [make(step) for step in range(4)]
    peer = Peer(config, batches, hardware.device, hardware.bf16)
    sides: dict[str, Callable[[int], Tensor]] = {}
    kinds = {"usual loop": None, "ours, eager": "no", "ours, compiled": "yes"}
    for kind, compiled in kinds.items():
        if compiled is None:
            sides[kind] = peer.step
        else:
            choice = TrainConfig(**(vars(config) | {"compile": compiled}))
            sides[kind] = Ours(choice, batches, hardware).step
    first = {kind: [float(step(number)) for number in range(2)] for kind, step in sides.items()}  # warms up
    for kind, losses in first.items():
        if max(abs(a - b) for a, b in zip(losses, first["usual loop"], strict=True)) > 1e-3:
            raise ArithmeticError(f"{name}: {kind} has losses {losses}, the usual loop {first['usual loop']}")
    times: dict[str, list[float]] = {kind: [] for kind in sides}
    number = 2
    for _ in range(rounds):
        for kind, step in sides.items():
            began = time.perf_counter()
            for i in range(steps):
                loss = step(number + i)
            float(loss)  # waits for the device
            times[kind].append((time.perf_counter() - began) / steps)
        number += steps
    medians = {kind: statistics.median(taken) for kind, taken in times.items()}
    cells = [f"{batch_size / median:.1f}" for median in medians.values()]
    usual, auto = "usual loop", "ours, compiled" if hardware.compiles(RECIPES[recipe]) else "ours, eager"
    pairs = [a / b for a, b in zip(times[usual], times[auto], strict=True)]
    ratio = medians[usual] / medians[auto]
    spread = f"**{ratio:.2f}** ({min(pairs):.2f} to {max(pairs):.2f})"
    return f"| {name} | {batch_size} | {' | '.join(cells)} | {spread} |", ratio


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
        "| model | batch | usual loop, images/s | ours, eager | ours, compiled | ratio of our default |",
        "|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for name in models:
        lines.append(compare(name, "solids", batch_size, hardware, rounds, steps)[0])
        print(lines[-1], flush=True)
    typed = command("benchmarks.training", rounds=rounds, steps=steps, batch_size=batch_size, device=device)
    taken = f"Medians of {rounds} rounds in turn, {steps} steps each"
    lines.append(f"\n{taken}; {hardware.describe()}; {machine()}; {typed}")
    print(lines[-1])
    if readme:
        write_block("training", lines)


if __name__ == "__main__":
    tyro.cli(main)
