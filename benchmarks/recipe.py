"""Batch, learning rate and decay with which the family of the Trade-off tab is trained: a short search.

python -m benchmarks.recipe [--run-dir runs/recipe] [--docs]

Every trial sees the same number of pictures of `solids`. First batch and learning rate together, of a small
model; then, with the best, how much of the run the rate falls; then the rate of a larger model, since what
suits the smallest may be too fast for the largest. Judged by the Frechet distance of 2,000 pictures to
held-out ones; beside it, the averaged weights' loss on those. Trials that are done are not run again.
"""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import tyro

import dit
from benchmarks.backbones import held_out_loss
from benchmarks.readme import command, write_block
from dit.command import exit_status
from dit.files import atomic_write
from dit.speed import machine
from train.config import TrainConfig
from train.evaluate import Evaluation, evaluate
from train.hardware import select
from train.jobs import at_once
from train.loop import train
from train.recipes import RECIPES

DOCS = Path(__file__).resolve().parent.parent / "docs"
RESULTS = DOCS / "recipe.json"
SMALL, LARGE = "DiT-P/4", "DiT-N/4"
PICTURES = 64_000  # that a trial sees
WARMUP = 0.05  # of the run
DRAWN = {"pictures_per_class": 200, "steps": 16, "sampler": "dpm-solver++", "spacing": "even"}
DRAWN |= {"guidance_scale": 1.0}
Trial = tuple[str, int, float, float]  # model, batch, learning rate, share of the run in which it falls


def config_of(trial: Trial) -> TrainConfig:
    """The recipe `solids` with a trial's settings, shortened."""
    model, batch, lr, decay = trial
    steps = PICTURES // batch
    return replace(
        RECIPES["solids"],
        model=model,
        batch_size=batch,
        lr=lr,
        total_steps=steps,
        lr_warmup_steps=int(WARMUP * steps),
        lr_decay_steps=int(decay * steps),
        compile="no",  # takes as long as a trial
        sample_every=steps,
        checkpoint_every=steps,
    )


def run(trial: Trial, run_dir: Path) -> dict[str, Any]:
    """Train and judge; a row of the table."""
    config, begun = config_of(trial), time.perf_counter()
    model, batch, lr, decay = trial
    folder = run_dir / f"{model.replace('/', '-')}-{batch}-{lr:g}-{decay:g}"
    weights = train(config, folder, select("auto", config.precision))
    seconds = time.perf_counter() - begun
    results, _ = evaluate(Evaluation(weights=str(weights), **DRAWN))
    return {
        "model": model,
        "batch_size": batch,
        "lr": lr,
        "decay": decay,
        "frechet": results["frechet"]["distance"],
        "accuracy": results["accuracy"]["overall"],
        "held_out_loss": held_out_loss(dit.load(weights)),
        "seconds": seconds,
        "machine": machine(),
    }


def key(row: dict[str, Any]) -> Trial:
    """The trial that a row is of."""
    return row["model"], row["batch_size"], row["lr"], row["decay"]


def best(rows: list[dict[str, Any]], model: str) -> dict[str, Any]:
    """The row of a model with the smallest distance."""
    return min((row for row in rows if row["model"] == model), key=lambda row: row["frechet"])


def stages(rows: dict[Trial, dict[str, Any]]) -> Iterator[list[Trial]]:
    """What to try at once, stage by stage; later ones depend on the rows that there are by then."""
    yield [(SMALL, batch, lr, 0.25) for batch in (32, 64) for lr in (1e-3, 2e-3, 4e-3)]
    first = best(list(rows.values()), SMALL)
    yield [(SMALL, first["batch_size"], first["lr"], decay) for decay in (0.5, 0.95)]
    first = best(list(rows.values()), SMALL)
    yield [(LARGE, first["batch_size"], factor * first["lr"], first["decay"]) for factor in (0.5, 1.0)]


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The rows in Markdown, best first, model by model."""
    lines = [
        "| model | batch | learning rate | falls in the last | Fréchet | accuracy | held-out loss |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (dit.macs(config_of(key(row)).network()), row["frechet"])):
        lines.append(
            f"| {row['model']} | {row['batch_size']} | {row['lr']:g} | {row['decay']:.0%} "
            f"| {row['frechet']:.3f} | {row['accuracy']:.1%} | {row['held_out_loss']:.4f} |"
        )
    said = f"{PICTURES:,} pictures a trial; judged by {10 * DRAWN['pictures_per_class']:,} pictures of "
    said += (
        f"{DRAWN['steps']} {DRAWN['sampler']} steps, evenly spaced, without guidance; {rows[0]['machine']}; "
    )
    return [*lines, "", said + command("benchmarks.recipe")]


def keep(rows: list[dict[str, Any]]) -> None:
    """Write the rows to docs/recipe.json."""
    text = json.dumps({"command": "python -m benchmarks.recipe", "rows": rows}, indent=1) + "\n"
    atomic_write(RESULTS, lambda temporary: temporary.write_text(text))


def main(run_dir: Path = Path("runs/recipe"), jobs: int = 2, docs: bool = False) -> None:
    """Run the trials that are missing, and print the table.

    Args:
        run_dir: holds a run folder for each trial.
        jobs: trials at a time, which share the processor's threads.
        docs: write the table into docs/findings.md.
    """
    rows = {}
    if RESULTS.exists():
        rows = {key(row): row for row in json.loads(RESULTS.read_text())["rows"]}
    for stage in stages(rows):
        missing = [trial for trial in stage if trial not in rows]
        for row in at_once(partial(run, run_dir=run_dir), missing, jobs):
            rows[key(row)] = row
            keep(list(rows.values()))
    lines = table(list(rows.values()))
    print("\n".join(lines))
    if docs:
        write_block("recipe", lines, DOCS / "findings.md")


if __name__ == "__main__":
    sys.exit(exit_status(lambda: tyro.cli(main), "stopped; the same command continues"))
