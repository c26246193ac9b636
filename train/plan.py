"""What a run will take, before it is started: compute, memory, disk, time; and how much at once."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dit.config import ModelConfig
from dit.counts import Count, count
from dit.published import size_of
from train.config import TrainConfig
from train.footprint import FLOAT, Footprint, footprint
from train.grid import COLUMNS, MOST_ROWS
from train.pictures import DataInfo

SHARE = {"cuda": 0.92, "cpu": 0.75, "mps": 0.75}  # of a device's memory that a run counts on
CGROUP = Path("/sys/fs/cgroup/memory.max")  # what a container may use


def device_memory(device: torch.device) -> int | None:
    """Bytes that a run counts on: a share of all that the device has, whatever is in use at the moment.

    So a run is cut alike when it is resumed, and its sums stay the same bit for bit. None: unknown.
    """
    if device.type == "cuda":
        there = torch.cuda.mem_get_info(device)[1]
    elif device.type == "mps":
        there = torch.mps.recommended_max_memory()
    elif device.type == "cpu" and "SC_PHYS_PAGES" in os.sysconf_names:
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        limit = CGROUP.read_text().strip() if CGROUP.exists() else "max"
        there = min(there, int(limit)) if limit.isdigit() else there
    else:
        return None
    return int(there * SHARE[device.type])


def share_of(config: TrainConfig, devices: int) -> int:
    """Pictures of a step that each device computes.

    Raises:
        ValueError: they cannot be dealt out evenly.
    """
    share, left = divmod(config.batch_size, devices)
    if left:
        near = [n for n in (share * devices, (share + 1) * devices) if n]
        raise ValueError(
            f"batch_size is {config.batch_size}, which {devices} devices cannot share evenly; "
            f"set --batch-size {' or '.join(map(str, near))}, or use another number of devices"
        )
    return share


def divisors(number: int) -> list[int]:
    """From 1 up to the number itself."""
    return [n for n in range(1, number + 1) if number % n == 0]


def footprint_of(
    config: TrainConfig, info: DataInfo, devices: int = 1, bf16: bool = False, *, roughly: bool = False
) -> Footprint:
    """What a step of a run takes of each device; roughly: never less, and soon known."""
    return footprint(
        config.network(info),
        averages=1 + len(config.extra_ema_decays),
        bf16=bf16,
        remat=config.remat,
        parts=devices if config.parallel == "fsdp" else 1,
        roughly=roughly,
    )


def micro_batch_for(
    config: TrainConfig, info: DataInfo, devices: int, device_bytes: int | None, *, bf16: bool = False
) -> int:
    """Pictures that a device computes at once: as set, or the most that fit and divide its share of a step.

    device_bytes: what it may use (`device_memory`); None: unknown, and taken for enough.

    Raises:
        ValueError: the batch cannot be shared or divided so; or not even one picture fits.
    """
    share = share_of(config, devices)
    if config.micro_batch:
        if share % config.micro_batch:
            raise ValueError(
                f"micro_batch is {config.micro_batch}, which does not divide the {share} pictures of a step "
                f"that each of {devices} devices computes; set one of {_listed(divisors(share))}, or 0"
            )
        return config.micro_batch
    if device_bytes is None:
        return share
    if footprint_of(config, info, devices, bf16, roughly=True).total(share) <= device_bytes:
        return share  # by far: no need to know better
    needed = footprint_of(config, info, devices, bf16)
    fitting = [n for n in divisors(share) if needed.total(n) <= device_bytes]
    if not fitting:
        raise ValueError(
            f"{config.model} needs {size_of(needed.total(1))} to train on a single picture at once "
            f"({size_of(needed.fixed)} of that whatever the pictures), but a device has "
            f"{size_of(device_bytes)} for it; {_remedies(config, devices, needed.fixed < device_bytes)}"
        )
    return fitting[-1]


def which_batch_would_fit(config: TrainConfig, devices: int, failed: int) -> str:
    """What to do after a device ran out of memory with `failed` pictures at once, in a sentence's words."""
    smaller = [n for n in divisors(share_of(config, devices)) if n < failed]
    if not smaller:
        return f"{failed} picture at once did not fit: {_remedies(config, devices)}"
    return (
        f"{failed} pictures at once did not fit: set --micro-batch {smaller[-1]}, and the same command goes "
        "on from the last checkpoint"
    )


def _remedies(config: TrainConfig, devices: int, activations_matter: bool = True) -> str:
    ways = []
    if activations_matter and not config.remat:
        ways.append("--remat, which computes activations again instead of keeping them")
    if config.parallel != "fsdp":
        alone = "" if devices > 1 else " and several devices"
        ways.append(f"--parallel fsdp{alone}, which lays weights and moments up in parts")
    if config.extra_ema_decays:
        ways.append("fewer --extra-ema-decays")
    return f"try {'; or '.join([*ways, 'a smaller --model'])}"


def _listed(numbers: list[int]) -> str:
    shown = [*numbers[:4], "...", *numbers[-4:]] if len(numbers) > 9 else numbers
    return ", ".join(map(str, shown))


