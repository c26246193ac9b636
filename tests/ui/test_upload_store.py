"""Uploads as they are kept: needed ones stay, others go in time, and all of them together stay in bounds."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.browser import serve
from dit.files import PARTIAL, REMOVED
from tests.train.picture_files import picture, png
from ui.limits import Limits
from ui.runs import ROOT, Runs
from ui.upload_store import UploadStore

DAY = 86_400
UNPACK = """
import os, sys, time
from pathlib import Path
from ui.limits import Limits
from ui.upload_store import UploadStore

chmod = os.chmod
def chmod_and_wait(*where, **how):
    chmod(*where, **how)
    print("begun", flush=True)
    time.sleep(600)

os.chmod = chmod_and_wait
UploadStore(Path(sys.argv[1]), Limits()).unpacked(Path(sys.argv[2]))
"""


def zipped(path: Path, number: int, count: int = 3) -> Path:
    """So many pictures of two classes; others for another number."""
    content = png(picture(number))
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(count):
            archive.writestr(f"{'ab'[i % 2]}/{i}.png", content)
    return path


def age(folder: Path, seconds: float) -> None:
    """As if it had been used last so long ago."""
    then = time.time() - seconds
    os.utime(folder, (then, then))


def kept(store: UploadStore) -> set[Path]:
    return {path for path in store.folder.iterdir() if path.name not in (".lock", REMOVED)}


@pytest.fixture
def store(tmp_path: Path) -> UploadStore:
    return UploadStore(tmp_path / "runs", Limits())


def test_what_a_run_needs_stays_and_the_rest_goes_a_day_after_its_last_use(
    store: UploadStore, tmp_path: Path
) -> None:
    names = ("trained", "begun", "idle", "recent", "again")
    uploads = {
        name: store.unpacked(zipped(tmp_path / f"{name}.zip", number)).folder
        for number, name in enumerate(names)
    }
    for name, file, told in (
        ("one", "config.json", {"data": str(uploads["trained"])}),
        ("two", "page.json", {"arguments": ["solids", "--data", str(uploads["begun"])]}),
    ):
        (store.runs / name).mkdir()
        (store.runs / name / file).write_text(json.dumps(told))
    for folder in uploads.values():
        age(folder, 2 * DAY)
    age(uploads["recent"], DAY / 2)
    assert store.unpacked(tmp_path / "again.zip").folder == uploads["again"]  # used now
    store.expire()
    assert kept(store) == {folder for name, folder in uploads.items() if name != "idle"}
    shutil.rmtree(store.runs / "one")
    store.expire()
    assert uploads["trained"] not in kept(store)


def test_the_same_file_is_unpacked_once_whoever_sends_it(store: UploadStore, tmp_path: Path) -> None:
    archive, found = zipped(tmp_path / "x.zip", 0, 400), []
    senders = [
        threading.Thread(target=lambda: found.append(store.unpacked(archive).folder)) for _ in range(4)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert len(found) == 4 and len(set(found)) == 1 == len(kept(store))
    assert len(list(found[0].rglob("*.png"))) == 400


def test_what_a_killed_server_left_is_no_upload_and_goes(store: UploadStore, tmp_path: Path) -> None:
    """Killed after the first of its pictures."""
    archive, words = zipped(tmp_path / "x.zip", 0, 50), [sys.executable, "-c", UNPACK, str(store.runs)]
    with subprocess.Popen([*words, str(archive)], cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "begun\n"
        child.kill()
    [left] = kept(store)
    assert left.name.endswith(PARTIAL)
    done = store.unpacked(archive)
    assert kept(store) == {done.folder} and done.pictures == len(list(done.folder.rglob("*.png"))) == 50


def test_all_together_take_no_more_than_the_limit(store: UploadStore, tmp_path: Path) -> None:
    """On the disk: three pictures of some hundred bytes take three clusters."""
    small = replace(store, limits=Limits(uploads_bytes=5 * 4096))
    first = small.unpacked(zipped(tmp_path / "first.zip", 1)).folder
    second = zipped(tmp_path / "second.zip", 2)
    said = (
        r"second.zip: unpacked it takes 12.3 kB of the disk, and of 20.5 kB for all uploads 8.19 kB are "
        r"left; delete a run .*, or try again later: what no run needs goes 24 h after it was used last"
    )
    with pytest.raises(ValueError, match=said):
        small.unpacked(second)
    assert kept(small) == {first}
    age(first, 2 * DAY)  # what has expired makes room
    after = small.unpacked(second).folder
    assert kept(small) == {after} and after != first


def test_the_server_looks_when_it_starts(store: UploadStore, tmp_path: Path) -> None:
    idle = store.unpacked(zipped(tmp_path / "x.zip", 0)).folder
    age(idle, 2 * DAY)
    with serve(["--runs", str(store.runs)], tmp_path / "log"):
        end = time.monotonic() + 60
        while idle.exists():
            assert time.monotonic() < end, (tmp_path / "log").read_text()
            time.sleep(0.05)
    assert Runs(store.runs).found() == []


def test_what_no_run_needs_can_be_forgotten(store: UploadStore, tmp_path: Path) -> None:
    done, needed = (store.unpacked(zipped(tmp_path / f"{number}.zip", number)) for number in (0, 1))
    config = store.runs / "trained" / "config.json"
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps({"data": str(needed.folder)}))
    for one in (done, needed):
        store.forget(one)
    assert not done.folder.exists() and needed.folder.is_dir()
