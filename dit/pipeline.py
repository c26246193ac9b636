"""From settings to pictures: a model on a device, streaming every step with what it has cost so far."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dit import autoencoder as autoencoders
from dit import samplers
from dit.autoencoder import Autoencoder
from dit.backbone import Backbone
from dit.diffusion import NUM_TIMESTEPS, linear_schedule
from dit.flops import macs
from dit.guidance import Guided
from dit.samplers import SPACINGS, timesteps
from dit.weights import WeightsError, load

MAX_SEED = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """Everything that decides a batch of pictures besides the weights.

    Checked when made, but for what depends on the model (classes, guidance), which `Pipeline.stream` checks.

    Raises:
        TypeError, ValueError: a value of the wrong type or out of range; the message names limit and remedy.
    """

    classes: Sequence[int]  # one label a picture; ignored by an unconditional model
    seeds: Sequence[int]  # one seed a picture
    steps: int = 50  # 1..1000 network calls
    guidance_scale: float = 1.0  # 1: no guidance, one forward pass a step
    sampler: str = "ddim"
    spacing: str = "even"  # of the timesteps: "even", as the DiT authors, or "leading", as diffusers' DDIM
    eta: float = 0.0  # DDIM's noise, 0..1
    guided_channels: int | None = None  # None: all; 3: as the DiT authors
    guidance_interval: tuple[int, int] = field(default=(0, NUM_TIMESTEPS - 1))

    def __post_init__(self) -> None:
        for name, values in (("class", self.classes), ("seed", self.seeds), ("steps", [self.steps])):
            for value in values:
                if isinstance(value, bool) or not isinstance(value, int | np.integer):
                    raise TypeError(f"{name} must be a whole number, not {value!r}")
        if not self.seeds or len(self.classes) != len(self.seeds):
            raise ValueError(
                f"{len(self.classes)} classes and {len(self.seeds)} seeds; give one of each for each picture"
            )
        if bad := [seed for seed in self.seeds if not 0 <= seed <= MAX_SEED]:
            raise ValueError(f"seed is {bad[0]}; it must be from 0 to {MAX_SEED}")
        if not 1 <= self.steps <= NUM_TIMESTEPS:
            raise ValueError(f"steps is {self.steps}; it must be from 1 to {NUM_TIMESTEPS}")
        if self.sampler not in samplers.SAMPLERS:
            raise ValueError(f"sampler is {self.sampler!r}; choose one of {', '.join(samplers.SAMPLERS)}")
        if self.spacing not in SPACINGS:
            raise ValueError(f"spacing is {self.spacing!r}; choose one of {', '.join(SPACINGS)}")
        if not 0.0 <= self.eta <= 1.0:
            raise ValueError(f"eta is {self.eta}; it must be from 0 (deterministic) to 1 (as noisy as DDPM)")
        if self.eta and self.sampler != "ddim":
            raise ValueError(
                f"eta is {self.eta}, but only the ddim sampler has an eta; use 0 with {self.sampler}"
            )

    def describe(self, picture: int) -> dict[str, Any]:
        """What decides one of the pictures besides the weights, as plain JSON values."""
        return {
            "label": int(self.classes[picture]),
            "seed": int(self.seeds[picture]),
            "steps": int(self.steps),
            "guidance_scale": self.guidance_scale,
            "sampler": self.sampler,
            "spacing": self.spacing,
            "eta": self.eta,
            "guided_channels": self.guided_channels or "all",
            "guidance_interval": list(self.guidance_interval),
        }


@dataclass(frozen=True)
class Frame:
    """The state of a batch after one step, or after one picture has been decoded from its latent."""

    index: int  # 0-based step
    steps: int
    t: int  # timestep of the network call
    x0: np.ndarray  # (N, H, W, 3) uint8: the pictures as predicted now; at the end, the result
    x_t: np.ndarray  # (N, H, W, 3) uint8: the sample after this step, still noisy before the last one
    macs: int  # multiply-accumulates that the transformer has spent so far, whole batch
    seconds: float  # spent in sampling so far, whole batch; time the caller took between frames is left out

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
    config = model.config
    if bad := [y for y in settings.classes if config.num_classes and not 0 <= y < config.num_classes]:
        raise ValueError(f"class is {bad[0]}; this model has classes 0 to {config.num_classes - 1}")
    return Guided(
        model,
        torch.tensor(list(settings.classes), device=device) if config.num_classes else None,
        settings.guidance_scale,
        channels=settings.guided_channels,
        interval=settings.guidance_interval,
    )


def passes(model: Backbone, settings: SampleSettings) -> int:
    """Forward passes that one picture costs, guidance counted. The model may be on the meta device."""
    denoiser = guided(model, settings)
    return sum(denoiser.passes(int(t)) for t in timesteps(settings.steps, settings.spacing))


def usual_guidance(model: Backbone) -> float:
    """The guidance scale that a model was evaluated at, else the authors' 4 for latents and 2 for pixels.

    1 for a model that cannot be guided.
    """
    if not model.config.has_null_class:
        return 1.0
    unknown = 4.0 if model.config.is_latent else 2.0
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
        self.macs_per_pass = macs(model.config)

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

    def passes(self, settings: SampleSettings) -> int:
        """Forward passes that one picture costs, guidance counted."""
        return passes(self.model, settings)

    def stream(self, settings: SampleSettings, x_T: Tensor | None = None) -> Iterator[Frame]:
        """Yield a frame after each step, and for latents one after each picture that has been decoded then.

        Closing the generator stops the work: nothing runs between frames.

        Each picture has a generator of its own on the CPU, so that it does not depend on its neighbours.
        x_T: (N, C, H, W) the noise to start from, if not the seeds'.
        """
        denoiser = guided(self.model, settings, self.device)  # checked now, not at the first frame
        return self._frames(settings, denoiser, x_T)

    def generate(self, settings: SampleSettings, x_T: Tensor | None = None) -> Frame:
        """The last frame of `stream`."""
        for frame in self.stream(settings, x_T):
            last = frame  # only the last one: a thousand would fill the memory
        return last

    def _frames(self, settings: SampleSettings, denoiser: Guided, x_T: Tensor | None) -> Iterator[Frame]:
        config = self.model.config
        shape = (config.in_channels, config.input_size, config.input_size)
        generators = [torch.Generator().manual_seed(int(seed)) for seed in settings.seeds]

        def noise(_: int = 0) -> Tensor:
            return torch.stack([torch.randn(shape, generator=g) for g in generators]).to(self.device)

        extra = {"ddim": {"eta": settings.eta, "noise": noise}, "ddpm": {"noise": noise}}.get(
            settings.sampler, {}
        )
        spent, seconds, steps = 0, 0.0, settings.steps
        started = time.perf_counter()
        first = noise()  # drawn even if not used: what ddpm adds later then does not depend on it
        walk = samplers.SAMPLERS[settings.sampler](
            denoiser,
            first if x_T is None else x_T.to(self.device),
            linear_schedule().alpha_bar,
            timesteps(steps, settings.spacing),
            **extra,
        )
        while True:
            with torch.inference_mode():  # not around the yield: the caller's thread must not inherit it
                step = next(walk, None)
                if step is None:
                    break
                x0, x_t = self._show(step.x0), self._show(step.x_t)
            seconds += time.perf_counter() - started
            spent += denoiser.passes(step.t) * self.macs_per_pass * len(settings.seeds)
            finished = len(x0) if step.index == steps - 1 and self.autoencoder is None else 0
            frame = Frame(step.index, steps, step.t, x0, x_t, spent, seconds, finished)
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
