"""Pictures through the autoencoder once, for all epochs: `python -m train.encode DATA OUT`.

Each picture is encoded twice, as it is and mirrored, and of both mean and deviation of the latent are stored,
so that training can draw from the posterior anew whenever it sees the picture. Under `torchrun`, process r of
w makes the shards r, r + w, ...; they speak with each other through the folder alone.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor
from tqdm import tqdm

from dit.autoencoder import DEFAULT, Autoencoder, load_autoencoder
from dit.command import exit_status
from dit.pipeline import find_device
from dit.published import size_of
from train.data import open_pictures
from train.encoder import Decoded, Decoder, Encoder, digest_of_weights
from train.loader import load_ahead
from train.pictures import Pictures
from train.preemption import RESUME_ME, Preempted, Preemption
from train.shards import (
    INDEX,
    Settings,
    bytes_left,
    check_room,
    claim,
    digest_of_pictures,
    finish,
    problem,
    shard_path,
    write_shard,
)
from train.solids import cores

WARM_UP, MEASURED = 1, 3  # batches: the first is slow, then so many are timed before a time is promised
CONTINUES = "the same command continues"


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Encode pictures to latents, once. Stopped in whatever way, the same command again continues."""

    data: tyro.conf.Positional[str]
    """a folder of pictures, a folder of parquet files, or a dataset on the Hub: OWNER/NAME"""
    out: tyro.conf.Positional[Path]
    """folder for the latents"""
    image_size: int = 256
    """side of the square that is cut from the middle of each picture (pixels)"""
    autoencoder: str = DEFAULT
    """original, ft-mse, ft-ema, taesd, a diffusers folder, or a repository on the Hub"""
    split: str = "train"
    """of a dataset that has several"""
    streaming: bool = False
    """read a dataset in the Hub's layout piece by piece, for sets larger than the disk"""
    limit: int = 0
    """encode the first so many pictures; 0: all"""
    batch_size: int = 0
    """pictures encoded together, which changes speed and memory only; 0: 32, on the CPU 2"""
    shard_size: int = 1024
    """pictures a file; a kill loses less than one file's work"""
    num_workers: int = -1
    """processes that read and decode pictures ahead; -1: a core each, or none if the CPU encodes too"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps, ...; auto under torchrun: a GPU for each process"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: float32, on a GPU with TF32 convolutions; fp32: without; bf16: faster, some percent less exact"""
    dry_run: bool = False
    """only say how many bytes and hours it would take"""

    def __post_init__(self) -> None:
        for name in ("image_size", "shard_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name, least in (("batch_size", 0), ("limit", 0), ("num_workers", -1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")


