"""What a visitor waits for: the start of the app, the first frame after a click, sixteen guided pictures.

python -m benchmarks.app [--rounds 3] [--readme]

Needs Chromium and requirements-dev.txt. Every round starts the app anew, with the bundled models.
"""

import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request

import tyro
from playwright.sync_api import Page, sync_playwright

from benchmarks.readme import machine, write_block

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def start(port: int) -> tuple[subprocess.Popen, float]:
    """The app on a port, and the seconds until it answered with its page."""
    environment = os.environ | {"GRADIO_SERVER_PORT": str(port), "HF_HUB_OFFLINE": "1"}
    began = time.perf_counter()
    app = subprocess.Popen([sys.executable, "app.py"], env=environment, stdout=subprocess.DEVNULL)
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=60).read()
            return app, time.perf_counter() - began
        except OSError:
            if app.poll() is not None:
                raise RuntimeError(
                    f"the app ended with status {app.returncode} before it served a page"
                ) from None
            time.sleep(0.05)


def set_number(page: Page, name: str, value: float) -> None:
    """Type a value into the number box of a slider."""
    box = page.locator(f"#{name} input[type=number]")
    box.fill(str(value))
    box.press("Enter")


def visit(page: Page, port: int) -> tuple[float, float, float]:
    """Seconds from click to first frame, to all 16 pictures, and in the sampler alone, as the page says.

    50 steps, guidance 2, the largest bundled model.
    """
    page.goto(f"http://127.0.0.1:{port}")
    page.wait_for_selector("#generate")
    set_number(page, "pictures", 16)
    set_number(page, "guidance", 2)
    page.wait_for_function("document.querySelector('#price').innerText.includes('make 100 passes')")
    began = time.perf_counter()
    page.click("#generate")
    page.wait_for_selector("#canvas img")
    first = time.perf_counter() - began
    done = "document.querySelector('#status').innerText.includes('Step 50 of 50')"
    page.wait_for_function(done, timeout=300_000)
    everything = time.perf_counter() - began
    return first, everything, float(re.search(r"([\d.]+) s$", page.inner_text("#status").strip())[1])


def main(rounds: int = 3, readme: bool = False) -> None:
    """Measure and print medians.

    Args:
        rounds: how often the app is started and visited.
        readme: write the table into README.md.
    """
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        raise SystemExit("no Chromium on the PATH; install one (apt-get install chromium)")
    rows: list[tuple[float, ...]] = []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        for _ in range(rounds):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            app, served = start(port)
            try:
                page = chromium.new_page()
                rows.append((served, *visit(page, port)))
                page.close()
            finally:
                app.terminate()
                app.wait()
        chromium.close()
    titles = (
        "start of the app to first page",
        "click to first frame",
        "click to 16 pictures, 50 guided steps, previews streamed",
        "of that, in the sampler",
    )
    lines = ["| what a visitor waits for | seconds (median) | slowest |", "|---|---|---|"]
    for title, values in zip(titles, zip(*rows, strict=True), strict=True):
        lines.append(f"| {title} | {statistics.median(values):.1f} | {max(values):.1f} |")
    lines.append(f"\n{rounds} rounds; {machine()}; `python -m benchmarks.app --readme`")
    print("\n".join(lines))
    if readme:
        write_block("app", lines)


if __name__ == "__main__":
    tyro.cli(main)
