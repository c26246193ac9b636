"""Uploads as they are kept: unpacked once, while a run needs them or somebody uses them, and in bounds."""

import asyncio
import contextlib
import logging
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from dit.files import PARTIAL, discard_removed, remove, sha256
from ui.limits import Limits
from ui.run import NOTE
from ui.uploads import Refused, Unpacked, on_disk, unpack

LOG = logging.getLogger(__name__)
FOLDER = ".uploads"  # below the folder of runs
NAMED = 16  # letters of an upload's digest that are the name of its folder
EVERY = 3600.0  # seconds between two looks at what has expired
SETTINGS = (NOTE, "config.json")  # of a run: where its data are told


@dataclass(frozen=True)
class UploadStore:
    """The unpacked uploads of all visitors. Several servers may share one folder."""

    runs: Path  # folder of the runs
    limits: Limits

    @property
    def folder(self) -> Path:
        """Where they lie, each in a folder that is called by its contents."""
        return self.runs / FOLDER

    def unpacked(self, archive: Path) -> Unpacked:
        """An upload's pictures; the same file is unpacked once, and what has expired makes room for it.

        Raises:
            ValueError: it is refused.
        """
        target = self.folder / sha256(archive)[:NAMED]
        with self._alone():
            if target.is_dir():
                os.utime(target)  # used now
                return Unpacked(target, sum(1 for path in target.rglob("*") if path.is_file()), ())
            self._expire()
            try:
                return unpack(archive, target, self.limits, self._taken())
            except Refused as error:
                raise ValueError(f"{archive.name}: {error}") from error

    def forget(self, upload: Unpacked) -> None:
        """Remove an upload that turned out to be of no use, unless a run was started with it."""
        with self._alone():
            if upload.folder.name not in self._settings():
                remove(upload.folder)

    def expire(self) -> None:
        """Remove what no run needs and nobody has used for long, and what killed servers left over."""
        discard_removed(self.runs)
        if self.folder.is_dir():
            with self._alone():
                self._expire()

    async def keep_expiring(self) -> None:
        """`expire`, now and then, until it is cancelled."""
        while True:
            try:
                await asyncio.to_thread(self.expire)
            except OSError as error:  # again next time
                LOG.warning("uploads do not expire: %s", error)
            await asyncio.sleep(EVERY)

    def _alone(self) -> FileLock:
        """Who has this is the only one, in any process, that adds to the folder or takes from it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / ".lock")

    def _expire(self) -> None:
        for left in self.folder.glob(f".*{PARTIAL}"):  # nobody writes there now
            shutil.rmtree(left, ignore_errors=True)
        discard_removed(self.folder)
        last, settings = time.time() - self.limits.upload_seconds, self._settings()
        for upload in self._kept():
            if upload.stat().st_mtime < last and upload.name not in settings:
                remove(upload)

    def _settings(self) -> str:
        """Of all runs: a run needs its data to be resumed, and even to be told what they were."""
        told = []
        for path in (path for name in SETTINGS for path in self.runs.glob(f"*/{name}")):
            with contextlib.suppress(FileNotFoundError):  # deleted just now
                told.append(path.read_text(errors="replace"))
        return "\n".join(told)

    def _kept(self) -> list[Path]:
        return [path for path in self.folder.iterdir() if path.is_dir() and not path.name.startswith(".")]

    def _taken(self) -> int:
        """Bytes of the disk."""
        files = (path for upload in self._kept() for path in upload.rglob("*") if path.is_file())
        return sum(on_disk(path.stat().st_size) for path in files)
