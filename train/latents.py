"""Encoded pictures as training data: each visit draws from the posterior anew."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dit.tensors import WeightsError
from train.config import TrainConfig
from train.data import check_classes, chosen
from train.pictures import DataInfo
from train.shards import AGAIN, INDEX, Settings, Shard, header_of, mapped, read_index

SEED_FACTOR, SEED_OFFSET = 0x9E3779B97F4A7C15, 0x1A7E  # so that no other draw of the same seed is the same


class LatentData:
    """Latents of a folder that `python -m train.encode` has made. Its shards stay on the disk, mapped."""

    blocks = None  # any order is as fast

    def __init__(self, path: Path | str, config: TrainConfig) -> None:
        """The pictures that a config wants of a folder, and whether it wants to know what they show.

        Raises:
            ValueError: the folder holds other latents than the config needs, or not all of its shards are
                there and whole.
        """
        self.folder = Path(path)
        index = read_index(self.folder)
        self.settings = Settings.from_dict(index)
        self.classes, self.name = self.settings.classes, str(path)
        if config.image_size != self.settings.side:
            raise ValueError(
                f"{path} holds latents of pictures of side {self.settings.side} (pixels), but "
                f"image_size is {config.image_size}; give --image-size {self.settings.side}, or encode the "
                "pictures again at that size"
            )
        if config.class_conditional:
            check_classes(self)
        if not index["complete"]:
            there = len(list(self.folder.glob("shard-*.safetensors")))
            raise ValueError(
                f"{path}: {there} of {self.settings.num_shards} shards are there, the encoding has not come "
                f"to its end; {AGAIN}"
            )
        self.shards = [Shard(**values) for values in index["shards"]]
        self._mapped: dict[int, Tensor] = {}
        labels = [self._checked(number) for number in range(len(self.shards))]
        self.labels = torch.cat(labels).numpy()
        self.ends = np.cumsum([shard.pictures for shard in self.shards])
        wanted = self.labels if config.class_conditional else None
        self.places = chosen(config, len(self.labels), wanted)
        self.info = DataInfo(
            config.data,
            self.classes if config.class_conditional else (),
            self.settings.channels,
            self.settings.latent_side,
            self.settings.autoencoder,
        )

    def __len__(self) -> int:
        return len(self.places)

    def fetch(self, indices: np.ndarray, mirrored: np.ndarray, seeds: np.ndarray) -> tuple[Tensor, Tensor]:
        """Latents by number (n,) int64, of the mirrored pictures where told (n,) bool, each a draw.

        seeds: (n,) int64; each decides the draw of its row. Returns x0 (n, C, s, s) float32, scaled as the
        transformer sees latents, and y (n,) int64.
        """
        mean, deviation = self.moments(indices, mirrored)
        generator = torch.Generator()
        for row, seed in enumerate(np.asarray(seeds).tolist()):
            generator.manual_seed((seed + SEED_OFFSET) * SEED_FACTOR % 2**63)
            mean[row] += deviation[row] * torch.randn(mean.shape[1:], generator=generator)
        labels = self.labels[self.places[np.asarray(indices)]]
        return mean, torch.from_numpy(labels if self.info.classes else np.zeros_like(labels))

    def moments(self, indices: np.ndarray, mirrored: np.ndarray) -> tuple[Tensor, Tensor]:
        """What is stored of latents by number (n,): mean and deviation, both (n, C, s, s) float32."""
        places = self.places[np.asarray(indices)]
        numbers = np.searchsorted(self.ends, places, side="right")
        rows = places - np.where(numbers > 0, self.ends[numbers - 1], 0)
        flips = np.asarray(mirrored).astype(np.int64)
        stored = [
            self._shard(number)[row, flip]
            for number, row, flip in zip(numbers.tolist(), rows.tolist(), flips.tolist(), strict=True)
        ]
        mean, deviation = torch.stack(stored).float().unbind(dim=1)
        return mean.contiguous(), deviation

    def _shard(self, number: int) -> Tensor:
        """The posteriors of a shard (n, 2, 2, C, s, s) float16, in the file; opened once in each process."""
        if number not in self._mapped:
            self._mapped[number] = mapped(self.folder / self.shards[number].name)[0]
        return self._mapped[number]

    def _checked(self, number: int) -> Tensor:
        """The labels (n,) of a shard. Raises ValueError if it is not the one of the index, or not whole."""
        shard, settings = self.shards[number], self.settings
        path = self.folder / shard.name
        expected = (shard.pictures, 2, 2, settings.channels, settings.latent_side, settings.latent_side)
        try:
            size = path.stat().st_size if path.exists() else None
            if size not in (None, shard.bytes):
                raise WeightsError(f"{path}: expected {shard.bytes:,} bytes, found {size:,}")
            header = header_of(path)
            said = (header["settings"], header["sha256"], header["shape"])
            if said != (settings.digest(), shard.sha256, expected):
                raise WeightsError(f"{path}: it is not the shard that {INDEX} lists")
            return mapped(path)[1]
        except (WeightsError, KeyError) as error:
            raise ValueError(f"{error}; it cannot be used: {AGAIN}") from error

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_mapped": {}}  # each process maps for itself
