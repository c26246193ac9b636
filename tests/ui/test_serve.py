"""The end of the server: who draws, waits, downloads or trains is told, or saved, and the process ends."""

import asyncio
import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio_client.exceptions import AppError

from dit.pipeline import Frame
from tests.ui.test_runs import LONG, kill
from tests.ui.waiting import SECONDS, client_of, until
from ui import jobs
from ui.downloads import Download, Downloads
from ui.limits import Limits
from ui.opening import open_studio
from ui.request import Request, Wish, parse
from ui.run import INTERRUPTED, RUNNING
from ui.runs import Runs
from ui.studio import Studio
from ui.tickets import Closed
from ui.turns import Turns

STOPPING = "the server is stopping; ask again in a moment"
REPOSITORY = Path(__file__).resolve().parents[2]
# Draws a first step that takes as long as all of SECONDS, and more; the words after the file set `ui.serve`.
ENDLESS = """
import sys, time
from ui import page, serve
from ui.opening import open_studio
from ui.studio import Studio

def stream(self, rung, settings, in_use=()):
    time.sleep(600)
    yield

Studio.stream = stream
for word in sys.argv[2:]:
    name, value = word.split("=")
    setattr(serve, name, float(value))
serve.serve(page.build(open_studio([sys.argv[1]])), None)
"""


@pytest.fixture(scope="module")
def studio(ladder_files: list[Path]) -> Studio:
    """The two random models, and whatever is bundled."""
    return open_studio(ladder_files, limits=Limits(models=9))


def asked(studio: Studio, steps: int) -> Request:
    return parse(studio.rungs, Wish("small", 0, steps, 1.0, 0, 1, "ddim"))


def scene(play: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(play(), 60))


async def drain(turns: Turns, requests: list[Request], who: str) -> list[Frame]:
    frames = []
    async for _, event in jobs.draw_all(turns, requests, who, "grid"):
        if isinstance(event, Frame):
            frames.append(event)
    return frames


def test_all_who_draw_or_wait_are_told_whatever_the_device_is_at(studio: Studio) -> None:
    """It is at a step that does not end before they are."""

    async def play() -> None:
        turns, free = Turns(studio), threading.Event()
        drawing = asyncio.create_task(drain(turns, [asked(studio, 500)], "a"))
        while not (turns.line and turns.line[0].began):
            await asyncio.sleep(0)
        turns.device.submit(free.wait)
        waiting = [asyncio.create_task(drain(turns, [asked(studio, 3)] * 2, name)) for name in "bc"]
        while len(turns.line) < 3:
            await asyncio.sleep(0)
        turns.close()
        try:
            ended = await asyncio.gather(drawing, *waiting, return_exceptions=True)
        finally:
            free.set()
        assert [(type(error), error.message) for error in ended] == [(gr.Error, STOPPING)] * 3
        assert not turns.line

    scene(play)


def test_nobody_begins_any_more_not_even_the_next_of_several(studio: Studio) -> None:
    async def play() -> None:
        turns, seen = Turns(studio), []
        with pytest.raises(gr.Error, match=STOPPING):
            async for index, event in jobs.draw_all(turns, [asked(studio, 3)] * 2, "a", "grid"):
                seen.append(index)
                if isinstance(event, Frame) and event.done:
                    turns.close()
        assert set(seen) == {0}
        with pytest.raises(gr.Error, match=STOPPING):
            await drain(turns, [asked(studio, 3)], "b")
        with pytest.raises(Closed):
            turns.enter("c", 1.0)
        assert not turns.line

    scene(play)


def test_a_picture_that_is_finished_is_still_handed_over(studio: Studio) -> None:
    async def play() -> None:
        turns = Turns(studio)
        events = jobs.draw_all(turns, [asked(studio, 2)], "a", "grid")
        _, first = await anext(events)
        while not isinstance(first, Frame):  # how long it waits
            _, first = await anext(events)
        while turns._parts():  # the last frame lies ready
            await asyncio.sleep(0)
        turns.close()
        last = [event async for _, event in events][-1]
        assert first.index == 0 and last.done

    scene(play)


