"""The README's picture of the page: `python -m benchmarks.screenshot [--out assets/page.png]`.

Needs Chromium and requirements-dev.txt.
"""

import tempfile
from pathlib import Path

import tyro
from playwright.sync_api import expect

from benchmarks.browser import REPOSITORY, chromium, serve, set_slider


def main(out: Path = REPOSITORY / "assets" / "page.png", label: int = 4, pictures: int = 8) -> None:
    """Draw pictures of one class with the largest bundled model, in the page, and photograph it.

    Args:
        out: PNG file to write.
        label: class to draw.
        pictures: how many.
    """
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        with serve([], Path(folder) / "app.log") as served:
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(served.address)
            page.wait_for_selector("#generate")
            set_slider(page, "class", label)
            set_slider(page, "pictures", pictures)
            expect(page.locator("#price")).to_contain_text(f"expected for {pictures}", timeout=30_000)
            page.click("#generate")
            expect(page.locator("#status")).to_contain_text("Step 50 of 50", timeout=300_000)
            expect(page.locator("#generate")).to_be_enabled(timeout=30_000)
            page.wait_for_timeout(500)  # the last transitions of the buttons
            page.screenshot(path=out, full_page=True)


if __name__ == "__main__":
    tyro.cli(main)
