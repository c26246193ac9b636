"""A command of the project, asked in a process of its own: the page goes on whatever becomes of it."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from ui.runs import ROOT

LONGEST = 300.0  # seconds that an answer may take


async def answer(
    module: Sequence[str], environment: Mapping[str, str] = MappingProxyType({}), longest: float | None = None
) -> str:
    """What `python -m MODULE ...` prints. Ends with whoever asks.

    environment: further variables, which no list of processes shows. longest: seconds; None: LONGEST.

    Raises:
        ValueError: it failed, or took too long; the message is the command's.
    """
    longest = LONGEST if longest is None else longest
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *module, cwd=ROOT, env={**os.environ, **environment},
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(process.communicate(), longest)
    except asyncio.TimeoutError:
        raise ValueError(
            f"no answer within {longest:.0f} s; try less data, or the command on a terminal"
        ) from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        raise ValueError(complaint(err.decode(errors="replace")))
    return out.decode()


def complaint(said: str) -> str:
    """What is wrong, of all that a command said on its way."""
    lines = [line.strip(" │╭╮╰╯─\t") for line in said.replace("\r", "\n").splitlines()]
    lines = [line for line in lines if line]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or ["the command ended without a word"])[-1][:500]
