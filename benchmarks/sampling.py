"""Our sampling against diffusers': same weights, steps, batch and guidance, in turn, in one process.

python -m benchmarks.sampling [--rounds 7] [--steps 8] [--pictures 16] [--readme]
"""

import statistics
import time
from collections.abc import Callable

import torch
import tyro
from torch import Tensor

import dit
from benchmarks.full_size import random_model
from benchmarks.peer import ddim_loop, ddim_schedule, to_diffusers
from benchmarks.readme import command, write_block
from dit import samplers
from dit.diffusion import linear_schedule
from dit.guidance import Guided
from dit.speed import machine

SCALE = 2.0


def ours(model: dit.DiT, x: Tensor, y: Tensor, visited: Tensor) -> Tensor:
    """The sampler and guidance that the pipeline runs. x: (N, C, H, W), y: (N,) -> (N, C, H, W)."""
    with torch.inference_mode():
        *_, last = samplers.ddim(Guided(model, y, SCALE), x, linear_schedule().alpha_bar, visited)
    return last.x_t


def seconds(run: Callable[[], Tensor]) -> float:
    """Wall-clock seconds of one call."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def compare(name: str, model: dit.DiT, pictures: int, steps: int, rounds: int) -> str:
    """Run both sides in turn; returns a table row: images/s and GFLOP/s of each side, and the ratio."""
    config, peer = model.config, to_diffusers(model)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(pictures, config.in_channels, config.input_size, config.input_size, generator=generator)
    y = torch.arange(pictures) % config.num_classes
    schedule = ddim_schedule(steps, config.prediction)
    visited = schedule.timesteps.flip(0)
    sides = {
        "ours": lambda: ours(model, x, y, visited),
        "diffusers": lambda: ddim_loop(peer, x, y, schedule, SCALE),
    }
    first = {side: run() for side, run in sides.items()}  # warms up, and proves that both draw the same
    difference = (first["ours"] - first["diffusers"]).abs().max() / first["ours"].abs().max()
    if difference > 1e-3:
        raise ArithmeticError(
            f"{name}: the two sides differ by {difference:.1e}; the comparison means nothing"
        )
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, run in sides.items():
            times[side].append(seconds(run))
    medians = {side: statistics.median(values) for side, values in times.items()}
    flop = 2 * 2 * dit.macs(config) * pictures * steps  # 2 passes a step, 2 FLOPs a MAC
    pairs = [theirs / own for own, theirs in zip(times["ours"], times["diffusers"], strict=True)]
    cells = [f"{pictures / median:.1f} ({flop / median / 1e9:.0f})" for median in medians.values()]
    ratio = medians["diffusers"] / medians["ours"]
    spread = f"**{ratio:.2f}** ({min(pairs):.2f} to {max(pairs):.2f})"
    row = f"| {name} | {pictures} | {' | '.join(cells)} | {spread} |"
    print(row, flush=True)
    return row


def main(rounds: int = 7, steps: int = 8, pictures: int = 16, readme: bool = False) -> None:
    """Compare on every bundled model, and on DiT-S/2 at 32x32x4 with random weights.

    Args:
        rounds: how often each side runs.
        steps: DDIM steps of one run.
        pictures: batch; guidance doubles it.
        readme: write the table into README.md.
    """
    lines = [
        "| model | pictures | ours, images/s (GFLOP/s) | diffusers, same | ratio (round by round) |",
        "|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for name in dit.weights.zoo():
        lines.append(compare(name, dit.load(name), pictures, steps, rounds))
    model = random_model("DiT-S/2")
    for batch in (1, 4):
        lines.append(compare("DiT-S/2, 32x32x4", model, batch, steps, rounds))
    typed = command("benchmarks.sampling", rounds=rounds, steps=steps, pictures=pictures)
    lines.append(f"\n{steps} guided DDIM steps, medians of {rounds} rounds in turn; {machine()}; {typed}")
    print(lines[-1])
    if readme:
        write_block("sampling", lines)


if __name__ == "__main__":
    tyro.cli(main)
