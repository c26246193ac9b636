"""Files that are whole or not there."""

import contextlib
import hashlib
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

_UMASK = threading.Lock()
PARTIAL = ".partial"  # ending of a file that is being written; what a kill leaves has it
REMOVED = ".removed"  # folder beside those that are being removed


def atomic_write(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write(temporary)` beside `path`, then rename over it: readers see the old file or the new one."""
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


def discard_partials(folder: Path) -> None:
    """Remove, below a folder, what killed processes left of `atomic_write`; nobody else may write there."""
    for pattern in (f".*{PARTIAL}", ".tmp??????"):  # the latter is safetensors' own, while it writes ours
        for left in folder.rglob(pattern):
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