@dataclass(frozen=True)
class Plan:
    """A run as it will be."""

    config: TrainConfig
    network: ModelConfig
    counted: Count
    num_pictures: int  # of the set; 0: unknown, as of a stream
    devices: int
    micro_batch: int
    needed: Footprint
    device_bytes: int | None
    speed: float | None  # images a second, over all devices
    precision: str

    @classmethod
    def of(
        cls,
        config: TrainConfig,
        info: DataInfo,
        num_pictures: int,
        devices: int = 1,
        device_bytes: int | None = None,
        speed: float | None = None,
        *,
        bf16: bool = False,
    ) -> "Plan":
        """Of a config, on data and devices. Raises ValueError as `micro_batch_for` does."""
        network = config.network(info)
        return cls(
            config,
            network,
            count(network),
            num_pictures,
            devices,
            micro_batch_for(config, info, devices, device_bytes, bf16=bf16),
            footprint_of(config, info, devices, bf16),
            device_bytes,
            speed,
            "bf16 autocast" if bf16 else "float32",
        )

    @property
    def pictures_seen(self) -> int:
        """Over the whole run, again and again."""
        return self.config.total_steps * self.config.batch_size

    @property
    def checkpoint_bytes(self) -> int:
        """Of one checkpoint: weights, averages, moments."""
        averages = 1 + len(self.config.extra_ema_decays)
        return (1 + averages) * self.counted.weight_bytes + 2 * self.counted.trainable * FLOAT

    @property
    def checkpoints_kept(self) -> int:
        """At the end of the run."""
        config = self.config
        saved = {*range(0, config.total_steps + 1, config.checkpoint_every), config.total_steps} - {0}
        kept = set(sorted(saved)[-config.keep_checkpoints :])
        return len(kept | {step for step in saved if config.keep_every and step % config.keep_every == 0})

    @property
    def disk_bytes(self) -> int:
        """At the most: all that is kept, a checkpoint more while it is written, weights files, grids."""
        config, averages = self.config, 1 + len(self.config.extra_ema_decays)
        side = self.network.input_size * (8 if self.network.is_latent else 1)
        grid = min(max(1, self.network.num_classes), MOST_ROWS) * COLUMNS * side**2 * 3
        grids = -(-config.total_steps // config.sample_every)
        checkpoints = (self.checkpoints_kept + 1) * self.checkpoint_bytes
        return checkpoints + averages * self.counted.weight_bytes + grids * grid

    @property
    def seconds(self) -> float | None:
        """Of the training alone; None where no step was timed."""
        return self.pictures_seen / self.speed if self.speed else None

    def told(self) -> dict[str, Any]:
        """As JSON values: counts, bytes, seconds."""
        return {
            "model": self.config.model,
            "parameters": self.counted.parameters,
            "macs": self.counted.macs,
            "pictures": self.num_pictures,
            "pictures_seen": self.pictures_seen,
            "memory_bytes": self.needed.total(self.micro_batch),
            "device_bytes": self.device_bytes,
            "disk_bytes": self.disk_bytes,
            "weight_bytes": self.counted.weight_bytes,
            "images_per_second": self.speed,
            "seconds": self.seconds,
        }

    def text(self) -> str:
        """For a reader: a line each."""
        config, counted, needed, n = self.config, self.counted, self.needed, self.micro_batch
        share = config.batch_size // self.devices
        macs, paper = counted.macs, 3 * counted.macs * self.pictures_seen
        state = {
            name: size_of(getattr(needed, name)) for name in ("weights", "gradients", "moments", "averages")
        }
        activations = (
            f"{size_of(n * needed.picture)}, {size_of(needed.picture)} a picture in {self.precision}"
        )
        checkpoints = f"{self.checkpoints_kept:,} checkpoints of {size_of(self.checkpoint_bytes)}"
        lines = [
            ("model", f"{config.model}: {counted.parameters:,} parameters, trained {counted.trainable:,}"),
            ("a forward pass", f"{macs / 1e9:,.3f} GMACs a picture; 1 MAC = 2 FLOPs"),
            (
                "training compute",
                f"{paper / 1e9:.3g} Gflops as the DiT paper counts: GMACs x batch x steps x 3",
            ),
            ("steps", f"{config.total_steps:,} of {config.batch_size:,} pictures: {self._epochs()}"),
            (
                "at once",
                f"{n:,} of the {share:,} pictures that {_each(self.devices)} a step{_times(share // n)}",
            ),
            ("memory", f"{size_of(needed.total(n))} {_of_each(self.devices)}, by estimate; {self._there()}"),
            ("", ", ".join(f"{name} {size}" for name, size in state.items())),
            ("", f"activations {activations}{', blocks computed again' if config.remat else ''}"),
            ("disk", f"{_large(self.disk_bytes)} at the most: {checkpoints}, one more while it is written,"),
            ("", "weights, grids of samples"),
            ("time", self._time()),
        ]
        return "\n".join(f"{title:<18}{text}".rstrip() for title, text in lines)

    def _epochs(self) -> str:
        if not self.num_pictures:
            return f"{self.pictures_seen:,} pictures of a set of unknown length"
        return f"{self.pictures_seen / self.num_pictures:,.2f} epochs of {self.num_pictures:,} pictures"

    def _there(self) -> str:
        return f"there is {size_of(self.device_bytes)}" if self.device_bytes else "what there is is unknown"

    def _time(self) -> str:
        if not self.speed:
            return "not measured"
        hours = self.seconds / 3600
        spent = f"{hours:,.1f} hours" if hours >= 1 else f"{hours * 60:,.1f} minutes"
        if hours > 9e3:
            spent = f"{hours / 8766:,.0f} years"
        speed = f"{self.speed:,.1f}" if self.speed >= 1 else f"{self.speed:.2g}"
        return f"{spent} at {speed} images/s, besides grids of samples and checkpoints"


def _each(devices: int) -> str:
    return "the device computes" if devices == 1 else f"each of {devices} devices computes"


def _of_each(devices: int) -> str:
    return "of the device" if devices == 1 else "of each device"


def _times(times: int) -> str:
    return "" if times == 1 else f", {times:,} times, the gradients added up"


def _large(count: int) -> str:
    return f"{count / 1e12:.3g} TB" if count >= 1e12 else size_of(count)
