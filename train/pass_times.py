"""How long a forward pass takes here, of each of several models: medians of rounds in turn."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from tqdm import tqdm

from dit.flops import CACHEABLE
from dit.pipeline import Pipeline, find_device
from dit.step_cache import StepCache

BATCH = 50  # pictures
ROUNDS = 7


@dataclass(frozen=True)
class PassTime:
    """Seconds of one picture's pass in a batch."""

    whole: float
    reused: float  # with attention and MLPs of an earlier pass; of a U-shape as `whole`


@torch.inference_mode()
def time_passes(sources: dict[str, Path], device: str = "auto") -> dict[str, PassTime]:
    """By name, of the models in these files. Rounds go through all models, so that noise meets all alike."""
    where = find_device(device)
    works = {name: _passes(Pipeline.load(path, where)) for name, path in sources.items()}
    taken: dict[str, list[list[float]]] = {name: [[], []] for name in works}
    for _ in tqdm(range(ROUNDS + 1), desc="timing passes", unit="round"):  # the first warms up
        for name, work in works.items():
            for kind, run in enumerate(work):
                started = time.perf_counter()
                run()
                taken[name][kind].append((time.perf_counter() - started) / BATCH)
    return {name: PassTime(*(median(times[1:]) for times in both)) for name, both in taken.items()}


def _passes(pipeline: Pipeline) -> tuple[Callable[[], None], Callable[[], None]]:
    """A whole pass, and one after it that reuses; both wait for the device."""
    model, config = pipeline.model, pipeline.model.config
    x = torch.zeros(BATCH, config.in_channels, config.input_size, config.input_size, device=pipeline.device)
    t = torch.full((BATCH,), 500, device=pipeline.device)
    y = torch.zeros(BATCH, dtype=torch.long, device=pipeline.device) if config.num_classes else None

    def whole() -> None:
        model(x, t, y).sum().item()

    if config.backbone not in CACHEABLE:
        return whole, whole
    cache = StepCache(10**9)
    cache.begin(1, BATCH)
    model(x, t, y, run=cache)

    def reused() -> None:
        cache.begin(1, BATCH)
        model(x, t, y, run=cache).sum().item()

    return whole, reused
