"""From pictures to latents in half precision: decoded, encoded both ways round, every number checked."""

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dit.autoencoder import Autoencoder
from dit.pipeline import from_pictures
from train.decode import pixels
from train.pictures import Pictures, UnreadablePicture
from train.shards import FLIPS, MOMENTS


@dataclass
class Decoded:
    """Some of a shard's pictures as squares of bytes, without those that cannot be read."""

    pixels: np.ndarray  # (n, side, side, 3) uint8
    places: list[int]  # (n,) in the set
    labels: list[int]  # (n,)
    skipped: list[dict[str, str]] = field(default_factory=list)  # title and reason


@dataclass(frozen=True)
class Decoder:
    """Batch i of a list, decoded; it pickles, for the loader's processes."""

    pictures: Pictures
    side: int
    batches: tuple[range, ...]

    def __call__(self, number: int) -> Decoded:
        squares, places, skipped = [np.empty((0, self.side, self.side, 3), np.uint8)], [], []
        for place in self.batches[number]:
            try:
                squares.append(pixels(self.pictures.picture(place), self.side, 3)[None])
                places.append(place)
            except UnreadablePicture as error:
                title = self.pictures.title(place)
                skipped.append({"picture": title, "reason": str(error).removeprefix(f"{title}: ")})
        labels = [int(self.pictures.labels[place]) for place in places]
        return Decoded(np.concatenate(squares), places, labels, skipped)


class Encoder:
    """An autoencoder on a device, in a precision."""

    def __init__(self, autoencoder: Autoencoder, device: torch.device, precision: str) -> None:
        """precision: auto, fp32 or bf16."""
        self.autoencoder, self.device = autoencoder.to(device), device
        self.precision = "tf32" if precision == "auto" and device.type == "cuda" else precision
        if self.precision == "auto":
            self.precision = "fp32"
        if device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = self.precision == "tf32"
        if device.type != "cpu" and not autoencoder.tiny:  # a single picture leaves an accelerator idle
            autoencoder.module.disable_slicing()

    def _context(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()

    @torch.inference_mode()
    def __call__(self, squares: np.ndarray, title: Callable[[int], str]) -> Tensor:
        """(n, side, side, 3) uint8 -> (n, 2, 2, C, s, s) float16: both flips, mean and deviation.

        title: what to call picture i of these.

        Raises:
            FloatingPointError: numbers that are not finite.
        """
        if not len(squares):
            side = squares.shape[1] // self.autoencoder.factor
            return torch.empty(0, FLIPS, MOMENTS, self.autoencoder.channels, side, side, dtype=torch.float16)
        x = from_pictures(squares).to(self.device)
        with self._context():
            mean, deviation = self.autoencoder.posterior(torch.cat([x, x.flip(-1)]))
        moments = torch.stack([mean, deviation], dim=1).unflatten(0, (FLIPS, len(x))).transpose(0, 1)
        latents = moments.to("cpu", torch.float16)
        finite = latents.flatten(1).isfinite().all(dim=1)
        if not finite.all():
            first = int(finite.logical_not().nonzero()[0])
            remedy = (
                "the weights of the autoencoder are damaged, or no autoencoder's; download them again"
                if self.precision == "fp32"
                else "half precision is too narrow for this autoencoder; go on with --precision fp32"
            )
            raise FloatingPointError(
                f"{self.autoencoder.source}: the latent of {title(first)} is not finite in {self.precision} "
                f"({len(x) - int(finite.sum())} of {len(x)} pictures); {remedy}"
            )
        return latents.contiguous()


def digest_of_weights(autoencoder: Autoencoder) -> str:
    """Of what encodes; those that are equal but for the decoder are alike."""
    digest = hashlib.sha256()
    for name, tensor in sorted(autoencoder.module.state_dict().items()):
        if name.startswith(("encoder.", "quant_conv.")):
            digest.update(name.encode() + str(tuple(tensor.shape)).encode())
            digest.update(
                tensor.detach().to("cpu", torch.float32).contiguous().view(-1).view(torch.uint8).numpy()
            )
    return digest.hexdigest()
