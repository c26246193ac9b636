"""Before all routes: what this page never asks of Gradio is refused, and how something failed is not told."""

import contextlib
import errno
import json
import logging
import re
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
from gradio.route_utils import FnIndexInferError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui.limits import Limits
from ui.runs import ROOT

LOG = logging.getLogger(__name__)
FORWARDED = b"forwarded via x-forwarded-for x-forwarded-host x-forwarded-proto x-real-ip".split()
HERE = frozenset(("localhost", "127.0.0.1", "[::1]"))  # names of this machine in a Host header
BODY = 1_000_000  # bytes of a request that is no upload; the page's own have a few thousand
FRAME = 100_000  # bytes of an upload besides its file
READ_OUT = 8  # times its limit: a body up to there is read and thrown away, so that its sender hears why
# Gradio's own routes that this page does without. A deep link would write a session's values to the disk, the
# typed token too; by the proxy and by files with an address anybody could fetch with this machine's own.
UNUSED = re.compile(
    r"/gradio_api/(deep_link|proxy=|file[=/]\s*[a-z][a-z0-9+.-]+:|process_recording|component_server|"
    r"custom_component|stream/|dev/|vibe|undo-vibe|runs|token)",
    re.IGNORECASE,
)
# What Gradio's routes raise of requests that are none.
SENSELESS = (
    LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError, FnIndexInferError,
    HTTPException, httpx.InvalidURL,
)  # fmt: skip


class Gate:
    """An ASGI middleware."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app = app
        # Who lends all folders lends them to this machine alone: not to a stranger's page whose name leads
        # here (DNS rebinding), nor to what a proxy lets through. One that says nothing of itself is not seen.
        self.own = limits.training and limits.folders is None
        self.upload = (limits.upload_bytes if limits.training else BODY) + FRAME

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if UNUSED.search(scope["path"]):
            await _say(send, 404, "there is nothing here")
            return
        headers = dict(scope["headers"])
        if self.own and (_host(headers) not in HERE or any(name in headers for name in FORWARDED)):
            said = "this page lends all folders of its machine, and answers to localhost alone"
            await _say(send, 421, f"{said}; behind a proxy start it with --folders, or --training off")
            return
        most = self.upload if scope["path"].rstrip("/").endswith("/upload") else BODY
        if b"transfer-encoding" in headers:
            await _say(send, 411, "the request does not say how long it is; send a Content-Length")
            return
        if (length := int(headers.get(b"content-length", b"0"))) > most:
            if length <= READ_OUT * most:
                await _read_out(receive)
            await _say(send, 413, f"the request is larger than the maximum allowed size of {most} bytes")
            return
        await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What the routes answer; where they fail, a message in its place."""
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = [*message.get("headers", ()), (b"x-content-type-options", b"nosniff")]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception as error:
            if _is_senseless(error) and not _is_ours(error):
                LOG.warning("a request was refused: %s", _origin(error))
                if not begun:
                    await _say(send, 400, "this is no request that can be answered; load the page again")
                else:  # a stream that has nothing to tell
                    with contextlib.suppress(RuntimeError):
                        await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            if begun:  # it must not look whole
                raise
            LOG.error("a request could not be answered", exc_info=error)
            await _say(send, 500, "the server failed; try again in a moment")


def _host(headers: dict[bytes, bytes]) -> str:
    """The name that a request asks for, without its port."""
    return re.sub(r":\d*$", "", headers.get(b"host", b"").decode("latin-1").strip().lower())


def _is_senseless(error: BaseException | None) -> bool:
    """Whether an error is what Gradio makes of a request that it does not understand."""
    if isinstance(error, OSError):
        return error.errno == errno.ENAMETOOLONG
    return isinstance(error, SENSELESS) or isinstance(error and error.__cause__, SENSELESS)


def _is_ours(error: BaseException) -> bool:
    """Whether an error came about in this project's own code: then it is no sender's fault."""
    trace = _innermost(error)
    place = Path(trace.tb_frame.f_code.co_filename) if trace else Path()
    return place.is_relative_to(ROOT / "ui") or place.is_relative_to(ROOT / "dit")


def _origin(error: BaseException) -> str:
    """Kind and place of an error, without what it says: that may quote the request."""
    if (trace := _innermost(error)) is None:
        return type(error).__name__
    code = trace.tb_frame.f_code
    return f"{type(error).__name__} in {Path(code.co_filename).name}, {code.co_name}, line {trace.tb_lineno}"


def _innermost(error: BaseException) -> TracebackType | None:
    """Where an error came about."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return trace


async def _read_out(receive: Receive) -> None:
    """Take all that comes of a body, and throw it away."""
    while (await receive()).get("more_body"):
        pass


async def _say(send: Send, status: int, message: str) -> None:
    body = json.dumps({"error": message}).encode()
    headers: list[Any] = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
