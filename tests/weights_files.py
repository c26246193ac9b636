"""Weights files for tests: some that would run code if they were unpickled, and large ones of no bytes."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


class Bomb:
    """Unpickling it calls a function."""

    def __init__(self, function: Callable, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def make_file(path: str) -> None:
    """What a bomb of a class of one's own calls."""
    Path(path).touch()


# What a refusal must name -> a bomb that makes the file `trace`.
BOMBS: dict[str, Callable[[Path], Bomb]] = {
    "system": lambda trace: Bomb(os.system, f"echo > '{trace}'"),
    "eval": lambda trace: Bomb(eval, f"open({str(trace)!r}, 'w').close()"),
    "tests.weights_files.make_file": lambda trace: Bomb(make_file, str(trace)),
}


def assert_it_would_have_run(path: Path, trace: Path) -> None:
    """Nothing has run yet; and had the file been unpickled, it would have: else a test proves nothing."""
    assert not trace.exists()
    try:
        torch.load(path, weights_only=False)
    except Exception:  # the ruins of a bomb need not be a whole checkpoint
        pass
    assert trace.exists()


def write_hollow(path: Path, shapes: dict[str, tuple[int, ...]], dtype: str = "F32", **metadata: str) -> None:
    """A safetensors file of zeros that takes no room on the disk."""
    header, end, width = {"__metadata__": metadata} if metadata else {}, 0, {"F32": 4, "F16": 2}[dtype]
    for name, shape in shapes.items():
        start, end = end, end + width * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def memory(field: str) -> int:
    """Bytes in memory of this process: VmRSS now, VmHWM at most so far. Linux alone tells."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def mapped_ranges(path: Path) -> list[range]:
    """Addresses at which this process has a file mapped. Linux alone tells."""
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    ends = [line[0].split("-") for line in lines if line[-1] == str(path.resolve())]
    return [range(int(start, 16), int(end, 16)) for start, end in ends]
