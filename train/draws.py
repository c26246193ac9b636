"""Many pictures of a model, for measuring: over all devices, and continued where it was stopped.

Picture k shows class k % classes and starts from seed `seed + k`, so that more pictures contain the fewer.
"""

import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from dit.config import ModelConfig
from dit.digest import digest_of
from dit.files import atomic_write, discard_partials
from dit.pipeline import Pipeline, find_device
from dit.settings import SampleSettings

OF_THE_SET = ("samples", "seed", "batch_size")  # what of a `Draw` is no setting of a picture
DESCRIPTION = "settings.json"  # beside the chunks: what they were drawn with


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Everything that decides the pictures besides the weights.

    Raises:
        ValueError: a number of pictures below 1, or what `SampleSettings` refuses.
    """

    samples: int = 1000  # pictures of all classes together
    steps: int = 50
    guidance_scale: float = 1.0
    sampler: str = "auto"
    spacing: str = "auto"
    eta: float = 0.0
    guidance_interval: tuple[float, float] | None = None
    guided_channels: int | None = None
    guidance_schedule: str = "auto"
    cache_every: int = 1
    seed: int = 0  # of the first picture; each further one has the next
    batch_size: int = 50  # pictures drawn together; decides no more than the last bits

    def __post_init__(self) -> None:
        for name in ("samples", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        self.settings(range(1), 1)

    def settings(self, numbers: range, classes: int) -> SampleSettings:
        """How to draw the pictures with these numbers. classes: of the model, 0 of an unconditional one."""
        return SampleSettings(
            classes=[k % max(classes, 1) for k in numbers],
            seeds=[self.seed + k for k in numbers],
            **{name: value for name, value in vars(self).items() if name not in OF_THE_SET},
        )

    def resolved(self, config: ModelConfig) -> "Draw":
        """The same with nothing left to be chosen. Raises ValueError: cannot serve this model."""
        own = self.settings(range(1), config.num_classes).resolved(config)
        chosen = {name: getattr(own, name) for name in ("sampler", "spacing", "guidance_schedule")}
        return replace(self, **chosen)

    def batches(self) -> list[range]:
        """The numbers of the pictures that are drawn together."""
        starts = range(0, self.samples, self.batch_size)
        return [range(start, min(start + self.batch_size, self.samples)) for start in starts]


def open_pipelines(source: Path | str, device: str = "auto") -> list[Pipeline]:
    """One pipeline for each CUDA device; of any other kind, or of a device named, one.

    Raises:
        WeightsError: the weights cannot be loaded.
        ValueError: no such device.
    """
    if device == "auto" and torch.cuda.device_count() > 1:
        return [Pipeline.load(source, f"cuda:{i}") for i in range(torch.cuda.device_count())]
    return [Pipeline.load(source, find_device(device))]


def draw(
    pipelines: Sequence[Pipeline], wish: Draw, folder: Path | None = None, progress: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """The model's pictures (N, H, W, 3) uint8, and the labels (N,) int64 that they were asked to show.

    Labels are 0 of an unconditional model. The pipelines, all of the same model, share the batches out.

    folder: keeps each batch that is done, in a sub-folder of these weights and settings alone; the same call
    continues there. The result is the same, bit for bit, as if never stopped. progress: show a bar.

    Raises:
        ValueError: settings that the sampler or the model cannot serve.
        OSError: the folder cannot be written to.
    """
    classes = pipelines[0].model.config.num_classes
    kept = None if folder is None else _Kept.open(folder, describe(pipelines[0], wish))
    batches = wish.batches()
    found = {batch: kept.read(batch) for batch in batches} if kept else dict.fromkeys(batches)
    missing = [batch for batch in batches if found[batch] is None]
    done = wish.samples - sum(map(len, missing))
    with tqdm(
        total=wish.samples * wish.steps,
        initial=done * wish.steps,
        desc="drawing",
        unit="step",
        disable=not progress,
    ) as bar:  # one picture, one step

        def work(pipeline: Pipeline, queue: Iterator[range], stop: threading.Event) -> None:
            """Draw batches until there are none, or another pipeline has failed."""
            for batch in queue:
                pictures = _pictures(pipeline, wish.settings(batch, classes), bar, stop)
                if pictures is None:
                    return
                if kept:
                    kept.write(batch, pictures)
                found[batch] = pictures

        _share(pipelines, missing, work)
    return np.concatenate([found[batch] for batch in batches]), np.arange(wish.samples) % max(classes, 1)


def describe(pipeline: Pipeline, wish: Draw) -> dict[str, Any]:
    """What decides each picture, as JSON values: the network's digest, and the settings but for how many."""
    autoencoder = pipeline.autoencoder.source if pipeline.autoencoder else None
    settings = {name: value for name, value in asdict(wish).items() if name != "samples"}
    return {"network": digest_of(pipeline.model), "autoencoder": autoencoder} | settings


