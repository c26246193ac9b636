"""Which settings learn `solids` fastest: short trials of equal training compute, judged on held-out pictures.

python -m benchmarks.recipe [--tmacs 3] [--only NAME ...]

A trial trains with one change against the recipe (all on 20,000 pictures, with ramps that fit) until it has
spent the same multiply-accumulates, then prints the error of its predicted x0 on pictures of another seed, at
five noise levels. Errors are comparable between trials whatever the network predicts; they are those
of the averaged weights.
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
import tyro

import dit
from dit.diffusion import q_sample, to_x0
from dit.pipeline import from_pictures
from train import solids
from train.hardware import select
from train.loop import train
from train.recipes import RECIPES

TIMESTEPS = (100, 300, 500, 700, 900)
TRIALS = {
    "recipe": {},
    "epsilon": {"prediction": "epsilon"},
    "uniform t": {"timesteps": "uniform"},
    "lr 5e-4": {"lr": 5e-4},
    "lr 2e-3": {"lr": 2e-3},
    "batch 32": {"batch_size": 32},
    "batch 128": {"batch_size": 128},
    "beta2 0.95": {"beta2": 0.95},
    "grad clip 1": {"grad_clip": 1.0},
    "DiT-T/8": {"model": "DiT-T/8"},
    "DiT-N/4": {"model": "DiT-N/4"},
    "DiT-M/4": {"model": "DiT-M/4"},
}


@torch.inference_mode()
def held_out_error(weights: Path, pictures: int = 500) -> list[float]:
    """Mean squared error of the predicted x0 at each of TIMESTEPS, on solids of seed 1."""
    model = dit.load(weights)
    rgb, labels = solids.render(range(pictures), seed=1, side=model.config.input_size)
    x0, y = from_pictures(rgb), torch.from_numpy(labels)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    errors = []
    for timestep in TIMESTEPS:
        t = torch.full((pictures,), timestep)
        x_t = q_sample(x0, t, noise)
        predicted = to_x0(model(x_t, t, y)[:, :3], x_t, t, model.config.prediction)
        errors.append(float((predicted - x0).square().mean()))
    return errors


def main(tmacs: float = 3.0, only: tuple[str, ...] = ()) -> None:
    """Run the trials.

    Args:
        tmacs: forward multiply-accumulates a trial may spend, in 1e12.
        only: names of trials; all if empty.
    """
    base = replace(
        RECIPES["solids"], num_pictures=20_000, compile="no", sample_every=10**9, checkpoint_every=10**9
    )
    print(f"{'trial':<12} {'pictures':>9} {'seconds':>8}  x0 error at t = {TIMESTEPS}", flush=True)
    if unknown := set(only) - set(TRIALS):
        raise SystemExit(f"no trial is called {sorted(unknown)}; there are {', '.join(TRIALS)}")
    for name in only or TRIALS:
        config = replace(base, **TRIALS[name])
        model = dit.preset(
            config.model, input_size=config.image_size, in_channels=3, num_classes=len(solids.CLASSES)
        )
        steps = int(tmacs * 1e12 / dit.macs(model) / config.batch_size)
        config = replace(config, total_steps=steps, lr_warmup_steps=steps // 20, lr_decay_steps=steps // 4)
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            errors = held_out_error(train(config, Path(folder), select("cpu")))
        seconds = time.perf_counter() - started
        row = "  ".join(f"{error:.4f}" for error in errors)
        print(f"{name:<12} {steps * config.batch_size:>9,} {seconds:>8.0f}  {row}", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
