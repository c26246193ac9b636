"""An imitation of the Hugging Face Hub's HTTP API on 127.0.0.1, for tests: models only, without Xet."""

from __future__ import annotations

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
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import yaml  # huggingface_hub itself depends on it

LFS_SUFFIXES = tuple(".safetensors .bin .pt .pth .ckpt .npz .npy .onnx .png .jpg .gif .mp4 .zip .gz".split())
LFS_SIZE = 10_000_000  # the Hub refuses larger files in plain git
LICENSE = re.compile(  # the usual ones of those that the Hub's card check accepts
    r"apache-2.0|mit|isc|zlib|bsd(-[23]-clause)?|[al]?gpl(-[23].[01])?|mpl-2.0|cc0-1.0|cc-by(-nc)?(-nd|-sa)?-[2-4].0"
    r"|openrail(\+\+)?|creativeml-openrail-m|unlicense|unknown|other"
)
CARD_TYPES = {"tags": list, "model-index": list, "library_name": str, "pipeline_tag": str}
DATE = "2025-01-01T00:00:00.000Z"
ANONYMOUS = "Invalid username or password."  # the Hub's words for no token where one is needed


def check_card(text: str) -> tuple[dict[str, Any], list[str]]:
    """The front matter of a README ({} where it has none) and the errors the Hub would refuse it for."""
    block = re.match(r"\s*---[\r\n]+([\S\s]*?)[\r\n]+---(?:\r\n|\n|$)", text)
    try:
        card = yaml.safe_load(block[1]) if block else {}
    except yaml.YAMLError as error:
        return {}, [f"YAML metadata is invalid: {error}"]
    if not isinstance(card, dict):
        return {}, ["YAML metadata must be a mapping"]
    errors = [
        f'"{k}" must be a {t.__name__}' for k, t in CARD_TYPES.items() if not isinstance(card.get(k, t()), t)
    ]
    licenses = card.get("license", [])
    for name in licenses if isinstance(licenses, list) else [licenses]:
        if not LICENSE.fullmatch(str(name)):
            errors.append(f'"license" must be one of [apache-2.0, mit, ..., other], not {name}')
    return card, errors


@dataclass(frozen=True)
class Blob:
    """One file's content; `oid` is what git would call it, so that of an LFS file names its pointer."""

    path: Path
    size: int
    sha256: str
    oid: str
    pointer_size: int | None = None  # None: in git itself, not LFS

    @property
    def etag(self) -> str:
        """What the Hub sends as ETag, and as the `oid` in a preupload answer."""
        return self.oid if self.pointer_size is None else self.sha256

    def lfs(self, key: str) -> dict[str, Any]:
        """The `lfs` entry of a listing, whose hash is called "oid" in trees and "sha256" in siblings."""
        entry = {key: self.sha256, "size": self.size, "pointerSize": self.pointer_size}
        return {} if self.pointer_size is None else {"lfs": entry}


