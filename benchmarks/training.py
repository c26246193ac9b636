"""Our training step against a plain port of the field's usual loop: same model, same batches, in turn.

The peer is what facebookresearch/DiT's train.py does: eager, AdamW as it comes, the average by a loop over the
parameters. Batches are made before the clock starts, for both.

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
