"""Files that are whole or not there, and what is said where a disk is full."""

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

_UMASK = threading.Lock()
FULL = (errno.ENOSPC, errno.EDQUOT)  # what the system calls a disk without room
PARTIAL = ".partial"  # ending of a file that is being written; what a kill leaves has it
REMOVED = ".removed"  # folder beside those that are being removed


class FullDisk(OSError):
    """A disk has no room; the message names it and the remedy."""


@contextlib.contextmanager
def filling(path: Path) -> Iterator[None]:
    """Around what writes to a path: the system's word on a full disk names neither disk nor remedy.

    Raises:
        FullDisk: the disk is full, or the user's share of it.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        where = error.filename or path
        raise FullDisk(f"{where}: the disk is full; make room on it, and try again") from error


def atomic_write(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write(temporary)` beside `path`, then rename over it: readers see the old file or the new one.

    Raises:
        OSError: it cannot be written; of a full disk, with what helps.
    """
    with filling(path):
        _atomic_write(path, write)


def _atomic_write(path: Path, write: Callable[[Path], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        with _UMASK:
            umask = os.umask(0)  # that can only be read by setting it, for all threads
            os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp made it private
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def reserve(path: Path) -> None:
    """Take the room that a file says it has: a memory map that meets a full disk kills its process instead.

    Raises:
        OSError: there is not so much.
    """
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def discard_partials(folder: Path, recursive: bool = True) -> None:
    """Remove, in a folder, what killed processes left of `atomic_write`; nobody else may write there.

    recursive: and in all folders below it.
    """
    for pattern in (f".*{PARTIAL}", ".tmp??????"):  # the latter is safetensors' own, while it writes ours
        for left in (folder.rglob if recursive else folder.glob)(pattern):
            left.unlink()


def remove(folder: Path) -> None:
    """Remove a folder with all in it. It is gone at once: what a kill leaves of it lies elsewhere."""
    away = folder.parent / REMOVED / f"{folder.name}.{secrets.token_hex(4)}"
    away.parent.mkdir(exist_ok=True)
    folder.rename(away)
    if away.is_symlink():
        away.unlink()  # and what it leads to stays
    else:
        with contextlib.suppress(FileNotFoundError):  # another process has `discard_removed` do it
            shutil.rmtree(away)


def discard_removed(parent: Path) -> None:
    """Finish what killed processes left of `remove` in a folder."""
    shutil.rmtree(parent / REMOVED, ignore_errors=True)


def sha256(path: Path) -> str:
    """Digest of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
