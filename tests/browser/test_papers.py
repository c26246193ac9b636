"""The published numbers as a visitor meets them: the table sorts, points speak, the legend hides."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from ui.papers import COLUMNS

pytestmark = pytest.mark.browser
HEADS = [column.head for column in COLUMNS]


def open_models(page: Page) -> None:
    page.get_by_role("tab", name="Models").click()
    expect(page.locator("#papers-table")).to_contain_text("DiT-S/8")


def point(page: Page, name: str) -> Locator:
    return page.locator(f'#papers-chart .dl-point[data-tip^="{name}, "]:visible').first


def aim(page: Page, target: Locator, across: float = 0) -> None:
    """Move the mouse near a point."""
    target.scroll_into_view_if_needed()
    box = target.locator("path").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2 + across, box["y"] + box["height"] / 2)


def column(page: Page, head: str) -> list[str]:
    """What stands in the rows that are shown, empty cells included."""
    at = HEADS.index(head) + 1
    return page.locator(f"#papers-table tbody tr:visible td:nth-child({at})").all_inner_texts()


def numbers(page: Page, head: str) -> list[float]:
    return [float(value.replace(",", "")) for value in column(page, head) if value]


def click_head(page: Page, head: str) -> None:
    page.locator("#papers-table").get_by_role("button", name=head).click()


def test_the_table_sorts_by_number(page: Page) -> None:
    open_models(page)
    assert column(page, "Model")[:3] == ["DiT-S/8", "DiT-S/4", "DiT-S/2"]
    click_head(page, "FID-50K")
    ascending = numbers(page, "FID-50K")
    assert ascending == sorted(ascending) and ascending[0] == 1.73 and len(ascending) == 35
    assert column(page, "FID-50K")[-1] == ""  # ADM at 128 pixels has none: last
    click_head(page, "FID-50K")
    assert numbers(page, "FID-50K") == ascending[::-1]
    assert column(page, "FID-50K")[-1] == ""
    head = page.locator("#papers-table th", has_text="FID-50K")
    expect(head).to_have_attribute("aria-sort", "descending")
    click_head(page, "Gflops, printed")
    assert numbers(page, "Gflops, printed") == sorted(numbers(page, "Gflops, printed"))
    expect(head).to_have_attribute("aria-sort", "none")
    click_head(page, "Model")
    assert column(page, "Model")[0] == "ADM"
    page.get_by_role("tab", name="Explore").click()
    page.get_by_role("tab", name="Models").click()
    page.wait_for_timeout(500)
    assert column(page, "Model")[0] == "ADM"  # as it was left


def test_the_table_shows_the_rows_that_hold_what_is_typed(page: Page) -> None:
    open_models(page)
    box = page.get_by_role("searchbox", name="Show rows that hold")
    box.fill("xl/2 cross")
    assert column(page, "Model") == ["DiT-XL/2, cross-attention"]
    nothing = page.locator("#papers-table").get_by_role("status")
    expect(nothing).to_be_hidden()
    box.fill("U-Net")
    assert column(page, "Model") == ["UNet-C", "UNet-S", "UNet-B"]
    box.fill("resnet")
    assert column(page, "Model") == []
    expect(nothing).to_have_text("No row holds “resnet”.")
    box.fill("")
    assert len(column(page, "Model")) == 39


def test_hovering_shows_the_nearest_point_and_a_click_pins_it(page: Page) -> None:
    open_models(page)
    tip = page.locator("#papers-chart .dl-tip")
    expect(tip).to_be_hidden()
    target = point(page, "DiT-L/2")
    aim(page, target, across=8)  # beside it
    expect(tip).to_be_visible()
    assert tip.locator("b").inner_text() == "DiT-L/2, 256 px"
    for part in ("80.71 Gflops", "458 M parameters", "FID-50K 23.33", "400K training steps", "DiT, Table 4"):
        expect(tip).to_contain_text(part)
    aim(page, target, across=-120)
    expect(tip).to_be_hidden()

    aim(page, target)
    page.mouse.down()
    page.mouse.up()
    expect(target).to_have_attribute("aria-pressed", "true")
    aim(page, point(page, "DiT-S/8"))
    assert tip.locator("b").inner_text() == "DiT-L/2, 256 px"  # pinned
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    expect(target).to_have_attribute("aria-pressed", "false")


def test_the_keyboard_goes_from_point_to_point(page: Page) -> None:
    open_models(page)
    tip = page.locator("#papers-chart .dl-tip")
    page.locator("#papers-chart .dl-key").last.focus()
    page.keyboard.press("Tab")
    expect(tip).to_contain_text("DiT-S/8")
    page.keyboard.press("ArrowRight")
    first = tip.locator("b").inner_text()
    assert first.startswith(("DiT-S/4", "DiT-B/8"))
    page.keyboard.press("Enter")
    expect(page.locator("#papers-chart .dl-point[aria-pressed=true]")).to_have_count(1)
    page.keyboard.press("End")
    expect(tip).to_contain_text("ADM-U, 512 px")
    page.keyboard.press("Tab")  # out of the chart
    expect(tip).to_be_hidden()


def test_the_legend_hides_and_shows_a_family(page: Page) -> None:
    open_models(page)
    shown = page.locator("#papers-chart .dl-point:visible")
    expect(shown).to_have_count(32)
    key = page.locator("#papers-chart .dl-key", has_text="U-Nets")
    key.click()
    expect(key).to_have_attribute("aria-pressed", "false")
    expect(shown).to_have_count(26)
    expect(page.locator("#papers-chart .dl-wide text", has_text="LDM-8")).to_be_hidden()
    key.click()
    expect(shown).to_have_count(32)


@pytest.mark.parametrize("dark", [False, True])
def test_the_chart_fits_a_phone_and_answers_a_finger(open_phone: Callable[..., Page], dark: bool) -> None:
    phone = open_phone(dark)
    open_models(phone)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    assert phone.locator("#papers-chart .dl-point:visible").count() == 32
    target, tip = point(phone, "ADM-U"), phone.locator("#papers-chart .dl-tip")
    target.scroll_into_view_if_needed()
    box = target.locator("path").bounding_box()
    phone.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(tip).to_contain_text("ADM-U")
    frame = tip.bounding_box()
    assert frame["x"] >= 0 and frame["x"] + frame["width"] <= 390
    letters = phone.locator("#papers-chart .dl-narrow text").first.bounding_box()
    assert letters["height"] >= 9  # legible
    colours = phone.locator("#papers-chart .dl-narrow .dl-label text").first.evaluate(
        "text => [getComputedStyle(text).fill, getComputedStyle(text).stroke]"
    )
    ink, ground = (sum(map(int, colour[4:-1].split(","))) for colour in colours)
    assert (ink > ground) == dark
