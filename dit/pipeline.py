"""From settings to pictures: a model on a device, streaming every step with what it has cost so far."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dit import autoencoder as autoencoders
from dit.autoencoder import Autoencoder
from dit.backbone import Backbone
from dit.config import ModelConfig
from dit.flops import macs
from dit.guidance import SCHEDULES, Guided
from dit.settings import SampleSettings, level_name, levels, walk
from dit.step_cache import Cost, StepCache, costs
from dit.weights import WeightsError, load


@dataclass(frozen=True)
class Frame:
    """The state of a batch after one step, or after one picture has been decoded from its latent."""

    index: int  # 0-based step
    steps: int
    t: float  # noise level of the step's first network call: a timestep, a sigma (EDM), a time 0..1 (flow)
    x0: np.ndarray  # (N, H, W, 3) uint8: the pictures as predicted now; at the end, the result
    x_t: np.ndarray  # (N, H, W, 3) uint8: the sample after this step, still noisy before the last one
    macs: int  # multiply-accumulates that the transformer has spent so far, whole batch
    seconds: float  # spent in sampling so far, whole batch; time the caller took between frames is left out
    level: str = ""  # t in words: t = 999, σ = 80, t = 0.98
    finished: int = 0  # how many of the pictures are the result, and not a preview of it

    @property
    def done(self) -> bool:
        """Whether all pictures are finished: no frame comes after this one."""
        return self.finished == len(self.x0)


def guided(model: Backbone, settings: SampleSettings, device: torch.device | str = "cpu") -> Guided:
    """The denoiser for these settings. The model may be on the meta device: then it plans, and cannot run.

    Raises:
        ValueError: this model cannot serve them.
    """
    config, settings = model.config, settings.resolved(model.config)
    if bad := [y for y in settings.classes if config.num_classes and not 0 <= y < config.num_classes]:
        raise ValueError(f"class is {bad[0]}; this model has classes 0 to {config.num_classes - 1}")
    return Guided(
        model,
        torch.tensor(list(settings.classes), device=device) if config.num_classes else None,
        settings.guidance_scale,
        channels=settings.guided_channels,
        interval=settings.guidance_interval,
        schedule=SCHEDULES[settings.guidance_schedule],
        cache=StepCache(settings.cache_every) if settings.cache_every > 1 else None,
    )


def step_costs(model: Backbone, settings: SampleSettings) -> list[Cost]:
    """What each step costs a picture, guidance counted. The model may be on the meta device.

    Raises:
        ValueError: this model cannot serve these settings.
    """
    denoiser = guided(model, settings)
    steps = levels(settings.resolved(model.config), model.config.formulation)
    calls = iter(costs([denoiser.passes(t) for step in steps for t in step], settings.cache_every))
    return [sum((next(calls) for _ in step), Cost()) for step in steps]


def cost(model: Backbone, settings: SampleSettings) -> Cost:
    """What one picture costs; see `step_costs`."""
    return sum(step_costs(model, settings), Cost())


def macs_of(config: ModelConfig, cost: Cost) -> int:
    """Multiply-accumulates of a model's forward passes, of one picture."""
    return cost.whole * macs(config) + (cost.reused * macs(config, reused=True) if cost.reused else 0)


def usual_guidance(model: Backbone) -> float:
    """The guidance scale that a model was evaluated at; of latents else their authors', of pixels 2.

    DiT's sample.py has 4; DiffiT's authors 4.4 for 256 pixels and 1.49 for 512. 1 for a model that cannot be
    guided.
    """
    config = model.config
    if not config.has_null_class:
        return 1.0
    diffit = 4.4 if config.input_size <= 32 else 1.49
    unknown = (diffit if config.backbone == "diffit" else 4.0) if config.is_latent else 2.0
    return float(model.provenance.get("results", {}).get("guidance_scale", unknown))


