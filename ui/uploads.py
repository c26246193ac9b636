"""Pictures that a visitor uploads: a zip is unpacked only where nothing in it can do harm.

Refused: paths that lead out of the folder or far into it, links, more or larger contents than the limits or
than there is room for, contents that unpack to far more than they are (zip bombs), encrypted ones. What is no
picture by its ending is left out, and what is none by its bytes is found when the pictures are looked at.
"""

import lzma
import os
import secrets
import shutil
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dit.files import PARTIAL, FullDisk, filling
from dit.published import size_of
from ui.costs import duration
from ui.limits import Limits

SUFFIXES = frozenset(".jpg .jpeg .png .webp .bmp .gif .tif .tiff".split())
BLOCK = 2**16  # bytes that are unpacked at a time
CLUSTER = 4096  # bytes that a file takes on a disk at a time
DAMAGED = (
    zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError,
    NotImplementedError, RuntimeError, ValueError,
)  # fmt: skip
DEPTH = 20  # parts of a path
RATIO = 200  # bytes that a byte may unpack to; pictures are compressed already, and hardly shrink


class Refused(ValueError):
    """An upload is not taken; the message says why and what to do."""


@dataclass(frozen=True)
class Unpacked:
    """What came of a zip."""

    folder: Path
    pictures: int
    left_out: tuple[str, ...]  # names of files that are no pictures


def on_disk(size: int) -> int:
    """What a file of so many bytes takes."""
    return -(-size // CLUSTER) * CLUSTER


def unpack(archive: Path, folder: Path, limits: Limits, taken: int = 0) -> Unpacked:
    """Unpack a zip's pictures into a folder that is not there yet: it is there once it is whole.

    taken: bytes of the disk that other uploads have. What a kill leaves ends in PARTIAL, and lies beside.

    Raises:
        Refused: it is no zip, damaged, encrypted, too large, or would write elsewhere.
        FullDisk: there is no room for it.
    """
    size = archive.stat().st_size
    if size > limits.upload_bytes:
        raise Refused(f"the file has {size_of(size)}, and at most {size_of(limits.upload_bytes)} are taken")
    try:
        with zipfile.ZipFile(archive) as opened:
            wanted, left_out = _wanted(opened, limits)
            _check_room(sum(on_disk(entry.file_size) for entry, _ in wanted), taken, limits)
            partial = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}{PARTIAL}")
            try:
                with filling(folder):
                    partial.mkdir(parents=True)
                    _extract(opened, wanted, partial, limits)
                    partial.rename(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except (Refused, FullDisk):
        raise
    except DAMAGED as error:
        raise Refused(f"the file cannot be unpacked: {error}; make a plain .zip of the pictures") from error
    except OSError as error:
        said = error.strerror or error  # without where it was to go
        raise Refused(f"the file cannot be unpacked: {said}; make a plain .zip of the pictures") from error
    return Unpacked(folder, len(wanted), tuple(left_out))


def _check_room(size: int, taken: int, limits: Limits) -> None:
    if size > (left := max(0, limits.uploads_bytes - taken)):
        raise Refused(
            f"unpacked it takes {size_of(size)} of the disk, and of {size_of(limits.uploads_bytes)} for all "
            f"uploads {size_of(left)} are left; delete a run whose upload is not needed any more, or try "
            f"again later: what no run needs goes {duration(limits.upload_seconds)} after it was used last"
        )


def _wanted(
    opened: zipfile.ZipFile, limits: Limits
) -> tuple[list[tuple[zipfile.ZipInfo, PurePosixPath]], list[str]]:
    """The pictures with the place where each goes, and the names of what is none."""
    wanted, left_out, total = [], [], 0
    entries = [entry for entry in opened.infolist() if not entry.is_dir()]
    if len(entries) > limits.upload_files:
        raise Refused(f"the file holds {len(entries):,} files, and at most {limits.upload_files:,} are taken")
    for entry in entries:
        place = _place(entry)
        if any(part.startswith((".", "__MACOSX")) for part in place.parts):
            continue
        if place.suffix.casefold() not in SUFFIXES:
            left_out.append(entry.filename)
            continue
        if entry.flag_bits & 1:
            raise Refused(f"{entry.filename} is encrypted; make a .zip without a password")
        total += entry.file_size
        wanted.append((entry, place))
    if total > limits.unpacked_bytes:
        raise Refused(
            f"unpacked it would have {size_of(total)}, and at most {size_of(limits.unpacked_bytes)} are taken"
        )
    if not wanted:
        raise Refused(
            "there are no pictures in the file; expected .jpg or .png, or a folder of them for each class"
        )
    return _below_common(wanted), left_out


def _place(entry: zipfile.ZipInfo) -> PurePosixPath:
    """Where an entry goes, below the folder. Raises Refused where it would lead out of it, or is a link."""
    name = entry.filename.replace("\\", "/")
    place = PurePosixPath(name)
    if place.is_absolute() or ".." in place.parts or "\0" in name or (place.parts and ":" in place.parts[0]):
        raise Refused(f"{entry.filename!r} leads out of the folder; make the .zip of a folder's contents")
    if len(place.parts) > DEPTH:
        raise Refused(
            f"{name[:60]!r} lies {len(place.parts) - 1} folders deep, and at most {DEPTH - 1} are taken; put "
            "the pictures higher"
        )
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise Refused(f"{entry.filename!r} is a link; put the picture itself into the .zip")
    return place


def _below_common(
    wanted: list[tuple[zipfile.ZipInfo, PurePosixPath]],
) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """Without the one folder that all lie in, where that holds folders: so zips of a folder come."""
    while (
        all(len(place.parts) > 2 for _, place in wanted) and len({place.parts[0] for _, place in wanted}) == 1
    ):
        wanted = [(entry, PurePosixPath(*place.parts[1:])) for entry, place in wanted]
    return wanted


def _extract(
    opened: zipfile.ZipFile, wanted: list[tuple[zipfile.ZipInfo, PurePosixPath]], folder: Path, limits: Limits
) -> None:
    """Unpack, counting what really comes: what a zip says of its sizes may be a lie."""
    total = 0
    for entry, place in wanted:
        target = folder / place
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise Refused(f"{place.parent} is both a file and a folder in the .zip") from None
        if target.exists():
            raise Refused(f"{entry.filename!r} is in the file twice")
        written = 0
        with opened.open(entry) as source, target.open("xb") as out:
            while block := source.read(BLOCK):
                written += len(block)
                total += len(block)
                if total > limits.unpacked_bytes or written > max(RATIO * entry.compress_size, BLOCK):
                    raise Refused(
                        f"{entry.filename!r} unpacks to more than {RATIO} times its size, or all of it to "
                        f"more than {size_of(limits.unpacked_bytes)}; put pictures into the .zip as they are"
                    )
                out.write(block)
        os.chmod(target, 0o644)
