"""The served app among bad requests: nothing is told, read or written that is not theirs, and it goes on."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.ui import bad_requests
from tests.ui.attacked import SECRET, Attacked, attack
from tests.ui.raw_http import messages, send
from tests.ui.waiting import client_of
from ui.runs import RUNNING, Runs

FEWEST = 2000  # requests
GOOD = ("small", "cone", 3, 2.0, 5, 1, "ddim")


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory, ladder_files: list[Path]) -> Iterator[Attacked]:
    """One server for the module."""
    with attack(tmp_path_factory.mktemp("attacked"), ladder_files) as served:
        yield served


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
    gallery, _ = client_of(attacked.address).predict(*GOOD, api_name="/generate")
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
    assert "<script>" not in attacked.log and attacked.log.count("127.0.0.1") == 1  # its own, at the start
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