@dataclass(frozen=True)
class Share:
    """Which of several processes this is."""

    rank: int = 0
    world: int = 1
    local_rank: int | None = None  # among those of this machine; None: not under torchrun
    local_world: int = 1  # processes on this machine

    @classmethod
    def of_environment(cls) -> "Share":
        """As torchrun says it in RANK, WORLD_SIZE and LOCAL_RANK. Raises ValueError for nonsense."""
        said = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
        if said["RANK"] is None and said["WORLD_SIZE"] is None:
            return cls()
        try:
            rank, world = int(said["RANK"] or ""), int(said["WORLD_SIZE"] or "")
            if not 0 <= rank < world:
                raise ValueError
            local_world = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
            return cls(rank, world, int(said["LOCAL_RANK"] or rank), local_world)
        except ValueError:
            raise ValueError(
                f"RANK is {said['RANK']!r} and WORLD_SIZE {said['WORLD_SIZE']!r}; they must be numbers, RANK "
                "from 0 to WORLD_SIZE - 1, as torchrun sets them, or both unset"
            ) from None

    def shards(self, settings: Settings) -> range:
        """The shards that are this process' own."""
        return range(self.rank, settings.num_shards, self.world)

    def workers(self, wanted: int, device: torch.device) -> int:
        """How many processes shall decode: as wanted, or for -1 this process' part of the cores."""
        if wanted >= 0:
            return wanted
        return 0 if device.type == "cpu" else max(1, cores() // self.local_world - 1)

    def device(self, name: str) -> torch.device:
        """The device of a name; for "auto" under torchrun this process' own GPU. Raises ValueError."""
        if name == "auto" and self.local_rank is not None and torch.cuda.is_available():
            name = f"cuda:{self.local_rank % torch.cuda.device_count()}"
        return find_device(name)


def settings_of(encoding: Encoding, pictures: Pictures, autoencoder: Autoencoder) -> Settings:
    """What the latents will be.

    Raises:
        ValueError: no such number of pictures, or a side that the autoencoder cannot halve so often.
    """
    if encoding.limit > len(pictures):
        raise ValueError(
            f"limit is {encoding.limit}, but {pictures.name} has {len(pictures)} pictures; give no more"
        )
    if encoding.image_size % autoencoder.factor:
        lower = max(1, encoding.image_size // autoencoder.factor) * autoencoder.factor
        raise ValueError(
            f"image_size is {encoding.image_size}, but {autoencoder.source} makes one place of "
            f"{autoencoder.factor} x {autoencoder.factor} pixels; give a multiple, such as {lower}"
        )
    count = encoding.limit or len(pictures)
    folder = Path(encoding.autoencoder)
    return Settings(
        data=pictures.name,
        split=encoding.split,
        classes=tuple(pictures.classes),
        pictures=count,
        pictures_sha256=digest_of_pictures(pictures, count),
        autoencoder=str(folder.resolve()) if folder.is_dir() else encoding.autoencoder,
        encoder_sha256=digest_of_weights(autoencoder),
        scale=autoencoder.scale,
        side=encoding.image_size,
        latent_side=encoding.image_size // autoencoder.factor,
        channels=autoencoder.channels,
        shard_size=encoding.shard_size,
    )


def encode(
    encoding: Encoding, pictures: Pictures, autoencoder: Autoencoder, share: Share | None = None
) -> dict[str, Any] | None:
    """Make the shards of this process that are not there; returns the index, None if others' are missing.

    Raises:
        ValueError: settings that do not fit the data, the autoencoder or what the folder holds.
        FloatingPointError: numbers that are not finite.
        OSError: the disk is full, or too small.
    """
    share = share or Share()
    encoder = Encoder(autoencoder, share.device(encoding.device), encoding.precision)
    workers = share.workers(encoding.num_workers, encoder.device)
    size = encoding.batch_size or (2 if encoder.device.type == "cpu" else 32)
    settings, out = settings_of(encoding, pictures, autoencoder), encoding.out
    claim(out, settings, dry=encoding.dry_run)
    needed = bytes_left(out, settings)
    free = check_room(out, needed)
    if share.rank == 0:
        print(
            f"{settings.pictures:,} pictures of {settings.data}, {settings.side} x {settings.side}: "
            f"{size_of(settings.row_bytes * settings.pictures)} in {settings.num_shards} shards, of which "
            f"{size_of(needed)} are to be written; {size_of(free)} are free on the disk; {encoder.device}, "
            f"{encoder.precision}",
            file=sys.stderr,
        )
    if encoding.dry_run:
        few = _cut(range(settings.pictures), size)[: WARM_UP + MEASURED]
        for _ in _encoded(encoder, pictures, settings, few, workers, share, settings.pictures):
            pass
        return None
    missing = _missing(out, settings, share)
    batches = [batch for shard in missing for batch in _cut(settings.rows(shard), size)]
    todo = sum(map(len, batches))
    posterior, labels, skipped = [], [], []
    work = _encoded(encoder, pictures, settings, batches, workers, share, todo)
    with closing(work):
        for batch, (decoded, latents) in zip(batches, work, strict=True):
            posterior.append(latents)
            labels += decoded.labels
            skipped += decoded.skipped
            shard = batch.start // settings.shard_size
            if batch.stop == settings.rows(shard).stop:
                y = torch.tensor(labels, dtype=torch.int64)
                write_shard(out, settings, shard, torch.cat(posterior), y, skipped, encoder.precision)
                posterior, labels, skipped = [], [], []
    return finish(out, settings)


def _cut(rows: range, size: int) -> list[range]:
    """Rows in batches; the last may be smaller."""
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def _missing(out: Path, settings: Settings, share: Share) -> list[int]:
    """This process' shards that are not there or cannot be used; the latter are named."""
    missing = []
    there = [k for k in share.shards(settings) if shard_path(out, k).exists()]
    with tqdm(there, desc="checking shards", unit=" shards", disable=not there, leave=False) as bar:
        for shard in bar:
            if why := problem(out, settings, shard):
                tqdm.write(f"made again: {why}", file=sys.stderr)
                missing.append(shard)
    return sorted(missing + [k for k in share.shards(settings) if k not in there])


def _encoded(
    encoder: Encoder,
    pictures: Pictures,
    settings: Settings,
    batches: list[range],
    num_workers: int,
    share: Share,
    todo: int,
) -> Iterator[tuple[Decoded, Tensor]]:
    """Batch after batch with its latents (n, 2, 2, C, s, s), shown by a bar; says early how long it takes."""
    if not batches:
        return
    decoder = Decoder(pictures, settings.side, tuple(batches))
    loaded = load_ahead(decoder, 0, len(batches), num_workers)
    done, since = 0, time.perf_counter()
    name = f"encoding, process {share.rank} of {share.world}" if share.world > 1 else "encoding"
    with (
        closing(loaded),
        tqdm(total=todo, desc=name, unit=" pictures", position=share.rank) as bar,
    ):
        for number, decoded in enumerate(loaded, start=1):
            for one in decoded.skipped:
                tqdm.write(f"left out: {one['picture']}: {one['reason']}", file=sys.stderr)
            places = decoded.places
            yield decoded, encoder(decoded.pixels, lambda i, places=places: pictures.title(places[i]))
            bar.update(len(batches[number - 1]))
            done += len(batches[number - 1])
            if number == WARM_UP and len(batches) > WARM_UP:
                done, since = 0, time.perf_counter()
            if number == min(WARM_UP + MEASURED, len(batches)):
                rate = done / (time.perf_counter() - since)
                tqdm.write(
                    f"{rate:.3g} pictures/s: {span(todo / rate)} for {todo:,} pictures"
                    + (f" on one of {share.world} devices" if share.world > 1 else ""),
                    file=sys.stderr,
                )


def span(seconds: float) -> str:
    """A time in words: 35 s, 12 minutes, 3.4 hours."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:,.1f} hours"


def main(arguments: list[str]) -> int:
    """Encode, and say where the latents are. Returns the exit status: RESUME_ME after a signal."""
    try:
        with Preemption():
            return exit_status(lambda: _encode(arguments), f"stopped; {CONTINUES}")
    except Preempted as signal:
        print(f"{signal}; {CONTINUES}", file=sys.stderr)
        return RESUME_ME


def _encode(arguments: list[str]) -> None:
    encoding = tyro.cli(Encoding, prog="python -m train.encode", args=arguments)
    share = Share.of_environment()
    pictures = open_pictures(encoding.data, encoding.split, encoding.streaming)
    index = encode(encoding, pictures, load_autoencoder(encoding.autoencoder), share)
    if index:
        print(encoding.out)
        left_out = f", {len(index['skipped'])} left out (named in {INDEX})" if index["skipped"] else ""
        print(f"{index['stored']:,} pictures{left_out}", file=sys.stderr)
    elif not encoding.dry_run:
        print(
            "this process' shards are done; others' are missing, and the last to end writes the index; "
            "if one was stopped, the same command continues",
            file=sys.stderr,
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
