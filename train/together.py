"""Tensors of which several processes hold parts, in safetensors that any number of processes can read."""

import contextlib
import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import (
    CheckpointException,
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)

FILE = 2**30  # bytes, about, of a file: each is in memory once more while it is written


def write_together(
    tensors: dict[str, Tensor], folder: Path, group: dist.ProcessGroup | None, alone: bool
) -> None:
    """Write tensors of the CPU: each process its parts, and of what all have, one of them.

    group: over which the processes agree on who writes what; alone: there is no other process.

    Raises:
        OSError: some process could not write.
    """
    sizes = [tensor.numel() * tensor.element_size() for tensor in tensors.values()]
    file = {name: 1 + end // FILE for name, end in zip(tensors, itertools.accumulate(sizes), strict=True)}
    writer = HuggingFaceStorageWriter(str(folder), file, save_distributed=True)
    writer.per_thread_copy_ahead = 0  # all is on the CPU: else it waits for the device again and again
    with _explained():
        dcp.save(tensors, storage_writer=writer, process_group=group, no_dist=alone)


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
