"""The grid and the page's address as a visitor uses them."""

import io
import re
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from dit.pictures import read_settings
from tests.browser.visiting import context_of

pytestmark = pytest.mark.browser
# Of the colours of texts and of what lies behind them, as painted: WCAG's ratio, for small text at least 4.5.
CONTRASTS = """
(items) => items.map((item) => {
  const behind = [];
  for (let at = item; at; at = at.parentElement) behind.unshift(getComputedStyle(at).backgroundColor);
  const paint = document.createElement('canvas').getContext('2d');
  const shade = (colours) => {
    for (const colour of ['white', ...colours]) {
      paint.fillStyle = colour;
      paint.fillRect(0, 0, 1, 1);
    }
    const [r, g, b] = [...paint.getImageData(0, 0, 1, 1).data].map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
  };
  const ink = shade([...behind, getComputedStyle(item).color]), paper = shade(behind);
  return Math.max(ink, paper) / Math.min(ink, paper);
})
"""
CELLS = re.compile(r"(\d+) of (\d+) cells? drawn")
# Notes what a button says, of which some stands for a moment alone.
NOTE_TEXTS = """button => { window.texts = []; new MutationObserver(
    () => window.texts.push(button.textContent)
).observe(button, {childList: true, characterData: true, subtree: true}); }"""


def open_grid(page: Page) -> None:
    """The Trade-off tab's grid."""
    page.get_by_role("tab", name="Trade-off").click()
    page.get_by_role("tab", name="Grid").click()
    expect(page.locator("#grid-price")).to_contain_text("GMACs")


def type_values(page: Page, name: str, text: str) -> None:
    """Into the box of an axis."""
    page.locator(f"#grid-{name}-values").locator("textarea, input").fill(text)


def filled(page: Page) -> re.Match:
    """Press Fill and wait for the end; the status line, matched."""
    page.locator("#grid-status p").evaluate("line => line.textContent = ''")  # else the last grid's would do
    page.click("#grid-fill")
    expect(page.locator("#grid-status")).to_contain_text("drawn")
    expect(page.locator("#grid-fill")).to_be_enabled(timeout=120_000)
    return CELLS.search(page.inner_text("#grid-status"))


def test_a_grid_fills_and_can_be_taken_away(page: Page) -> None:
    open_grid(page)
    type_values(page, "down", "DiT-N-4-solids, small")
    type_values(page, "across", "1-3")
    expect(page.locator("#grid-price")).to_contain_text("6 cells")
    expect(page.locator("#grid-png")).to_be_disabled()
    done = filled(page)
    assert (done[1], done[2]) == ("6", "6")
    pictures = page.locator("#grid-canvas img")
    expect(pictures).to_have_count(6)
    assert [pictures.nth(i).get_attribute("alt").split(":")[0] for i in (0, 2, 5)] == [
        "DiT-N-4-solids, 1 step", "DiT-N-4-solids, 3 steps", "small, 3 steps"
    ]  # fmt: skip
    assert page.locator("#grid-canvas .dl-check").count() == 3  # the classifier knows the bundled model's

    with page.expect_download() as download:
        page.click("#grid-png")
    described = read_settings(Image.open(download.value.path()))
    assert download.value.suggested_filename == "dit-lab-grid.png"
    assert [cell["pictures"][0]["steps"] for cell in described["cells"]] == [1, 2, 3, 1, 2, 3]
    with page.expect_download() as download:
        page.click("#grid-zip")
    with zipfile.ZipFile(download.value.path()) as archive:
        names = [name for name in archive.namelist() if name.endswith(".png")]
        assert len(names) == 6 and "settings.json" in archive.namelist()
        assert np.asarray(Image.open(io.BytesIO(archive.read(names[0])))).shape == (32, 32, 3)


def test_stop_ends_a_grid_and_keeps_what_was_drawn(page: Page) -> None:
    open_grid(page)
    type_values(page, "down", "DiT-T-4-solids")
    type_values(page, "across", "1, 250, 249, 248, 247, 246")
    page.click("#grid-fill")
    expect(page.locator("#grid-canvas .dl-now img")).to_be_visible()  # it forms, live
    expect(page.locator("#grid-status")).to_contain_text(re.compile("[1-5] of 6 cells"))
    page.click("#grid-stop")
    expect(page.locator("#grid-status")).to_contain_text("Stopped")
    count = int(CELLS.search(page.inner_text("#grid-status"))[1])
    expect(page.locator("#grid-canvas img")).to_have_count(count)
    assert 1 <= count < 6
    expect(page.locator("#grid-canvas .dl-blank")).to_have_count(6 - count)
    with page.expect_download():
        page.click("#grid-png")
    type_values(page, "across", "2")
    assert filled(page)[0] == "1 of 1 cell drawn"


