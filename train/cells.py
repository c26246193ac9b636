"""A cell of a measured table: one model at one setting, drawn, looked at, and kept small."""

import base64
import hashlib
import io
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dit.backbone import Backbone
from dit.measured import Cell
from dit.pipeline import Pipeline, cost, macs_of
from dit.step_cache import Cost
from dit.weights import outline
from train.draws import Draw, draw, open_pipelines
from train.features import Extractor
from train.judging import Judging, told
from train.measures import measure
from train.reference import Reference

QUALITY = 90  # of the thumbnails' WebP
THUMBNAILS = 16  # pictures of a cell that are kept, at most: one a class
# What a table keeps of the measures: name -> where `measure` has it.
KEPT = {
    "frechet": ("frechet", "distance"),
    "kernel": ("kernel", "distance"),
    "class_score": ("score", "mean"),
    "precision": ("precision", "share"),
    "recall": ("recall", "share"),
    "accuracy": ("accuracy", "overall"),
}


@dataclass(frozen=True)
class Task:
    """A cell to be measured. Pickles, for a process of its own."""

    name: str  # of the model
    path: Path  # of its weights
    wish: Draw  # its sampler resolved
    judging: Judging
    device: str
    work_dir: Path

    @property
    def key(self) -> tuple[Any, ...]:
        """As `Cell.key`."""
        wish = self.wish
        setting = (wish.sampler, wish.guidance_scale, wish.guidance_interval, wish.cache_every)
        return self.name, wish.steps, *setting

    @property
    def folder(self) -> Path:
        """Keeps what is drawn until the cell is done."""
        described = repr((self.key, self.wish.seed))
        return self.work_dir / f"{self.name}-{hashlib.sha256(described.encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class Filled:
    """A cell, and what is true of the whole table."""

    cell: Cell
    classes: tuple[str, ...]
    about: dict[str, Any]  # reference set and features
    folder: Path  # of its pictures, to be removed when the cell is safe


@cache
def _outline(path: Path) -> Backbone:
    return outline(path)


def cost_of(task: Task) -> Cost:
    """Forward passes of one picture. Raises ValueError: the model cannot be sampled so."""
    model = _outline(task.path)
    return cost(model, task.wish.settings(range(1), model.config.num_classes))


@cache
def macs_of_task(task: Task) -> int:
    """Multiply-accumulates of one picture. Raises ValueError: the model cannot be sampled so."""
    return macs_of(_outline(task.path).config, cost_of(task))


@lru_cache(maxsize=1)
def _pipelines(path: Path, device: str) -> list[Pipeline]:
    """Kept between the cells of a process: neighbours are often of the same model."""
    return open_pipelines(path, device)


@lru_cache(maxsize=1)
def _judge(judging: Judging, path: Path, device: str) -> tuple[Extractor, Reference]:
    """What looks at a model's pictures, and what they are compared with."""
    return judging.open(_pipelines(path, device)[0])


def judged_by(task: Task) -> dict[str, Any]:
    """Reference set and features that a cell is measured by, as `Family.about` has them. Raises as `fill`."""
    return told(*_judge(task.judging, task.path, task.device))


def fill(task: Task) -> Filled:
    """Draw and measure a cell; without seconds, which others measure. Continues where it was stopped.

    Raises:
        ValueError: no classifier knows what the model draws.
        OSError: the pictures cannot be kept.
    """
    pipelines = _pipelines(task.path, task.device)
    extractor, reference = _judge(task.judging, task.path, task.device)
    pictures, labels = draw(pipelines, task.wish, task.folder, progress=False)
    recognised = pipelines[0].model.config.num_classes > 0 and extractor.classes
    found = measure(pictures, labels if recognised else None, extractor, reference, spatial=False)
    wish, measures = task.wish, {}
    for name, (group, value) in KEPT.items():
        if group in found:
            measures |= {name: found[group][value], f"{name}_interval": found[group]["interval"]}
    classes = tuple(pipelines[0].model.provenance.get("classes", ()))
    passes = cost_of(task)
    cell = Cell(
        model=task.name,
        sampler=wish.sampler,
        steps=wish.steps,
        guidance_scale=wish.guidance_scale,
        guidance_interval=wish.guidance_interval,
        cache_every=wish.cache_every,
        passes=passes.passes,
        reused=passes.reused,
        macs=macs_of_task(task),
        seconds=0.0,
        samples=len(pictures),
        seed=wish.seed,
        measures=measures,
        thumbnails=strip(pictures[: min(len(classes) or THUMBNAILS, THUMBNAILS)]),
    )
    real = {name: found["frechet"].get(name) for name in ("real", "real_pictures")}
    return Filled(cell, classes, told(extractor, reference) | real, task.folder)


def strip(pictures: np.ndarray) -> str:
    """Pictures (N, H, W, 3) uint8 side by side, as a data: URL of a WebP."""
    file = io.BytesIO()
    Image.fromarray(np.concatenate(list(pictures), axis=1)).save(file, "webp", quality=QUALITY, method=6)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
