"""An imitation of the Hugging Face Hub's HTTP API on 127.0.0.1, for tests: without Xet."""

import base64
import hashlib
import json
import os
import re
import secrets
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml  # huggingface_hub itself depends on it

LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".png", ".parquet")
LICENSES = ("apache-2.0", "mit", "isc", "cc-by-4.0", "cc-by-nc-4.0", "openrail", "other")  # and more
ANONYMOUS = "Invalid username or password."  # the Hub's words for no token where one is needed


def read_card(text: str) -> dict[str, Any]:
    """The front matter of a README; raises Refused where the Hub would refuse it."""
    block = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    try:
        card = yaml.safe_load(block[1]) if block else {}
        error = "" if card.get("license", "other") in LICENSES else f'"license" is {card["license"]}'
    except (AttributeError, yaml.YAMLError) as broken:
        error = f"YAML metadata is no mapping: {broken}"
    if error:
        raise Refused(400, "Invalid metadata in README.md", errors=[{"message": error}])
    return card


@dataclass(frozen=True)
class Blob:
    """One file's content, in large file storage (LFS) or in git itself."""

    path: Path
    size: int
    sha256: str
    oid: str  # what git calls it
    lfs: bool

    def entry(self, name: str) -> dict[str, Any]:
        """Of a listing: in one of all `siblings`, and in a `tree`, where some things are called otherwise."""
        lfs = {"sha256": self.sha256, "oid": self.sha256, "size": self.size, "pointerSize": 130}
        names = {"rfilename": name, "path": name, "type": "file", "blobId": self.oid, "oid": self.oid}
        return names | {"size": self.size} | ({"lfs": lfs} if self.lfs else {})


