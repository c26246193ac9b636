"""How good a model's pictures are: `python -m train.evaluate WEIGHTS`.

Picture k shows class k % 10 and starts from seed `seed + k`, so that more pictures contain the fewer. The
judge is the classifier of `train.classifier`: how many it recognises as the class asked for, beside its
accuracy on held-out real pictures; and the Frechet distance to those, in what its last layer sees.
"""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image
from tqdm import tqdm

import dit
from dit.command import exit_status
from dit.files import atomic_write, sha256
from dit.pictures import contact_sheet
from dit.pipeline import Pipeline, find_device, usual_guidance
from dit.settings import SampleSettings
from dit.weights import describe, locate, set_provenance
from train import solids
from train.classifier import DEFAULT, HELD_OUT_SEED, Classifier, accuracy
from train.classifier import load as load_classifier
from train.data import solids_cache
from train.frechet import Gaussian
from train.record import commit

REFERENCE_PICTURES = 5000  # real ones that generated pictures are compared with


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Draw pictures of every class, count how many a classifier recognises, compare them with real ones."""

    weights: tyro.conf.Positional[str]
    """weights file, or the name of a bundled model"""
    pictures_per_class: int = 100
    """pictures drawn of each class"""
    steps: int = 50
    """of the sampler; each is one network call, of heun two"""
    guidance_scale: float | None = None
    """classifier-free guidance, 1 is none; default: as it was evaluated before, else 2, or 1 if it must be"""
    sampler: str = "auto"
    """ddim, dpm-solver++ or ddpm; of an EDM model heun; of a flow euler, heun or sde; auto: the first"""
    eta: float = 0.0
    """DDIM's noise, 0 to 1"""
    seed: int = 0
    """of the first picture; each further one has the next seed"""
    batch_size: int = 50
    """pictures drawn together; changes the speed only"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps, ..."""
    classifier: Path = DEFAULT
    """file of the judge"""
    grid: Path | None = None
    """picture file to write: one row a class"""
    grid_columns: int = 16
    """pictures of each class in the grid, at most"""
    grid_scale: int = 2
    """screen pixels a pixel in the grid"""
    out: Path | None = None
    """JSON file to write"""
    record: bool = False
    """add the results to the weights file itself"""

    def __post_init__(self) -> None:
        for name in ("pictures_per_class", "batch_size", "grid_columns", "grid_scale"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")


def draw(pipeline: Pipeline, evaluation: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    """The model's pictures (N, H, W, 3) uint8, and the labels (N,) int64 that they were asked to show.

    Raises:
        ValueError: settings that the sampler or the model cannot serve.
    """
    classes = len(solids.CLASSES)  # an unconditional model draws as many pictures, whatever they show
    total = classes * evaluation.pictures_per_class
    pictures = []
    with tqdm(total=total * evaluation.steps, desc="drawing", unit="step") as bar:  # one picture, one step
        for start in range(0, total, evaluation.batch_size):
            batch = range(start, min(start + evaluation.batch_size, total))
            settings = SampleSettings(
                classes=[k % classes for k in batch],
                seeds=[evaluation.seed + k for k in batch],
                steps=evaluation.steps,
                guidance_scale=evaluation.guidance_scale,
                sampler=evaluation.sampler,
                eta=evaluation.eta,
            )
            for frame in pipeline.stream(settings):
                last = frame.x0
                bar.update(len(batch))
            pictures.append(last)
    return np.concatenate(pictures), np.arange(total) % classes


def evaluate(evaluation: Evaluation) -> tuple[dict[str, Any], np.ndarray]:
    """The results, as JSON values that say how they came about, and the pictures (N, H, W, 3) uint8.

    Raises:
        WeightsError: a file that is not a model, or not a classifier.
        ValueError: a setting is out of range, or the model draws what the classifier does not know.
    """
    path, code = locate(evaluation.weights), commit()
    digest = sha256(path)
    model, judge = dit.load(path), load_classifier(evaluation.classifier)
    check(model, judge)
    wish = SampleSettings(classes=[0], seeds=[0], sampler=evaluation.sampler, eta=evaluation.eta)
    scale = usual_guidance(model) if evaluation.guidance_scale is None else evaluation.guidance_scale
    evaluation = replace(evaluation, sampler=wish.resolved(model.config).sampler, guidance_scale=scale)
    pictures, labels = draw(Pipeline(model, find_device(evaluation.device)), evaluation)
    told = {}
    if model.config.num_classes:  # else nothing was asked for that could be recognised
        told["accuracy"] = accuracy(judge.classify(pictures), labels, judge.config.classes)
    results = {
        "weights": path.name,
        "sha256": digest,
        "sampler": evaluation.sampler,
        "steps": evaluation.steps,
        "guidance_scale": evaluation.guidance_scale,
        "eta": evaluation.eta,
        "seed": evaluation.seed,
        "pictures": len(pictures),
        "pictures_per_class": evaluation.pictures_per_class,
        **told,
        "frechet": frechet(judge, pictures),
        "classifier": {
            "file": evaluation.classifier.name,
            "sha256": sha256(evaluation.classifier),
            "held_out": judge.provenance["held_out"],
        },
        "commit": code,
    }
    return results, pictures


def frechet(judge: Classifier, pictures: np.ndarray) -> dict[str, Any]:
    """Frechet distance of pictures (N, H, W, 3) uint8 to held-out real ones, in the classifier's features.

    "real" is that between real ones and as many others (up to 5000): what a perfect model would come to,
    since few pictures are never distributed quite like many.
    """
    reference = REFERENCE_PICTURES
    real = solids_cache(2 * reference, judge.config.side, HELD_OUT_SEED)
    expected = Gaussian.of(judge.features_of(real[:reference]))
    others = real[reference : reference + len(pictures)]
    return {
        "distance": Gaussian.of(judge.features_of(pictures)).distance(expected),
        "real": Gaussian.of(judge.features_of(others)).distance(expected),
        "reference_pictures": reference,
        "reference_seed": HELD_OUT_SEED,
    }


def check(model: dit.Backbone, judge: Classifier) -> None:
    """Raises ValueError unless the classifier, itself measured, knows the model's classes and size."""
    known = list(judge.config.classes)
    named, classes = model.provenance.get("classes"), model.config.num_classes
    if classes and (named != known or classes != len(known)):
        raise ValueError(
            f"the model has {classes} classes, named {named} in its provenance, but the "
            f"classifier knows {known}; evaluate a model trained on those, or an unconditional one"
        )
    size = (model.config.in_channels, model.config.input_size)
    if size != (3, judge.config.side):
        raise ValueError(
            f"the model draws {size[0]} channels of side {size[1]}, but the classifier knows 3 of side "
            f"{judge.config.side}; evaluate a model of that size"
        )
    if "held_out" not in judge.provenance:
        raise ValueError(
            "the classifier's provenance has no held_out accuracy to compare with; "
            "make it again with python -m train.classifier"
        )


def table(results: dict[str, Any]) -> str:
    """The results for a terminal: what the classifier recognises, of generated and of real pictures."""
    lines, real = [f"{'class':<12}{'generated':>10}{'real':>10}"], results["classifier"]["held_out"]
    if found := results.get("accuracy"):
        for name, share in found["per_class"].items():
            lines.append(f"{name:<12}{share:>10.1%}{real['per_class'][name]:>10.1%}")
        lines.append(f"{'all':<12}{found['overall']:>10.1%}{real['overall']:>10.1%}")
    if "frechet" in results:  # not in those from before it was measured
        distances = results["frechet"]
        lines.append(f"{'Frechet':<12}{distances['distance']:>10.3f}{distances['real']:>10.3f}")
    return "\n".join(lines)


def grid(pictures: np.ndarray, classes: int, columns: int, scale: int) -> Image.Image:
    """A row for each class of its first `columns` pictures, enlarged.

    pictures: (N, H, W, 3) uint8, of class 0, 1, ... in turn.
    """
    return contact_sheet(np.stack([pictures[y::classes][:columns] for y in range(classes)]), scale)


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
    results, pictures = evaluate(evaluation)
    print(table(results))
    if evaluation.record:
        path = locate(evaluation.weights)
        record(path, results)
        results["sha256"] = sha256(path)  # of the file that now lies there; its tensors are the same
    if evaluation.out:
        text = json.dumps(results, indent=1) + "\n"
        atomic_write(evaluation.out, lambda temporary: temporary.write_text(text))
    if evaluation.grid:
        sheet = grid(pictures, len(solids.CLASSES), evaluation.grid_columns, evaluation.grid_scale)
        atomic_write(evaluation.grid, lambda temporary: sheet.save(temporary, format="png"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