def test_downloads_end_and_none_begins(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    rung = next(rung for rung in studio.rungs if rung.name == "DiT-XL/2-256")
    begin = asyncio.create_subprocess_exec

    async def sleeping(*command: str, **how: Any) -> asyncio.subprocess.Process:
        return await begin(sys.executable, "-c", "import time; time.sleep(600)", **how)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", sleeping)
    monkeypatch.setattr(Download, "progress_html", lambda self: "")

    async def play() -> None:
        downloads, seen = Downloads(), []
        async for event in downloads.follow(rung, "a"):
            downloads.close()
            seen.append(event)
        job, told = seen[-1]
        assert job.process.returncode and "What has come is kept" in told
        with pytest.raises(Closed):
            await anext(downloads.follow(rung, "b"))

    scene(play)


def test_no_run_begins_once_the_page_ends(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    runs.close()
    with pytest.raises(ValueError, match="the server is stopping; train when it is back"):
        runs.start("late", LONG)
    assert not runs.found()


# --- real processes ---


@dataclass(frozen=True)
class Server:
    """A server in a process of its own."""

    process: subprocess.Popen
    address: str
    said: "queue.Queue[str]"  # its lines

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        """Status and JSON of an address."""
        try:
            with urllib.request.urlopen(self.address + path, timeout=SECONDS) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def until(self, **wanted: Any) -> dict[str, Any]:
        """What /health says once it says this."""
        return until(
            lambda: next(
                (t for _, t in [self.get("/health")] if all(t[k] == v for k, v in wanted.items())), None
            )
        )

    def press(self, name: str, values: list[Any]) -> None:
        """What a click on a button of the page sends."""
        _, config = self.get("/config")
        [button] = [one["id"] for one in config["components"] if one["props"].get("elem_id") == name]
        index = next(one["id"] for one in config["dependencies"] if [button, "click"] in one["targets"])
        body = json.dumps({"data": values, "fn_index": index, "session_hash": "visitor"}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.address}/gradio_api/run/predict", body, headers)
        urllib.request.urlopen(request, timeout=SECONDS).read()


@contextlib.contextmanager
def served(command: list[str], **environment: str) -> Iterator[Server]:
    """A command that serves the page, once it does; it is killed at the end if it has not ended."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {"GRADIO_SERVER_PORT": str(port), "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=REPOSITORY,
        env=os.environ | own | environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    said: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        for line in process.stdout:
            said.put(line)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        while "Running on" not in said.get(timeout=SECONDS):
            pass
        yield Server(process, f"http://127.0.0.1:{port}", said)
    finally:
        process.kill()
        process.wait()
        listener.join(SECONDS)
        process.stdout.close()


def test_sigterm_tells_who_draws_saves_who_trains_and_ends_well(tmp_path: Path) -> None:
    """The real app: a job of 16 pictures and 250 steps, and a run that the page began."""
    runs = Runs(tmp_path / "runs")
    (runs.folder / "long").mkdir(parents=True)
    (runs.folder / "long" / "page.json").write_text(json.dumps({"wanted": "paused", "arguments": LONG}))
    log = tmp_path / "log"
    try:
        with served(["app.py", "--runs", str(runs.folder), "--training", "on", "--log", str(log)]) as server:
            server.press("run-resume", ["long", [], 1, None])
            until(lambda: runs.named("long").state == RUNNING and runs.named("long").step > 2)
            client = client_of(server.address)
            wish = ("DiT-T-4-solids", "torus", 250, 2.0, 7, 16, "ddim")
            job = client.submit(*wish, api_name="/generate")
            until(job.outputs)
            assert server.get("/health")[0] == 200
            server.process.terminate()
            with pytest.raises(AppError, match=STOPPING):
                job.result(timeout=SECONDS)
            assert server.process.wait(timeout=SECONDS) == 0
        run = until(lambda: next((r for r in runs.found() if r.state != RUNNING), None))
        assert (run.state, run.wanted) == (INTERRUPTED, RUNNING)
        assert (run.folder / "checkpoints" / f"step_{run.step:08d}").is_dir()
        [told] = [json.loads(line) for line in log.read_text().splitlines()]
        assert (told["kind"], told["outcome"], told["pictures"]) == ("api", "shutdown", 16)
        assert 0 < told["gmacs_drawn"] < told["gmacs"]
        runs.resume("long")
        until(lambda: runs.named("long").step > run.step)
        assert runs.named("long").history.changes == []
    finally:
        if runs.named("long").state == RUNNING:
            kill(runs.folder / "long")
        for child in runs._children.values():
            child.wait(SECONDS)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_step_that_does_not_end_keeps_neither_supervision_nor_the_end_waiting(
    number: signal.Signals, ladder_files: list[Path]
) -> None:
    command = ["-c", ENDLESS, str(ladder_files[0]), "GRACE=5", "TELLING=10", "SECONDS=25"]
    with served(command, GRADIO_ROOT_PATH="/lab") as server:
        client = client_of(server.address)
        job = client.submit("small", "cone", 2, api_name="/generate")
        told = server.until(status="ok", jobs_drawing=1)
        assert told["drawing_thread_answers"] and told["jobs_waiting"] == 0
        assert server.get("/lab/health")[0] == 200  # as a proxy may ask that leaves its prefix
        server.process.send_signal(number)
        with pytest.raises(AppError, match=STOPPING):
            job.result(timeout=SECONDS)
        assert server.process.wait(timeout=SECONDS) == 0


def test_a_second_signal_ends_it_at_once(ladder_files: list[Path]) -> None:
    slow = ["GRACE=600", "TELLING=600", "SECONDS=900"]
    with served(["-c", ENDLESS, str(ladder_files[0]), *slow]) as server:
        server.process.terminate()
        since = server.until(status="stopping")["seconds_up"]
        assert server.get("/health")[0] == 503
        client = client_of(server.address)
        with pytest.raises(AppError, match=STOPPING):
            client.predict("small", "cone", 2, api_name="/generate")
        until(lambda: server.get("/health")[1]["seconds_up"] > since + 1)
        server.process.terminate()
        assert server.process.wait(timeout=SECONDS) == -signal.SIGTERM
