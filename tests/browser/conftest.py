"""A real Chromium. Where there is none the tests are skipped with the reason; under CI that is a failure."""

import os
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from benchmarks.browser import chromium, find_chromium
from tests.browser.visiting import PATIENCE, context_of

PHONE = 390  # pixels wide
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless browser; its event loop must end with the module: others run theirs."""
    if find_chromium() is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium on the PATH; apt-get install chromium")
        pytest.skip("no Chromium on the PATH: the page is not tested in a browser here")
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page, freshly opened; the test fails if the console shows an error."""
    context = context_of(browser, viewport={"width": 1280, "height": 1000})
    opened, errors = context.new_page(), []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.goto(address)
    opened.wait_for_selector("#generate")
    yield opened
    context.close()
    assert not errors


@pytest.fixture
def open_phone(browser: Browser, address: str) -> Iterator[Callable[..., Page]]:
    """Opens the page on a phone, light or dark: (dark, its address's query) -> the page."""
    contexts = []

    def opened(dark: bool = False, query: str = "") -> Page:
        contexts.append(
            context_of(
                browser,
                viewport={"width": PHONE, "height": 844},
                has_touch=True,
                color_scheme="dark" if dark else "light",
            )
        )
        phone = contexts[-1].new_page()
        phone.goto(f"{address}/{query}")
        phone.wait_for_selector("#generate", state="attached")  # another tab may be open
        return phone

    yield opened
    for context in contexts:
        context.close()
