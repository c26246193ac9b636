"""A served app to be attacked, with what lies around it that nobody may read, and what may not leave it."""

import contextlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from benchmarks.browser import REPOSITORY, serve
from tests.run_folders import write_run
from tests.ui import bad_requests
from tests.ui.raw_http import Answer, messages, post, send

SECRET = "a secret that nobody was shown"
TOKEN = "hf_whatNobodyMayEverSee"
# Of the repository: the server writes nothing there.
WRITTEN = ("app.py", "assets", "dit", "train", "ui", "docs", "tests", "benchmarks")


@dataclass
class Attacked:
    """A server, what lies around it, and how often it was asked."""

    address: str
    process: int
    folder: Path
    canary: str  # a server beside it, which it must never ask
    fetched: list[str]
    config: dict[str, Any]
    requests: int = 0
    statuses: dict[int, int] = field(default_factory=dict)

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def log(self) -> str:
        return (self.folder / "app.log").read_text(errors="replace")

    @property
    def hidden(self) -> list[str]:
        """Paths of this machine that nobody is told."""
        return [str(REPOSITORY), str(self.runs), str(self.folder / "secret.txt"), str(self.folder / "home")]

    @property
    def places(self) -> list[str]:
        """Files that nobody may read."""
        own = [self.folder / "secret.txt", self.runs / "mine" / "weights.safetensors", self.runs / "mine"]
        ours = [REPOSITORY / "app.py", REPOSITORY / ".git" / "config", REPOSITORY / "requirements.txt"]
        zoo = next((REPOSITORY / "assets" / "zoo").glob("*.safetensors"))
        return [*map(str, [*own, *ours, zoo]), bad_requests.PASSWD]

    def listener(self, name: str) -> bad_requests.Listener:
        """One of the page's, by what triggers it: run-push.click."""
        known = bad_requests.listeners(self.config)
        return next(one for one in known if one.name == name and one.good)

    def files(self) -> set[str]:
        """All that lies around the server, but for Gradio's own folder and what the trainer keeps."""
        own = {str(path) for path in self.folder.rglob("*") if path.is_file() and path.name != ".lock"}
        own = {
            path for path in own if not path.startswith((f"{self.folder}/gradio/", f"{self.folder}/home/"))
        }
        ours = (path for name in WRITTEN for path in [REPOSITORY / name, *(REPOSITORY / name).rglob("*")])
        return own | {str(path) for path in ours if "__pycache__" not in path.parts}

    def call(self, name: str, sent: list[Any], session: str = "someone") -> dict[str, Any]:
        """What a listener answers through the queue, at its end: data, or an error."""
        body = {"data": sent, "fn_index": self.listener(name).index, "session_hash": session}
        joined = post(self.address, "/gradio_api/queue/join", body)
        assert joined.status == 200, joined.text
        stream = send(self.address, "GET", f"/gradio_api/queue/data?session_hash={session}")
        self.take(stream, json.dumps(body))
        [ended] = [one["output"] for one in messages(stream) if one["msg"] == "process_completed"]
        return ended

    def take(self, answer: Answer, sent: str) -> Answer:
        """Count an answer, and see that it gives nothing away. sent: all that was in the request."""
        self.requests += 1
        self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
        text = answer.text
        assert SECRET not in text and "root:x:0:0" not in text and TOKEN not in text
        assert "Traceback" not in text and 'File "' not in text and "site-packages" not in text, text[:2000]
        known = re.sub("/(\\./|/)+", "/", unquote(unquote(sent)))
        for path in self.hidden:
            assert path not in text or path in known, f"{path} is told by {text[:2000]}"
        return answer


@contextlib.contextmanager
def attack(folder: Path, weights: list[Path]) -> Iterator[Attacked]:
    """The app with training on, one run, a folder of pictures that it lends, and a secret beside all that."""
    write_run(folder / "runs", "mine")
    for name in ("home", "lent"):
        (folder / name).mkdir()
    (folder / "secret.txt").write_text(SECRET)
    arguments = ["--weights", *map(str, weights), "--runs", str(folder / "runs"), "--training", "on"]
    arguments += ["--folders", str(folder / "lent"), "--log", str(folder / "requests.jsonl")]
    own = {"HF_HUB_OFFLINE": "1", "GRADIO_TEMP_DIR": str(folder / "gradio"), "HOME": str(folder / "home")}
    with canary() as (beside, fetched), serve(arguments, folder / "app.log", own) as served:
        config = send(served.address, "GET", "/config").json()
        yield Attacked(served.address, served.process, folder, beside, fetched, config)


@contextlib.contextmanager
def canary() -> Iterator[tuple[str, list[str]]]:
    """A server on this machine that notes who asks it."""
    fetched: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fetched.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(SECRET.encode())

        do_HEAD = do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/secret", fetched
        server.shutdown()
