"""Where metrics go besides metrics.jsonl: trackio or TensorBoard, both on this machine only.

The run folder stays the truth. After a resume, lines of metrics.jsonl beyond the checkpoint are gone and come
again; so a tracker is told anew what the folder holds (trackio), or what to forget (TensorBoard).
"""

import contextlib
import importlib.util
import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

PROJECT = "dit-lab"  # what trackio files runs under
MARK = ".trackio"  # in the run folder: the number under which trackio knows the run
REMOTE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_BUCKET_ID")  # would send metrics elsewhere


class Tracker(Protocol):
    """Takes what a run tells of itself."""

    def log(self, row: dict[str, float], step: int) -> None:
        """One line of metrics.jsonl, after a step."""
        ...

    def picture(self, path: Path, step: int) -> None:
        """A grid of samples, as a file."""
        ...

    def close(self) -> None:
        """Write what is still to be written."""
        ...


def open_tracker(kind: str, run_dir: Path, config: dict[str, Any]) -> Tracker:
    """The tracker of a run, which may be a resumed one; to be opened after metrics.jsonl was cut to its step.

    kind: one of TrainConfig.tracker's; auto is trackio where it is installed, and a line on stderr says which
    it is. A tracker that fails later says so once and takes nothing more: a run does not end by it.

    Raises:
        ValueError: it is not installed.
    """
    installed = importlib.util.find_spec("trackio") is not None
    if kind == "none":
        return Guarded("none", None)
    if kind == "auto" and not installed:
        _say("tracker: none, as trackio is not installed; metrics go to metrics.jsonl alone")
        return Guarded("none", None)
    if kind != "tensorboard" and not installed:
        raise ValueError("tracker is trackio, which is not installed; pip install trackio, or --tracker none")
    if kind == "tensorboard" and importlib.util.find_spec("tensorboard") is None:
        raise ValueError(
            "tracker is tensorboard, which is not installed; pip install tensorboard, or --tracker none"
        )
    if kind == "tensorboard":
        return Guarded("tensorboard", lambda: TensorBoard(run_dir))
    return Guarded("trackio", lambda: Trackio(run_dir, config))


class Guarded:
    """A tracker that may fail: it says so once on stderr, and takes nothing from then on."""

    def __init__(self, name: str, make: Callable[[], Tracker] | None) -> None:
        """make: opens the tracker; None: there is none."""
        self.name = name
        self.inner: Tracker | None = None
        if make is not None:
            with self._guard():
                self.inner = make()

    def log(self, row: dict[str, float], step: int) -> None:
        if self.inner is not None:
            with self._guard():
                self.inner.log(row, step)

    def picture(self, path: Path, step: int) -> None:
        if self.inner is not None:
            with self._guard():
                self.inner.picture(path, step)

    def close(self) -> None:
        inner, self.inner = self.inner, None
        if inner is not None:
            with self._guard():
                inner.close()

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a database, a disk, a library: whatever it is, training is worth more
            self.inner = None
            _say(
                f"tracker: {self.name} failed ({type(error).__name__}: {error}) and is told nothing more; "
                "training goes on, and metrics.jsonl has every line"
            )


class Trackio:
    """A run in trackio's database on this machine (TRACKIO_DIR, or trackio's own place); no network.

    A run that is resumed is told to trackio anew from its folder, and the former record removed: its lines
    beyond the checkpoint would stay there beside the ones that come again.
    """

    def __init__(self, run_dir: Path, config: dict[str, Any]) -> None:
        with _quiet(), _on_this_machine():
            import trackio  # takes half a second

            self._trackio = trackio
            folder, mark = str(run_dir.resolve()), run_dir / MARK
            rows = _rows(run_dir)
            former = mark.read_text().strip() if mark.exists() else ""
            if former:
                for run in trackio.Api().runs(PROJECT):
                    # A copied folder has the number of the one it was copied from, whose record is not ours.
                    if run.id == former and (run.config or {}).get("folder") == folder:
                        run.delete()
            self._run = trackio.init(
                project=PROJECT,
                name=run_dir.resolve().name,
                config={**config, "folder": folder},
                resume="never",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
            mark.write_text(self._run.id + "\n")
        for row in rows:
            self.log(row, row["step"])
        for path in sorted((run_dir / "samples").glob("step_*.png")) if rows else []:
            if (step := int(path.stem.removeprefix("step_"))) <= rows[-1]["step"]:
                self.picture(path, step)
        left_aside = [name for name in REMOTE if os.environ.get(name)]
        _say(
            f"tracker: trackio, in {trackio.TRACKIO_DIR}; to look at it: trackio show --project {PROJECT}"
            + (f" (of this machine alone: {', '.join(left_aside)} left aside)" if left_aside else "")
        )

    def log(self, row: dict[str, float], step: int) -> None:
        """Queued; a thread of trackio's writes it within half a second."""
        self._run.log({name: value for name, value in row.items() if name != "step"}, step=step)

    def picture(self, path: Path, step: int) -> None:
        """A copy of the file goes to trackio's folder."""
        self._run.log({"samples": self._trackio.Image(str(path))}, step=step)

    def close(self) -> None:
        """Waits for the thread, 30 s at most."""
        with _quiet():
            self._trackio.finish()


class TensorBoard:
    """Event files in the run folder: tensorboard --logdir RUNS."""

    def __init__(self, run_dir: Path) -> None:
        with _quiet():
            from torch.utils.tensorboard import SummaryWriter  # takes some seconds

        rows = _rows(run_dir)
        folder = run_dir / "tensorboard"
        if folder.exists() and not rows:  # of a run that got to no line: nothing of it is to be shown
            shutil.rmtree(folder)
        # TensorBoard hides what earlier files tell of steps from here on.
        purge = rows[-1]["step"] + 1 if rows else None
        self._writer = SummaryWriter(str(folder), purge_step=purge)
        _say(f"tracker: tensorboard, in {folder}; to look at it: tensorboard --logdir {run_dir}")

    def log(self, row: dict[str, float], step: int) -> None:
        for name, value in row.items():
            if name != "step" and isinstance(value, (int, float)):
                self._writer.add_scalar(name, value, step)

    def picture(self, path: Path, step: int) -> None:
        with Image.open(path) as image:
            self._writer.add_image("samples", np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


def _rows(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, up to one that is half-written."""
    path, rows = run_dir / "metrics.jsonl", []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
            rows.append({**row, "step": int(row["step"])})
        except (ValueError, KeyError, TypeError):
            break
    return rows


def _say(line: str) -> None:
    print(line, file=sys.stderr)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What a library prints on stdout goes to nobody: a run's stdout is the path of its weights."""
    with contextlib.redirect_stdout(None), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@contextlib.contextmanager
def _on_this_machine() -> Iterator[None]:
    """Nothing is sent anywhere, and the Hub is not asked for the user's name."""
    from huggingface_hub import constants

    kept = {name: os.environ.pop(name) for name in REMOTE if name in os.environ}
    offline, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        os.environ |= kept
