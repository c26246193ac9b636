"""Models are timed once; and what tests of faults compare with: a run to which nothing happened."""

import functools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from dit.config import ModelConfig
from dit.pipeline import Pipeline
from dit.speed import Speed, measure_speed
from tests.train.picture_files import picture_folder
from tests.ui.faults import arguments, ended
from ui.run import FINISHED
from ui.runs import Runs


@pytest.fixture(scope="session", autouse=True)
def timed_once() -> Iterator[None]:
    """Opening a studio times its models, which takes seconds: each config is timed once."""
    known: dict[ModelConfig, Speed] = {}

    @functools.wraps(measure_speed)
    def measured(pipeline: Pipeline) -> Speed:
        config = pipeline.model.config
        return known.get(config) or known.setdefault(config, measure_speed(pipeline))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ui.opening.measure_speed", measured)
        yield


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of three classes; not to be written to."""
    return picture_folder(tmp_path_factory.mktemp("data") / "pictures", per_class=22)


@pytest.fixture(scope="session")
def undisturbed(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run that nothing happened to."""
    runs = Runs(tmp_path_factory.mktemp("undisturbed"))
    runs.start("whole", arguments(pictures))
    run = ended(runs, "whole")
    assert run.state == FINISHED, run.said
    return run.folder


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    """In an empty folder; whoever trains there ends with the test, also if another page began it."""
    made = Runs(tmp_path / "runs")
    yield made
    end_all(made)


def end_all(runs: Runs) -> None:
    """Kill whoever trains there."""
    for run in runs.found():
        if process := runs.process_of(run.folder):
            os.kill(process, signal.SIGKILL)
    for child in runs._children.values():
        child.wait()
