"""Visitors of a served app, through its API: who ask, cancel and leave, and know their own pictures again."""

import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, TimeoutError, wait
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from gradio_client import Client
from gradio_client.client import Job
from gradio_client.exceptions import AppError
from PIL import Image

from dit.pictures import read_settings
from dit.pipeline import Pipeline
from dit.settings import SampleSettings

DRAWN, REFUSED, CANCELLED, LEFT = "drawn", "refused with a told limit", "cancelled", "left"
CROSSED, LOST, BROKEN = "crossed", "lost", "other errors"
BAD = (CROSSED, LOST, BROKEN)
PATIENCE = 600.0  # seconds after which an answer is lost
NEAR = 2  # of 255: what another batch's rounding may change in a picture
TOLD = "jobs are waiting"  # of the one limit that a visitor meets who asks for nothing too dear


@dataclass(frozen=True)
class Task:
    """What is asked for again and again, each time with another seed."""

    model: str
    steps: int
    pictures: int = 1
    guidance: float = 1.0
    label: int = 0

    def data(self, seed: int) -> list:
        """The arguments of /generate."""
        return [self.model, self.label, self.steps, self.guidance, seed, self.pictures, "ddim", "all", 1]

    def settings(self, seed: int) -> SampleSettings:
        """The first picture's."""
        return SampleSettings(
            classes=[self.label],
            seeds=[seed],
            steps=self.steps,
            guidance_scale=self.guidance,
            sampler="ddim",
        )


@dataclass(frozen=True)
class Answer:
    """What came of a request."""

    task: Task
    seed: int
    outcome: str
    seconds: float
    pictures: tuple[np.ndarray, ...] = ()
    said: str = ""


Came = tuple[str, tuple[np.ndarray, ...], str]  # outcome, pictures, and what was said


@dataclass
class Visitor:
    """One client of its own; for one thread."""

    address: str
    number: int
    answers: list[Answer] = field(default_factory=list)
    _asked: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.number)
        self.files = tempfile.TemporaryDirectory(prefix="visitor-")
        self.client = Client(
            self.address,
            verbose=False,
            analytics_enabled=False,
            download_files=self.files.name,
            httpx_kwargs={"timeout": PATIENCE},
        )

    def close(self) -> None:
        """Leave the page."""
        self.client.close()
        self.files.cleanup()

    def ask(self, task: Task) -> Answer:
        """Ask, and wait for the pictures."""
        return self._try(task, lambda seed: self._wait(task, seed, self._submit(task, seed)))

    def cancel(self, task: Task, after: float) -> Answer:
        """Ask, and cancel after some seconds; what comes before is taken."""

        def change_mind(seed: int) -> Came:
            job = self._submit(task, seed)
            wait([job.future], timeout=after)
            if job.done():
                return self._wait(task, seed, job)
            job.cancel()
            return CANCELLED, (), ""

        return self._try(task, change_mind)

    def leave(self, task: Task, after: float) -> Answer:
        """Ask over a connection of its own, and break it after some seconds, as a closed laptop does."""

        def vanish(seed: int) -> Came:
            end, where = time.monotonic() + after, f"{self.address}/gradio_api/call/generate"
            event = httpx.post(where, json={"data": task.data(seed)}, timeout=PATIENCE).json()["event_id"]
            with httpx.stream("GET", f"{where}/{event}", timeout=PATIENCE) as stream:
                for _ in stream.iter_raw():
                    if time.monotonic() > end:
                        break
            return LEFT, (), ""

        return self._try(task, vanish)

    def _submit(self, task: Task, seed: int) -> Job:
        return self.client.submit(*task.data(seed), api_name="/generate")

    def _try(self, task: Task, act: Callable[[int], Came]) -> Answer:
        """Do something with a seed that nobody has had, and note what comes of it, whatever it is."""
        self._asked += 1
        seed, began = 100_000 * self.number + self._asked, time.monotonic()
        try:
            outcome, pictures, said = act(seed)
        except AppError as error:
            outcome, pictures, said = REFUSED if TOLD in str(error) else BROKEN, (), str(error)
        except (TimeoutError, CancelledError) as error:
            outcome, pictures, said = LOST, (), repr(error)
        except Exception as error:  # whatever else a client meets counts against the server
            outcome, pictures, said = BROKEN, (), repr(error)
        answer = Answer(task, seed, outcome, time.monotonic() - began, pictures, said)
        self.answers.append(answer)
        return answer

    def _wait(self, task: Task, seed: int, job: Job) -> Came:
        """Wait for an answer, read it, and delete its files."""
        gallery, _ = job.result(timeout=PATIENCE)
        files = [Path(item["image"]) for item in gallery]
        read = [_read(file) for file in files]
        for file in files:
            file.unlink()
        seeds = [settings["seed"] for _, settings in read]
        if seeds != list(range(seed, seed + task.pictures)):
            return CROSSED, (), f"asked for {seed}, got {seeds}"
        return DRAWN, tuple(pixels for pixels, _ in read), ""


