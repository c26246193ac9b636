"""The app served on a free port, and a Chromium to visit it: for the benchmark and for the tests."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

START_SECONDS = 120  # until an app that answers nothing is given up
REPOSITORY = Path(__file__).resolve().parent.parent
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass(frozen=True)
class Served:
    """An app that answers."""

    address: str
    process: int  # its number


@contextlib.contextmanager
def serve(
    arguments: Sequence[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
    program: Sequence[str] = ("app.py",),
) -> Iterator[Served]:
    """`python app.py` on a free port: its address and process, once it serves. It ends with the block.

    environment: added to this process's own; by default the Hub is not asked. program: another than app.py.

    Raises:
        RuntimeError: the app ended before, or serves nothing in START_SECONDS; the message is its log.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {"GRADIO_SERVER_PORT": str(port)} | dict(environment or {"HF_HUB_OFFLINE": "1"})
    with log.open("w") as output:
        app = subprocess.Popen(
            [sys.executable, *program, *arguments],
            cwd=REPOSITORY,
            env=os.environ | own,
            stdout=output,
            stderr=output,
        )
        try:
            yield Served(_answering(app, f"http://127.0.0.1:{port}", log), app.pid)
        finally:
            app.terminate()
            try:
                app.wait(timeout=30)
            except subprocess.TimeoutExpired:
                app.kill()
                app.wait()


def _answering(app: subprocess.Popen, address: str, log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while app.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(address, timeout=60).read()
            return address
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"the app serves no page (exit status {app.poll()}):\n{log.read_text()}")


def find_chromium() -> str | None:
    """Path of Debian's or anyone's Chromium; None if there is none on the PATH."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser; its event loop ends with the block. Ends the program where there is no Chromium."""
    path = find_chromium()
    if path is None:
        raise SystemExit("no Chromium on the PATH; install one (apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


def set_slider(page: Page, name: str, value: float) -> None:
    """Type a value into the number box of a slider."""
    box = page.locator(f"#{name} input[type=number]")
    box.fill(str(value))
    box.press("Enter")