def test_what_cannot_be_a_grid_says_why(page: Page) -> None:
    open_grid(page)
    for text, message in (
        ("1-300", "300 values; a grid has at most 64 cells"),
        ("1, <b>2</b>", "steps is '<b>2</b>'; it must be a whole number"),
        ("2, 2", "steps 2 is on its axis twice"),
    ):
        type_values(page, "across", text)
        expect(page.locator("#grid-price")).to_contain_text(message)
    page.click("#grid-fill")
    expect(page.locator("#grid-status")).to_contain_text("Nothing was drawn")
    expect(page.locator("#grid-canvas img")).to_have_count(0)


def test_an_address_opens_the_view_again(browser: Browser, page: Page) -> None:
    open_grid(page)
    type_values(page, "across", "1, 2")
    page.locator("#grid-guidance input[type=number]").fill("3")
    page.locator("#grid-guidance input[type=number]").press("Enter")
    expect(page.locator("#grid-price")).to_contain_text("GMACs")
    page.wait_for_url(re.compile("grid-guidance=3"))
    only_what_differs = {"tab=tradeoff", "tradeoff=grid", "grid-across-values=1,+2", "grid-guidance=3"}
    assert set(page.url.split("?")[1].split("&")) == only_what_differs
    context = context_of(browser, permissions=["clipboard-read", "clipboard-write"])
    other = context.new_page()
    other.goto(page.url)
    expect(other.locator("#grid-fill")).to_be_visible()
    expect(other.locator("#grid-across-values").locator("textarea, input")).to_have_value("1, 2")
    expect(other.locator("#grid-guidance input[type=number]")).to_have_value("3")
    expect(other.locator("#share-notice")).to_be_hidden()
    button = other.locator(".dl-copy").first
    button.evaluate(NOTE_TEXTS)
    button.click()
    other.wait_for_function("window.texts.includes('Copied')")
    assert other.evaluate("navigator.clipboard.readText()") == other.url == page.url
    context.close()


def test_a_tampered_address_is_no_error(browser: Browser, address: str) -> None:
    context = context_of(browser)
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("dialog", lambda dialog: (errors.append(dialog.message), dialog.dismiss()))
    script = "%3Cimg%20src=x%20onerror=alert(1)%3E"
    page.goto(
        f"{address}/?tab=tradeoff&tradeoff=grid&tradeoff=chart&steps=1e99&model=huge&{script}=1"
        f"&grid-steps=-5&grid-down={script}&grid-across-values={script}&grid-class={script}&class=%00"
        "&budget-at=999999"
    )
    notice = page.locator("#share-notice")
    expect(notice).to_contain_text("Not all of this address was taken")
    expect(notice).to_contain_text("tradeoff is there more than once")
    expect(page.locator("#grid-fill")).to_be_visible()
    expect(page.locator("#grid-steps input[type=number]")).to_have_value("1")
    expect(page.locator("#grid-price")).to_contain_text("steps is '<img src=x")
    page.click("#grid-fill")
    expect(page.locator("#grid-status")).to_contain_text("Nothing was drawn")
    assert not page.locator("img[src='x']").count()
    page.get_by_role("tab", name="Explore").click()
    expect(page.locator("#steps input[type=number]")).to_have_value("250")
    assert not errors
    context.close()


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone_the_grid_scrolls_in_its_own_box(open_phone: Callable[..., Page], dark: bool) -> None:
    page = open_phone(dark, "?tab=tradeoff&tradeoff=grid&grid-across-values=1-6&grid-down-values=small")
    expect(page.locator("#grid-price")).to_contain_text("6 cells")
    filled(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    box = page.locator("#grid-canvas [role=region]")
    assert box.evaluate("box => box.scrollWidth > box.clientWidth + 100 && box.tabIndex === 0")
    box.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('#grid-canvas [role=region]').scrollLeft > 0")
    assert page.evaluate("document.body.classList.contains('dark')") == dark
    texts = page.locator("#grid-canvas :is(th, figcaption, figcaption span, b, p):visible")
    ratios = texts.evaluate_all(CONTRASTS)
    assert len(ratios) > 12 and min(ratios) >= 4.5
