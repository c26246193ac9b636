"""Loading DiT-XL/2 against diffusers' from_pretrained: seconds, peak memory, the same output.

python -m benchmarks.loading [--rounds 3] [--folder FOLDER] [--readme]

Each load runs in a process of its own, in turn, from a warm page cache. Memory is the peak of the resident
set beyond what Python, torch and the library take before they load.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import tyro

from benchmarks.full_size import AUTHORS, DIFFUSERS, HUB_CACHE, NAME, write
from benchmarks.memory import memory
from benchmarks.readme import command, write_block
from dit.speed import machine

SIDES = {
    "ours, the authors' .pt": "ours-pt",
    "ours, published .bin by name": "ours-name",
    "ours, diffusers folder": "ours-folder",
    "ours, diffusers folder, bfloat16": "ours-half",
    "diffusers, its folder": "diffusers",
    "diffusers, its folder, bfloat16": "diffusers-half",
}


def measure(side: str, folder: Path) -> dict[str, float | list[float]]:
    """Load one way and run one pass; in this process."""
    dtype = torch.bfloat16 if side.endswith("half") else torch.float32
    if side.startswith("ours"):
        import dit

        source = {"ours-pt": folder / AUTHORS, "ours-name": NAME}.get(side, folder / DIFFUSERS)
        before, started = memory("VmRSS"), time.perf_counter()
        model = dit.load(source, dtype=dtype)
    else:
        from diffusers import DiTTransformer2DModel

        before, started = memory("VmRSS"), time.perf_counter()
        model = DiTTransformer2DModel.from_pretrained(folder / DIFFUSERS / "transformer", torch_dtype=dtype)
    loaded, peak = time.perf_counter() - started, memory("VmHWM")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, 32, 32, generator=generator)
    t, y = torch.tensor([500]), torch.tensor([207])
    with torch.inference_mode():
        if side.startswith("ours"):
            output = model(x, t, y)
        else:
            output = model(x.to(dtype), timestep=t, class_labels=y).sample
    return {
        "seconds": loaded,
        "with_pass": time.perf_counter() - started,
        "peak": peak - before,
        "with_pass_peak": memory("VmHWM") - before,
        "output": output.float().flatten()[::37].tolist(),
    }


def in_turn(folder: Path, rounds: int) -> dict[str, list[dict]]:
    """Every side in every round, each in a fresh process."""
    environment = os.environ | {"HF_HUB_CACHE": str(folder / HUB_CACHE), "HF_HUB_OFFLINE": "1"}
    found: dict[str, list[dict]] = {side: [] for side in SIDES.values()}
    for number in range(rounds + 1):  # the first warms the page cache
        for side, results in found.items():
            run = subprocess.run(
                [sys.executable, "-m", "benchmarks.loading", "--side", side, "--folder", str(folder)],
                env=environment, capture_output=True, text=True, check=True,
            )  # fmt: skip
            if number:
                results.append(json.loads(run.stdout.splitlines()[-1]))
    return found


def check(found: dict[str, list[dict]]) -> None:
    """Raises ArithmeticError unless sides that must draw alike do."""
    outputs = {side: torch.tensor(results[0]["output"]) for side, results in found.items()}
    if not torch.equal(outputs["ours-pt"], outputs["ours-name"]):
        raise ArithmeticError("the authors' file and the published name give different outputs")
    largest = outputs["diffusers"].abs().max()
    difference = (outputs["ours-folder"] - outputs["diffusers"]).abs().max() / largest
    if difference > 1e-5:
        raise ArithmeticError(f"diffusers and ours differ by {difference:.1e} on the same folder")


def main(rounds: int = 3, folder: Path | None = None, readme: bool = False, side: str | None = None) -> None:
    """Measure all sides, or one of them in this process.

    Args:
        rounds: how often each side runs.
        folder: with the weights that `benchmarks.full_size` wrote; written into a temporary one if not given.
        readme: write the table into README.md.
        side: measure this one alone and print JSON; for the benchmark itself.
    """
    if side:
        print(json.dumps(measure(side, folder)))
        return
    if folder is None:
        with tempfile.TemporaryDirectory() as name:
            write(Path(name))
            return main(rounds, Path(name), readme)
    found = in_turn(folder, rounds)
    check(found)

    def median(side: str, key: str) -> float:
        return statistics.median(result[key] for result in found[side])

    size = (folder / AUTHORS).stat().st_size / 1e9
    lines = [
        f"| DiT-XL/2, {size:.2f} GB of weights | load, s | with first pass, s | peak, GB | peak / weights |",
        "|---|---|---|---|---|",
    ]
    for title, name in SIDES.items():
        peak = median(name, "with_pass_peak")
        weights = size / 2 if name.endswith("half") else size
        lines.append(
            f"| {title} | {median(name, 'seconds'):.1f} | {median(name, 'with_pass'):.1f} | {peak:.2f} "
            f"| {peak / weights:.2f} |"
        )
    typed = command("benchmarks.loading", rounds=rounds)
    lines.append(
        f"\nMedians of {rounds} rounds in turn, a process each; peak resident set, first pass included; "
        f"{machine()}; {typed}"
    )
    print("\n".join(lines))
    if readme:
        write_block("loading", lines)


if __name__ == "__main__":
    tyro.cli(main)
