"""One large file from the network: with progress, stoppable at any byte, and continued where it stopped."""

import errno
import hashlib
import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from dit.published import size_of
from dit.tensors import WeightsError

INCOMPLETE = ".incomplete"  # ending of a file that is on its way
CHUNK = 1 << 20
TIMEOUT = 60  # seconds without a byte until a connection is given up
BUSY = (408, 425, 429)  # statuses below 500 that pass
RETRIES = 5  # of connections that brought nothing


class HubError(WeightsError):
    """Something on the network that cannot be had now; the message says what, why and what to do."""


def download(
    url: str, target: Path, headers: dict[str, str] | None = None, sha256: str | None = None
) -> Path:
    """Fetch url to target, going on from an earlier try; the file gets its name when it is whole.

    The Hub's own library starts again from the first byte in each process.
    sha256: of the content, if it is known.

    Raises:
        HubError: no network, the address answers with an error, the disk is full, or what came is damaged.
    """
    partial = target.with_name(target.name + INCOMPLETE)
    lock = target.with_name(target.name + ".lock")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):  # a second process waits, and finds it done
            if target.is_file():
                return target
            _fill(url, partial, headers or {})
            if sha256 and (found := _sha256_of(partial)) != sha256:
                partial.unlink()
                raise HubError(
                    f"{url}: expected content with SHA-256 {sha256[:12]}..., found {found[:12]}...; it "
                    "was damaged on the way and is removed; run the same command again"
                )
            os.replace(partial, target)
            lock.unlink(missing_ok=True)  # only now: who waits at it, or comes later, finds the target
    except OSError as error:
        if error.errno == errno.ENOSPC:
            partial.unlink(missing_ok=True)  # else the disk stays full
        raise HubError(f"{url}: {disk_trouble(error)}") from error
    return target


def _fill(url: str, partial: Path, headers: dict[str, str]) -> None:
    """Append to partial until all is there, reconnecting where a connection breaks off."""
    failures, total, reason, now = 0, None, "", 0
    most = _size_of(partial)
    with tqdm(unit="B", unit_scale=True, unit_divisor=1000, desc=partial.stem[:24]) as bar:
        while failures <= RETRIES:
            done = _size_of(partial)
            try:
                total = _append(url, partial, headers, done, bar)
            except urllib.error.HTTPError as error:
                if error.code == 416 and done:
                    if error.headers.get("Content-Range") == f"bytes */{done}":
                        return  # all of it had come
                    partial.unlink()  # more than there is: an earlier file of that name
                    continue
                if error.code < 500 and error.code not in BUSY:
                    raise HubError(
                        f"{url}: the server answers {error.code} {error.reason}; check name and access"
                    ) from error
                reason = f"{error.code} {error.reason}"
            except (_Broken, urllib.error.URLError, http.client.HTTPException) as error:
                reason = " ".join(str(getattr(error, "reason", error)).split())
            now = _size_of(partial)
            if total is not None and now == total:
                return
            failures = 0 if now > most else failures + 1
            most = max(most, now)
            reason = reason or "the connection broke off"
            if failures <= RETRIES:
                time.sleep(min(0.2 * 2**failures, 3.0))
    raise HubError(
        f"{url}: cannot be reached ({reason}); check the network. {size_of(now)} of it have come and are "
        "kept; the same command goes on from there"
    )


def _append(url: str, partial: Path, headers: dict[str, str], done: int, bar: tqdm) -> int:
    """One connection's worth of bytes; returns the size of the whole."""
    asked = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    for name, value in headers.items():
        asked.add_unredirected_header(name, value)  # a token is for this host alone
    with _opened(asked) as answer:
        if answer.status != 206:
            done = 0  # the server cannot continue: it sends all of it
        if not (length := answer.headers["Content-Length"]):
            raise _Broken("the server does not say how much there is")
        total = done + int(length)
        free = shutil.disk_usage(partial.parent).free
        if total - done > free:
            raise HubError(
                f"{url}: {size_of(total - done)} are to come, but {partial.parent} has {size_of(free)} free; "
                "free some, or let HF_HOME name a folder on a larger disk"
            )
        bar.total = total
        bar.update(done - bar.n)
        with partial.open("ab" if done else "wb", buffering=0) as file:
            while chunk := _read(answer):
                file.write(chunk)
                bar.update(len(chunk))
    return total


def _opened(asked: urllib.request.Request) -> http.client.HTTPResponse:
    """The answer to a request; what fails on the way there is the connection, whatever it is raised as."""
    try:
        return urllib.request.urlopen(asked, timeout=TIMEOUT)
    except urllib.error.HTTPError:
        raise
    except OSError as error:
        raise _Broken(str(getattr(error, "reason", error)) or type(error).__name__) from error


class _Broken(Exception):
    """A connection that failed while it was read; writing may fail too, and that is another matter."""


def _read(answer: http.client.HTTPResponse) -> bytes:
    """What has come, at most a CHUNK: waiting for a whole one would lose it if the connection broke."""
    try:
        return answer.read1(CHUNK)
    except OSError as error:
        raise _Broken(str(error) or type(error).__name__) from error


def _size_of(partial: Path) -> int:
    return partial.stat().st_size if partial.exists() else 0


def _sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def disk_trouble(error: OSError) -> str:
    """What to do about a file that cannot be written."""
    if error.errno == errno.ENOSPC:
        return "the disk is full; free some space, or let HF_HOME name a folder on a larger disk"
    return f"cannot be written: {error}; let HF_HOME name a folder that can be"
