"""A run as its folder tells it, finished or not: read only, and forgiving of a line that is half-written."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dit.weights import describe
from train.changes import told
from train.config import TrainConfig


@dataclass(frozen=True)
class History:
    """What is known of one run."""

    folder: Path
    settings: dict[str, Any]  # config.json; what an older run does not have is left out
    rows: list[dict[str, float]]  # lines of metrics.jsonl, by step
    changes: list[dict[str, Any]]  # what was set anew when it was continued
    skipped: list[dict[str, Any]]  # pictures that could not be read
    samples: list[tuple[int, Path]]  # grids, by step
    provenance: dict[str, Any]  # of weights.safetensors; empty before there is one
    notes: list[str]  # what could not be read

    @classmethod
    def of(cls, folder: Path) -> "History":
        """Read a run's folder.

        Raises:
            ValueError: there is no run, or it has not told anything yet.
        """
        path = folder / "config.json"
        if not path.exists():
            raise ValueError(f"{folder} holds no run: it has no config.json; give the --run-dir of a run")
        try:
            settings = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f"{path}: expected the settings as JSON, found {error}; mend it") from error
        notes: list[str] = []
        rows = [row for row in _lines(folder / "metrics.jsonl", notes) if _is_number(row.get("step"))]
        by_step = {int(row["step"]): row for row in rows}  # of two lines of a step the later one
        if not by_step:
            raise ValueError(f"{folder} has no line of metrics yet; wait for its first --log-every steps")
        weights, provenance = folder / "weights.safetensors", {}
        if weights.exists():
            try:
                provenance = describe(weights)[1]
            except (ValueError, OSError) as error:
                notes.append(f"{weights.name}: {error}")
        found = ((re.fullmatch(r"step_(\d+)", path.stem), path) for path in folder.glob("samples/*.png"))
        return cls(
            folder,
            settings,
            [by_step[step] for step in sorted(by_step)],
            _lines(folder / "changes.jsonl", notes),
            _lines(folder / "skipped.jsonl", notes),
            sorted((int(match[1]), path) for match, path in found if match),
            provenance,
            notes,
        )

    def on_the_way(self) -> list[tuple[str, str]]:
        """After which checkpoint something happened to it, and what; in words."""
        return [(str(change.get("after")), told(change)) for change in self.changes]

    @property
    def name(self) -> str:
        """The folder's."""
        return self.folder.resolve().name

    @property
    def steps(self) -> int:
        """Optimizer steps done, as far as is logged."""
        return int(self.rows[-1]["step"])

    @property
    def total_steps(self) -> int:
        """Of the whole run."""
        return int(self.settings.get("total_steps", self.steps))

    def series(self, key: str) -> list[tuple[float, float]]:
        """(step, value) of each line that has a number there."""
        return [(row["step"], row[key]) for row in self.rows if _is_number(row.get(key))]

    def seconds(self) -> float | None:
        """Of training alone, from the speeds and steps; None where they are not logged."""
        total, before = 0.0, 0.0
        for row in self.rows:
            speed = row.get("images_per_second")
            if not _is_number(speed) or not speed > 0:
                return None
            total += (row["step"] - before) * self.settings.get("batch_size", 0) / speed
            before = row["step"]
        return total

    def unusual(self) -> dict[str, Any]:
        """The settings that are not the defaults, the model and data always among them."""
        defaults = vars(TrainConfig())
        return {
            name: value
            for name, value in self.settings.items()
            if name in ("model", "data")
            or name not in defaults
            or (tuple(value) if isinstance(value, list) else value) != defaults[name]
        }


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")


def _lines(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """Objects of a file of JSON lines. A last line that is half-written is still being written."""
    if not path.exists():
        return []
    lines = path.read_text(errors="replace").splitlines()
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            value = json.loads(line)
        except ValueError:
            if number < len(lines):
                notes.append(f"{path.name}: line {number} is not JSON, and left out")
            continue
        if isinstance(value, dict):
            found.append(value)
    return found
