"""What a visitor does in the Train tab, and what a page sends, for the tests of both."""

import re
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, Request, expect

PATIENCE = 60_000  # milliseconds until what is expected of a page is given up: machines are busy
EAGER = {"TORCHDYNAMO_DISABLE": "1"}  # environment of runs too short to be worth a minute of compiling
LONG = 300_000  # milliseconds that a trainer may take to begin


def context_of(browser: Browser, **settings: Any) -> BrowserContext:
    """A new visitor's, as patient as `expect`."""
    context = browser.new_context(**settings)
    context.set_default_timeout(PATIENCE)
    return context


def fill(page: Page, name: str, steps: int = 2000) -> None:
    """The smallest model, of 16 pixels and batches of 8."""
    page.get_by_role("tab", name="Train").click()
    page.locator("#train-preset input").click()
    page.get_by_role("option", name="DiT-E/4", exact=True).click()
    page.locator("#train-side input").click()
    page.get_by_role("option", name="16", exact=True).click()
    page.locator("#train-images input").fill(str(8 * steps))
    page.locator("#train-batch input").fill("8")
    page.locator("#train-name :is(input, textarea)").fill(name)


def begin(page: Page, name: str, steps: int = 2000) -> None:
    fill(page, name, steps)
    page.click("#train-start")
    expect(page.locator("#run-page")).to_contain_text(name)


def steps_done(page: Page) -> int:
    shown = re.search(r"([\d,]+) of", page.locator("#run-page .dl-price").inner_text())
    return int(shown[1].replace(",", "")) if shown else 0


def sent_by(request: Request) -> list:
    """The values that a listener of the page sends to the server; none of another request."""
    return (request.post_data_json or {}).get("data", []) if "/run/predict" in request.url else []