class Pipeline:
    """A model ready to draw: of pixels, or of the latents of an autoencoder."""

    def __init__(
        self, model: Backbone, device: torch.device | str = "cpu", autoencoder: Autoencoder | None = None
    ) -> None:
        """Raises ValueError where the model's output is neither pixels nor the autoencoder's latents."""
        channels = model.config.in_channels
        if autoencoder is None and model.config.is_latent:
            raise ValueError(
                f"this model has {channels} channels; 1 (grey) and 3 (RGB) are pictures; "
                "latents need an autoencoder: Pipeline.load finds one"
            )
        if autoencoder is not None and channels != autoencoder.channels:
            raise ValueError(
                f"this model has {channels} channels, but the latents of {autoencoder.source} have "
                f"{autoencoder.channels}; give the autoencoder that the model was trained with"
            )
        self.device = torch.device(device)
        self.model = model.to(self.device).eval()
        self.autoencoder = autoencoder.to(self.device) if autoencoder else None

    @classmethod
    def load(
        cls,
        source: Path | str,
        device: torch.device | str = "cpu",
        *,
        dtype: torch.dtype = torch.float32,
        autoencoder: str | None = None,
        tiling: bool = False,
        revision: str | None = None,
    ) -> "Pipeline":
        """A model and what decodes its latents, from any source that `dit.load` takes.

        autoencoder: a name in `published.AUTOENCODERS`, a folder or a repository; None: the one that the
        model came with, else the DiT authors' choice. tiling: see `Autoencoder`. dtype: of the transformer;
        the autoencoder stays float32, since half precision shows in its pictures.

        Raises:
            WeightsError: one of the two cannot be loaded.
        """
        model = load(source, device, dtype=dtype, revision=revision)
        decoder = None
        if model.config.is_latent:
            chosen = autoencoders.autoencoder_of(model.provenance, autoencoder)
            try:
                decoder = autoencoders.load_autoencoder(chosen, device, tiling=tiling)
            except WeightsError as error:
                raise WeightsError(f"{source} needs an autoencoder, {chosen}, but {error}") from error
        try:
            return cls(model, device, decoder)
        except ValueError as error:
            raise WeightsError(f"{source}: {error}") from error

    def stream(self, settings: SampleSettings, x_T: Tensor | None = None) -> Iterator[Frame]:
        """Yield a frame after each step, and for latents one after each picture that has been decoded then.

        Closing the generator stops the work: nothing runs between frames.

        Each picture has a generator of its own on the CPU, so that it does not depend on its neighbours.
        x_T: (N, C, H, W) the standard normal noise to start from, if not the seeds'.
        """
        denoiser = guided(self.model, settings, self.device)  # checked now, not at the first frame
        return self._frames(settings.resolved(self.model.config), denoiser, x_T)

    def generate(self, settings: SampleSettings, x_T: Tensor | None = None) -> Frame:
        """The last frame of `stream`."""
        for frame in self.stream(settings, x_T):
            last = frame  # only the last one: a thousand would fill the memory
        return last

    def _frames(self, settings: SampleSettings, denoiser: Guided, x_T: Tensor | None) -> Iterator[Frame]:
        config, formulation = self.model.config, self.model.config.formulation
        shape = (config.in_channels, config.input_size, config.input_size)
        generators = [torch.Generator().manual_seed(int(seed)) for seed in settings.seeds]

        def noise(_: int = 0) -> Tensor:
            return torch.stack([torch.randn(shape, generator=g) for g in generators]).to(self.device)

        spent, seconds, steps = 0, 0.0, settings.steps
        prices = [macs_of(config, cost) for cost in step_costs(self.model, settings)]
        started = time.perf_counter()
        first = noise()  # drawn even if not used: what ddpm adds later then does not depend on it
        start = first if x_T is None else x_T.to(self.device)
        taken = walk(settings, formulation, denoiser, start, noise)
        while True:
            with torch.inference_mode():  # not around the yield: the caller's thread must not inherit it
                step = next(taken, None)
                if step is None:
                    break
                x0, x_t = self._show(step.x0), self._show(step.gain * step.x_t)
            seconds += time.perf_counter() - started
            spent += prices[step.index] * len(settings.seeds)
            finished = len(x0) if step.index == steps - 1 and self.autoencoder is None else 0
            named = level_name(formulation, step.t)
            frame = Frame(step.index, steps, step.t, x0, x_t, spent, seconds, named, finished)
            yield frame
            started, latents = time.perf_counter(), step.x_t
        if self.autoencoder:
            yield from self._decode(frame, latents)

    def _show(self, x: Tensor) -> np.ndarray:
        """A sample as a viewer sees it: pixels as they are, latents as a preview, a pixel each."""
        return to_pictures(self.autoencoder.preview(x) if self.autoencoder else x)

    def _decode(self, last: Frame, latents: Tensor) -> Iterator[Frame]:
        """The latents' pictures, one after the other: each takes as long as a step, so each is a frame."""
        factor = self.autoencoder.factor * latents.shape[-1] // last.x0.shape[1]
        pictures, seconds = last.x0.repeat(factor, axis=1).repeat(factor, axis=2), last.seconds
        for i in range(len(latents)):
            started = time.perf_counter()
            with torch.inference_mode():
                decoded = to_pictures(self.autoencoder.decode(latents[i : i + 1]))
            pictures = np.concatenate([pictures[:i], decoded, pictures[i + 1 :]])
            seconds += time.perf_counter() - started
            yield replace(last, x0=pictures, x_t=pictures, seconds=seconds, finished=i + 1)


def find_device(name: str = "auto") -> torch.device:
    """A device by its name; for "auto" a CUDA GPU if there is one, then Apple's, else the CPU.

    Raises:
        ValueError: no such device on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # the meta device can be allocated on, but computes nothing
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ValueError(
            f"device {name!r} cannot be used here ({error}); --device auto takes what there is"
        ) from error
    return device


def to_pictures(x: Tensor) -> np.ndarray:
    """(N, 1 or 3, H, W) in [-1, 1] -> (N, H, W, 3) uint8, clamped; NaN becomes black."""
    pixels = torch.nan_to_num(x.float() * 127.5 + 128, nan=0.0).clamp(0, 255).to(torch.uint8)
    return pixels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().contiguous().numpy()


def from_pictures(pixels: np.ndarray) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32 in [-1, 1], in memory of its own."""
    writable = np.require(pixels, requirements="W")  # torch warns of a read-only array
    return torch.from_numpy(writable).permute(0, 3, 1, 2).float() / 127.5 - 1
