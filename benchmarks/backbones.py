"""Six backbones at equal compute: trained alike on solids, 32 x 32 pixels, and judged alike.

python -m benchmarks.backbones [--run-dir runs/backbones] [--only NAME ...]

Each costs about 0.1 GMACs a forward pass and sees the same pictures, in the same order, under the recipe
`solids` shortened to 256,000 of them. That takes half an hour each on two cores; the same command continues
where it was stopped.
"""

import sys
from dataclasses import replace
from pathlib import Path

import tyro

import dit
from dit.command import exit_status
from train.config import RECIPES, TrainConfig
from train.hardware import select
from train.loop import train

REFERENCE = "adaLN-Zero"  # whose compute the others must match
TOLERANCE = 0.05
RECIPE = replace(
    RECIPES["solids"],
    compile=True,
    grad_clip=1.0,  # not all of them start as the identity
    total_steps=4_000,
    lr_decay_steps=1_000,
)
RUNS: dict[str, TrainConfig] = {
    "adaLN-Zero": replace(RECIPE, model="DiT-C/4"),
    "adaLN": replace(RECIPE, model="DiT-C/4-adaln"),
    "cross-attention": replace(RECIPE, model="DiT-C/4-cross-attention", depth=6),  # a block is 16% dearer
    "in-context": replace(RECIPE, model="DiT-C/4-in-context"),
    "DiffiT": replace(RECIPE, model="DiffiT-C/4"),
    "U-Net": replace(RECIPE, model="UNet-C"),
}


def main(run_dir: Path = Path("runs/backbones"), only: tuple[str, ...] = (), device: str = "auto") -> None:
    """Train what is not trained yet.

    Args:
        run_dir: holds a run folder for each backbone.
        only: names of backbones; all if empty.
        device: auto, cpu, cuda, ...
    """
    if unknown := set(only) - set(RUNS):
        raise ValueError(f"no backbone is called {sorted(unknown)}; there are {', '.join(RUNS)}")
    for name in only or RUNS:
        config = RUNS[name]
        print(f"{name}: {config.model}, {dit.macs(config.network()) / 1e6:.1f} MMACs", file=sys.stderr)
        train(config, run_dir / name, select(device, config.precision))


if __name__ == "__main__":
    sys.exit(exit_status(lambda: tyro.cli(main), "stopped; the same command continues"))
