"""The models on offer, ordered by compute: what each is, whether it can be had, and who is in memory."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from dit import remote, weights
from dit.autoencoder import autoencoder_of
from dit.backbone import Backbone
from dit.classes import titles
from dit.config import ModelConfig
from dit.flops import macs
from dit.pipeline import Frame, Pipeline, cost, macs_of, usual_guidance
from dit.published import AUTOENCODERS, PUBLISHED, Published, is_repo_id, size_of
from dit.settings import SampleSettings, levels
from dit.speed import Speed
from dit.step_cache import Cost
from ui.limits import USUAL, Limits

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
    in_training: bool = False  # of a run of the Train tab: its weights may change, or go
    outdated: bool = False  # whether the weights in memory are older than the file's

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
    def size(self) -> float:
        """Bytes of its weights in single precision, wherever they are; one with an autoencoder is large."""
        return float("inf") if self.latent else 4.0 * self.parameters

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

    rungs: list[Rung]  # by compute, cheapest first; after them those that were trained in the page
    device: torch.device
    limits: Limits = USUAL
    reachable: bool | None = None  # whether the Hub answered when last asked; None: not asked yet
    resident: list[Rung] = field(default_factory=list)  # least recently used first
    tables: Path = weights.ZOO  # folder of what was measured of families of models
    lent: Callable[[str, SampleSettings], Iterator[Frame]] | None = None  # draws elsewhere, see `ui.zero_gpu`

    @property
    def first(self) -> Rung:
        """What the page opens on: the largest model in memory, else one that can be drawn with."""
        known = [rung for rung in self.rungs if not rung.in_training]
        ready = [rung for rung in known if rung.pipeline] or [
            rung for rung in known if not self.missing(rung)
        ]
        return (ready or known)[-1]

    @property
    def names(self) -> list[str]:
        """Of all models, in their places."""
        return [rung.name for rung in self.rungs]

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
        if rung.in_training and not Path(rung.source).exists():  # even if it is in memory still
            folder = Path(rung.source).parent
            told = f"{folder.parent.name}/{folder.name}"  # where that lies on this machine is no visitor's
            if not folder.exists():
                anew = f"python -m train solids --run-dir {told}"
                return Missing(f"{rung.name} was deleted, and its weights with it; train another", anew)
            again = f"python -m train --run-dir {told}"
            return Missing(f"the weights of {rung.name} are no longer in its folder; train it again", again)
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
        if rung.outdated:
            rung.outdated = False  # before it is read: what is written meanwhile is newer still
            self.unload(rung)
        if rung.pipeline is None:
            idle = [other for other in self.resident if other not in in_use]
            while idle and not self.fits([*self.resident, rung]):
                self.unload(idle.pop(0))  # before, not after: both at once might not fit
            rung.pipeline = Pipeline.load(
                rung.source, self.device, autoencoder=rung.autoencoder, tiling=rung.tiling
            )
        else:
            self.resident.remove(rung)
        self.resident.append(rung)
        return rung.pipeline

    def fits(self, rungs: Collection[Rung]) -> bool:
        """Whether models may be in memory at the same time: those that are small count for their part."""
        whole = self.limits.small_bytes
        return sum(min(1.0, rung.size / whole) for rung in rungs) <= self.limits.models

    def unload(self, rung: Rung) -> None:
        """Give a model's memory back. Device thread only, so that no job is running on it."""
        if rung in self.resident:
            self.resident.remove(rung)
        rung.pipeline = None

    def stream(self, rung: Rung, settings: SampleSettings, in_use: Collection[Rung] = ()) -> Iterator[Frame]:
        """Load if need be, then the frames of a job. Device thread only. in_use: see `pipeline`."""
        if self.lent:
            yield from self.lent(rung.name, settings)
        else:
            yield from self.pipeline(rung, in_use).stream(settings)
