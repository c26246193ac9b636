"""A family's table that nobody has measured: made up by a rule, so that tests know what is seen in it."""

import base64
from collections.abc import Sequence

import numpy as np

from dit.measured import Cell, Family, MeasuredModel
from dit.pictures import png

CLASSES = ("sphere", "cube", "cylinder", "cone", "torus")
OVERHEAD = 2e-3  # seconds of a pass, however small the model: so that time is not compute
STEPS = (1, 2, 4, 8, 16, 32, 64, 128, 250)


def strip(classes: int = len(CLASSES), side: int = 32, seed: int = 0) -> str:
    """A row of random pictures, each of one colour, as a cell has it."""
    colours = np.random.default_rng(seed).integers(0, 256, (1, classes, 1, 3), dtype=np.uint8)
    pixels = np.tile(colours[:, :, 0].repeat(side, axis=1), (side, 1, 1))
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()


def made_up(
    name: str = "toys",
    models: Sequence[tuple[str, int]] = (("small", 10_000_000), ("middle", 60_000_000), ("big", 400_000_000)),
    samplers: Sequence[str] = ("ddim", "ddpm"),
    guidances: Sequence[tuple[float, tuple[float, float] | None]] = ((1.0, None), (3.0, None)),
    caches: Sequence[int] = (1, 2),
) -> Family:
    """Models (name, MACs of a pass) whose distance falls with MACs and, down to a floor, with steps."""
    listed = tuple(
        MeasuredModel(
            name=model,
            preset="DiT-N/4",
            network="00",
            macs=macs,
            parameters=macs // 20,
            images_seen=1_000_000,
            seconds=OVERHEAD + macs / 1e10,
            seconds_reused=OVERHEAD + macs / 4e10,
        )
        for model, macs in models
    )
    cells = [
        _cell(model, sampler, *guidance, cache, steps)
        for model in listed
        for sampler in samplers
        for guidance in guidances
        for cache in caches
        for steps in STEPS
    ]
    about = {
        "reference": {"name": name, "pictures": 5000},
        "features": "classifier",
        "machine": "a made-up one",
    }
    return Family(name=name, classes=CLASSES, models=listed, cells=tuple(cells), about=about)


def _cell(
    model: MeasuredModel,
    sampler: str,
    scale: float,
    interval: tuple[float, float] | None,
    cache: int,
    steps: int,
) -> Cell:
    whole = -(-steps // cache)
    passes = 1 if scale == 1 else 2
    share = 1 if interval is None else (interval[1] - interval[0]) / 1000
    spent = (whole + (steps - whole) / 4) * (1 + (passes - 1) * share)
    floor = 600 / model.macs**0.3 * (0.8 if scale > 1 else 1)
    distance = floor * (1 + 8 / steps * (1.4 if sampler == "ddpm" else 1)) * (1 + 0.1 * (cache - 1))
    return Cell(
        model=model.name,
        sampler=sampler,
        steps=steps,
        guidance_scale=scale,
        guidance_interval=interval,
        cache_every=cache,
        passes=passes * steps,
        reused=passes * (steps - whole),
        macs=round(model.macs * spent),
        seconds=model.seconds * spent,
        samples=5000,
        seed=0,
        measures={
            "frechet": distance,
            "frechet_interval": [0.95 * distance, 1.05 * distance],
            "precision": 0.7,
            "recall": 0.4,
            "accuracy": 0.931,
        },
        thumbnails=strip(seed=steps),
    )
