"""How good a model's pictures are: `python -m train.evaluate WEIGHTS`.

Draws pictures of all classes (`train.draws`), looks at them with an extractor (`train.features`), and
compares them with real ones (`train.reference`) by all measures (`train.measures`). --work-dir keeps what is
drawn already, and the same command continues there.
"""

import json
import sys
import warnings
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image

import dit
from dit.command import exit_status
from dit.digest import digest_of
from dit.files import atomic_write, sha256
from dit.pictures import contact_sheet
from dit.pipeline import usual_guidance
from dit.speed import machine
from dit.weights import describe, locate, set_provenance
from train.adm import write_samples
from train.classifier import check_samples
from train.draws import Draw, draw, open_pipelines
from train.features import ClassifierFeatures
from train.judging import Judging
from train.measures import measure
from train.record import commit
from train.resampling import Resampling
from train.result_table import table

UNCONDITIONAL = 10  # times `pictures_per_class` are drawn of a model without classes; rows of its grid


@dataclass(frozen=True, kw_only=True)
class Evaluation(Judging):
    """Draw pictures of every class, measure how near they are to real ones, and count those recognised."""

    weights: tyro.conf.Positional[str]
    """weights file, or the name of a bundled model"""
    pictures_per_class: int = 100
    """pictures drawn of each class; of a model without classes, ten times as many in all"""
    samples: int | None = None
    """pictures drawn in all, instead; classes take turns"""
    steps: int = 50
    """of the sampler; each is one network call, of heun two"""
    guidance_scale: float | None = None
    """classifier-free guidance, 1 is none; default: as it was evaluated before, else 2, or 1 if it must be"""
    guidance_interval: tuple[float, float] | None = None
    """lowest and highest noise level that are guided: timesteps, sigmas, or times 0 to 1; default: all"""
    guided_channels: int | None = None
    """channels that are guided; 3: as the DiT authors, whose FID is of that; default: all"""
    guidance_schedule: str = "auto"
    """constant, or power-cosine as DiffiT's authors; auto: as the model's"""
    cache_every: int = 1
    """steps from one at which blocks compute to the next; between they serve again (FORA); 1: all compute"""
    sampler: str = "auto"
    """ddim, dpm-solver++ or ddpm; of an EDM model heun; of a flow euler, heun or sde; auto: the first"""
    spacing: str = "auto"
    """of timesteps: even, as the DiT authors, leading or linspace, as diffusers; auto: the sampler's"""
    eta: float = 0.0
    """DDIM's noise, 0 to 1"""
    seed: int = 0
    """of the first picture; each further one has the next seed"""
    batch_size: int = 50
    """pictures drawn together; changes the speed only"""
    device: str = "auto"
    """auto (every CUDA GPU, else what there is), cpu, cuda, cuda:1, mps, ..."""
    resamples: int = 100
    """times that the pictures are drawn again for each confidence interval"""
    work_dir: Path | None = None
    """folder that keeps what is drawn, to continue there"""
    grid: Path | None = None
    """picture file to write: one row a class"""
    grid_columns: int = 16
    """pictures of each class in the grid, at most"""
    grid_scale: int = 2
    """screen pixels a pixel in the grid"""
    npz: Path | None = None
    """file to write for ADM's evaluation suite: all pictures, and their labels"""
    out: Path | None = None
    """JSON file to write"""
    record: bool = False
    """add the results to the weights file itself"""

    def __post_init__(self) -> None:
        for name in ("pictures_per_class", "batch_size", "grid_columns", "grid_scale"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.samples is not None and self.samples < 2:
            raise ValueError(f"samples is {self.samples}; it must be at least 2")
        Resampling(self.resamples)  # too few are refused before anything is drawn

    def wish(self, model: dit.Backbone) -> Draw:
        """What to draw of this model. Raises ValueError for settings that cannot serve it."""
        values = {item.name: getattr(self, item.name) for item in fields(Draw)}
        if self.samples is None:
            values["samples"] = (model.config.num_classes or UNCONDITIONAL) * self.pictures_per_class
        if self.guidance_scale is None:
            values["guidance_scale"] = usual_guidance(model)
        return Draw(**values).resolved(model.config)


def evaluate(evaluation: Evaluation) -> tuple[dict[str, Any], np.ndarray]:
    """The results, as JSON values that say how they came about, and the pictures (N, H, W, 3) uint8.

    Raises:
        WeightsError: a file that is not a model, or not a classifier.
        ValueError: a setting is out of range, the model draws what the classifier does not know, or there is
            nothing to compare with.
    """
    path, code = locate(evaluation.weights), commit()
    file = {"sha256": sha256(path)} if path.is_file() else {}
    pipelines = open_pipelines(path, evaluation.device)
    model, wish = pipelines[0].model, evaluation.wish(pipelines[0].model)
    extractor, reference = evaluation.open(pipelines[0])
    recognised = model.config.num_classes > 0 and extractor.classes
    if recognised:
        check_samples(wish.samples, extractor.classes)
    pictures, labels = draw(pipelines, wish, evaluation.work_dir)
    resampling = Resampling(evaluation.resamples)
    measured = measure(pictures, labels if recognised else None, extractor, reference, resampling)
    measured["frechet"] |= {f"reference_{k}": v for k, v in reference.told.items() if k == "seed"}
    results = {
        "weights": path.name,
        **file,
        "network": digest_of(model),
        **{name: value for name, value in asdict(wish).items() if name not in ("samples", "batch_size")},
        "classes": model.config.num_classes,
        "pictures": len(pictures),
        **_per_class(len(pictures), model.config.num_classes),
        "autoencoder": pipelines[0].autoencoder.source if pipelines[0].autoencoder else None,
        **measured,
        "reference": reference.told,
        "extractor": extractor.told(),
        "commit": code,
        "machine": machine(pipelines[0].device),
    }
    if isinstance(extractor, ClassifierFeatures):
        told = {name: value for name, value in extractor.told().items() if name != "name"}
        results["classifier"] = told | {"held_out": extractor.model.provenance["held_out"]}
    return results, pictures


def _per_class(pictures: int, classes: int) -> dict[str, int]:
    """How many pictures are of each class, if of all as many."""
    return {"pictures_per_class": pictures // classes} if classes and pictures % classes == 0 else {}


def grid(pictures: np.ndarray, classes: int, columns: int, scale: int) -> Image.Image:
    """A row for each class of its first `columns` pictures, enlarged.

    pictures: (N, H, W, 3) uint8, of class 0, 1, ... in turn.
    """
    rows = min(classes, len(pictures))
    columns = min(columns, len(pictures) // rows)
    return contact_sheet(np.stack([pictures[y::classes][:columns] for y in range(rows)]), scale)


def record(weights_path: Path | str, results: dict[str, Any]) -> None:
    """Put results into a weights file's provenance, under "results", in place of any there; all else stays.

    The file's own digest is left out: writing it would change it.

    Raises:
        WeightsError: not a model's weights file.
    """
    path = locate(weights_path)
    kept = {name: value for name, value in results.items() if name != "sha256"}
    set_provenance(path, describe(path)[1] | {"results": kept})


def main(arguments: list[str]) -> int:
    """Evaluate, print the table, and write what was asked for. Returns the exit status."""
    return exit_status(lambda: _report(arguments), "stopped before the end")


def _report(arguments: list[str]) -> None:
    evaluation = tyro.cli(Evaluation, prog="python -m train.evaluate", args=arguments)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
        results, pictures = evaluate(evaluation)
    classes = results["classes"]
    print(table(results))
    if evaluation.record:
        path = locate(evaluation.weights)
        record(path, results)
        results["sha256"] = sha256(path)  # of the file that now lies there; its tensors are the same
    if evaluation.out:
        text = json.dumps(results, indent=1) + "\n"
        atomic_write(evaluation.out, lambda temporary: temporary.write_text(text))
    if evaluation.npz:
        write_samples(evaluation.npz, pictures, np.arange(len(pictures)) % classes if classes else None)
    if evaluation.grid:
        sheet = grid(pictures, classes or UNCONDITIONAL, evaluation.grid_columns, evaluation.grid_scale)
        atomic_write(evaluation.grid, lambda temporary: sheet.save(temporary, format="png"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