def _share(pipelines: Sequence[Pipeline], batches: list[range], work: Any) -> None:
    """Let the pipelines take batches in turn, each in a thread of its own; the first error stops all."""
    queue, stop = _Queue(batches), threading.Event()
    if len(pipelines) == 1:
        return work(pipelines[0], queue, stop)
    with ThreadPoolExecutor(len(pipelines)) as pool:
        futures = [pool.submit(work, pipeline, queue, stop) for pipeline in pipelines]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            if not all(future.done() for future in futures):  # an error, or Ctrl-C
                stop.set()
        for future in futures:
            future.result()


class _Queue:
    """Batches, each given to one thread only."""

    def __init__(self, batches: list[range]) -> None:
        self.batches, self.lock = iter(batches), threading.Lock()

    def __iter__(self) -> Iterator[range]:
        return self

    def __next__(self) -> range:
        with self.lock:
            return next(self.batches)


def _pictures(
    pipeline: Pipeline, settings: SampleSettings, bar: tqdm, stop: threading.Event
) -> np.ndarray | None:
    """The pictures of one batch; None where another pipeline has failed meanwhile."""
    steps_done = 0
    for frame in pipeline.stream(settings):
        if stop.is_set():
            return None
        with bar.get_lock():
            bar.update((frame.index + 1 - steps_done) * len(settings.seeds))  # decoding latents is no step
        steps_done, last = frame.index + 1, frame.x0
    return last


@dataclass(frozen=True)
class _Kept:
    """The batches of one description that are done, in a folder."""

    folder: Path

    @classmethod
    def open(cls, above: Path, description: dict[str, Any]) -> "_Kept":
        text = json.dumps(description, indent=1, sort_keys=True) + "\n"
        folder = above / hashlib.sha256(text.encode()).hexdigest()[:16]
        path = folder / DESCRIPTION
        if path.exists() and path.read_text() != text:
            raise ValueError(f"{path}: is not what its folder is named after; remove the folder {folder}")
        folder.mkdir(parents=True, exist_ok=True)
        discard_partials(folder)
        if not path.exists():
            atomic_write(path, lambda temporary: temporary.write_text(text))
        return cls(folder)

    def _path(self, batch: range) -> Path:
        return self.folder / f"{batch.start:07d}-{batch.stop:07d}.npy"

    def read(self, batch: range) -> np.ndarray | None:
        path = self._path(batch)
        if not path.exists():
            return None
        try:
            pictures = np.load(path)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{path}: damaged ({error}); remove it, and it is drawn again") from error
        if len(pictures) != len(batch):
            raise ValueError(f"{path}: holds {len(pictures)} pictures instead of {len(batch)}; remove it")
        return pictures

    def write(self, batch: range, pictures: np.ndarray) -> None:
        def save(temporary: Path) -> None:
            with temporary.open("wb") as file:  # by name numpy would add an ending
                np.save(file, pictures)

        atomic_write(self._path(batch), save)
