"""The models on offer, ordered by compute: what each is, whether it can be had, and who is in memory."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from dit import remote, weights
from dit.autoencoder import autoencoder_of
from dit.backbone import Backbone
from dit.classes import class_names, titles
from dit.config import ModelConfig
from dit.flops import macs
from dit.pipeline import Frame, Pipeline, cost, macs_of, usual_guidance
from dit.published import AUTOENCODERS, PUBLISHED, Published, is_repo_id, published, size_of
from dit.settings import SampleSettings, levels
from dit.speed import Speed, measure_speed
from dit.step_cache import Cost
from ui.limits import USUAL, Limits

TIMED = 5e9  # MACs a pass up to which a model is loaded and timed at the start; larger ones are estimated
GUESSED_RATE = 5e10  # MACs a second of a machine on which nothing has been timed
DECODER_MACS = 4.75e6  # of the SD autoencoder's decoder, a pixel of the picture
LATENT_FACTOR = 8  # of the SD autoencoder: sides of a picture to sides of its latent


@dataclass(frozen=True)
class Missing:
    """Why a model cannot be drawn with, and the one command that helps."""

    reason: str
    command: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.command}"


@dataclass(eq=False)
class Rung:
    """One model of the ladder, in memory or not."""

    name: str
    source: str | Path  # a path on this machine, or the name of a published model
    outline: Backbone  # on the meta device: config, provenance and shapes, no weights
    classes: tuple[str, ...]  # names of its classes, in label order
    speed: Speed
    published: Published | None = None
    autoencoder: str | None = None  # decodes its latents, if not the one that it came with
    tiling: bool = False
    pipeline: Pipeline | None = None  # while it is in memory

    @property
    def config(self) -> ModelConfig:
        """The model's config."""
        return self.outline.config

    @property
    def provenance(self) -> dict:
        """Where the weights come from."""
        return self.outline.provenance

    @property
    def macs_per_pass(self) -> int:
        """Of one picture."""
        return macs(self.config)

    @property
    def parameters(self) -> int:
        """All of them, the fixed position table included, as the paper's files count."""
        return sum(parameter.numel() for parameter in self.outline.parameters())

    @property
    def latent(self) -> bool:
        """Whether it draws latents, which an autoencoder decodes."""
        return self.config.is_latent

    @property
    def side(self) -> int:
        """Of its pictures, in pixels."""
        return self.config.input_size * (LATENT_FACTOR if self.latent else 1)

    @property
    def decoder_macs(self) -> float:
        """What the autoencoder spends on decoding a picture; 0 for a model of pixels."""
        return DECODER_MACS * self.side**2 if self.latent else 0.0

    @property
    def titles(self) -> tuple[str, ...]:
        """Short names of its classes."""
        return titles(self.classes)

    @property
    def guidance_scale(self) -> float:
        """Where the page's slider starts."""
        return usual_guidance(self.outline)

    @property
    def bytes(self) -> int:
        """Memory that its weights and its autoencoder's take now; 0 if it is not in memory."""
        pipeline = self.pipeline  # once: the device's thread may unload it at any time
        if pipeline is None:
            return 0
        modules = [pipeline.model] + ([pipeline.autoencoder.module] if pipeline.autoencoder else [])
        return sum(p.numel() * p.element_size() for module in modules for p in module.parameters())

    def cost(self, settings: SampleSettings) -> Cost:
        """Forward passes of one picture. Raises ValueError for what this model cannot serve."""
        return cost(self.outline, settings)

    def macs(self, settings: SampleSettings) -> int:
        """Multiply-accumulates of the transformer for one picture."""
        return macs_of(self.config, self.cost(settings))

    def calls(self, settings: SampleSettings) -> int:
        """Network calls of a batch, each of one or, guided, two forward passes a picture."""
        return sum(map(len, levels(settings.resolved(self.config), self.config.formulation)))

    def seconds(self, settings: SampleSettings) -> float:
        """Expected seconds on this machine for these settings, decoding included."""
        pictures, calls = len(settings.seeds), self.calls(settings)
        decoding = pictures * self.decoder_macs / self.macs_per_pass * self.speed.per_picture
        passes = self.macs(settings) / self.macs_per_pass  # as many whole ones
        return self.speed.seconds(passes, pictures, calls) + decoding

    def correct_speed(self, settings: SampleSettings, seconds: float) -> None:
        """Correct the expectation by a finished job: the timing at start may have met a busy machine."""
        ratio = seconds / self.seconds(settings)
        self.speed = Speed(self.speed.overhead * ratio, self.speed.per_picture * ratio)


