"""Tensors of which several processes hold parts, in safetensors that any number of processes can read."""

import contextlib
import itertools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import (
    CheckpointException,
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.tensor import DTensor

FILE = 2**30  # bytes, about, of a file: each is in memory once more while it is written


@dataclass(frozen=True)
class Copy:
    """What one process shall write of a checkpoint, on the CPU."""

    tensors: dict[str, Tensor]
    files: dict[str, int]  # of all tensors, also those that other processes write: in which file, from 1

    @classmethod
    def staged(cls, tensors: dict[str, Tensor], rank: int, world: int) -> "Copy":
        """Of tensors that are shared out, this process' parts; of those that all hold, every world-th."""
        own = {
            name: tensor
            for number, (name, tensor) in enumerate(tensors.items())
            if isinstance(tensor, DTensor) or number % world == rank
        }
        stager = DefaultStager(StagingOptions(False, False, False, False))
        try:
            return cls(stager.stage(own), files_of(tensors))
        finally:
            stager.close()


def files_of(tensors: dict[str, Tensor]) -> dict[str, int]:
    """In which file each tensor comes, from 1."""
    ends = itertools.accumulate(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    return {name: 1 + end // FILE for name, end in zip(tensors, ends, strict=True)}


def write_together(copy: Copy, folder: Path, group: dist.ProcessGroup | None, alone: bool) -> None:
    """Write a copy, together with the other processes that write theirs.

    group: over which the processes agree on who writes what; alone: there is no other process.

    Raises:
        OSError: some process could not write.
    """
    writer = HuggingFaceStorageWriter(str(folder), copy.files, save_distributed=True)
    writer.per_thread_copy_ahead = 0  # all is on the CPU: else it waits for the device again and again
    with _explained():
        dcp.save(copy.tensors, storage_writer=writer, process_group=group, no_dist=alone)


def read_together(tensors: dict[str, Tensor], folder: Path, alone: bool) -> None:
    """Fill tensors from such files, each process its parts. Raises OSError."""
    with _explained():
        dcp.load(tensors, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=alone)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """torch.distributed.checkpoint warns of a single process, in torch 2.9 of itself, and has its own errors.

    Raises:
        OSError: instead of those.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            warnings.filterwarnings("ignore", "TypedStorage is deprecated")
            yield
    except CheckpointException as error:  # which is no Exception, and whose text is tracebacks
        raise OSError("; ".join(str(failure[0]) for failure in error.failures.values())) from error
