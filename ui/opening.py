"""Which models the page opens with: the bundled, the published, and those that it was started with."""

from collections.abc import Sequence
from pathlib import Path

import torch

from dit import weights
from dit.backbone import Backbone
from dit.classes import class_names
from dit.published import AUTOENCODERS, PUBLISHED, Published, is_repo_id, published
from dit.speed import Speed, measure_speed
from ui.limits import USUAL, Limits
from ui.studio import Rung, Studio

TIMED = 5e9  # MACs a pass up to which a model is loaded and timed at the start; larger ones are estimated
GUESSED_RATE = 5e10  # MACs a second of a machine on which nothing has been timed


def unused(name: str, rungs: Sequence[Rung]) -> str:
    """The name, with a number behind if another model has it: the page and the API tell models by name."""
    taken, number = {rung.name for rung in rungs}, 2
    if name not in taken:
        return name
    while f"{name} ({number})" in taken:
        number += 1
    return f"{name} ({number})"


def open_studio(
    extra: Sequence[Path | str] = (),
    device: torch.device | str = "cpu",
    limits: Limits = USUAL,
    autoencoder: str | None = None,
    tiling: bool = False,
    tables: Path = weights.ZOO,
    timed: bool = True,
) -> Studio:
    """The bundled models, the published ones, and any further sources.

    timed: load the small ones now, and measure their speed; else it is guessed.

    Raises:
        WeightsError: a source cannot be used.
    """
    if autoencoder and not (
        autoencoder in AUTOENCODERS or Path(autoencoder).is_dir() or is_repo_id(autoencoder)
    ):
        raise weights.WeightsError(
            f"autoencoder is {autoencoder!r}; choose {', '.join(AUTOENCODERS)}, a folder, or OWNER/NAME"
        )
    rungs: list[Rung] = []
    for source in [*weights.bundled().values(), *extra]:
        path = weights.locate(source)  # once: a branch on the Hub may move while the page is up
        if published(str(source)) and not Path(source).exists():
            continue  # now it is here, and on the ladder below
        outline = drawable(path)
        names = class_names(outline.provenance, outline.config.num_classes)
        name = outline.provenance.get("name") or (path.stem if path.is_file() else Path(source).name)
        rungs.append(Rung(unused(str(name), rungs), path, outline, names, Speed(0.0, 0.0)))
    rungs += [_published_rung(model) for model in PUBLISHED.values()]
    rungs.sort(key=lambda rung: rung.macs_per_pass)
    for rung in rungs:
        rung.autoencoder, rung.tiling = autoencoder, tiling
    studio = Studio(rungs, torch.device(device), limits, tables=tables)
    for rung in [rung for rung in rungs if timed and rung.macs_per_pass < TIMED and not rung.latent]:
        if Path(rung.source).parent != weights.BACKBONES:  # those cost alike: their speed is estimated
            rung.speed = measure_speed(studio.pipeline(rung))
    guessed = [rung for rung in rungs if not rung.speed.per_picture]
    for rung, speed in [(rung, estimated_speed(rungs, rung.macs_per_pass)) for rung in guessed]:
        rung.speed = speed
    return studio


def estimated_speed(rungs: Sequence[Rung], macs_per_pass: int) -> Speed:
    """Of a model that was not timed, by the fastest of those that were."""
    rates = [rung.macs_per_pass / rung.speed.per_picture for rung in rungs if rung.speed.per_picture]
    return Speed(0.0, macs_per_pass / max(rates, default=GUESSED_RATE))


def drawable(source: Path | str) -> Backbone:
    """A model without its weights. Raises WeightsError where there is none whose output is a picture."""
    outline = weights.outline(source)
    if outline.config.in_channels not in (1, 3, 4):
        raise weights.WeightsError(
            f"{source}: this model has {outline.config.in_channels} channels; 1 (grey) and 3 (RGB) are "
            "pictures, 4 are the SD autoencoder's latents"
        )
    return outline


def _published_rung(model: Published) -> Rung:
    outline = weights.published_outline(model)
    names = class_names(outline.provenance, outline.config.num_classes)
    return Rung(model.name, model.name, outline, names, Speed(0.0, 0.0), model)
