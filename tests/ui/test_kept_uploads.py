"""Uploads on the disk: unpacked once, whole, and deleted when there are too many that no run needs."""

import json
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.train.picture_files import picture, png
from ui.kept_uploads import PART, UPLOADS, forget, unpacked_once
from ui.limits import Limits
from ui.runs import NOTE, Runs

PNG = png(picture(0))


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "runs")


def archive(tmp_path: Path, number: int) -> Path:
    """An upload of two pictures, and another one for another number."""
    path = tmp_path / f"{number}.zip"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("a/1.png", PNG)
        opened.writestr(f"b/{number}.png", PNG)
    return path


def kept(runs: Runs) -> set[str]:
    return {path.name for path in (runs.folder / UPLOADS).iterdir()}


def aged(folder: Path, seconds: int) -> None:
    """As if it had been unpacked so long ago."""
    then = folder.stat().st_mtime - seconds
    os.utime(folder, (then, then))


def test_the_same_file_is_unpacked_once_also_when_it_comes_twice_at_a_time(
    runs: Runs, tmp_path: Path
) -> None:
    path = archive(tmp_path, 0)
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda _: unpacked_once(path, runs, Limits()), range(8)))
    assert len({one.folder for one in done}) == 1 and {one.pictures for one in done} == {2}
    assert kept(runs) == {done[0].folder.name}


def test_what_was_left_half_unpacked_is_not_taken_for_whole(runs: Runs, tmp_path: Path) -> None:
    path = archive(tmp_path, 0)
    whole = unpacked_once(path, runs, Limits()).folder
    half = whole.with_name(whole.name + PART)
    whole.rename(half)
    (half / "a" / "1.png").unlink()
    assert unpacked_once(path, runs, Limits()).pictures == 2
    assert (whole / "a" / "1.png").read_bytes() == PNG and kept(runs) == {whole.name}


def test_the_oldest_go_but_for_those_that_runs_were_started_with(runs: Runs, tmp_path: Path) -> None:
    limits = Limits(uploads=2)
    folders = [unpacked_once(archive(tmp_path, number), runs, limits).folder for number in (0, 1)]
    for place, folder in enumerate(folders):
        aged(folder, 100 - place)
    note = runs.folder / "started" / NOTE
    note.parent.mkdir()
    note.write_text(json.dumps({"arguments": ["solids", "--data", str(folders[0])]}))
    second, third = (unpacked_once(archive(tmp_path, number), runs, limits).folder for number in (2, 3))
    assert kept(runs) == {folder.name for folder in (folders[0], second, third)}
    unpacked_once(archive(tmp_path, 2), runs, limits)  # used again: now the third is the oldest
    aged(third, 50)
    fourth = unpacked_once(archive(tmp_path, 4), runs, limits).folder
    assert kept(runs) == {folder.name for folder in (folders[0], second, fourth)}


def test_what_no_run_needs_can_be_forgotten(runs: Runs, tmp_path: Path) -> None:
    done, needed = (unpacked_once(archive(tmp_path, number), runs, Limits()) for number in (0, 1))
    config = runs.folder / "trained" / "config.json"
    config.parent.mkdir()
    config.write_text(json.dumps({"data": str(needed.folder)}))
    for one in (done, needed):
        forget(one, runs)
    assert kept(runs) == {needed.folder.name}


def test_a_refused_one_leaves_nothing(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"no zip")
    with pytest.raises(ValueError, match="x.zip: the file cannot be unpacked"):
        unpacked_once(tmp_path / "x.zip", runs, Limits())
    assert not (runs.folder / UPLOADS).exists()
