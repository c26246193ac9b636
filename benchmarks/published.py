"""DiT-XL/2-256 through the served app against diffusers' DiTPipeline: a step, cancelling, memory.

python -m benchmarks.published [--rounds 5] [--folder FOLDER] [--readme]

Full-size random weights in the published layout, in a Hub cache, offline. Both sides draw one picture with
guidance, in turn; a step's time is the difference between a longer and a shorter run: loading and decoding
drop out.
"""

import statistics
import tempfile
import time
from pathlib import Path

import torch
import tyro
from diffusers import DiTPipeline
from gradio_client import Client

from benchmarks.browser import serve
from benchmarks.full_size import DIFFUSERS, HUB_CACHE, NAME, write
from benchmarks.memory import memory
from benchmarks.readme import command, write_block
from dit.speed import machine

SHORT, LONG = 2, 6  # steps of the two runs
LABEL, SCALE, SEED = 207, 4.0, 0


def drawn(client: Client, steps: int) -> tuple[float, int]:
    """Seconds of one picture through the app, and how many steps were told on the way."""
    started = time.perf_counter()
    job = client.submit(NAME, str(LABEL), steps, SCALE, SEED, 1, "ddim", api_name="/generate")
    job.result()
    told = {out[1]["step"] for out in job.outputs() if out[1] and "step" in out[1]}
    return time.perf_counter() - started, len(told)


def peer(pipeline: DiTPipeline, steps: int) -> float:
    """Seconds of the same picture by diffusers."""
    started = time.perf_counter()
    generator = torch.Generator().manual_seed(SEED)
    pipeline(class_labels=[LABEL], guidance_scale=SCALE, generator=generator, num_inference_steps=steps)
    return time.perf_counter() - started


def cancelled(client: Client) -> float:
    """Seconds from cancelling a long job to the result of the next, a single step of the smallest model."""
    job = client.submit(NAME, str(LABEL), 250, SCALE, SEED, 1, "ddim", api_name="/generate")
    while not any(out[1] and out[1].get("step", 0) >= 2 for out in job.outputs()):
        time.sleep(0.02)
    started = time.perf_counter()
    job.cancel()
    quick = client.submit("DiT-N-4-solids", "0", 1, 1.0, 0, 1, "ddim", api_name="/generate")
    quick.result()
    return time.perf_counter() - started


def main(rounds: int = 5, folder: Path | None = None, readme: bool = False) -> None:
    """Measure both sides in turn.

    Args:
        rounds: how often each side runs.
        folder: with the weights that `benchmarks.full_size` wrote; written into a temporary one if not given.
        readme: write the table into README.md.
    """
    if folder is None:
        with tempfile.TemporaryDirectory() as name:
            write(Path(name))
            return main(rounds, Path(name), readme)
    pipeline = DiTPipeline.from_pretrained(folder / DIFFUSERS)
    pipeline.set_progress_bar_config(disable=True)
    environment = {"HF_HUB_CACHE": str(folder / HUB_CACHE), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as logs:
        with serve([], Path(logs) / "app.log", environment) as served:
            waiting = {"timeout": 120}  # the answer to a cancel comes when the step has ended
            client = Client(served.address, verbose=False, download_files=False, httpx_kwargs=waiting)
            drawn(client, 1)  # loads the model
            peer(pipeline, 1)
            ours, theirs, held = [], [], [memory("VmRSS", served.process)]
            for _ in range(rounds):
                short, _ = drawn(client, SHORT)
                long, frames = drawn(client, LONG)
                if frames != LONG:
                    raise ArithmeticError(f"{LONG} steps were asked for, {frames} were told")
                ours.append((long - short) / (LONG - SHORT))
                theirs.append((peer(pipeline, LONG) - peer(pipeline, SHORT)) / (LONG - SHORT))
                held.append(memory("VmRSS", served.process))
            stopped = statistics.median(cancelled(client) for _ in range(3))
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    ratio = statistics.median(theirs) / statistics.median(ours)
    lines = [
        f"| {NAME}, one guided picture, 2 passes a step | seconds a step |",
        "|---|---|",
        f"| through the app, every step told | {statistics.median(ours):.2f} |",
        f"| diffusers' DiTPipeline | {statistics.median(theirs):.2f} |",
        f"| ratio (round by round) | **{ratio:.2f}** ({min(ratios):.2f} to {max(ratios):.2f}) |",
        "",
        f"From cancelling a job of 250 steps to the result of the next, small one: {stopped:.1f} s. "
        f"The app's memory after its first picture: {held[0]:.2f} GB, after {2 * rounds} more: "
        f"{held[-1]:.2f} GB.",
    ]
    typed = command("benchmarks.published", rounds=rounds)
    lines.append(f"\nMedians of {rounds} rounds in turn, random weights of full size; {machine()}; {typed}")
    print("\n".join(lines))
    if readme:
        write_block("published", lines)


if __name__ == "__main__":
    tyro.cli(main)