@dataclass(eq=False)
class Studio:
    """All models of the page over one device, and what may be asked of it."""

    rungs: list[Rung]  # by compute, cheapest first
    device: torch.device
    limits: Limits = USUAL
    reachable: bool | None = None  # whether the Hub answered when last asked; None: not asked yet
    resident: list[Rung] = field(default_factory=list)  # least recently used first
    tables: Path = weights.ZOO  # folder of what was measured of families of models

    @property
    def first(self) -> Rung:
        """What the page opens on: the largest model in memory, else one that can be drawn with."""
        ready = [rung for rung in self.rungs if rung.pipeline] or [
            rung for rung in self.rungs if not self.missing(rung)
        ]
        return (ready or self.rungs)[-1]

    def at(self, position: float | None) -> Rung | None:
        """The model at a place of the ladder, counted from 0; None if there is none."""
        return self.rungs[int(position)] if position in range(len(self.rungs)) else None

    def size_on_disk(self, rung: Rung) -> int:
        """Bytes of a model's files, or of what a download would bring."""
        if rung.published:
            return rung.published.bytes
        path = Path(rung.source)
        files = path.rglob("*") if path.is_dir() else [path]
        return sum(file.stat().st_size for file in files if file.is_file())

    def missing(self, rung: Rung) -> Missing | None:
        """Why a model cannot be drawn with now; None if it can."""
        if rung.pipeline:
            return None
        model = rung.published
        if model and not remote.cached(model.repo_id, model.revision):
            return self._not_here(f"{rung.name} ({size_of(model.bytes)}) is", rung.name)
        if rung.latent:
            wanted = autoencoder_of(rung.provenance, rung.autoencoder)
            if (model and not rung.autoencoder) or Path(wanted).is_dir():
                return None
            repo_id, revision, folder = AUTOENCODERS.get(wanted, (wanted, None, ""))
            if is_repo_id(repo_id) and not remote.cached(repo_id, revision, folder):
                return self._not_here(f"{rung.name} needs the autoencoder {wanted}, which is", wanted)
        return None

    def _not_here(self, what: str, name: str) -> Missing:
        command = f"python -m dit.hub pull {name}"
        if remote.is_offline():
            return Missing(f"{what} not on this machine, and HF_HUB_OFFLINE is set; with a network", command)
        if self.reachable is False:
            return Missing(
                f"{what} not on this machine, and the Hub cannot be reached; where it can", command
            )
        where = "the Models tab, or" if name in PUBLISHED else "run"
        return Missing(f"{what} not on this machine yet; {where}", command)

    def ask_hub(self) -> None:
        """Note whether the Hub answers, if anything is missing. Takes up to 3 s: for a thread."""
        if any(self.missing(rung) for rung in self.rungs):
            self.reachable = remote.is_reachable()

    def pipeline(self, rung: Rung, in_use: Collection[Rung] = ()) -> Pipeline:
        """The model, in memory; the least recently used goes where there are too many. Device thread only.

        in_use: models that stay, since they are being drawn with.

        Raises:
            WeightsError: it cannot be loaded.
        """
        if rung.pipeline is None:
            idle = [other for other in self.resident if other not in in_use]
            while len(self.resident) >= self.limits.models and idle:
                self.unload(idle.pop(0))  # before, not after: both at once might not fit
            rung.pipeline = Pipeline.load(
                rung.source, self.device, autoencoder=rung.autoencoder, tiling=rung.tiling
            )
        else:
            self.resident.remove(rung)
        self.resident.append(rung)
        return rung.pipeline

    def unload(self, rung: Rung) -> None:
        """Give a model's memory back. Device thread only, so that no job is running on it."""
        if rung in self.resident:
            self.resident.remove(rung)
        rung.pipeline = None

    def stream(self, rung: Rung, settings: SampleSettings, in_use: Collection[Rung] = ()) -> Iterator[Frame]:
        """Load if need be, then the frames of a job. Device thread only. in_use: see `pipeline`."""
        yield from self.pipeline(rung, in_use).stream(settings)


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
) -> Studio:
    """The bundled models, the published ones, and any further sources. Small ones are loaded and timed.

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
        outline = weights.outline(path)
        if outline.config.in_channels not in (1, 3, 4):
            raise weights.WeightsError(
                f"{source}: this model has {outline.config.in_channels} channels; 1 (grey) and 3 (RGB) are "
                "pictures, 4 are the SD autoencoder's latents"
            )
        names = class_names(outline.provenance, outline.config.num_classes)
        name = outline.provenance.get("name") or (path.stem if path.is_file() else Path(source).name)
        rungs.append(Rung(unused(str(name), rungs), path, outline, names, Speed(0.0, 0.0)))
    rungs += [_published_rung(model) for model in PUBLISHED.values()]
    rungs.sort(key=lambda rung: rung.macs_per_pass)
    for rung in rungs:
        rung.autoencoder, rung.tiling = autoencoder, tiling
    studio = Studio(rungs, torch.device(device), limits, tables=tables)
    for rung in [rung for rung in rungs if rung.macs_per_pass < TIMED and not rung.latent]:
        if Path(rung.source).parent != weights.BACKBONES:  # those cost alike: their speed is estimated
            rung.speed = measure_speed(studio.pipeline(rung))
    rates = [rung.macs_per_pass / rung.speed.per_picture for rung in rungs if rung.speed.per_picture]
    for rung in [rung for rung in rungs if not rung.speed.per_picture]:
        rung.speed = Speed(0.0, rung.macs_per_pass / max(rates, default=GUESSED_RATE))
    return studio


def _published_rung(model: Published) -> Rung:
    outline = weights.published_outline(model)
    names = class_names(outline.provenance, outline.config.num_classes)
    return Rung(model.name, model.name, outline, names, Speed(0.0, 0.0), model)
