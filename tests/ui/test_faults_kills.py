"""kill -9 of who trains, of the page, of both: what is shown is true, and the run ends as if none were."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.ui.conftest import end_all
from tests.ui.faults import EVERY, Visitor, arguments, ended, frozen, same_end, saved, written
from tests.ui.test_serve import served
from tests.ui.waiting import until
from ui.run import FINISHED, INTERRUPTED, NOTE, PAUSED, RUNNING
from ui.run_html import state_of
from ui.runs import Runs


def test_a_trainer_is_killed_while_it_writes_a_checkpoint(
    runs: Runs, pictures: Path, undisturbed: Path
) -> None:
    """In a folder in which a page was killed as it began a run of that name."""
    (runs.folder / "a").mkdir(parents=True)
    (runs.folder / "a" / f".{NOTE}.x.partial").write_text("{")
    assert not runs.found()
    runs.start("a", arguments(pictures))
    with frozen(runs, "a", lambda folder: written(folder) and saved(folder)) as process:
        os.kill(process, signal.SIGKILL)
    run = ended(runs, "a")
    assert run.state == INTERRUPTED and written(run.folder) and EVERY <= run.saved == saved(run.folder)
    assert state_of(run) == f"interrupted: its process is gone; Resume goes on from step {run.saved}"
    with pytest.raises(ValueError, match="a run called 'a' already"):
        runs.start("a", arguments(pictures))
    runs.resume("a")
    assert ended(runs, "a").state == FINISHED
    same_end(run.folder, undisturbed)


def test_the_page_is_killed_with_and_without_who_trains(
    runs: Runs, pictures: Path, undisturbed: Path
) -> None:
    """Both as training begins; the page alone; both while a checkpoint is written."""
    folder, app = runs.folder / "a", ["app.py", "--runs", str(runs.folder), "--training", "on"]
    folder.mkdir(parents=True)
    (folder / NOTE).write_text(json.dumps({"wanted": PAUSED, "arguments": arguments(pictures)}))
    try:
        with served(app) as server:
            Visitor(server.address).press("run-resume")
            process = until(lambda: runs.process_of(folder))
            server.process.kill()
            os.kill(process, signal.SIGKILL)
        assert ended(runs, "a").state == INTERRUPTED

        with served(app) as server:
            page = Visitor(server.address)
            goes_on = f"goes on from step {step}" if (step := saved(folder)) else "begins anew"
            assert f"interrupted: its process is gone; Resume {goes_on}" in page.sees()
            page.press("run-resume")
            with frozen(runs, "a", lambda folder: not written(folder) and saved(folder)) as process:
                server.process.kill()
                server.process.wait()
                with served(app) as other:
                    page = Visitor(other.address)
                    assert "training" in page.sees() and runs.process_of(folder) == process
                    with pytest.raises(ValueError, match="there is nothing to resume"):
                        page.press("run-resume")
                    page.press("run-pause")
                    assert "pausing: it writes a checkpoint" in page.sees()
                    os.kill(process, signal.SIGCONT)
                    assert ended(runs, "a").state == PAUSED and "paused" in page.sees()
                    page.press("run-resume")
                    with frozen(runs, "a", written) as another:
                        other.process.kill()
                        os.kill(another, signal.SIGKILL)
        run = ended(runs, "a")
        assert run.state == INTERRUPTED and run.wanted == RUNNING and written(folder)
        runs.resume("a")
        assert ended(runs, "a").state == FINISHED
        same_end(folder, undisturbed)
        assert runs.named("a").history.changes == []
    finally:
        end_all(runs)
