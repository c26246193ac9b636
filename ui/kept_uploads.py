"""Uploads on this disk: each is unpacked once, and kept while a run may need it; of others, only so many."""

import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

from dit.files import sha256
from ui.limits import Limits
from ui.runs import Runs
from ui.uploads import Refused, Unpacked, unpack

UPLOADS = ".uploads"  # below the folder of runs: pictures that visitors have sent
PART = ".part"  # ends the name of one that is not whole yet
_LOCK = threading.Lock()  # two visitors may send the same


def unpacked_once(archive: Path, runs: Runs, limits: Limits) -> Unpacked:
    """An upload's pictures, in a folder that is called by its contents: the same file is unpacked once.

    Raises:
        ValueError: it is refused.
    """
    folder = runs.folder / UPLOADS
    target = folder / sha256(archive)[:16]
    part = target.with_name(target.name + PART)
    with _LOCK:
        if target.is_dir():
            os.utime(target)
            return Unpacked(target, sum(1 for path in target.rglob("*") if path.is_file()), ())
        shutil.rmtree(part, ignore_errors=True)  # of a server that ended on the way
        _make_room(folder, runs, limits.uploads)
        try:
            done = unpack(archive, part, limits)
        except Refused as error:
            raise ValueError(f"{archive.name}: {error}") from error
        part.rename(target)
    return replace(done, folder=target)


def forget(unpacked: Unpacked, runs: Runs) -> None:
    """Delete an upload that turned out to be no pictures, unless a run was started with it."""
    with _LOCK:
        if not runs.trained_on(str(unpacked.folder)):
            shutil.rmtree(unpacked.folder, ignore_errors=True)


def _make_room(folder: Path, runs: Runs, most: int) -> None:
    """Delete the oldest that no run needs, so that one more can come."""
    if not folder.is_dir():
        return
    loose = [path for path in folder.iterdir() if path.is_dir() and not runs.trained_on(str(path))]
    loose.sort(key=lambda path: path.stat().st_mtime)
    for path in loose[: max(0, len(loose) - most + 1)]:
        shutil.rmtree(path, ignore_errors=True)