def _read(file: Path) -> tuple[np.ndarray, dict]:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB")), read_settings(image)


def crossed(answers: Iterable[Answer], sources: dict[str, Path]) -> list[Answer]:
    """Those whose first picture is not the one of their seed, by drawing it again. sources: weights files."""
    pipelines, wrong = {}, []
    for answer in answers:
        if answer.outcome != DRAWN:
            continue
        name = answer.task.model
        pipeline = pipelines.get(name) or pipelines.setdefault(name, Pipeline.load(sources[name]))
        own = pipeline.generate(answer.task.settings(answer.seed)).x0[0]
        if np.abs(own.astype(int) - answer.pictures[0].astype(int)).max() > NEAR:
            wrong.append(answer)
    return wrong


def health(address: str) -> dict:
    """What the server says of itself."""
    return json.loads(httpx.get(f"{address}/health", timeout=60).text)


def quiet(address: str, seconds: float = PATIENCE) -> bool:
    """Wait until nothing is drawn and nobody waits; False if that does not come."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        told = health(address)
        if not told["jobs_drawing"] + told["jobs_waiting"]:
            return True
        time.sleep(0.25)
    return False


def crowd(
    address: str, count: int, seconds: float, cheap: Sequence[Task], heavy: Task, least: int = 0
) -> list[Answer]:
    """Visitors who ask for so long, for cheap things and dear ones, change their minds, and leave.

    least: so often each of them asks, however long it takes.
    """
    with ThreadPoolExecutor(count) as pool:
        visitors = list(pool.map(lambda number: Visitor(address, number), range(1, count + 1)))
        end = time.monotonic() + seconds

        def stay(visitor: Visitor) -> None:
            while time.monotonic() < end or len(visitor.answers) < least:
                once(visitor, cheap, heavy)
                if visitor.answers[-1].outcome == REFUSED:
                    time.sleep(visitor.random.uniform(1, 5))

        list(pool.map(stay, visitors))
    for visitor in visitors:
        visitor.close()
    return [answer for visitor in visitors for answer in visitor.answers]


def once(visitor: Visitor, cheap: Sequence[Task], heavy: Task) -> None:
    """One thing that a visitor does, by chance."""
    chance = visitor.random.random()
    soon = visitor.random.uniform(0.2, 5)
    if chance < 0.6:
        visitor.ask(visitor.random.choice(cheap))
    elif chance < 0.7:
        visitor.ask(heavy)
    elif chance < 0.85:
        visitor.cancel(heavy, soon)
    else:
        visitor.leave(heavy, soon)
    time.sleep(visitor.random.uniform(0, 1))


def counted(answers: Iterable[Answer]) -> Counter:
    """How often each outcome."""
    return Counter(answer.outcome for answer in answers)
