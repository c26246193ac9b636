"""What a visitor waits for: the start of the app, the first frame after a click, sixteen guided pictures.

python -m benchmarks.app [--rounds 3] [--readme]

Needs Chromium and requirements-dev.txt. Every round starts the app anew, with the bundled models.
"""

import re
import statistics
import tempfile
import time
from pathlib import Path

import tyro
from playwright.sync_api import Page

from benchmarks.browser import chromium, serve, set_slider
from benchmarks.readme import command, write_block
from dit.speed import machine


def visit(page: Page, address: str) -> tuple[float, float, float]:
    """Seconds from click to first frame, to all 16 pictures, and in the sampler alone, as the page says.

    50 steps, guidance 2, the largest bundled model.
    """
    page.goto(address)
    page.wait_for_selector("#generate")
    set_slider(page, "pictures", 16)
    set_slider(page, "guidance", 2)
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
    rows: list[tuple[float, ...]] = []
    with chromium() as browser, tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            began = time.perf_counter()
            with serve([], Path(folder) / "app.log") as app:
                served = time.perf_counter() - began
                page = browser.new_page()
                rows.append((served, *visit(page, app.address)))
                page.close()
    titles = (
        "start of the app to first page",
        "click to first frame",
        "click to 16 pictures, 50 guided steps, previews streamed",
        "of that, in the sampler",
    )
    lines = ["| what a visitor waits for | seconds (median) | slowest |", "|---|---|---|"]
    for title, values in zip(titles, zip(*rows, strict=True), strict=True):
        lines.append(f"| {title} | {statistics.median(values):.1f} | {max(values):.1f} |")
    lines.append(f"\n{rounds} rounds; {machine()}; {command('benchmarks.app', rounds=rounds)}")
    print("\n".join(lines))
    if readme:
        write_block("app", lines)


if __name__ == "__main__":
    tyro.cli(main)
