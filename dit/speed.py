"""How long a forward pass takes on this machine: measured, and fitted to a cost model."""

import platform
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from dit.pipeline import Pipeline


@dataclass(frozen=True)
class Speed:
    """A measured cost model of one forward pass: seconds = overhead + per_picture * pictures."""

    overhead: float  # seconds
    per_picture: float  # seconds

    def seconds(self, passes: float, pictures: int, calls: int) -> float:
        """Expected seconds for a batch: `passes` forward passes a picture, in `calls` network calls."""
        return calls * self.overhead + passes * pictures * self.per_picture


@torch.inference_mode()
def measure_speed(pipeline: Pipeline, batches: tuple[int, int] = (2, 16), repeats: int = 3) -> Speed:
    """Time forward passes at two batch sizes, the fastest of a few repeats each, and fit `Speed` to them."""
    config, fastest = pipeline.model.config, []
    for batch in batches:
        x = torch.zeros(
            batch, config.in_channels, config.input_size, config.input_size, device=pipeline.device
        )
        t = torch.zeros(batch, dtype=torch.long, device=pipeline.device)
        times = []
        for _ in range(repeats + 1):  # the first warms up
            started = time.perf_counter()
            output = pipeline.model(x, t, t if config.num_classes else None)
            output.sum().item()  # waits for the device
            times.append(time.perf_counter() - started)
        fastest.append(min(times[1:]))
    per_picture = (fastest[1] - fastest[0]) / (batches[1] - batches[0])
    if per_picture <= 0:  # the machine was busy with something else: the larger batch alone says more
        return Speed(0.0, fastest[1] / batches[1])
    return Speed(max(0.0, fastest[0] - batches[0] * per_picture), per_picture)


def machine(device: torch.device | str = "cpu") -> str:
    """What computes, in words: the GPU, or the processor and the threads in use; and torch's version."""
    version = f"torch {torch.__version__.split('+')[0]}"
    if torch.device(device).type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {version}"
    name = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
            break
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}, {version}"
