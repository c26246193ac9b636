"""Resumable state: everything that a run needs to go on as if it had never stopped."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from dit.weights import atomic_write


class Ema:
    """Exponential moving average of the weights, as a second model.

    The decay rises as (1 + step) / (10 + step) up to its ceiling, so that a short run averages its last tenth
    and not its random start.
    """

    def __init__(self, average: nn.Module, ceiling: float) -> None:
        self.model, self.ceiling = average.eval().requires_grad_(False), ceiling

    def decay(self, step: int) -> float:
        """The decay applied after optimizer step 0, 1, ..."""
        return min(self.ceiling, (1 + step) / (10 + step))

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards the weights after optimizer step 0, 1, ..."""
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - self.decay(step))


@dataclass
class TrainState:
    """What changes while training; `step` is the number of optimizer steps done."""

    model: nn.Module
    ema: Ema
    optimizer: torch.optim.Optimizer
    step: int = 0

    def save(self, run_dir: Path, keep: int) -> Path:
        """Write checkpoints/step_XXXXXXXX.pt atomically and delete all but the last `keep`."""
        path = run_dir / "checkpoints" / f"step_{self.step:08d}.pt"
        content = {
            "step": self.step,
            "config": self.ema.model.config.to_dict(),  # so that `dit.load` knows what it is
            "model": self.model.state_dict(),
            "ema": self.ema.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        atomic_write(path, lambda temporary: torch.save(content, temporary))
        for old in checkpoints(run_dir)[:-keep]:
            old.unlink()
        return path

    def load(self, path: Path) -> None:
        """Continue from a checkpoint. Raises ValueError if the file is damaged or of another model."""
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            self.model.load_state_dict(content["model"])
            self.ema.model.load_state_dict(content["ema"])
            self.optimizer.load_state_dict(content["optimizer"])
            self.step = content["step"]
        except Exception as error:  # unpickling a damaged file raises nearly anything
            # One line, and its first sentence only: torch goes on to advise against weights_only.
            reason = " ".join(str(error).split()).split(". ")[0]
            raise ValueError(
                f"{path}: expected a checkpoint of this run, found {type(error).__name__}: {reason}; "
                "delete the file to continue from the one before, or the run folder to start again"
            ) from error


def checkpoints(run_dir: Path) -> list[Path]:
    """The run's checkpoints, oldest first."""
    return sorted((run_dir / "checkpoints").glob("step_*.pt"))


def step_of(checkpoint: Path) -> int:
    """How many optimizer steps were done when a checkpoint was written."""
    return int(checkpoint.stem.removeprefix("step_"))


def truncate_metrics(run_dir: Path, step: int) -> None:
    """Drop the lines of metrics.jsonl beyond a step, and a half-written last one: they will come again."""
    path = run_dir / "metrics.jsonl"
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (json.JSONDecodeError, KeyError):
            break
    atomic_write(path, lambda temporary: temporary.write_text("".join(kept)))
