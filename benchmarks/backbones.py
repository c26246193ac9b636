"""Six backbones at equal compute: trained alike on solids, 32 x 32 pixels, and judged alike.

python -m benchmarks.backbones [--run-dir runs/backbones] [--only NAME ...] [--readme]

Each costs about 0.1 GMACs a forward pass and sees the same pictures, in the same order, under the recipe
`solids` shortened to 256,000 of them: half an hour each on two cores, and the same command continues where it
was stopped. Once trained, each is bundled, and its bundled weights are measured; what was measured is not
measured again. The table goes to assets/backbones.json and, with --readme, into the README; a sheet of
pictures, in the order of the table, to assets/backbones.png.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image

import dit
from benchmarks.readme import command, write_block
from dit.command import exit_status
from dit.diffusion import NUM_TIMESTEPS, training_losses
from dit.files import atomic_write, sha256
from dit.pictures import contact_sheet
from dit.pipeline import from_pictures
from dit.speed import machine
from dit.weights import BACKBONES, ZOO, locate
from train import solids
from train.bundle import bundle
from train.classifier import HELD_OUT_SEED
from train.config import TrainConfig
from train.data import solids_cache
from train.evaluate import Evaluation, evaluate, record
from train.hardware import select
from train.loop import train
from train.recipes import RECIPES
from train.reference import SOLIDS_PICTURES as REFERENCE_PICTURES

ASSETS = ZOO.parent
TOLERANCE = 0.05  # of the compute of the first, which the others must match
RECIPE = replace(
    RECIPES["solids"],
    compile="yes",
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
DRAWN = {"pictures_per_class": 200, "steps": 20, "sampler": "dpm-solver++", "spacing": "even"}
SCALES = (1.0, 1.5)  # of guidance; 1 is none, as in the DiT paper's comparison of designs


def check_compute() -> None:
    """Raises ValueError unless all backbones cost as much as the first, within the tolerance."""
    costs = {name: dit.macs(config.network()) for name, config in RUNS.items()}
    first = next(iter(costs.values()))
    if unequal := {name: cost for name, cost in costs.items() if abs(cost / first - 1) > TOLERANCE}:
        said = ", ".join(f"{name} differs by {cost / first - 1:+.1%}" for name, cost in unequal.items())
        raise ValueError(f"compute must be equal within {TOLERANCE:.0%}, but {said}; change the sizes")


@torch.inference_mode()
def held_out_loss(model: dit.Backbone, pictures: int = REFERENCE_PICTURES) -> float:
    """Mean squared error of the network's output on held-out solids, at timesteps evenly from 0 to 999.

    Pictures, timesteps and noise are the same for every model.
    """
    rgb = solids_cache(2 * REFERENCE_PICTURES, model.config.input_size, HELD_OUT_SEED)[:pictures]
    generator, total = torch.Generator().manual_seed(0), 0.0
    for start in range(0, pictures, 100):
        x0 = from_pictures(rgb[start : start + 100])
        index = torch.arange(start, start + len(x0))
        y = torch.from_numpy(solids.labels(index.numpy()))
        t = (index * 7919) % NUM_TIMESTEPS  # a prime: neighbours get far timesteps
        noise = torch.randn(x0.shape, generator=generator)
        total += float(training_losses(model, x0, t, y, noise)["mse"].sum())
    return total / pictures


def measure(name: str, run_dir: Path) -> dict[str, Any]:
    """Bundle a finished run, and measure the bundled weights; a row of the table.

    name: of the backbone. The guided results go into the weights file too: the page draws with guidance.
    """
    config = RUNS[name]
    path = bundle(run_dir, f"{config.model.replace('/', '-')}-solids", BACKBONES)
    model = dit.load(path)
    row: dict[str, Any] = {
        "backbone": name,
        "model": config.model,
        "weights": path.name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "macs": dit.macs(model.config),
        "images_seen": model.provenance["images_seen"],
        "held_out_loss": held_out_loss(model),
        "run": sha256(run_dir / "weights.safetensors"),
        "machine": machine(),
        **DRAWN,
    }
    for scale in SCALES:
        results, _ = evaluate(Evaluation(weights=str(path), guidance_scale=scale, **DRAWN))
        row[f"guidance {scale:g}"] = {key: results[key] for key in ("accuracy", "frechet")}
    record(path, results)
    return row


def sheet(rows: list[dict[str, Any]]) -> Image.Image:
    """A row of pictures a backbone, two of each class, guided; a column starts from the same noise."""
    classes = len(solids.CLASSES)
    wish = dit.SampleSettings(
        classes=[y for y in range(classes) for _ in range(2)],
        seeds=range(2 * classes),
        steps=DRAWN["steps"],
        sampler=DRAWN["sampler"],
        spacing=DRAWN["spacing"],
        guidance_scale=SCALES[-1],
    )
    drawn = [dit.Pipeline.load(BACKBONES / row["weights"]).generate(wish).x0 for row in rows]
    return contact_sheet(np.stack(drawn), scale=2)


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The rows, as they come, in Markdown."""
    lines = [
        "| backbone | weights | parameters | MMACs a pass | held-out loss "
        f"| Fréchet, accuracy without guidance | with guidance {SCALES[1]:g} |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        depth = RUNS[row["backbone"]].depth  # where it is not the preset's
        cells = [
            row["backbone"],
            row["weights"].removesuffix(".safetensors") + (f", {depth} blocks" if depth else ""),
            f"{row['parameters'] / 1e6:.2f} M",
            f"{row['macs'] / 1e6:.1f}",
        ]
        cells.append(f"{row['held_out_loss']:.4f}")
        for scale in SCALES:
            found = row[f"guidance {scale:g}"]
            cells.append(f"{found['frechet']['distance']:.3f}, {found['accuracy']['overall']:.2%}")
        lines.append(f"| {' | '.join(cells)} |")
    of, machines = rows[0], " and ".join(sorted({row["machine"] for row in rows}))
    return [
        *lines,
        "",
        f"Trained on {of['images_seen']:,} pictures each; {of['pictures_per_class']} pictures a class, "
        f"{of['steps']} {of['sampler']} steps, evenly spaced; real pictures against real ones: Fréchet "
        f"{of['guidance 1']['frechet']['real']:.3f}; {machines}; {command('benchmarks.backbones')}",
    ]


def measured() -> dict[str, dict[str, Any]]:
    """The rows that there are, by backbone."""
    out = ASSETS / "backbones.json"
    return {row["backbone"]: row for row in json.loads(out.read_text())["rows"]} if out.exists() else {}


def ranked() -> list[dict[str, Any]]:
    """The rows that there are, best Fréchet distance without guidance first."""
    return sorted(measured().values(), key=lambda row: row["guidance 1"]["frechet"]["distance"])


def keep(rows: dict[str, dict[str, Any]]) -> None:
    """Write the rows, by backbone, to assets/backbones.json, in the order of RUNS."""
    ordered = [rows[name] for name in RUNS if name in rows]
    text = json.dumps({"command": "python -m benchmarks.backbones", "rows": ordered}, indent=1) + "\n"
    atomic_write(ASSETS / "backbones.json", lambda temporary: temporary.write_text(text))


def is_current(row: dict[str, Any], run_dir: Path) -> bool:
    """Whether a row is of this run, measured as it would be now, and its weights are here."""
    weights = locate(run_dir / "weights.safetensors")
    alike = row.get("run") == sha256(weights) and all(row.get(key) == DRAWN[key] for key in DRAWN)
    return alike and (BACKBONES / row["weights"]).exists()


def main(
    run_dir: Path = Path("runs/backbones"),
    only: tuple[str, ...] = (),
    device: str = "auto",
    readme: bool = False,
) -> None:
    """Train what is not trained yet, measure what is not measured yet, and print the table.

    Args:
        run_dir: holds a run folder for each backbone.
        only: names of backbones; all if empty. The table has all that were ever measured.
        device: auto, cpu, cuda, ...
        readme: write the table into README.md; of all, or not at all.
    """
    if unknown := set(only) - set(RUNS):
        raise ValueError(f"no backbone is called {sorted(unknown)}; there are {', '.join(RUNS)}")
    check_compute()
    for name in only or RUNS:
        config = RUNS[name]
        print(f"{name}: {config.model}, {dit.macs(config.network()) / 1e6:.1f} MMACs", file=sys.stderr)
        train(config, run_dir / name, select(device, config.precision))
        if not is_current(measured().get(name, {}), run_dir / name):
            row = measure(name, run_dir / name)
            keep(measured() | {name: row})  # read anew: others may have been measured meanwhile
    rows = ranked()
    drawn = sheet(rows)
    atomic_write(ASSETS / "backbones.png", lambda temporary: drawn.save(temporary, format="png"))
    lines = table(rows)
    print("\n".join(lines))
    if readme:
        if missing := RUNS.keys() - {row["backbone"] for row in rows}:
            raise ValueError(
                f"{sorted(missing)} are not measured yet; the README gets the table of all: leave --only out"
            )
        write_block("backbones", lines)


if __name__ == "__main__":
    sys.exit(exit_status(lambda: tyro.cli(main), "stopped; the same command continues"))
