"""What the trainer says of data and of a run before it begins; asked in a process of its own."""

import html
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dit.published import size_of
from ui.child import answer
from ui.costs import duration, gmacs, numbers_html
from ui.pictures import data_url

LOOKED_AT = 5000  # pictures of a set
NAMED = 10  # unreadable pictures, and classes, that are shown at once


async def look(data: str, image_size: int) -> tuple[dict[str, Any], bytes]:
    """What `python -m train.check` finds in a set, and its preview as PNG.

    Raises:
        ValueError: the set cannot be used; the message is the trainer's.
    """
    with tempfile.TemporaryDirectory(prefix="dit-lab-") as folder:
        preview = Path(folder) / "preview.png"
        given = ["--image-size", str(image_size), "--most", str(LOOKED_AT), "--preview", str(preview)]
        told = await _ask(["train.check", data, *given, "--json"])
        return told, preview.read_bytes() if preview.exists() else b""


async def estimate(arguments: Sequence[str]) -> dict[str, Any]:
    """The plan of a run, with the speed of a real step on this machine.

    Raises:
        ValueError: it cannot be trained so; the message is the trainer's.
    """
    return await _ask(["train", *arguments, "--dry-run", "--json"])


async def _ask(module: Sequence[str]) -> dict[str, Any]:
    """The JSON that a command prints."""
    return json.loads((await answer(module)).splitlines()[-1])


def data_html(told: dict[str, Any], preview: bytes, left_out: Sequence[str] = ()) -> str:
    """The answer of `look` for a reader. left_out: names of an upload's files that are no pictures."""
    classes, total = told["classes"], told["pictures"]
    number = f"{total:,} pictures" if total else "as many pictures as one likes, drawn by code"
    seen = f", {told['looked_at']:,} of them looked at" if 0 < told["looked_at"] < total else ""
    sizes = " to ".join(dict.fromkeys(f"{w} × {h}" for w, h in (told["sizes"][0], told["sizes"][-1])))
    labels = f"{len(classes):,} classes" if classes else "no classes"
    parts = [f"<p>{number}{seen}; {labels}; {sizes} pixels{', grey' if told['grey'] else ''}.</p>"]
    if classes and total:
        counts = [f"{html.escape(name)} {count:,}" for name, count in classes.items()]
        parts.append(_list("Pictures of each class", counts))
    if bad := told["unreadable"]:
        named = [f"{html.escape(one['picture'])}: {html.escape(one['reason'])}" for one in bad]
        parts.append(_list(f"{len(bad):,} cannot be read, and are left out", named))
    if left_out:
        parts.append(
            _list(f"{len(left_out):,} files are no pictures", [html.escape(name) for name in left_out])
        )
    parts += [
        f"<p>{html.escape(warning)}</p>" for warning in told["warnings"] if "cannot be read" not in warning
    ]
    if preview:
        parts.append(
            f'<img src="{data_url(preview)}" alt="some pictures of each class, as the model will see them">'
        )
    return f'<div class="dl-data">{"".join(parts)}</div>'


def _list(title: str, items: Sequence[str]) -> str:
    more = f"<li>and {len(items) - 200:,} more</li>" if len(items) > 200 else ""
    rows = "".join(f"<li>{item}</li>" for item in items[:200])
    opened = " open" if len(items) <= NAMED else ""
    return f"<details{opened}><summary>{title}</summary><ul>{rows}{more}</ul></details>"


def plan_html(told: dict[str, Any], command: str) -> str:
    """The answer of `estimate` for a reader, and the command that does the same; empty: not shown."""
    seconds = told["seconds"]
    cells = (
        ("parameters", f"{told['parameters'] / 1e6:,.3g} M"),
        ("GMACs a pass", gmacs(told["macs"])),
        ("time on this machine", f"≈ {duration(seconds)}" if seconds else "not measured"),
        ("memory", size_of(told["memory_bytes"])),
        ("weights", size_of(told["weight_bytes"])),
        ("disk, at most", size_of(told["disk_bytes"])),
    )
    assumed = f"<p>{html.escape(told['assumed'])}</p>" if told["assumed"] else ""
    same = f'<p class="dl-command">The same on a terminal: <code>{html.escape(command)}</code></p>'
    return f"{numbers_html(cells)}{assumed}{same if command else ''}"
