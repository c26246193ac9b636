"""What a run leaves behind: metrics, sample grids, weights, and where they come from."""

import contextlib
import json
import math
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import dit
from dit.files import atomic_write
from dit.weights import WeightsError, describe, write_weights
from train.ceiling import matmul_ceiling, mfu
from train.changes import changes_of
from train.config import TrainConfig
from train.data import Data
from train.grid import decoder_for, draw_grid
from train.hardware import Hardware
from train.metrics import Meter
from train.run_folder import truncate_metrics
from train.state import TrainState
from train.tracker import Tracker, open_tracker


class Recorder:
    """Writes what a run leaves behind. Every process has one, and calls it alike; the main one writes."""

    def __init__(
        self, config: TrainConfig, run_dir: Path, hardware: Hardware, state: TrainState, data: Data
    ) -> None:
        self.config, self.run_dir, self.hardware = config, run_dir, hardware
        self.state, self.data, self.network = state, data, state.model.config
        self.commit = commit()  # now: a checkout may move on while the run lasts
        self.meter = Meter()
        self.done: list[bool | Tensor] = []  # of the steps since the last line: whether it was not skipped
        self.tracker: Tracker | None = None
        self.decoder: Any = None
        self.ceiling = 0.0
        self.since = time.perf_counter()

    def __enter__(self) -> "Recorder":
        """Take up where the state is: drop what lies beyond it, make what a kill has left undone."""
        config, step = self.config, self.state.step
        if self.hardware.is_main:
            truncate_metrics(self.run_dir, step)
            self.tracker = open_tracker(config.tracker, self.run_dir, asdict(config))
            self.ceiling = matmul_ceiling(self.hardware.device, self.hardware.bf16)
        self.bar = tqdm(
            total=config.total_steps,
            initial=step,
            unit="step",
            desc=self.run_dir.name,
            disable=not self.hardware.is_main,
        )
        if step:  # what was to be done after the checkpoint, and a kill prevented
            if self.hardware.largest(int(self.hardware.is_main and self._weights_are_old())):
                self.save_weights()
            if self.is_due("sample") and self.hardware.largest(int(not self._grid().exists())):
                self.sample()
        self.since = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.close()
        if self.hardware.is_main:
            self.tracker.close()

    def rewind(self) -> None:
        """Begin anew from a checkpoint that the state was brought back to."""
        self.__exit__()
        self.meter, self.done = Meter(), []
        self.__enter__()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Around what is not training: images_per_second is of training alone."""
        began = time.perf_counter()
        yield
        self.since += time.perf_counter() - began

    def is_due(self, what: str) -> bool:
        """Whether a log line, a checkpoint or a sample is due after the step that was done last."""
        step, every = self.state.step, getattr(self.config, f"{what}_every")
        return step % every == 0 or step == self.config.total_steps

    def step(self, terms: dict[str, Tensor], t: Tensor, norm: Tensor, done: bool | Tensor) -> None:
        """Note a step. terms: losses of its pictures, (N,) each; t: their noise levels; done: not skipped."""
        counted = torch.as_tensor(done, device=t.device)
        self.meter.add(terms, t, self.network.formulation, norm, counted)
        self.done.append(done)
        self.bar.update()

    def write(self) -> None:
        """Fetch the numbers since the last time into a line of metrics.jsonl; count what was skipped."""
        counters, steps, rows = self.state.counters, len(self.done), [0]
        for done in torch.stack([torch.as_tensor(done).cpu() for done in self.done]).tolist():
            counters.skipped += not done
            counters.in_row = 0 if done else counters.in_row + 1
            rows.append(counters.in_row)
        self.state.longest_row = max(rows)
        row: dict[str, Any] = {"step": self.state.step}
        row |= self.meter.take(self.hardware.add_up(self.meter.state()))
        row["lr"] = self.config.lr_at(self.state.step - 1)
        row["images_per_second"] = steps * self.config.batch_size / (time.perf_counter() - self.since)
        if self.ceiling:
            macs = dit.macs(self.network)
            row["mfu"] = mfu(macs, row["images_per_second"], self.ceiling, self.hardware.devices)
        if peak := self.hardware.peak_memory():
            row["memory_gb"] = peak / 1e9
        if counters.skipped:
            row["skipped"] = counters.skipped
        row = {name: value for name, value in row.items() if math.isfinite(value)}  # JSON knows no NaN
        self.done, self.since = [], time.perf_counter()
        if self.hardware.is_main:
            with (self.run_dir / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            self.tracker.log(row, self.state.step)
            shown = {
                "loss": f"{row.get('loss', math.nan):.4f}",
                "images/s": f"{row['images_per_second']:.0f}",
            }
            self.bar.set_postfix(shown | ({"skipped": counters.skipped} if counters.skipped else {}))

    def weights(self, which: int = 0) -> Path:
        """Where the weights of an average are."""
        decays = (None, *self.config.extra_ema_decays)
        return self.run_dir / (f"weights-ema-{decays[which]}.safetensors" if which else "weights.safetensors")

    def _weights_are_old(self) -> bool:
        seen = self.state.step * self.config.batch_size
        files = [self.weights(which) for which in range(len(self.state.ema.averages))]
        try:
            return not all(path.exists() and describe(path)[1].get("images_seen") == seen for path in files)
        except WeightsError:  # damaged
            return True

    def save_weights(self) -> None:
        """weights.safetensors of the average, with where it comes from; a file each of further averages."""
        others = self.state.model.state_dict()
        for which, average in enumerate(self.state.ema.averages):
            tensors = {}
            for name, value in others.items():
                whole = self.hardware.to_host(average.get(name, value))  # all must ask
                if self.hardware.is_main:
                    tensors[name] = whole
            if self.hardware.is_main:
                told = self.provenance() | {"ema_decay": self.state.ema.ceilings[which]}
                write_weights(self.weights(which), tensors, self.network, told)

    def provenance(self) -> dict[str, Any]:
        """Where the weights come from."""
        info = self.data.info
        told = {
            "name": self.run_dir.resolve().name,
            "dataset": info.name,
            "classes": list(info.classes) if self.network.num_classes else [],
            "images_seen": self.state.step * self.config.batch_size,
            "recipe": asdict(self.config),
            "changes": changes_of(self.run_dir),
            "commit": self.commit,
            "hardware": self.hardware.describe(),
        }
        return told | ({"autoencoder": info.autoencoder} if info.autoencoder else {})

    def _grid(self) -> Path:
        return self.run_dir / "samples" / f"step_{self.state.step:08d}.png"

    def sample(self) -> None:
        """A grid of the average's pictures: one row a class, if it knows any; the same seeds every time."""
        self.bar.set_postfix_str("drawing samples")
        with self.hardware.averaged(self.state.ema) as model:
            if model is not None:
                if self.decoder is None:
                    self.decoder = decoder_for(self.data.info, shown=self.hardware.is_main)
                image = draw_grid(model, self.hardware.sampler_device, self.decoder)
        if self.hardware.is_main:
            atomic_write(self._grid(), lambda temporary: image.save(temporary, format="png"))
            self.tracker.picture(self._grid(), self.state.step)
        self.hardware.wait_for_all()


def commit() -> str:
    """The commit of the code, with "+" if the tree is changed; "unknown" outside a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
