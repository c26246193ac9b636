"""A run before it is begun: its plan, with the speed of a real step on this machine."""

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import dit
from dit.classes import imagenet_classes
from train.batches import Batches
from train.config import TrainConfig
from train.data import Data, open_data
from train.hardware import Hardware
from train.loop import gradients
from train.pictures import DataInfo
from train.plan import Plan, footprint_of, micro_batch_for, share_of
from train.recipes import LATENTS
from train.state import fresh_state

IMAGENET_PICTURES = 1_281_167  # of the ILSVRC-2012 training set
LATENT_CHANNELS, FACTOR = 4, 8  # of SD's autoencoder
TIMED = 3  # steps; one more before them warms up
LARGE = 10**10  # MACs of a picture
LONG = 20.0  # seconds, after which no further step is timed


class Imagined:
    """Stands in for latents of ImageNet that are not encoded yet: noise, so that a step can be timed."""

    blocks = None

    def __init__(self, config: TrainConfig) -> None:
        classes = imagenet_classes() if config.class_conditional else ()
        self.info = DataInfo(config.data, classes, LATENT_CHANNELS, config.image_size // FACTOR)

    def __len__(self) -> int:
        return IMAGENET_PICTURES

    def fetch(self, indices: np.ndarray, mirrored: np.ndarray, seeds: np.ndarray) -> tuple[Tensor, Tensor]:
        """See `train.data.Data`."""
        shape = (len(indices), self.info.channels, self.info.side, self.info.side)
        return torch.randn(shape), torch.zeros(len(indices), dtype=torch.int64)


def rehearse(config: TrainConfig, hardware: Hardware) -> tuple[Plan, str]:
    """The plan of a run, and what was assumed for it, a line each.

    A few steps are really computed, where memory is enough for one picture.

    Raises:
        ValueError: the data cannot be used, or the batch not be shared so.
    """
    data, assumed = _data(config), ""
    if isinstance(data, Imagined):
        assumed = f"{config.data} is not there yet: planned for the {len(data):,} pictures of ImageNet\n"
    share_of(config, hardware.devices)  # raises, if it cannot be shared out
    there = hardware.memory()
    speed = None
    if there is None or footprint_of(config, data.info, hardware.devices, hardware.bf16).total(1) <= there:
        speed = images_per_second(config, data, hardware)
    else:
        there = None  # the plan says what is needed; that it is not here is said apart
        assumed += f"this machine has not the memory for it: {hardware.describe()}\n"
    plan = Plan.of(config, data.info, len(data), hardware.devices, there, speed, bf16=hardware.bf16)
    return plan, assumed


def _data(config: TrainConfig) -> Data:
    expected = LATENTS.format(config.image_size)
    if config.data == expected and not Path(expected).exists():
        return Imagined(config)
    return open_data(config)


def images_per_second(config: TrainConfig, data: Data, hardware: Hardware) -> float:
    """Pictures that a step takes in a second; on a CPU measured with few pictures at once, eagerly."""
    network = config.network(data.info)
    fits = micro_batch_for(config, data.info, hardware.devices, hardware.memory(), bf16=hardware.bf16)
    # On a GPU as many as will be, among which an update is spread; on a CPU few, so as to be there soon.
    micro_batch = min(8 if dit.macs(network) < LARGE else 1, fits) if hardware.device.type == "cpu" else fits
    if hardware.device.type == "cpu" and config.compile == "auto":
        config = replace(config, compile="no")  # compiling may take longer than all that is asked
    state = fresh_state(config, network, hardware)
    batches = Batches(config, network, data, hardware.rows(micro_batch * hardware.devices))
    times: list[float] = []
    for _ in tqdm(range(1 + TIMED), desc="timing steps", file=sys.stderr, disable=not hardware.is_main):
        if hardware.largest(int(sum(times) > LONG)):  # one step says enough of so slow a machine
            break
        batch = batches(0)
        began = time.perf_counter()
        _, _, norm = gradients(config, state, batch, micro_batch, hardware)
        done = hardware.update(state.optimizer, config.lr, norm.isfinite())
        state.ema.update([hardware.number(1 - decay) * done for decay in state.ema.decays(0)])
        hardware.end_step()
        float(norm)  # waits for the device
        times.append(time.perf_counter() - began)
    return micro_batch * hardware.devices / min(times[1:] or times)
