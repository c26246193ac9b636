"""The served app among bad requests: nothing is told, read or written that is not theirs, and it goes on."""

import contextlib
import http.server
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from gradio_client import Client
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.browser import REPOSITORY, serve
from tests.run_folders import write_run
from tests.ui import bad_requests
from tests.ui.raw_http import Answer, messages, send
from ui.runs import RUNNING, Runs

SECRET = "a secret that nobody was shown"
TOKEN = "hf_whatNobodyMayEverSee"
FEWEST = 2000  # requests
GOOD = ("small", "cone", 3, 2.0, 5, 1, "ddim")
WRITTEN = (
    "app.py",
    "assets",
    "dit",
    "train",
    "ui",
    "docs",
    "tests",
    "benchmarks",
)  # of the repository: never


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
        own = {str(path) for path in self.folder.rglob("*") if path.is_file()}
        own = {
            path for path in own if not path.startswith((f"{self.folder}/gradio/", f"{self.folder}/home/"))
        }
        ours = (path for name in WRITTEN for path in [REPOSITORY / name, *(REPOSITORY / name).rglob("*")])
        return own | {str(path) for path in ours if "__pycache__" not in path.parts}

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


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory, ladder_files: list[Path]) -> Iterator[Attacked]:
    """The app with training on, one run, a folder of pictures that it lends, and a secret beside all that."""
    folder = tmp_path_factory.mktemp("attacked")
    write_run(folder / "runs", "mine")
    for name in ("home", "lent"):
        (folder / name).mkdir()
    (folder / "secret.txt").write_text(SECRET)
    arguments = ["--weights", *map(str, ladder_files), "--runs", str(folder / "runs"), "--training", "on"]
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


def examples(count: int) -> Callable[..., Any]:
    """The same ones every time."""
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],  # what fails is a request: there is nothing to be gained by a smaller one
        suppress_health_check=list(HealthCheck),
    )


def picture(attacked: Attacked) -> np.ndarray:
    gallery, _ = Client(attacked.address, verbose=False).predict(*GOOD, api_name="/generate")
    return np.asarray(Image.open(gallery[0]["image"]))


def test_two_thousand_bad_requests(attacked: Attacked) -> None:
    before, files = picture(attacked), attacked.files()
    call_listeners(attacked)
    call_through_the_queue(attacked)
    ask_routes(attacked)
    assert attacked.requests >= FEWEST, attacked.statuses
    health = send(attacked.address, "GET", "/health")
    assert health.status == 200 and health.json()["drawing_thread_answers"]
    os.kill(attacked.process, 0)  # it is the process of before
    assert np.array_equal(picture(attacked), before)
    assert attacked.fetched == []
    assert attacked.files() == files
    runs = Runs(attacked.runs)
    assert [run.name for run in runs.found()] == ["mine"] and runs.named("mine").state != RUNNING
    assert "Traceback" not in attacked.log and SECRET not in attacked.log
    kinds = {json.loads(line)["outcome"] for line in (attacked.folder / "requests.jsonl").open()}
    assert "failed" not in kinds


def call_listeners(attacked: Attacked) -> None:
    """Each listener of the page, the private ones too."""
    known, strange = bad_requests.listeners(attacked.config), strange_for(attacked)
    assert {"generate.click", "train-start.click", "run-push.click"} <= {one.name for one in known}

    @examples(12)
    @given(st.data())
    def run(listener: bad_requests.Listener, data: st.DataObject) -> None:
        _, body = data.draw(bad_requests.calls([listener], strange))
        sent, kind = bad_requests.as_json(body), {"Content-Type": "application/json"}
        answer = send(attacked.address, "POST", "/gradio_api/run/predict", kind, sent)
        attacked.take(answer, json.dumps(body, ensure_ascii=False))
        if answer.status == 500:  # Gradio's status of a message
            assert isinstance(answer.json()["error"], str), f"{listener.name} was told nothing of {body}"
        else:
            assert 200 <= answer.status < 500

    for listener in known:
        run(listener)


def call_through_the_queue(attacked: Attacked) -> None:
    """Several calls of a session at a time, told by one stream."""
    known, strange = bad_requests.listeners(attacked.config), strange_for(attacked)
    counted = iter(range(10**6))

    @examples(80)
    @given(st.lists(bad_requests.calls(known, strange), min_size=5, max_size=8))
    def run(several: list[tuple[bad_requests.Listener, dict]]) -> None:
        session, names, kind = f"queue-{next(counted)}", {}, {"Content-Type": "application/json"}
        for listener, body in several:
            sent = bad_requests.as_json(body | {"session_hash": session, "event_id": None})
            answer = send(attacked.address, "POST", "/gradio_api/queue/join", kind, sent)
            attacked.take(answer, json.dumps(body, ensure_ascii=False))
            if answer.status == 200:
                names[answer.json()["event_id"]] = (listener.name, body)
            else:
                full = answer.status == 503 and b"Queue is full" in answer.body
                assert full or 400 <= answer.status < 500
        if names:
            stream = send(attacked.address, "GET", f"/gradio_api/queue/data?session_hash={session}")
            attacked.take(stream, json.dumps([body for _, body in names.values()], ensure_ascii=False))
            ended = {one["event_id"]: one for one in messages(stream) if one["msg"] == "process_completed"}
            assert set(ended) == set(names)
            for event, one in ended.items():
                assert one["success"] or isinstance(one["output"]["error"], str), names[event]

    run()


def ask_routes(attacked: Attacked) -> None:
    """Each route that the app's own description has, and others."""
    described = send(attacked.address, "GET", "/openapi.json").json()
    assert len(described["paths"]) > 40

    @examples(700)
    @given(bad_requests.requests(described, attacked.places))
    def run(request: bad_requests.Sent) -> None:
        answer = send(
            attacked.address, request.method, request.path, request.headers, request.body, endless=True
        )
        attacked.take(answer, request.text())
        called = request.path.startswith(("/gradio_api/run/", "/gradio_api/api/"))
        assert 200 <= answer.status < 500 or (called and isinstance(answer.json()["error"], str)), request

    run()


def strange_for(attacked: Attacked) -> st.SearchStrategy[Any]:
    return bad_requests.values(attacked.places, attacked.canary)
