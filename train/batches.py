"""Makes batches: which pictures a step sees, and all that is random about them, by its number alone."""

import numpy as np
import torch

from dit.config import ModelConfig
from train.augment import Warps, augment
from train.batch import Batch
from train.config import TrainConfig
from train.data import Data
from train.objective import draw_labels, draw_levels
from train.order import Order


class Batches:
    """The rows of each step's batch that one process computes: `batches(step)`. Pickles.

    What is random is drawn for the whole batch, or from a seed of the row's own: so a row is the same on any
    device and with any number of processes.
    """

    def __init__(
        self, config: TrainConfig, network: ModelConfig, data: Data, rows: range, detour: int = 0
    ) -> None:
        """rows: of `config.batch_size`. detour: another number takes other noise, with the same pictures."""
        self.config, self.network, self.data = config, network, data
        self.rows, self.detour = rows, detour
        self.order = Order(len(data), config.batch_size, config.seed, data.blocks)

    def indices(self, step: int) -> np.ndarray:
        """The pictures of the whole batch of step 0, 1, ...: (batch_size,)."""
        return self.order.indices(step)

    def __call__(self, step: int) -> Batch:
        """What this process computes of step 0, 1, ..."""
        config, n = self.config, self.config.batch_size
        own = slice(self.rows.start, self.rows.stop)
        entropy = [config.seed, self.detour, step]
        whole, *of_rows = np.random.SeedSequence(entropy).generate_state(1 + 2 * n, np.uint64)
        of_data, of_noise = np.array(of_rows[:n], np.uint64)[own], np.array(of_rows[n:], np.uint64)[own]
        generator = torch.Generator().manual_seed(int(whole >> np.uint64(1)))
        t = draw_levels(config, self.network, n, generator)
        mirrored = torch.rand(n, generator=generator) < (0.5 if config.flip else 0.0)
        dropped = torch.rand(n, generator=generator)
        x0, y = self.data.fetch(
            self.indices(step)[own], mirrored[own].numpy(), (of_data >> np.uint64(1)).astype(np.int64)
        )
        # Never none where the network takes them: a weight without gradients would stall several processes.
        labels = torch.zeros(len(x0), self.network.augment_dim) if self.network.augment_dim else None
        if config.augment:
            x0, labels = augment(x0, Warps.draw(n, config.augment, generator).of(own))
        noise = np.stack(
            [np.random.default_rng(seed).standard_normal(x0.shape[1:], np.float32) for seed in of_noise]
        )
        y = draw_labels(config, self.network, y, dropped[own])
        return Batch(x0.contiguous(), y, t[own], torch.from_numpy(noise), labels)
