"""Between pictures and latents: diffusers' autoencoders, and nothing at all for models of pixels."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dit.published import AUTOENCODERS, is_repo_id
from dit.remote import WEIGHTS, fetch
from dit.tensors import WeightsError

DEFAULT = "ft-mse"  # what the DiT authors' sample.py decodes with
TILE = 32  # latents: side of the tiles of tiled decoding, as large as a picture of 256 x 256

# The SD autoencoder's latents (already scaled) to RGB in [-1, 1], as a linear map: the factors that ComfyUI
# publishes for SD 1.x (comfy/latent_formats.py), fitted to decoded pictures.
LATENT_TO_RGB = (
    (0.3512, 0.2297, 0.3227),
    (0.3250, 0.4974, 0.2350),
    (-0.2829, 0.1762, 0.2721),
    (-0.2120, -0.2616, -0.7177),
)
LATENT_CHANNELS = len(LATENT_TO_RGB)


def autoencoder_of(provenance: dict[str, Any], wanted: str | None = None) -> str:
    """The one that is wanted, else the one that a model came with, else the DiT authors' choice."""
    return wanted or provenance.get("autoencoder") or DEFAULT


class Autoencoder:
    """A frozen autoencoder of pictures. Latents leave and enter it scaled, as the transformer sees them."""

    def __init__(self, source: str, module: torch.nn.Module, tiling: bool = False) -> None:
        """module: diffusers' AutoencoderKL or AutoencoderTiny.

        tiling: decode large latents in overlapping tiles. Needs less memory; seams may differ slightly.

        Raises:
            WeightsError: latents that no preview is known for.
        """
        config = module.config
        if config.latent_channels != LATENT_CHANNELS:
            raise WeightsError(
                f"{source}: expected {LATENT_CHANNELS} latent channels, as in the SD autoencoder, "
                f"found {config.latent_channels}; choose an autoencoder of that family"
            )
        self.source, self.module = source, module.eval().requires_grad_(False)
        self.tiny = "Tiny" in type(module).__name__
        self.channels = config.latent_channels
        self.scale = float(config.scaling_factor)  # 0.18215 for SD's; here alone
        self.factor = 2 ** (
            len(config.encoder_block_out_channels if self.tiny else config.block_out_channels) - 1
        )
        if not self.tiny:
            module.enable_slicing()  # one picture at a time: the same result, a batch needs no more memory
        if tiling and not self.tiny:  # whose activations are small
            module.tile_latent_min_size, module.tile_sample_min_size = TILE, TILE * self.factor
            module.enable_tiling()

    def to(self, device: torch.device | str) -> "Autoencoder":
        """Move it to a device."""
        self.module.to(device)
        return self

    def posterior(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) in [-1, 1] -> mean and deviation of their latents, scaled, (N, C, H / f, W / f).

        A draw is mean + deviation * noise. Of AutoencoderTiny, which has no posterior, the deviation is 0.
        """
        encoded = self.module.encode(pixels.to(self.module.dtype))
        if self.tiny:
            mean = encoded.latents.float() * self.scale
            return mean, torch.zeros_like(mean)
        # From logarithms in single precision: half of it would round the deviation by some percent.
        parameters = encoded.latent_dist.parameters.float()
        whole = type(encoded.latent_dist)(parameters)  # which clamps them
        return whole.mean * self.scale, whole.std * self.scale

    def encode(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(N, 3, H, W) in [-1, 1] -> (N, C, H / f, W / f), drawn from the posterior and scaled."""
        mean, deviation = self.posterior(pixels)
        if self.tiny:
            return mean
        device = generator.device if generator else mean.device
        return mean + deviation * torch.randn(mean.shape, generator=generator, device=device).to(mean.device)

    def decode(self, latents: Tensor) -> Tensor:
        """(N, C, h, w), scaled -> (N, 3, f * h, f * w), about [-1, 1]."""
        return self.module.decode((latents / self.scale).to(self.module.dtype)).sample.float()

    def preview(self, latents: Tensor) -> Tensor:
        """(N, C, h, w), scaled -> (N, 3, h, w): what the picture will roughly be, at no cost."""
        return torch.einsum("nchw,cd->ndhw", latents, latents.new_tensor(LATENT_TO_RGB))


def load_autoencoder(
    source: str | Path = DEFAULT,
    device: torch.device | str = "cpu",
    *,
    dtype: torch.dtype = torch.float32,
    tiling: bool = False,
) -> Autoencoder:
    """An autoencoder by name (`published.AUTOENCODERS`), from a diffusers folder or from a Hub repository.

    Raises:
        WeightsError: no such source, not reachable, or not an autoencoder of pictures.
    """
    from diffusers import AutoencoderKL, AutoencoderTiny

    name = str(source)
    if Path(source).is_dir():
        folder = Path(source)
    elif name in AUTOENCODERS:
        repo_id, revision, inside = AUTOENCODERS[name]
        folder = fetch(repo_id, revision, inside) / inside
    elif is_repo_id(name):
        folder = fetch(name, folder="")
    else:
        raise WeightsError(
            f"{name}: no such folder, and no autoencoder of that name; choose {', '.join(AUTOENCODERS)}, "
            "or give OWNER/NAME on the Hub"
        )
    kinds = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}
    try:
        kind = json.loads((folder / "config.json").read_text())["_class_name"]
        if kind not in kinds:
            raise WeightsError(f"{folder}: expected {' or '.join(kinds)}, found {kind}")
        module, loaded = kinds[kind].from_pretrained(
            folder,
            torch_dtype=dtype,
            local_files_only=True,
            low_cpu_mem_usage=False,  # which needs accelerate
            use_safetensors=(folder / WEIGHTS[0]).is_file(),  # else a pickle, read with weights_only
            output_loading_info=True,
        )
        autoencoder = Autoencoder(name, module, tiling)
    except WeightsError:
        raise
    except Exception as error:  # diffusers checks little: a broken config fails anywhere
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(
            f"{folder}: expected a whole autoencoder of diffusers, found {type(error).__name__}: {reason}; "
            "download it again"
        ) from error
    wrong = {what: names for what, names in loaded.items() if names}
    if wrong:  # diffusers would draw random numbers for what is missing, and warn
        raise WeightsError(f"{folder}: its tensors are not those of its config: {wrong}")
    return autoencoder.to(device)
