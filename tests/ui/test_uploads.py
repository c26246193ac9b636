"""Zips from strangers: pictures come out of them, and nothing else ever does."""

import io
import stat
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from tests.train.picture_files import picture, png
from ui.limits import Limits
from ui.uploads import CLUSTER, Refused, unpack

LIMITS = Limits(upload_bytes=300_000, unpacked_bytes=200_000, upload_files=20)
PNG = png(picture(0))


def zipped(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def contents(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def tree(tmp_path):
    """Whatever an attack writes must be seen: everything below this folder is compared before and after."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept.txt").write_text("kept")
    return tmp_path


def refused(tree: Path, archive: Path, said: str, limits: Limits = LIMITS) -> None:
    before = contents(tree)
    with pytest.raises(Refused, match=said):
        unpack(archive, tree / "in" / "unpacked", limits)
    assert contents(tree) == before and not (tree / "in" / "unpacked").exists()
    assert (tree / "outside" / "kept.txt").read_text() == "kept"


def test_pictures_come_out_class_by_class_and_the_rest_is_named(tree):
    files = {"set/a/1.png": PNG, "set/a/deeper/2.PNG": PNG, "set/b/ä ö.jpg": PNG}
    extra = {
        "set/notes.txt": b"hello",
        "set/a/run.sh": b"rm",
        "__MACOSX/set/a/._1.png": b"x",
        "set/.DS_Store": b"",
    }
    done = unpack(zipped(tree / "x.zip", files | extra), tree / "in" / "unpacked", LIMITS)
    assert contents(done.folder) == {"a/1.png", "a/deeper/2.PNG", "b/ä ö.jpg"}
    assert done.pictures == 3 and set(done.left_out) == {"set/notes.txt", "set/a/run.sh"}
    assert (done.folder / "a" / "1.png").read_bytes() == PNG


def test_one_folder_of_pictures_stays_one_class_free(tree):
    done = unpack(zipped(tree / "x.zip", {"set/1.png": PNG, "set/2.png": PNG}), tree / "u", LIMITS)
    assert contents(done.folder) == {"set/1.png", "set/2.png"}


@pytest.mark.parametrize(
    "name",
    [
        "../evil.png",
        "a/../../evil.png",
        "/evil.png",
        "..\\evil.png",
        "C:\\evil.png",
        "C:/evil.png",
        "a/../..//evil.png",
    ],
)
def test_paths_that_lead_out_are_refused(name, tree):
    refused(tree, zipped(tree / "x.zip", {"a/1.png": PNG, name: PNG}), "leads out of the folder")


def test_links_are_refused(tree):
    link = zipfile.ZipInfo("a/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tree / "x.zip", "w") as archive:
        archive.writestr(link, "../../outside/kept.txt")
    refused(tree, tree / "x.zip", "is a link")


def test_a_bomb_is_refused_by_what_it_says_it_holds(tree):
    bomb = zipped(tree / "x.zip", {"a/1.png": bytes(3_000_000)}, zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 10_000
    refused(tree, bomb, "unpacked it would have 3 MB, and at most 200 kB")


def test_a_bomb_is_refused_by_how_much_it_unpacks_to(tree):
    bomb = zipped(tree / "x.zip", {"a/1.png": bytes(190_000)}, zipfile.ZIP_DEFLATED)
    refused(tree, bomb, "more than 200 times its size")


def test_a_bomb_that_lies_about_its_size_is_refused(tree):
    """The directory says 100 bytes; what comes is counted all the same."""
    path = zipped(tree / "x.zip", {"a/1.png": bytes(5_000_000)}, zipfile.ZIP_DEFLATED)
    raw = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        place = raw.index(mark) + offset
        raw[place : place + 4] = struct.pack("<I", 100)
    path.write_bytes(raw)
    before = contents(tree)
    try:
        done = unpack(path, tree / "u", LIMITS)
    except Refused:
        assert not (tree / "u").exists() and contents(tree) == before
    else:  # cut off where the directory says
        assert sum(file.stat().st_size for file in done.folder.rglob("*.png")) <= 100


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (replace(LIMITS, upload_bytes=100), "and at most 100 B are taken"),
        (replace(LIMITS, upload_files=2), "holds 3 files, and at most 2"),
    ],
)
def test_too_much_is_refused(limits, said, tree):
    refused(tree, zipped(tree / "x.zip", {f"a/{i}.png": PNG for i in range(3)}), said, limits)


def test_no_zip_and_a_damaged_one_are_refused(tree):
    (tree / "x.zip").write_bytes(b"no zip at all" * 10)
    refused(tree, tree / "x.zip", "cannot be unpacked")
    whole = zipped(tree / "y.zip", {"a/1.png": PNG}, zipfile.ZIP_DEFLATED).read_bytes()
    (tree / "y.zip").write_bytes(whole[:60] + b"\xff" * 40 + whole[100:])
    refused(tree, tree / "y.zip", "cannot be unpacked")
    (tree / "z.zip").write_bytes(whole[: len(whole) // 2])
    refused(tree, tree / "z.zip", "cannot be unpacked")
    whole = zipped(tree / "b.zip", {"a/1.png": PNG * 50}, zipfile.ZIP_BZIP2).read_bytes()
    (tree / "b.zip").write_bytes(whole[:60] + b"\xff" * 20 + whole[80:])
    refused(tree, tree / "b.zip", "cannot be unpacked: Invalid data stream; make a plain .zip")


def test_what_holds_no_pictures_or_one_twice_is_refused(tree):
    refused(tree, zipped(tree / "x.zip", {"a/readme.txt": b"x"}), "no pictures in the file")
    refused(tree, zipped(tree / "y.zip", {}), "no pictures in the file")
    with zipfile.ZipFile(tree / "z.zip", "w") as archive:
        archive.writestr("a/1.png", PNG)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a/1.png", PNG)
    refused(tree, tree / "z.zip", "is in the file twice")


def test_encrypted_ones_are_refused(tree):
    path = zipped(tree / "x.zip", {"a/1.png": PNG})
    raw = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        raw[raw.index(mark) + offset] |= 1
    path.write_bytes(raw)
    refused(tree, path, "is encrypted")


def test_a_name_that_is_a_folder_elsewhere_is_refused(tree):
    """`a` as a file and `a/1.png` below it cannot both be."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("x/a.png", PNG)
        opened.writestr("x/a.png/b.png", PNG)
    (tree / "x.zip").write_bytes(archive.getvalue())
    refused(tree, tree / "x.zip", "both a file and a folder")


def test_what_there_is_no_room_for_is_refused(tree):
    archive = zipped(tree / "x.zip", {f"a/{i}.png": PNG for i in range(3)})
    limits = replace(LIMITS, uploads_bytes=5 * CLUSTER)
    before = contents(tree)
    with pytest.raises(
        Refused, match="unpacked it takes 12.3 kB of the disk, and of 20.5 kB .* 8.19 kB are left"
    ):
        unpack(archive, tree / "in" / "unpacked", limits, taken=3 * CLUSTER)
    assert contents(tree) == before
    assert unpack(archive, tree / "in" / "unpacked", limits, taken=2 * CLUSTER).pictures == 3
    assert list((tree / "in").iterdir()) == [tree / "in" / "unpacked"]
