"""One large file: it arrives whole or says why not, and what has come is not asked for again."""

import errno
import hashlib
import os
import shutil
import signal
import ssl
import subprocess
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

from dit import download as module
from dit.download import INCOMPLETE, HubError, download
from tests.dit.conftest import PINNED, answering, one_line

CONTENT = b"".join(i.to_bytes(4, "big") for i in range(1_000_000))  # 4 MB, in which every place is another


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Between two attempts, that is: the waits are noted instead."""
    waits = []
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=waits.append))
    return waits


@pytest.fixture
def url(hub, tmp_path) -> str:
    """Address of a file that the Hub itself sends."""
    return publish(hub, tmp_path, "a.dat")


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / "here" / "a.dat"


def publish(hub, tmp_path, name: str) -> str:
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / name).write_bytes(CONTENT)
    hub.add("me/files", folder, PINNED)
    return f"{hub.endpoint}/me/files/resolve/main/{name}"


def partial_of(target: Path) -> Path:
    return target.with_name(target.name + INCOMPLETE)


def begin(target: Path, content: bytes) -> None:
    """Leave what an earlier try has brought."""
    target.parent.mkdir()
    partial_of(target).write_bytes(content)


def only(target: Path) -> bool:
    """Whether the file is there, whole, and nothing beside it."""
    return target.read_bytes() == CONTENT and list(target.parent.iterdir()) == [target]


def left_in(folder: Path) -> list[Path]:
    """What an error has left. An empty lock file may stay: whoever removes it lets a third process in."""
    return [path for path in folder.iterdir() if path.suffix != ".lock" or path.stat().st_size]


# --- it arrives ---


def test_a_file_arrives_whole_and_is_not_asked_for_twice(hub, url, target):
    assert download(url, target) == target and only(target)
    assert download(url, target) == target
    assert hub.count("a.dat") == 1 and hub.ranges == []


def test_an_empty_file_arrives(hub, tmp_path, target, monkeypatch):
    monkeypatch.setitem(globals(), "CONTENT", b"")
    download(publish(hub, tmp_path, "a.dat"), target)
    assert only(target)


@pytest.mark.parametrize("hard", [False, True], ids=["orderly", "reset"])
def test_a_connection_that_breaks_off_is_continued(hard, hub, url, target):
    hub.break_after, hub.break_hard, hub.bytes_per_second = 3_000_000, hard, 20_000_000
    download(url, target)
    assert only(target)
    ((_, asked),) = hub.ranges
    start = int(asked.removeprefix("bytes=").removesuffix("-"))
    assert start == 3_000_000 or (hard and 0 < start < 3_000_000)  # a reset loses what was on its way


def test_little_is_lost_when_a_connection_breaks(hub, url, target):
    """On a bad line each connection may bring less than a megabyte before it is reset."""
    hub.break_after, hub.break_hard, hub.bytes_per_second = 500_000, True, 5_000_000
    download(url, target)
    assert only(target) and len(hub.ranges) == 1


def test_what_an_earlier_try_has_brought_is_not_asked_for(hub, url, target):
    begin(target, CONTENT[:400_000])
    download(url, target)
    assert only(target) and hub.ranges == [("/me/files/resolve/main/a.dat", "bytes=400000-")]


@pytest.fixture
def elsewhere(hub, url, target, tmp_path, commands) -> int:
    """The id of another process that downloads the same file, and has begun to. Wait for it with commands."""
    script = tmp_path / "fetching.py"
    call = f"download({url!r}, Path({str(target)!r}))"
    script.write_text(f"from pathlib import Path\nfrom dit.download import download\n{call}\n")
    hub.bytes_per_second = 5_000_000
    process, end = commands.start(str(script)), time.monotonic() + 200
    while not (partial_of(target).exists() and partial_of(target).stat().st_size):
        assert time.monotonic() < end, "nothing arrives"
        time.sleep(0.01)
    return process


def test_a_killed_download_goes_on_where_it_stopped(hub, url, target, elsewhere, commands):
    """SIGTERM is what the page's Cancel sends."""
    os.kill(elsewhere, signal.SIGTERM)
    assert commands.wait()[0] == -signal.SIGTERM and not target.exists()
    came = partial_of(target).stat().st_size
    assert 0 < came < len(CONTENT)
    hub.bytes_per_second = None
    download(url, target)
    assert only(target) and hub.ranges == [("/me/files/resolve/main/a.dat", f"bytes={came}-")]


