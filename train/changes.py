"""What happened to a run on its way: what was set anew, other pictures, damaged checkpoints."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dit.files import atomic_write


def note(run_dir: Path, change: dict[str, Any]) -> None:
    """Add a line to changes.jsonl: what happened to the run, after which checkpoint."""
    history = changes_of(run_dir)
    if history[-1:] == [change]:  # written by a process that was killed before it wrote the settings
        return
    lines = "".join(json.dumps(line) + "\n" for line in [*history, change])
    atomic_write(run_dir / "changes.jsonl", lambda temporary: temporary.write_text(lines))


def changes_of(run_dir: Path) -> list[dict[str, Any]]:
    """What was set anew when the run was continued, when it went back, and after which checkpoint.

    Raises:
        ValueError: changes.jsonl is damaged.
    """
    path = run_dir / "changes.jsonl"
    try:
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    except ValueError as error:
        raise ValueError(
            f"{path}: expected a line of JSON a change, found {error}; mend it, or give a new --run-dir"
        ) from error


def told(change: Mapping[str, Any]) -> str:
    """A change in words."""
    new = change.get("set") if isinstance(change.get("set"), dict) else {}
    said = [f"{name} set to {value}" for name, value in new.items()]
    if "other_pictures" in change:
        said.append(f"the pictures of {change['other_pictures']} had changed")
    if "went_back_from" in change:
        said.append(f"went back to it from step {change['went_back_from']}, as numbers were not finite")
    if "put_aside" in change:
        said.append(f"went on from it, as {change['put_aside']} was damaged: {change.get('why')}")
    return ", ".join(said)
