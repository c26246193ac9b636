"""Would this repository run as a Space on Hugging Face: `python -m ui.space --check`.

Facts of Spaces are from their documentation (huggingface.co/docs/hub: spaces-config-reference,
spaces-zerogpu, repositories-getting-started).
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import tyro
import yaml  # huggingface_hub itself depends on it
from huggingface_hub import metadata_load
from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import Version

from dit.published import size_of
from ui.runs import ROOT

COLOURS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
NEEDED = ("title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "app_file", "license")
DESCRIPTION = 60  # letters of short_description
GIT_FILE = 10_000_000  # bytes: a larger file is refused by git on the Hub unless it is in large file storage
REPOSITORY = 1_000_000_000  # bytes of a Space's files
ZERO_GPU_TORCH = ("2.8.0", "2.9.1", "2.10.0", "2.11.0")
Level = Literal["fails", "note"]


@dataclass(frozen=True)
class Finding:
    """Something that a Space would stumble over, or that its owner should know."""

    level: Level
    said: str


def settings(root: Path) -> dict[str, Any]:
    """The front matter of README.md, which is the Space's settings. Raises ValueError where there is none."""
    try:
        told = metadata_load(root / "README.md")
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"README.md cannot be read ({reason}); begin it with the Space's settings"
        ) from error
    if not told:
        raise ValueError("README.md has no front matter; begin it with the Space's settings, between ---")
    return told


def front_matter(root: Path) -> Iterator[Finding]:
    """What README.md tells the Hub."""
    try:
        told = settings(root)
    except ValueError as error:
        yield Finding("fails", str(error))
        return
    for name in NEEDED:
        if not told.get(name):
            yield Finding("fails", f"README.md says no {name}; add it to the front matter")
    if told.get("sdk") not in (None, "gradio"):
        yield Finding("fails", f"sdk is {told['sdk']!r}; it must be gradio")
    for name in ("colorFrom", "colorTo"):
        if told.get(name) and told[name] not in COLOURS:
            yield Finding("fails", f"{name} is {told[name]!r}; choose one of {', '.join(COLOURS)}")
    if len(text := str(told.get("short_description", ""))) > DESCRIPTION:
        yield Finding("fails", f"short_description has {len(text)} letters; at most {DESCRIPTION} are taken")
    if told.get("app_file") and not (root / str(told["app_file"])).is_file():
        yield Finding("fails", f"app_file is {told['app_file']!r}, and there is no such file; correct it")
    if isinstance(python := told.get("python_version"), float):
        yield Finding(
            "fails", f"python_version is the number {python}; write it in quotes, as 3.10 is not 3.1"
        )


def versions(root: Path) -> Iterator[Finding]:
    """What a Space would install, and whether it is what was tried here."""
    try:
        told = settings(root)
    except ValueError:  # which `front_matter` tells
        told = {}
    python = str(told.get("python_version") or "3.10")  # what a Space has if nothing is said
    for line in (root / "requirements.txt").read_text().splitlines():
        if not (text := line.split("#")[0].strip()):
            continue
        try:
            wanted = Requirement(text)
        except InvalidRequirement:
            yield Finding("fails", f"requirements.txt has {text!r}, which is no requirement; correct it")
            continue
        pins = [one.version for one in wanted.specifier if one.operator == "=="]
        if len(pins) != 1:
            yield Finding("fails", f"requirements.txt has {text!r}; pin one version with ==")
            continue
        if wanted.marker is None or wanted.marker.evaluate({"python_version": python}):
            yield from _of_the_space(wanted.name, pins[0], told)
        if wanted.marker is None or wanted.marker.evaluate():
            yield from _of_this_machine(wanted.name, pins[0])


def _of_the_space(name: str, pin: str, told: dict[str, Any]) -> Iterator[Finding]:
    if name == "gradio" and str(told.get("sdk_version")) != pin:
        yield Finding(
            "fails", f"sdk_version is {told.get('sdk_version')}, but requirements.txt pins gradio {pin}"
        )
    if name == "torch" and pin not in ZERO_GPU_TORCH:
        zero = str(told.get("suggested_hardware", "")).startswith("zero")
        yield Finding(
            "fails" if zero else "note",
            f"torch is pinned to {pin}, and ZeroGPU has {', '.join(ZERO_GPU_TORCH)}: there, pin one of these",
        )


def _of_this_machine(name: str, pin: str) -> Iterator[Finding]:
    try:
        here = version(name)
    except PackageNotFoundError:
        yield Finding("fails", f"{name} {pin} is not installed here, so nothing of this was tried; make demo")
        return
    if Version(here).base_version != Version(pin).base_version:
        yield Finding("fails", f"{name} is {here} here and {pin} on the Space; make demo installs the pins")


def sizes(root: Path) -> Iterator[Finding]:
    """What would have to be uploaded."""
    files = tracked(root)
    total = sum(file.stat().st_size for file in files)
    if total > REPOSITORY:
        yield Finding("fails", f"all files have {size_of(total)}; a Space takes {size_of(REPOSITORY)}")
    if large := [file for file in files if file.stat().st_size > GIT_FILE]:
        names = ", ".join(f"{file.relative_to(root)} ({size_of(file.stat().st_size)})" for file in large)
        yield Finding(
            "note",
            f"git on the Hub refuses {names} unless in large file storage; `hf upload OWNER/NAME . . "
            "--repo-type space` puts it there by itself",
        )


def tracked(root: Path) -> list[Path]:
    """The files that are in the repository. Raises ValueError where there is none."""
    asked = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True)
    if asked.returncode:
        raise ValueError(f"{root} is no git repository ({asked.stderr.strip()}); check a clone")
    return [path for name in asked.stdout.split("\0") if name and (path := root / name).is_file()]


def page(root: Path) -> Iterator[Finding]:
    """Whether the page is built, with its models read from the disk."""
    script = "from ui.opening import open_studio; from ui.page import build; build(open_studio())"
    asked = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    if asked.returncode:
        last = (asked.stderr.strip().splitlines() or ["it says nothing"])[-1]
        yield Finding("fails", f"the page cannot be built: {last}")


CHECKS: dict[str, Callable[[Path], Iterator[Finding]]] = {
    "front matter": front_matter,
    "versions": versions,
    "sizes": sizes,
    "page": page,
}


def main(check: bool = False, root: Path = ROOT) -> int:
    """Say what would fail on a Space.

    Args:
        check: look, and end with status 1 if something would fail.
        root: of the repository.
    """
    if not check:
        raise SystemExit("error: nothing asked; give --check")
    failed = False
    for name, look in CHECKS.items():
        found = list(look(root))
        failed |= any(one.level == "fails" for one in found)
        print(f"{name}: {'ok' if not found else ''}".rstrip())
        for one in found:
            print(f"  {one.level}: {one.said}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(tyro.cli(main, prog="python -m ui.space", description=__doc__))