def test_all_that_came_before_a_kill_is_used(hub, url, target):
    """Killed when the last byte was there, and the file had not been checked and named yet."""
    begin(target, CONTENT)
    download(url, target, sha256=hashlib.sha256(CONTENT).hexdigest())
    assert only(target) and hub.count("a.dat") <= 1
    assert hub.requests == [] or hub.ranges, "it was asked for from the first byte"


def test_more_than_there_is_was_another_file(hub, url, target):
    begin(target, CONTENT + b"more")
    download(url, target)
    assert only(target)


def test_a_server_that_cannot_continue_sends_all_of_it(hub, url, target):
    hub.resumable, hub.break_after = False, 3_000_000
    download(url, target)
    assert only(target) and len(hub.ranges) == 1


def test_a_file_of_the_storage_service_arrives_by_a_redirect(hub, tmp_path, target):
    download(publish(hub, tmp_path, "a.bin"), target)
    assert only(target)


def test_the_token_goes_to_the_host_that_was_asked_and_to_no_other(hub, tmp_path, target):
    """The storage service refuses whoever sends one."""
    hub_file = publish(hub, tmp_path, "a.bin")
    hub.repos["me/files"].private = True
    with pytest.raises(HubError, match="401"):
        download(hub_file, target)
    download(hub_file, target, {"authorization": f"Bearer {hub.token}"})
    assert only(target)


# --- two at once ---


def test_two_processes_download_once(hub, url, target, elsewhere, commands):
    assert not target.exists()
    hub.bytes_per_second = None
    download(url, target)
    assert commands.wait()[0] == 0
    assert only(target) and hub.count("a.dat") == 1


def test_giving_up_the_wait_for_another_process_does_not_let_a_third_one_in(hub, url, target, monkeypatch):
    """One downloads; Ctrl-C ends the one that waits for it; a third must wait as well."""
    lock = target.with_name(target.name + ".lock")
    target.parent.mkdir()

    class Interrupted(FileLock):
        def acquire(self, *args, **settings):
            raise KeyboardInterrupt

    with FileLock(lock), monkeypatch.context() as patch:
        patch.setattr(module, "FileLock", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            download(url, target)
        assert lock.exists(), "the first one's lock is gone, so a third would write into the same file"


# --- it does not arrive ---


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda hub: hub.repos.clear(), "the server answers 401"),
        (lambda hub: hub.failures.append(404), "the server answers 404 Not Found; check name and access"),
        (lambda hub: hub.failures.append(403), "the server answers 403 Forbidden; check name and access"),
    ],
    ids=["401", "404", "403"],
)
def test_a_refusal_is_named_at_once(break_it, said, hub, url, target, no_waiting):
    break_it(hub)
    with pytest.raises(HubError, match=f"{url}: {said}") as error:
        download(url, target)
    one_line(error)
    assert len(hub.requests) == 1 and no_waiting == [] and left_in(target.parent) == []


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_server_in_trouble_is_asked_again(status, hub, url, target, no_waiting):
    hub.failures += [status] * 3
    download(url, target)
    assert only(target) and hub.count("a.dat") == 4
    assert len(no_waiting) == 3 and no_waiting == sorted(no_waiting) and no_waiting[0] > 0


def test_too_many_requests_is_trouble_too_and_no_lack_of_access(hub, url, target):
    hub.failures += [429] * 2
    download(url, target)
    assert only(target)