@dataclass
class Repo:
    """A model repository: its commits, each the files by name."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)

    @property
    def main(self) -> str:
        """The newest commit."""
        return next(reversed(self.commits))


class Refused(Exception):
    """An answer other than success: huggingface_hub chooses its exception by the status and the `code`."""

    def __init__(
        self, status: int, message: str, code: str = "", body: dict | None = None, **headers: str
    ) -> None:
        super().__init__(message)
        self.status, self.body = status, {"error": message, **(body or {})}
        self.headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **headers}


@dataclass
class LoopbackHub:
    """A running hub. `token` may do anything; `stranger` is a valid token without special rights."""

    endpoint: str  # http://127.0.0.1:PORT, for HF_ENDPOINT
    store: Path
    token: str = "hf_loopback"
    stranger: str = "hf_stranger"
    user: str = "loopback"
    requests: list[tuple[str, str]] = field(default_factory=list)  # (method, path), without the query
    ranges: list[tuple[str, str]] = field(default_factory=list)  # (path, Range header), where there was one
    break_after: int | None = None  # the next file body longer than this is cut there, once
    break_hard: bool = False  # by a reset, instead of an orderly end of the connection
    bytes_per_second: int | None = None  # of each file body; may be changed while one is being sent
    card_required: bool = False  # refuse a README without front matter too; the real Hub only warns
    repos: dict[str, Repo] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.lock, self.closing = threading.RLock(), threading.Event()
        self.announced: dict[str, int] = {}  # uploads that a batch request allowed: sha256 and size
        self.connections: set[socket.socket] = set()
        self.signature = secrets.token_hex(8)

    @property
    def storage(self) -> str:
        """Where LFS files are: under another name, as the real Hub keeps them on another origin."""
        return self.endpoint.replace("127.0.0.1", "localhost") + "/storage"

    def add(self, repo_id: str, folder: Path, revision: str, gated: bool = False) -> None:
        """Publish the files of `folder`, copied now, as commit `revision`; `main` points to it from then on.

        Raises ValueError for an id that is not user/name, a revision that is no commit hash or is in use.
        """
        repo = self.repos.get(repo_id, Repo())
        if repo_id.count("/") != 1 or not re.fullmatch("[0-9a-f]{40}", revision) or revision in repo.commits:
            raise ValueError(f"bad id, or bad or used revision: {repo_id!r}, {revision!r}")
        names = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())
        repo.commits[revision] = {name: self.keep(name, (folder / name).read_bytes()) for name in names}
        repo.gated, self.repos[repo_id] = gated, repo

    def files(self, repo_id: str) -> dict[str, Path]:
        """What `main` holds, uploads included: files of the store, to be read only; raises KeyError."""
        repo = self.repos[repo_id]
        return {name: blob.path for name, blob in repo.commits[repo.main].items()}

    def is_lfs(self, name: str, size: int, sample: bytes) -> bool:
        """Whether the Hub would keep a file outside of git: for its name, its size, or being binary."""
        return size > 0 and (name.endswith(LFS_SUFFIXES) or size > LFS_SIZE or b"\0" in sample)

    def keep(self, name: str, data: bytes, lfs: bool | None = None) -> Blob:
        """Put a file into the store, as LFS or not (None: by its name and content); raises OSError."""
        path, size = self.store / hashlib.sha256(data).hexdigest(), len(data)
        if not path.exists():
            partial = path.with_suffix(f".{secrets.token_hex(4)}")
            partial.write_bytes(data)
            partial.replace(path)
        if lfs is None:
            lfs = self.is_lfs(name, size, data[:512])
        if lfs:
            data = (
                f"version https://git-lfs.github.com/spec/v1\noid sha256:{path.name}\nsize {size}\n".encode()
            )
        oid = hashlib.sha1(b"blob %d\0%b" % (len(data), data)).hexdigest()
        return Blob(path, size, path.name, oid, len(data) if lfs else None)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: LoopbackHub

    def setup(self) -> None:
        super().setup()
        self.hub.connections.add(self.connection)

    def finish(self) -> None:
        self.hub.connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:  # a client that cancels is no reason for a traceback
            self.close_connection = True

    def answer(self) -> None:
        url = urlsplit(self.path)
        self.query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        self.hub.requests.append((self.command, url.path))
        if "Range" in self.headers:
            self.hub.ranges.append((url.path, self.headers["Range"]))
        # The body is always read, or its rest would be taken for the next request on this connection.
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.caller = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.member = self.caller == self.hub.token
        try:
            if self.caller not in ("", self.hub.token, self.hub.stranger):
                raise Refused(401, "Invalid credentials in Authorization header")
            for methods, pattern, name in ROUTES:
                if self.command in methods.split() and (match := re.fullmatch(pattern, url.path)):
                    return getattr(self, name)(*(part and unquote(part) for part in match.groups()))
            raise Refused(404, f"No such page: {self.command} {url.path}")
        except Refused as refusal:
            self.reply(refusal.body, refusal.status, **refusal.headers)

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def head(self, status: int, length: int, **headers: str) -> None:
        self.send_response(status)
        headers |= {"Content-Length": str(length), "X-Request-Id": secrets.token_hex(6)}
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def reply(self, value: Any, status: int = 200, **headers: str) -> None:
        data = json.dumps(value, default=str).encode()
        self.head(status, len(data), Content_Type="application/json; charset=utf-8", **headers)
        if self.command != "HEAD":
            self.wfile.write(data)

    def asked(self) -> list[dict[str, Any]]:
        """The lines of a JSON body that only the member may send; raises Refused for anybody else."""
        if not self.member:
            raise Refused(403 if self.caller else 401, "You need write access" if self.caller else ANONYMOUS)
        return [json.loads(line) for line in self.body.splitlines()]

    def repo(self, repo_id: str) -> Repo:
        repo = self.hub.repos.get(repo_id)
        if repo is None or (repo.private and not self.member):
            if not self.caller:  # the real Hub does not tell these even that there is no such repository
                raise Refused(401, ANONYMOUS, "RepoNotFound")
            raise Refused(404, "Repository not found", "RepoNotFound")
        return repo

    def commit(self, repo: Repo, revision: str | None) -> str:
        oid = repo.main if revision in (None, "main", "refs/heads/main") else revision
        if oid not in repo.commits:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return oid

    def model_info(self, repo_id: str, revision: str | None = None) -> None:
        repo = self.repo(repo_id)
        files = repo.commits[oid := self.commit(repo, revision)]
        siblings: list[dict[str, Any]] = [{"rfilename": name} for name in files]
        if "blobs" in self.query:
            for sibling, blob in zip(siblings, files.values(), strict=True):
                sibling |= {"size": blob.size, "blobId": blob.oid, **blob.lfs("sha256")}
        card = check_card(files["README.md"].path.read_text("utf-8"))[0] if "README.md" in files else {}
        info = {
            "id": repo_id,
            "sha": oid,
            "siblings": siblings,
            "cardData": card,
            "tags": card.get("tags", []),
        }
        gated = "auto" if repo.gated else False
        self.reply(info | {"private": repo.private, "gated": gated, "lastModified": DATE, "createdAt": DATE})

    def tree(self, repo_id: str, revision: str, folder: str | None = None) -> None:
        repo = self.repo(repo_id)
        found: dict[str, dict[str, Any]] = {}
        for name, blob in repo.commits[self.commit(repo, revision)].items():
            for parent in (path.as_posix() for path in Path(name).parents if path.name):
                oid = hashlib.sha1(parent.encode()).hexdigest()
                found[parent] = {"type": "directory", "oid": oid, "size": 0, "path": parent}
            found[name] = {"type": "file", "oid": blob.oid, "size": blob.size, "path": name} | blob.lfs("oid")
        if folder and folder not in found:
            raise Refused(404, f"{folder} does not exist on {revision}", "EntryNotFound")
        start, deep = f"{folder}/" if folder else "", self.query.get("recursive") in ("1", "true", "True")
        inside = (path for path in found if path.startswith(start))
        self.reply([found[path] for path in inside if deep or "/" not in path[len(start) :]])

    def resolve(self, repo_id: str, revision: str, name: str) -> None:
        repo = self.repo(repo_id)
        if repo.gated and not self.member:  # listings of a gated repository are public, its files are not
            status, why = (403, "not in the authorized list") if self.caller else (401, "not authenticated")
            raise Refused(status, f"Access to model {repo_id} is restricted and you are {why}", "GatedRepo")
        blob = repo.commits[oid := self.commit(repo, revision)].get(name)
        if blob is None:  # with the commit, so that the client can remember that it has no such file
            raise Refused(404, "Entry not found", "EntryNotFound", X_Repo_Commit=oid)
        headers = {"X_Repo_Commit": oid, "ETag": f'"{blob.etag}"'}
        if blob.pointer_size is None:
            return self.send_blob(blob.path, **headers)
        headers |= {"X_Linked_Size": str(blob.size), "X_Linked_ETag": headers["ETag"]}
        query = f"signature={self.hub.signature}&filename={quote(name, safe='')}"
        self.head(302, 0, **headers, Location=f"{self.hub.storage}/{blob.sha256}?{query}")

    def send_blob(self, path: Path, **headers: str) -> None:
        start, end = 0, (size := path.stat().st_size)
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(asked[1]), min(size, int(asked[2] or size) + 1)
            if start >= size:
                raise Refused(416, "Range not satisfiable", Content_Range=f"bytes */{size}")
            headers["Content_Range"] = f"bytes {start}-{end - 1}/{size}"
        self.head(206 if asked else 200, end - start, Accept_Ranges="bytes", **headers)
        if self.command == "HEAD":
            return
        stop = end
        with self.hub.lock:
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
        name, role = (self.hub.user, "write") if self.member else ("stranger", "read")
        auth = {"type": "access_token", "accessToken": {"displayName": name, "role": role}}
        self.reply({"type": "user", "id": name, "name": name, "fullname": name, "orgs": [], "auth": auth})

    def validate_yaml(self) -> None:
        self.reply({"errors": [], "warnings": self.check_readme(json.loads(self.body)["content"])})

    def check_readme(self, text: str) -> list[dict[str, str]]:
        """The warnings for a README that the Hub takes; raises Refused for one that it does not."""
        card, errors = check_card(text)
        warnings = [] if card or errors else ["empty or missing yaml metadata in repo card"]
        if errors := errors or (warnings if self.hub.card_required else []):
            raise Refused(
                400, "Invalid metadata in README.md", body={"errors": [{"message": e} for e in errors]}
            )
        return [{"message": message} for message in warnings]

    def create(self) -> None:
        (asked,) = self.asked()
        repo_id = f"{asked.get('organization') or self.hub.user}/{asked['name']}"
        answer = {"url": f"{self.hub.endpoint}/{repo_id}", "name": repo_id}
        with self.hub.lock:
            if repo_id in self.hub.repos:
                raise Refused(409, "You already created this model repo", body=answer)
            rules = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)
            first = {
                secrets.token_hex(20): {".gitattributes": self.hub.keep(".gitattributes", rules.encode())}
            }
            private = bool(asked.get("private")) or asked.get("visibility") == "private"
            self.hub.repos[repo_id] = Repo(private, commits=first)
        self.reply(answer)

    def preupload(self, repo_id: str, revision: str) -> None:
        repo = self.repo(repo_id)
        (asked,) = self.asked()
        present, files = repo.commits[self.commit(repo, revision)], []
        for path, size, sample in ((file["path"], file["size"], file["sample"]) for file in asked["files"]):
            mode = "lfs" if self.hub.is_lfs(path, size, base64.b64decode(sample)) else "regular"
            known = {"oid": present[path].etag} if path in present else {}
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, **known})
        self.reply({"files": files, "commitOid": repo.main})

    def lfs_batch(self, repo_id: str) -> None:
        self.repo(repo_id)
        (asked,) = self.asked()
        for wanted in asked["objects"]:
            self.hub.announced[wanted["oid"]] = wanted["size"]
            if not (self.hub.store / wanted["oid"]).exists():
                href = f"{self.hub.storage}/{wanted['oid']}?signature={self.hub.signature}"
                wanted["actions"] = {"upload": {"href": href}}
        self.reply({"transfer": "basic", "objects": asked["objects"]})

    def write_commit(self, repo_id: str, revision: str) -> None:
        repo = self.repo(repo_id)
        header, *operations = self.asked()
        if revision != "main" or "create_pr" in self.query:
            raise Refused(404, f"Only main can be written here, not {revision}", "RevisionNotFound")
        with self.hub.lock:
            files = dict(repo.commits[repo.main])
            if not repo.main.startswith(header["value"].get("parentCommit", "")):
                raise Refused(412, "A commit has happened since. Please refresh and try again.")
            for operation in operations:
                self.apply(operation["key"], operation["value"], files)
            repo.commits[oid := secrets.token_hex(20)] = files
        url = f"{self.hub.endpoint}/{repo_id}/commit/{oid}"
        self.reply({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})

    def apply(self, key: str, value: dict[str, Any], files: dict[str, Blob]) -> None:
        """Change `files` as one line of a commit says; raises Refused."""
        name = value["path"].rstrip("/")
        if key == "file":
            data = base64.b64decode(value["content"])
            if name == "README.md":
                self.check_readme(data.decode("utf-8", "replace"))
            files[name] = self.hub.keep(name, data, lfs=False)
        elif key == "lfsFile":
            if not (path := self.hub.store / value["oid"]).exists():
                raise Refused(400, "Push rejected: an LFS pointer points to a file that does not exist")
            files[name] = self.hub.keep(name, path.read_bytes(), lfs=True)
        else:  # deletedFile, deletedFolder
            gone = [path for path in files if path == name or path.startswith(f"{name}/")]
            if not gone or (key == "deletedFile" and gone != [name]):
                raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
            for path in gone:
                del files[path]

    def stored(self, sha256: str) -> None:
        """LFS files go in and out by signed addresses, without any token."""
        if self.query.get("signature") != self.hub.signature:
            raise Refused(403, "Access denied: no valid signature")
        if self.caller:  # as S3 answers, and a client that sends its token here leaks it
            raise Refused(400, "Only one auth mechanism allowed")
        path = self.hub.store / sha256
        if self.command == "PUT":
            if (
                self.hub.announced.get(sha256) != len(self.body)
                or hashlib.sha256(self.body).hexdigest() != sha256
            ):
                raise Refused(400, "The content is not what the batch request announced")
            self.hub.keep(sha256, self.body)
            return self.reply({}, ETag=f'"{sha256}"')
        if not path.exists():
            raise Refused(404, "No such key")
        named = f'inline; filename="{self.query.get("filename", sha256)}";'
        self.send_blob(path, ETag=f'"{sha256}"', Content_Disposition=named)


_ID, _REV = r"([^/]+/[^/]+?)", r"([^/]+)"
ROUTES = [
    ("GET HEAD", rf"/{_ID}/resolve/{_REV}/(.+)", "resolve"),
    ("GET", rf"/api/models/{_ID}(?:/revision/{_REV})?", "model_info"),
    ("GET", rf"/api/models/{_ID}/tree/{_REV}(?:/(.+))?", "tree"),
    ("POST", rf"/api/models/{_ID}/preupload/{_REV}", "preupload"),
    ("POST", rf"/api/models/{_ID}/commit/{_REV}", "write_commit"),
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
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield hub
    finally:
        hub.closing.set()
        server.shutdown()
        server.server_close()
        for connection in list(hub.connections):  # or a client's open connection would outlive the hub
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
