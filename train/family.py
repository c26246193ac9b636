"""Families of models for the Trade-off tab: `python -m train.family solids` trains one and bundles it.

All of a family see the same pictures in the same order under the same recipe; size and patch alone differ.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro

import dit
from dit.command import exit_status
from dit.files import sha256
from dit.weights import ZOO, describe
from train.bundle import bundle
from train.config import TrainConfig
from train.hardware import select
from train.jobs import at_once, usual_jobs
from train.loop import train
from train.recipes import RECIPES

# Batch and decay as the search in docs/findings.md found them; half its rate, as wider models want less.
PICTURES = 160_000
_SOLIDS = replace(
    RECIPES["solids"],
    batch_size=32,
    total_steps=PICTURES // 32,
    lr=2e-3,
    lr_warmup_steps=PICTURES // 32 // 20,
    lr_decay_steps=PICTURES // 32 // 4,
    grad_clip=1.0,
    compile="yes",
    sample_every=1000,
)


def _by_compute(configs: dict[str, TrainConfig]) -> dict[str, TrainConfig]:
    """Cheapest first: the order in which they are trained."""
    return dict(sorted(configs.items(), key=lambda item: dit.macs(item[1].network())))


FAMILIES: dict[str, dict[str, TrainConfig]] = {
    # A patch of 4 x 4 pixels is 48 numbers: a model 48 wide cannot carry its noise, and draws grey. So all
    # are wider, and there is no patch of 8.
    "solids": _by_compute(
        {
            f"DiT-{size}-{patch}-solids": replace(_SOLIDS, model=f"DiT-{size}/{patch}")
            for size, patch in (*((size, patch) for size in "EFPN" for patch in (2, 4)), ("M", 4))
        }
    )
}


# Fields of a recipe that do not decide what is learnt.
_HOW = (
    "micro_batch", "compile", "parallel", "remat", "num_workers", "log_every", "sample_every",
    "checkpoint_every", "keep_checkpoints", "keep_every", "tracker",
)  # fmt: skip


def learnt_by(config: TrainConfig, provenance: Mapping[str, Any]) -> bool:
    """Whether a model's file says that it was trained to the end by this recipe, as its family was."""
    recipe = {name: value for name, value in asdict(config).items() if name not in _HOW}
    told = provenance.get("recipe") or {}
    seen = provenance.get("images_seen") == config.total_steps * config.batch_size
    return seen and all(told.get(name) == value for name, value in json.loads(json.dumps(recipe)).items())


@dataclass(frozen=True)
class Work:
    """Train a family's models, cheapest first, some at a time; the same command continues."""

    family: tyro.conf.Positional[Literal["solids"]] = "solids"
    """which"""
    run_dir: Path = Path("runs/family")
    """holds a run folder for each model"""
    only: tuple[str, ...] = ()
    """names of models; default: all"""
    jobs: int = 0
    """models at a time; 0: one where there is a GPU, else one a thread"""

    def __post_init__(self) -> None:
        if unknown := set(self.only) - set(FAMILIES[self.family]):
            raise ValueError(
                f"only is {sorted(unknown)}; {self.family} has {', '.join(FAMILIES[self.family])}"
            )


@dataclass(frozen=True)
class Run:
    """One model to train, in a process of its own."""

    name: str
    config: TrainConfig
    run_dir: Path

    def __call__(self) -> Path:
        """Train to the end, and bundle, unless that was done; returns the bundled file."""
        weights = train(self.config, self.run_dir, select("auto", self.config.precision))
        bundled = ZOO / f"{self.name}.safetensors"
        if bundled.exists() and describe(bundled)[1].get("run") == sha256(weights):
            return bundled  # with what was measured of it since
        return bundle(self.run_dir, self.name)


def run(item: Run) -> Path:
    """What a process does with an item."""
    return item()


def main(arguments: list[str]) -> int:
    """Train and bundle, and say where. Returns the exit status."""
    return exit_status(lambda: _train(arguments), "stopped; the same command continues")


def _train(arguments: list[str]) -> None:
    work = tyro.cli(Work, prog="python -m train.family", args=arguments)
    runs = [
        Run(name, config, work.run_dir / work.family / name)
        for name, config in FAMILIES[work.family].items()
        if not work.only or name in work.only
    ]
    for path in at_once(run, runs, work.jobs or usual_jobs()):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