def test_a_server_that_stays_in_trouble_is_given_up_and_what_came_is_kept(hub, url, target):
    begin(target, CONTENT[:400_000])
    hub.failures += [503] * 100
    with pytest.raises(HubError, match=r"503.*check the network.*400 kB of it.*kept.*same command") as error:
        download(url, target)
    one_line(error)
    assert partial_of(target).read_bytes() == CONTENT[:400_000] and 3 <= len(hub.requests) <= 10


def test_progress_starts_the_count_of_failures_anew(hub, url, target):
    """A bad line that brings a little each time is enough."""
    breaks = iter([200_000] * 15)

    class Flaky(list):
        def append(self, request):  # called by the Hub at each request
            super().append(request)
            hub.break_after = next(breaks, None)

    hub.requests = Flaky()
    download(url, target)
    assert only(target) and len(hub.ranges) == 15


def test_nobody_there_is_one_line_with_the_remedy(target, no_waiting):
    with pytest.raises(HubError, match="127.0.0.1:9/a: cannot be reached .*refused.*check the network") as e:
        download("http://127.0.0.1:9/a", target)
    assert "the same command goes on" in one_line(e)
    assert sum(no_waiting) < 20 and left_in(target.parent) == []


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nsome, and nobody knows of how much",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\ncut",
        b"",
    ],
    ids=["no HTTP", "no length", "chunked and cut", "nothing"],
)
def test_an_answer_that_is_no_file_is_one_line(answer, target):
    with answering(answer) as address, pytest.raises(HubError) as error:
        download(f"{address}/a", target)
    one_line(error)
    assert not target.exists()


@pytest.mark.parametrize(
    "broken",
    [ssl.SSLError("bad record mac"), OSError(errno.EHOSTUNREACH, "No route to host"), TimeoutError()],
)
def test_a_connection_that_breaks_while_it_is_read_is_continued(broken, hub, url, target, monkeypatch):
    opened = []

    def urlopen(request, **settings):
        answer = original(request, **settings)
        opened.append(answer)
        if len(opened) == 1:
            for name in ("read", "read1", "readinto"):
                monkeypatch.setattr(answer, name, lambda *size: raising(broken))
        return answer

    original = urllib.request.urlopen
    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    download(url, target)
    assert only(target) and len(opened) == 2


def raising(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("digest", [hashlib.sha256(CONTENT).hexdigest(), "0" * 64], ids=["right", "wrong"])
def test_a_damaged_file_is_removed(digest, hub, url, target):
    if digest == "0" * 64:
        with pytest.raises(HubError, match="SHA-256 000000000000.*damaged.*removed; run the same") as error:
            download(url, target, sha256=digest)
        one_line(error)
        assert left_in(target.parent) == []
    else:
        download(url, target, sha256=digest)
        assert only(target)


def test_a_damaged_beginning_is_found_too(hub, url, target):
    begin(target, b"x" * 400_000)
    digest = hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(HubError, match="damaged"):
        download(url, target, sha256=digest)
    download(url, target, sha256=digest)
    assert only(target)


# --- where it goes ---


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("known", [True, False], ids=["seen before", "filled meanwhile"])
def test_a_full_disk_is_named_and_not_left_full(known, hub, url, small_disk, monkeypatch):
    if not known:
        monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(0, 0, 10**9))
    said = "4 MB are to come, but .* has 2.1 MB free" if known else "the disk is full"
    with pytest.raises(HubError, match=rf"{url}: {said}; free some.*HF_HOME") as error:
        download(url, small_disk / "a.dat")
    one_line(error)
    assert left_in(small_disk) == []


def test_a_file_in_the_way_of_the_folder_is_named(hub, url, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HubError, match="cannot be written.*HF_HOME") as error:
        download(url, tmp_path / "file" / "a.dat")
    one_line(error)
