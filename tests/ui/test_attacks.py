"""What one would try against a server on the net, over HTTP: uploads, files, states, tokens, long bodies."""

import io
import json
import stat
import struct
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dit.files import REMOVED
from tests.train.picture_files import picture, png
from tests.ui.attacked import TOKEN, Attacked, attack
from tests.ui.raw_http import Answer, post, send, upload

PNG = png(picture(0))
SCRIPT = b"<html><svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg></html>"


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory, ladder_files: list[Path]) -> Iterator[Attacked]:
    """One server for the module."""
    with attack(tmp_path_factory.mktemp("attacked"), ladder_files) as served:
        yield served


def zipped(*entries: tuple[str | zipfile.ZipInfo, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name that is there twice
        for name, content in entries:
            archive.writestr(name, content)
    return file.getvalue()


def link() -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("a/link.png")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


def patched(content: bytes, offsets: tuple[int, int], value: bytes) -> bytes:
    """A zip whose directory and first entry have other bytes at a place."""
    raw = bytearray(content)
    for mark, offset in zip((b"PK\x01\x02", b"PK\x03\x04"), offsets, strict=True):
        place = raw.index(mark) + offset
        raw[place : place + len(value)] = value
    return bytes(raw)


BOMB = zipped(("a/1.png", bytes(30_000_000)))
ATTACKS = {
    "up": (zipped(("a/1.png", PNG), ("../../evil.png", PNG)), "leads out of the folder"),
    "from the root": (zipped(("/tmp/evil.png", PNG)), "leads out of the folder"),
    "backslashes": (zipped(("..\\..\\evil.png", PNG)), "leads out of the folder"),
    "drive": (zipped(("C:/evil.png", PNG)), "leads out of the folder"),
    "link": (zipped((link(), b"../../../secret.txt")), "is a link"),
    "bomb": (BOMB, "unpacks to more than 200 times its size"),
    "too much": (patched(BOMB, (24, 22), struct.pack("<I", 2**31)), "unpacked it would have 2.15 GB"),
    "liar": (patched(BOMB, (24, 22), struct.pack("<I", 100)), "cannot be unpacked"),
    "encrypted": (patched(zipped(("a/1.png", PNG)), (8, 6), b"\x01\x00"), "is encrypted"),
    "damaged": (zipped(("a/1.png", PNG * 50))[:60] + b"\xff" * 300, "cannot be unpacked"),
    "no deflate": (patched(zipped(("a/1.png", PNG), kind=0), (10, 8), b"\x08\x00"), "cannot be unpacked"),
    "no zip": (SCRIPT, "cannot be unpacked"),
    "empty": (b"", "cannot be unpacked"),
    "no pictures": (zipped(("a/run.sh", b"rm -rf /"), ("a/x.svg", SCRIPT)), "no pictures in the file"),
    "twice": (zipped(("a/1.png", PNG), ("a/1.png", PNG)), "is in the file twice"),
    "both": (zipped(("x/a.png", PNG), ("x/a.png/b.png", PNG)), "both a file and a folder"),
    "long name": (zipped((f"a/{'x' * 300}.png", PNG)), "cannot be unpacked: File name too long"),
    "deep": (zipped(("a/" * 3000 + "1.png", PNG)), "lies 3000 folders deep, and at most 19"),
    "no images": (zipped(("a/1.png", SCRIPT), ("b/2.png", b"")), "none of 2 pictures can be read"),
}


def checked(attacked: Attacked, file: object, **change: object) -> str:
    """What Check says of an upload."""
    fields = {"name": "", "source": "zip", "upload": file, "folder": "", "hub": "", "preset": "DiT-E/4"}
    fields |= {"side": 16, "images": 64, "batch": 8, "lr": 0.001, "dropout": 0.1, "seed": 0}
    fields |= {"classes": True, "mirror": True} | change
    answer = attacked.call("train-check.click", list(fields.values()))
    return answer.get("error") or answer["data"][0]


def filed(path: str) -> dict[str, object]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, "orig_name": "pictures.zip"}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_harmful_upload_is_refused_and_leaves_nothing(name: str, attacked: Attacked) -> None:
    content, said = ATTACKS[name]
    before = attacked.files()
    [path] = attacked.take(upload(attacked.address, "pictures.zip", content), "").json()
    assert said in checked(attacked, filed(path))
    assert attacked.files() == before
    left = attacked.runs / ".uploads"
    assert not left.exists() or {path.name for path in left.iterdir()} <= {".lock", REMOVED}
    assert not list(left.glob(f"{REMOVED}/*"))
    assert "Traceback" not in attacked.log


def test_what_is_wrong_besides_is_said_before_anything_is_unpacked(attacked: Attacked) -> None:
    before = attacked.files()
    [path] = upload(attacked.address, "pictures.zip", zipped(("a/1.png", PNG), ("b/1.png", PNG))).json()
    assert "batch is 0" in checked(attacked, filed(path), batch=0)
    assert attacked.files() == before


def test_only_what_was_uploaded_is_taken_for_an_upload(attacked: Attacked) -> None:
    own = attacked.folder / "gradio"
    for path in [*attacked.places, str(own), str(own / ".." / "secret.txt"), attacked.canary, "", "\0", "~"]:
        said = checked(attacked, filed(path))
        refused = ("cannot be used", "must be a file that was uploaded", "Invalid file type")
        assert any(words in said for words in refused), path
    for wrong in ({}, [filed("/etc/passwd")], "/etc/passwd", {"path": 3}, {"url": attacked.canary}):
        assert "a file that was uploaded" in checked(attacked, wrong)
    assert attacked.fetched == []


def test_an_upload_comes_back_as_a_download_never_as_a_page(attacked: Attacked) -> None:
    for name in ("x.html", "x.svg", "x.xhtml", "x.zip", "x", "x.png.html", "<script>.htm"):
        [path] = upload(attacked.address, name, SCRIPT, "text/html").json()
        back = send(attacked.address, "GET", f"/gradio_api/file={path.replace('<', '%3C')}")
        assert (back.status, back.body) == (200, SCRIPT)
        assert back.header("content-type") == "application/octet-stream"
        assert back.header("content-disposition").startswith("attachment")
        assert back.header("x-content-type-options") == "nosniff"
    for name, kind in (("x.png", "image/png"), ("x.txt", "text/plain")):  # shown, but as no page either
        [path] = upload(attacked.address, name, SCRIPT, "text/html").json()
        back = send(attacked.address, "GET", f"/gradio_api/file={path}")
        assert back.header("content-type").startswith(kind)
        assert back.header("x-content-type-options") == "nosniff"
    for name in ("../../evil.txt", "..\\evil.txt", "/etc/cron.d/evil", "a" * 400, ""):
        for path in upload(attacked.address, name, b"x").json():
            assert Path(path).resolve().is_relative_to(attacked.folder / "gradio")


def test_folders_that_are_not_lent_are_refused(attacked: Attacked) -> None:
    lent = attacked.folder / "lent"
    (lent / "out").symlink_to(attacked.folder / "home")
    for folder in (
        "/etc", "~", "~nobody-of-that-name", ".", "assets", str(attacked.runs), f"{lent}/..", f"{lent}-too",
        str(lent / "out"), "solids", "\0",
    ):  # fmt: skip
        said = checked(attacked, None, source="folder", folder=folder)
        assert "this server lends" in said, folder
    long = "a" + "漢" * 100 + "/b"  # of letters that no folder's name has room for
    for dataset in ("../../etc", "/etc/passwd", "tests/data", "~/x", "a/b/c", "--json", long):
        said = checked(attacked, None, source="hub", hub=dataset)
        assert "give OWNER/NAME of one on the Hub" in said, dataset
    said = checked(attacked, None, source="hub", hub="a/b:revision=../x")
    assert "revision is &#x27;../x&#x27;; give the name of one" in said


def test_a_state_is_neither_read_nor_set_by_another(attacked: Attacked) -> None:
    values = list(attacked.listener("generate.click").good)  # one step of one picture
    ended = attacked.call("generate.click", values, "who-draws")
    assert "error" not in ended
    drawn = [None, 1, "predicted picture"]
    own = attacked.call("scrub.input", drawn, "who-draws")["data"]
    assert "<figure" in own[0] and "Step 1 of 1" in own[1]
    for sent in (None, {"frames": [1]}, own, 7):
        other = attacked.call("scrub.input", [sent, *drawn[1:]], "another")["data"]
        assert all("value" not in shown for shown in other) and "figure" not in json.dumps(other)
    assert attacked.call("scrub.input", [{"frames": []}, *drawn[1:]], "who-draws")["data"] == own


def test_a_token_is_kept_nowhere(attacked: Attacked) -> None:
    sent = ["mine", "me/mine", TOKEN, True]
    said = attacked.call("run-push.click", sent, "who-pushes")["data"]
    assert "dl-price" in said[0] and said[1] == ""  # the Hub cannot be reached; the box is emptied
    for wrong in (sent[:3], [*sent, 1], [["mine"], *sent[1:]], ["mine", {}, TOKEN, "yes"]):
        assert "error" in attacked.call("run-push.click", wrong, "who-pushes")
    link = send(attacked.address, "GET", "/gradio_api/deep_link?session_hash=who-pushes")
    assert link.status == 404
    kept = [path for path in attacked.folder.rglob("*") if path.is_file()]
    assert kept and not any(TOKEN.encode() in path.read_bytes() for path in kept)


@pytest.mark.parametrize(
    "path",
    [
        "file=https://example.com/x.png", "file=HTTP://a/", "file=%20http://a/", "file/https://a/",
        "proxy=https://a.hf.space/", "deep_link?session_hash=a", "stream/a/b/1/playlist-file", "token",
        "process_recording", "component_server", "custom_component/a/client/b/index.js", "dev/reload",
        "vibe-code/",
    ],
)  # fmt: skip
def test_what_the_page_does_without_is_not_there(path: str, attacked: Attacked) -> None:
    for method in ("GET", "POST"):
        answer = send(attacked.address, method, f"/gradio_api/{path}", body=b"{}")
        assert (answer.status, answer.json()) == (404, {"error": "there is nothing here"})


def refusal(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json()["error"]


def test_a_body_says_how_long_it_is_and_is_not_too_long(attacked: Attacked) -> None:
    join = "/gradio_api/queue/join"
    large = post(attacked.address, join, {"data": ["x" * 2_000_000], "fn_index": 0, "session_hash": "a"})
    assert refusal(large) == (413, "the request is larger than the maximum allowed size of 1000000 bytes")
    for length in ("99999999999999", "18446744073709551615"):
        told = {"Content-Type": "application/json", "Content-Length": length}
        assert refusal(send(attacked.address, "POST", join, told))[0] == 413
    chunked = {"Transfer-Encoding": "chunked", "Content-Type": "application/json"}
    answer = send(attacked.address, "POST", join, chunked, b"2\r\n{}\r\n0\r\n\r\n")
    assert answer.status == 411 and "Content-Length" in answer.json()["error"]
    assert send(attacked.address, "GET", "/health").status == 200
