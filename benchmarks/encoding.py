"""What encoding ImageNet to latents takes: pictures a second here, and the bytes and hours of a plan.

python -m benchmarks.encoding [--rounds 3] [--batch 1] [--device auto] [--readme]

Full-size random weights of the SD autoencoder, both flips of each picture. Hours of devices that are not at
hand are computed: from the encoder's multiply-accumulates, the peak that the maker states, and an assumed
share of it.
"""

import statistics
import time

import numpy as np
import torch
import tyro
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.full_size import random_autoencoder
from benchmarks.readme import command, write_block
from dit.autoencoder import Autoencoder
from dit.pipeline import find_device
from dit.speed import machine
from train.encoder import Encoder
from train.shards import FLIPS, posterior_bytes

IMAGENET = 1_281_167  # pictures of ILSVRC-2012's training set
SIDES = (256, 512)
# TFLOP/s of dense TF32, in which --precision auto runs convolutions, as NVIDIA's data sheets state them.
PEAKS = {"A100": 156, "H100 or H200 (SXM)": 494.7}
SHARE = 0.2  # of that peak, assumed: convolutions of 128 channels and norms between them are far from it


def encoder_macs(side: int) -> int:
    """Multiply-accumulates of encoding one picture once."""
    with torch.device("meta"):
        module, picture = random_autoencoder(), torch.empty(1, 3, side, side)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        module.quant_conv(module.encoder(picture))
    return counter.get_total_flops() // 2


def pictures_per_second(encoder: Encoder, side: int, batch: int, rounds: int) -> float:
    """Median of some rounds after one that warms up; both flips of each picture."""
    pictures = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), np.uint8)
    times = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        encoder(pictures, str)  # which brings the latents to the CPU, and so waits for them
        times.append(time.perf_counter() - started)
    return batch / statistics.median(times[1:])


def main(rounds: int = 3, batch: int = 1, device: str = "auto", readme: bool = False) -> None:
    """Measure here, and compute the plan.

    Args:
        rounds: how often a batch is encoded.
        batch: pictures.
        device: auto, cpu, cuda, ...
        readme: write the table into README.md.
    """
    autoencoder = Autoencoder("random weights of full size", random_autoencoder())
    encoder = Encoder(autoencoder, find_device(device), "auto")
    chosen = encoder.device
    here = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else machine()
    named = "measured here" if chosen.type in ("cpu", "cuda") else f"measured here ({chosen.type})"
    columns = [f"{name}, computed" for name in PEAKS]
    lines = [
        f"| ImageNet at | GMACs a picture | bytes | pictures/s, {named} | hours, so | "
        + " | ".join(f"hours, {column}" for column in columns)
        + " |",
        "|---|---|---|---|---|" + "---|" * len(columns),
    ]
    for side in SIDES:
        macs = FLIPS * encoder_macs(side)
        size = IMAGENET * posterior_bytes(autoencoder.channels, side // autoencoder.factor)
        rate = pictures_per_second(encoder, side, batch, rounds)
        hours = [f"{IMAGENET / rate / 3600:,.0f}" if rate < 100 else f"{IMAGENET / rate / 3600:,.1f}"]
        hours += [f"{IMAGENET * 2 * macs / (peak * 1e12 * SHARE) / 3600:.1f}" for peak in PEAKS.values()]
        measured = f"{rate:.3g} ({2 * macs * rate / 1e9:,.0f} GFLOP/s)"
        lines.append(
            f"| {side} px | {macs / 1e9:.0f} | {size:,} ({size / 1e9:.1f} GB) | {measured} | "
            + " | ".join(hours)
            + " |"
        )
        print("\n".join(lines) if side == SIDES[0] else lines[-1], flush=True)
    typed = command("benchmarks.encoding", rounds=rounds, batch=batch)
    lines.append(
        f"\n{IMAGENET:,} pictures, both flips, mean and deviation, {encoder.precision}; medians of {rounds} "
        f"rounds of {batch} pictures; computed: at an assumed {SHARE:.0%} of the stated TF32 peak of one "
        f"device ({', '.join(f'{name} {peak:g} TFLOP/s' for name, peak in PEAKS.items())}); {here}; {typed}"
    )
    print(lines[-1])
    if readme:
        write_block("encoding", lines)


if __name__ == "__main__":
    tyro.cli(main)
