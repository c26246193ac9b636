"""What a run leaves behind: metrics, sample grids, checkpoints, weights, and where they come from."""

import json
import math
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from dit.pictures import contact_sheet
from dit.pipeline import Pipeline
from dit.settings import SampleSettings
from dit.weights import atomic_write, save
from train.checkpoint import TrainState, checkpoints
from train.config import TrainConfig
from train.data import SolidsData
from train.hardware import Hardware
from train.run_folder import changes_of

GRID_COLUMNS, GRID_CALLS, GRID_GUIDANCE = 8, 25, 2.0  # of the grids that are drawn on the way


class Recorder:
    """Writes what a run leaves behind: metrics, grids, checkpoints, weights."""

    def __init__(
        self, config: TrainConfig, run_dir: Path, hardware: Hardware, state: TrainState, data: SolidsData
    ) -> None:
        self.config, self.run_dir, self.hardware = config, run_dir, hardware
        self.state, self.data = state, data
        self.weights = run_dir / "weights.safetensors"
        self.commit = commit()  # now: a checkout may move on while the run lasts
        self.pending: list[dict[str, torch.Tensor]] = []
        self.since = time.perf_counter()

    def step(self, losses: dict[str, torch.Tensor], bar: tqdm) -> None:
        """Note one optimizer step, and do what is due after it."""
        config, step = self.config, self.state.step
        # Means stay tensors until they are needed: fetching each one would stall an accelerator.
        self.pending.append({name: loss.detach().mean() for name, loss in losses.items()})
        last = step == config.total_steps
        log, checkpoint, sample = (
            last or step % every == 0
            for every in (config.log_every, config.checkpoint_every, config.sample_every)
        )
        if log or checkpoint:  # at each checkpoint too: the losses before it are not known after a resume
            self.flush(bar)
        began = time.perf_counter()
        if sample:
            bar.set_postfix_str("drawing samples")
            self.sample()
        if checkpoint:
            self.check_weights()
            self.save_weights()
            self.state.save(self.run_dir, config.keep_checkpoints)  # last: what it has done, it need not redo
        self.since += time.perf_counter() - began  # images_per_second is of training alone

    def check_weights(self) -> None:
        """Stop the run if a weight is not finite: the loss shows it one step too late for the checkpoint."""
        largest = torch._foreach_norm(list(self.state.model.parameters()), math.inf)
        if not torch.stack(largest).isfinite().all():
            raise self.diverged(f"weights are not finite after step {self.state.step}", self.state.step)

    def diverged(self, what: str, step: int) -> FloatingPointError:
        """The error of a step whose numbers are not finite."""
        good = checkpoints(self.run_dir)
        return FloatingPointError(
            f"{what} (its batch: seed {self.config.seed}, pictures "
            f"{self.data.indices(step - 1)[:8].tolist()} ...); last good checkpoint: "
            f"{good[-1] if good else 'none yet'}; lower --lr or set --grad-clip 1, in a new --run-dir"
        )

    def flush(self, bar: tqdm) -> None:
        """Fetch the losses since the last time, and stop the run if one is not finite."""
        rows = [{name: float(value) for name, value in row.items()} for row in self.pending]
        first = self.state.step - len(rows) + 1
        for step, row in enumerate(rows, start=first):
            if not all(torch.isfinite(torch.tensor(list(row.values())))):
                raise self.diverged(f"loss is {row['loss']} at step {step}", step)
        seconds = time.perf_counter() - self.since
        metrics: dict[str, Any] = {"step": self.state.step}
        metrics |= {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
        metrics["lr"] = self.config.lr_at(self.state.step - 1)
        metrics["images_per_second"] = len(rows) * self.config.batch_size / seconds
        with (self.run_dir / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(metrics) + "\n")
        bar.set_postfix(loss=f"{metrics['loss']:.4f}", **{"images/s": f"{metrics['images_per_second']:.0f}"})
        self.pending, self.since = [], time.perf_counter()

    def save_weights(self) -> Path:
        """weights.safetensors of the average, with where it comes from."""
        save(self.weights, self.state.ema.model, self.provenance())
        return self.weights

    def final_weights(self) -> Path:
        """Path of weights.safetensors, written anew should it be missing at the end of a run."""
        return self.weights if self.weights.exists() else self.save_weights()

    def provenance(self) -> dict[str, Any]:
        """Where the weights come from."""
        return {
            "name": self.run_dir.resolve().name,
            "dataset": self.config.data,
            "classes": list(self.data.classes) if self.config.class_conditional else [],
            "images_seen": self.state.step * self.config.batch_size,
            "recipe": asdict(self.config),
            "changes": changes_of(self.run_dir),
            "commit": self.commit,
            "hardware": self.hardware.describe(),
        }

    def sample(self) -> None:
        """A grid of the average's pictures: one row a class, if it knows any; the same seeds every time."""
        pipeline = Pipeline(self.state.ema.model, self.hardware.device)
        config = pipeline.model.config
        columns, rows = GRID_COLUMNS, config.num_classes or 1
        settings = SampleSettings(
            classes=[y for y in range(rows) for _ in range(columns)],
            seeds=list(range(columns)) * rows,
            steps=(GRID_CALLS + 1) // 2 if config.formulation == "edm" else GRID_CALLS,
            guidance_scale=GRID_GUIDANCE if config.has_null_class else 1.0,
        )
        pictures = pipeline.generate(settings).x0
        image = contact_sheet(pictures.reshape(rows, columns, *pictures.shape[1:]), scale=2)
        path = self.run_dir / "samples" / f"step_{self.state.step:08d}.png"
        atomic_write(path, lambda temporary: image.save(temporary, format="png"))


def commit() -> str:
    """The commit of the code, with "+" if the tree is changed; "unknown" outside a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