@dataclass
class Repo:
    """A repository: its commits, each the files by name."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)

    @property
    def main(self) -> str:
        """The newest commit."""
        return next(reversed(self.commits))


class Refused(Exception):
    """An answer other than success: huggingface_hub chooses its exception by the status and the `code`."""

    def __init__(self, status: int, message: str, code: str = "", **body: Any) -> None:
        self.status, self.body = status, {"error": message, **body}
        self.headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}


@dataclass
class LoopbackHub:
    """A running hub. `token` may do anything; `stranger` is a valid token without special rights."""

    endpoint: str  # http://127.0.0.1:PORT, for HF_ENDPOINT
    store: Path
    token: str = "hf_loopback"
    stranger: str = "hf_stranger"
    requests: list[tuple[str, str]] = field(default_factory=list)  # (method, path), without the query
    ranges: list[tuple[str, str]] = field(default_factory=list)  # (path, Range header), where there was one
    failures: list[int] = field(default_factory=list)  # statuses that the next requests are answered with
    resumable: bool = True  # whether it heeds Range
    break_after: int | None = None  # the next file body longer than this is cut there, once
    break_hard: bool = False  # by a reset, instead of an orderly end of the connection
    bytes_per_second: int | None = None  # of each file body; may be changed while one is being sent
    signature: str = "signed"  # of addresses in the storage; with a new one, old ones expire
    closing: threading.Event = field(default_factory=threading.Event)
    repos: dict[str, Repo] = field(default_factory=dict)

    @property
    def storage(self) -> str:
        """Where LFS files are: under another name, as the real Hub keeps them on another origin."""
        return self.endpoint.replace("127.0.0.1", "localhost") + "/storage"

    def add(self, repo_id: str, folder: Path, revision: str, **access: bool) -> None:
        """Publish a folder's files as a commit, to which `main` points then. access: gated, private.

        repo_id: OWNER/NAME of a model, datasets/OWNER/NAME of a dataset.
        """
        repo = self.repos.setdefault(repo_id, Repo())
        names = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())
        repo.commits[revision] = {name: self.keep(name, (folder / name).read_bytes()) for name in names}
        repo.gated, repo.private = access.get("gated", False), access.get("private", False)

    def files(self, repo_id: str) -> dict[str, Path]:
        """What `main` holds, uploads included: files of the store, to be read only."""
        repo = self.repos[repo_id]
        return {name: blob.path for name, blob in repo.commits[repo.main].items()}

    def keep(self, name: str, data: bytes) -> Blob:
        """Put a file into the store."""
        path, lfs = self.store / hashlib.sha256(data).hexdigest(), name.endswith(LFS_SUFFIXES)
        if not path.exists():
            path.write_bytes(data)
        return Blob(path, len(data), path.name, hashlib.sha1(data).hexdigest(), lfs)

    def count(self, part: str, method: str = "GET") -> int:
        """How many requests of a method had this in their path."""
        return sum(part in path for used, path in self.requests if used == method)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: LoopbackHub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self) -> None:
        url = urlsplit(self.path)
        self.query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        # The body is always read, or its rest would be taken for the next request on this connection.
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.caller = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.member = self.caller == self.hub.token
        try:
            if url.path == "/api/agent-harnesses":  # the library's own curiosity, once in a process
                raise Refused(404, "No such page")
            self.hub.requests.append((self.command, url.path))
            if "Range" in self.headers:
                self.hub.ranges.append((url.path, self.headers["Range"]))
            if self.hub.failures:
                raise Refused(self.hub.failures.pop(0), "A failure that a test asked for")
            if self.caller not in ("", self.hub.token, self.hub.stranger):
                raise Refused(401, "Invalid credentials in Authorization header")
            for methods, pattern, name in ROUTES:
                if self.command in methods.split() and (match := re.fullmatch(pattern, url.path)):
                    return getattr(self, name)(*(part and unquote(part) for part in match.groups()))
            raise Refused(404, f"No such page: {self.command} {url.path}")
        except Refused as refusal:
            self.reply(refusal.body, refusal.status, **refusal.headers)
        except ConnectionError:  # a client that cancels is no reason for a traceback
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def head(self, status: int, length: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(length)}).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def reply(self, value: Any, status: int = 200, **headers: str) -> None:
        data = json.dumps(value).encode()
        self.head(status, len(data), Content_Type="application/json; charset=utf-8", **headers)
        if self.command != "HEAD":
            self.wfile.write(data)

    def asked(self) -> list[dict[str, Any]]:
        """The lines of a JSON body that only the member may send; raises Refused for anybody else."""
        if not self.member:
            raise Refused(403 if self.caller else 401, "You need write access")
        return [json.loads(line) for line in self.body.splitlines()]

    def repo(self, repo_id: str) -> Repo:
        repo = self.hub.repos.get(repo_id)
        if repo is None or (repo.private and not self.member):
            if not self.caller:  # the real Hub does not tell these even that there is no such repository
                raise Refused(401, ANONYMOUS, "RepoNotFound")
            raise Refused(404, "Repository not found", "RepoNotFound")
        return repo

    def commit(self, repo_id: str, revision: str | None) -> tuple[str, dict[str, Blob]]:
        repo = self.repo(repo_id)
        oid = repo.main if revision in (None, "main") else revision
        if oid not in repo.commits:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return oid, repo.commits[oid]

    def model_info(self, repo_id: str, revision: str | None = None) -> None:
        oid, files = self.commit(repo_id, revision)
        siblings = [blob.entry(name) for name, blob in files.items()]
        private = self.hub.repos[repo_id].private
        name = repo_id.removeprefix("datasets/")
        self.reply({"id": name, "sha": oid, "private": private, "siblings": siblings})

    def tree(self, repo_id: str, revision: str, folder: str | None) -> None:
        """What lies below a folder; not `recursive`: in it, deeper folders by name alone."""
        start, inside = f"{folder}/" if folder else "", {}
        for name, blob in self.commit(repo_id, revision)[1].items():
            deeper = "/" in name.removeprefix(start) and self.query.get("recursive", "").lower() != "true"
            if name.startswith(start) and deeper:
                path = start + name.removeprefix(start).split("/")[0]
                inside[path] = {"type": "directory", "path": path, "oid": "0" * 40}
            elif name.startswith(start):
                inside[name] = blob.entry(name)
        if folder and not inside:
            raise Refused(404, f"{folder} does not exist", "EntryNotFound")
        self.reply(list(inside.values()))

    def paths_info(self, repo_id: str, revision: str) -> None:
        """Files and folders among the paths that a form, or JSON, asks for."""
        files, text = self.commit(repo_id, revision)[1], self.body.decode()
        asked = json.loads(text)["paths"] if text.startswith("{") else parse_qs(text)["paths"]
        found = [files[path].entry(path) for path in asked if path in files]
        folders = [path for path in asked if any(name.startswith(f"{path}/") for name in files)]
        self.reply(found + [{"type": "directory", "path": path, "oid": "0" * 40} for path in folders])

    def resolve(self, repo_id: str, revision: str, name: str) -> None:
        oid, files = self.commit(repo_id, revision)
        if self.hub.repos[repo_id].gated and not self.member:  # its listings are public, its files are not
            raise Refused(403 if self.caller else 401, f"Access to {repo_id} is restricted", "GatedRepo")
        if (blob := files.get(name)) is None:
            raise Refused(404, "Entry not found", "EntryNotFound")
        if not blob.lfs:
            return self.send_blob(blob.path, X_Repo_Commit=oid, ETag=f'"{blob.oid}"')
        linked = {"X_Linked_Size": str(blob.size), "X_Linked_ETag": f'"{blob.sha256}"'}
        address = f"{self.hub.storage}/{blob.sha256}?signature={self.hub.signature}"
        self.head(302, 0, X_Repo_Commit=oid, Location=address, **linked)

    def send_blob(self, path: Path, **headers: str) -> None:
        start, whole, status = 0, path.stat().st_size, 200
        end = whole
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and self.hub.resumable:
            start, status = int(asked[1]), 206
            if start >= whole:
                return self.head(416, 0, Content_Range=f"bytes */{whole}")
            end = min(int(asked[2]) + 1, whole) if asked[2] else whole
            headers["Content_Range"] = f"bytes {start}-{end - 1}/{whole}"
        self.head(status, end - start, **headers)
        if self.command == "HEAD":
            return
        stop = end
        if self.hub.break_after is not None and self.hub.break_after < end - start:
            stop, self.hub.break_after = start + self.hub.break_after, None
        with path.open("rb") as file:
            file.seek(start)
            while start < stop and not self.hub.closing.is_set():
                rate = self.hub.bytes_per_second
                piece = file.read(min(stop - start, max(1, rate // 20) if rate else 1 << 20))
                self.wfile.write(piece)
                start += len(piece)
                self.hub.closing.wait(len(piece) / rate if rate else 0)
        if start < end:
            self.close_connection = True
            if self.hub.break_hard:  # closing with no time to linger sends a reset
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                os.close(self.connection.detach())

    def whoami(self) -> None:
        if not self.caller:
            raise Refused(401, ANONYMOUS)
        self.reply({"type": "user", "name": "loopback" if self.member else "stranger"})

    def validate_yaml(self) -> None:
        read_card(json.loads(self.body)["content"])
        self.reply({"errors": [], "warnings": []})

    def create(self) -> None:
        (asked,) = self.asked()
        repo_id = f"{asked.get('organization') or 'loopback'}/{asked['name']}"
        answer = {"url": f"{self.hub.endpoint}/{repo_id}", "name": repo_id}
        if repo_id in self.hub.repos:
            raise Refused(409, "You already created this model repo", **answer)
        first = {secrets.token_hex(20): {".gitattributes": self.hub.keep(".gitattributes", b"*.png lfs")}}
        self.hub.repos[repo_id] = Repo(private=asked.get("visibility") == "private", commits=first)
        self.reply(answer)

    def preupload(self, repo_id: str, revision: str) -> None:
        (asked,) = self.asked()
        for file in asked["files"]:
            file["uploadMode"] = "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular"
            file["shouldIgnore"] = False
        self.reply({"files": asked["files"], "commitOid": self.repo(repo_id).main})

    def lfs_batch(self, repo_id: str) -> None:
        (asked,) = self.asked()
        for wanted in asked["objects"]:
            if not (self.hub.store / wanted["oid"]).exists():
                href = f"{self.hub.storage}/{wanted['oid']}?signature={self.hub.signature}"
                wanted["actions"] = {"upload": {"href": href}}
        self.reply({"transfer": "basic", "objects": asked["objects"]})

    def write_commit(self, repo_id: str, revision: str) -> None:
        repo = self.repo(repo_id)
        _, *operations = self.asked()
        files = dict(repo.commits[repo.main])
        for value in (operation["value"] for operation in operations):
            uploaded = self.hub.store / value.get("oid", "")  # of an LFS file
            data = base64.b64decode(value["content"]) if "content" in value else uploaded.read_bytes()
            files[value["path"]] = self.hub.keep(value["path"], data)
        repo.commits[oid := secrets.token_hex(20)] = files
        self.reply({"commitOid": oid, "commitUrl": f"{self.hub.endpoint}/{repo_id}/commit/{oid}"})

    def stored(self, sha256: str) -> None:
        """LFS files go in and out by signed addresses, without any token."""
        if self.query.get("signature") != self.hub.signature:
            raise Refused(403, "Access denied: no valid signature")
        if self.caller:  # as S3 answers, and a client that sends its token here leaks it
            raise Refused(400, "Only one auth mechanism allowed")
        if self.command == "PUT":
            self.hub.keep(sha256, self.body)
            return self.reply({})
        if not (path := self.hub.store / sha256).exists():
            raise Refused(404, "No such key")
        self.send_blob(path)


_ID, _REV = r"((?:datasets/)?[^/]+/[^/]+?)", r"([^/]+)"
_API = rf"/api/(?:models/)?{_ID}"  # /api/models/OWNER/NAME, /api/datasets/OWNER/NAME
ROUTES = [
    ("GET HEAD", rf"/{_ID}/resolve/{_REV}/(.+)", "resolve"),
    ("GET", rf"{_API}(?:/revision/{_REV})?", "model_info"),
    ("GET", rf"{_API}/tree/{_REV}(?:/(.*))?", "tree"),
    ("POST", rf"{_API}/paths-info/{_REV}", "paths_info"),
    ("POST", rf"{_API}/preupload/{_REV}", "preupload"),
    ("POST", rf"{_API}/commit/{_REV}", "write_commit"),
    ("POST", rf"/{_ID}\.git/info/lfs/objects/batch", "lfs_batch"),
    ("POST", "/api/validate-yaml", "validate_yaml"),
    ("POST", "/api/repos/create", "create"),
    ("GET", "/api/whoami-v2", "whoami"),
    ("GET HEAD PUT", "/storage/([0-9a-f]{64})", "stored"),
]


@contextmanager
def serve(store: Path) -> Iterator[LoopbackHub]:
    """Run a hub that keeps its files in `store` until the block ends; raises OSError if it cannot listen."""
    store.mkdir(parents=True, exist_ok=True)
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub = handler.hub = LoopbackHub(f"http://127.0.0.1:{server.server_port}", store)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield hub
    finally:
        hub.closing.set()
        server.shutdown()
        server.server_close()
