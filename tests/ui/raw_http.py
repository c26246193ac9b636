"""Requests as bytes, also such as no client library would send, and what comes back."""

import contextlib
import json
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

PATIENCE = 120.0  # seconds until an answer is given up


@dataclass(frozen=True)
class Answer:
    """What a server said."""

    status: int  # 0: it hung up without a word
    head: str
    body: bytes

    @property
    def text(self) -> str:
        """All of it."""
        return self.head + "\n" + self.body.decode(errors="replace")

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def header(self, name: str) -> str:
        """A header's value; empty if there is none."""
        lines = (line.partition(":") for line in self.head.split("\r\n")[1:])
        return next((value.strip() for key, _, value in lines if key.lower() == name.lower()), "")


def send(
    address: str,
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
    endless: bool = False,
) -> Answer:
    """One request on a connection of its own. endless: hang up after the first bytes of the answer's body."""
    place = urlsplit(address)
    told = {"Host": place.netloc, "Connection": "close"} | (headers or {})
    if body is not None and "Transfer-Encoding" not in told:
        told |= {"Content-Length": str(len(body))}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in told.items())]
    head = "\r\n".join(lines).encode("utf-8", "surrogatepass") + b"\r\n\r\n"
    with socket.create_connection((place.hostname, place.port), PATIENCE) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may have heard enough
            connection.sendall(head + (body or b""))
        return _read(connection, endless)


def post(address: str, path: str, body: Any) -> Answer:
    """JSON to an address; NaN and Infinity as Python writes them."""
    kind = {"Content-Type": "application/json"}
    return send(address, "POST", path, kind, json.dumps(body).encode())


def messages(stream: Answer) -> list[dict[str, Any]]:
    """What a queue has told a session."""
    lines = stream.body.decode().splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


def upload(address: str, name: str, content: bytes, kind: str = "application/octet-stream") -> Answer:
    """A file, as the page's own box sends one."""
    part = f'Content-Disposition: form-data; name="files"; filename="{name}"\r\nContent-Type: {kind}'
    body = f"--x\r\n{part}\r\n\r\n".encode() + content + b"\r\n--x--\r\n"
    kinds = {"Content-Type": "multipart/form-data; boundary=x"}
    return send(address, "POST", "/gradio_api/upload", kinds, body)


def _read(connection: socket.socket, endless: bool) -> Answer:
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while block := connection.recv(2**16):
            received += block
            head, found, rest = received.partition(b"\r\n\r\n")
            if endless and found and rest and b"event-stream" in head:
                break
    head, _, body = received.partition(b"\r\n\r\n")
    first = head.split(b"\r\n")[0].split()
    if b"transfer-encoding: chunked" in head.lower():
        body = _unchunked(body)
    status = int(first[1]) if len(first) > 1 else 0
    return Answer(status, head.decode("latin-1"), body)


def _unchunked(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        if not size or not (count := int(size, 16)):
            break
        whole, body = whole + body[:count], body[count + 2 :]
    return whole
