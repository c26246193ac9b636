"""The Trade-off tab's chart as a visitor meets it: points speak, a click shows pictures and sets Explore."""

import base64
import io
import re
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.visiting import context_of, sent_by
from tests.families import STEPS

pytestmark = pytest.mark.browser
# A drawing, whatever the order in which its elements got their attributes.
PARTS = """svg => [...svg.querySelectorAll('*')].map((one) => [
  one.tagName, one.childElementCount || one.textContent,
  ...[...one.attributes].map((attribute) => `${attribute.name}=${attribute.value}`).sort()])"""


def open_chart(page: Page) -> None:
    page.get_by_role("tab", name="Trade-off").click()
    expect(page.locator("#measured-chart")).to_contain_text("GMACs a picture")


def point(page: Page, title: str, setting: str = "ddim, no guidance") -> Locator:
    """The point whose tooltip begins so; a line of a tooltip ends before the next."""
    return page.locator(f'#measured-chart .dl-point[aria-label^="{title}; {setting};"]:visible').first


def aim(page: Page, target: Locator) -> tuple[float, float]:
    target.scroll_into_view_if_needed()
    box = target.locator("path").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def explore(page: Page) -> dict[str, str]:
    """What Explore's number boxes and its sampler hold."""
    if not page.locator("#cache").is_visible():
        page.get_by_role("button", name="Free speed").click()
        expect(page.locator("#cache")).to_be_visible()
    names = ("steps", "guidance", "guided-from", "guided-to", "cache")
    found = {name: page.locator(f"#{name} input[type=number]").input_value() for name in names}
    return found | {"sampler": page.locator("#sampler input").input_value()}


def toggle(page: Page, group: str, label: str) -> None:
    page.locator(f"#chart-{group}").get_by_label(label, exact=True).check()


def test_hovering_a_point_tells_all_its_numbers(page: Page) -> None:
    open_chart(page)
    tip = page.locator("#measured-chart .dl-tip")
    expect(tip).to_be_hidden()
    page.mouse.move(*aim(page, point(page, "big, 8 steps")))
    expect(tip).to_be_visible()
    assert tip.locator("b").inner_text() == "big, 8 steps"
    for part in ("3.2 GMACs and 0.336 s", "Fréchet distance", "95 %", "precision", "93.1%", "5,000 pictures"):
        expect(tip).to_contain_text(part)


def test_a_click_shows_the_pictures_and_sets_explore(page: Page) -> None:
    open_chart(page)
    pictures = page.locator("#cell-pictures")
    expect(pictures).to_contain_text("once one is clicked")
    toggle(page, "guidance", "3")
    toggle(page, "sampler", "ddpm")
    page.locator("#chart-caches").get_by_label("every 2 steps").check()
    wanted = point(page, "big, 16 steps", "ddpm, guidance 3, caching every 2 steps")
    expect(wanted).to_be_visible()
    page.mouse.click(*aim(page, wanted))
    expect(pictures.locator("img")).to_have_count(5)
    expect(pictures).to_contain_text("big, 16 steps")
    assert pictures.locator(".dl-pictures").bounding_box()["width"] > 400  # side by side, not in a column
    expect(pictures.locator("figcaption").last).to_have_text("torus · seed 4")
    page.get_by_role("button", name="Open in Explore").click()
    expect(page.locator("#ladder .dl-chosen")).to_have_text("big")
    expect(page.locator("#sampler input")).to_have_value("ddpm")
    expect(page.locator("#steps input[type=number]")).to_have_value("16")
    page.wait_for_timeout(1000)  # what follows from a change of model has come
    set_to = {"steps": "16", "guidance": "3", "guided-from": "0", "guided-to": "999", "cache": "2"}
    assert explore(page) == set_to | {"sampler": "ddpm"}
    expect(page.locator("#price")).to_contain_text("big: 16 steps")
    page.click("#generate")
    expect(page.locator("#status")).to_contain_text("Step 16 of 16", timeout=120_000)


def pixels(source: str) -> np.ndarray:
    """Of a picture in a data: URL."""
    image = Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))
    return np.asarray(image.convert("RGB"), dtype=float)


@pytest.mark.parametrize("chosen", [None, 2])
def test_explore_draws_a_points_picture_again(page: Page, chosen: int | None) -> None:
    """The first, or the one that is pressed: class, seed and all."""
    open_chart(page)
    toggle(page, "guidance", "3")
    wanted = point(page, "big, 4 steps", "ddim, guidance 3")
    expect(wanted).to_be_visible()
    # What follows from the model, class and all, comes first: it would put a class back.
    with page.expect_response(lambda answer: len(sent := sent_by(answer.request)) == 11 and sent[0] is None):
        page.mouse.click(*aim(page, wanted))
    figures = page.locator("#cell-pictures figure")
    expect(figures.first).to_have_attribute("aria-pressed", "true")
    if chosen is not None:
        figures.nth(chosen).focus()
        page.keyboard.press("Enter")
        expect(figures.nth(chosen)).to_have_attribute("aria-pressed", "true")
        expect(figures.first).to_have_attribute("aria-pressed", "false")
    there = [pixels(figures.nth(i).locator("img").get_attribute("src")) for i in range(5)]
    name, seed = figures.nth(chosen or 0).locator("figcaption").inner_text().split(" · seed ")
    expect(page.locator("#seed input")).to_have_value(seed)
    page.get_by_role("button", name="Open in Explore").click()
    expect(page.locator("#class-name input")).to_have_value(name)
    page.wait_for_timeout(1000)  # what follows from a change of model has come
    page.click("#generate")
    expect(page.locator("#status")).to_contain_text("Step 4 of 4", timeout=120_000)
    expect(page.locator("#canvas figcaption a").first).to_be_visible()
    drawn = pixels(page.locator("#canvas img").first.get_attribute("src"))
    apart = [np.abs(drawn - other).mean() for other in there]
    assert apart[chosen or 0] < 1 and sorted(apart)[1] > 5, apart


def test_a_link_shows_the_same_chart_and_the_same_pictures(
    page: Page, browser: Browser, address: str
) -> None:
    open_chart(page)
    toggle(page, "guidance", "3")
    toggle(page, "cost", "seconds")
    page.locator("#chart-caches").get_by_label("every 2 steps").check()
    wanted = point(page, "big, 16 steps", "ddim, guidance 3, caching every 2 steps")
    expect(wanted).to_be_visible()
    page.mouse.click(*aim(page, wanted))
    expect(page.locator("#cell-pictures img")).to_have_count(5)
    toggle(page, "sampler", "ddpm")  # not the point's, whose pictures stay
    expect(point(page, "big, 16 steps", "ddpm, guidance 3")).to_be_visible()
    page.locator("#measured-chart .dl-key", has_text="middle").click()
    shown = page.locator("#measured-chart .dl-point:visible")
    expect(shown).to_have_count(4 * len(STEPS))
    for part in ("chart-sampler=ddpm", "chart-hidden=middle", "chart-pick=big", "tab=tradeoff"):
        page.wait_for_function(f"location.search.includes('{part}')")
    context = context_of(browser, viewport={"width": 1280, "height": 1000})
    other = context.new_page()
    asked: list[list] = []  # for a chart: an answer to values on the way could come after the last
    other.on("request", lambda request: asked.extend(data for data in [sent_by(request)] if "toys" in data))
    other.goto(page.url)
    expect(other.locator("#measured-chart")).to_contain_text("Seconds a picture")
    expect(other.locator("#cell-pictures img")).to_have_count(5)
    expect(other.locator("#share-notice")).to_be_hidden()
    for _ in range(60):  # what follows from the toggles may still come
        here, there = (one.locator("#measured-chart .dl-wide").evaluate(PARTS) for one in (page, other))
        if here == there:
            break
        other.wait_for_timeout(250)
    assert here == there and len(here) > 50
    final = ["toys", "picture", "seconds", "ddpm", "3", [1, 2]]  # and steps, which are not seen
    assert asked and all(data[:-1] == final for data in asked), asked
    for part in ("#chart-seen", "#chart-notes", "#chart-toggles"):
        # In time: while the server is asked, Gradio's hidden clock is part of the text.
        expect(other.locator(part)).to_have_text(page.locator(part).inner_text(), use_inner_text=True)
    ticked = "all => all.map((box) => [box.name, box.value, box.checked])"
    boxes = [one.locator("#chart-toggles input[type=checkbox]") for one in (other, page)]
    assert boxes[0].evaluate_all(ticked) == boxes[1].evaluate_all(ticked)
    for part in ("h3", "img", "figcaption"):
        here, there = (one.locator(f"#cell-pictures {part}") for one in (page, other))
        assert there.evaluate_all("all => all.map((one) => one.outerHTML)") == here.evaluate_all(
            "all => all.map((one) => one.outerHTML)"
        )
    assert other.url == page.url
    other.locator("#measured-chart .dl-key", has_text="middle").click()
    expect(other.locator("#measured-chart .dl-point:visible")).to_have_count(6 * len(STEPS))
    other.wait_for_function("!location.search.includes('chart-hidden')")
    for one in (page, other):
        one.get_by_role("tab", name="Explore").click()
    assert explore(other) == explore(page)
    context.close()


def test_a_link_with_nonsense_opens_and_says_what_was_changed(browser: Browser, address: str) -> None:
    context = context_of(browser)
    page = context.new_page()
    page.goto(f"{address}/?tab=tradeoff&chart-steps=8&chart-pick=big,7&chart-hidden=c9&chart-family=wrong")
    expect(page.locator("#measured-chart")).to_contain_text("python -m train.sweep")
    notice = page.locator("#share-notice")
    for part in ("chart-pick is", "chart-hidden is", "chart-steps does not fit the rest"):
        expect(notice).to_contain_text(part)
    page.goto(f"{address}/?tab=tradeoff&chart-family=wrong")
    expect(page.locator("#measured-chart")).to_contain_text("python -m train.sweep")
    page.wait_for_timeout(1500)  # for what else the page does as it opens
    assert "tab=tradeoff" in page.url
    page.reload()
    expect(page.locator("#measured-chart")).to_contain_text("python -m train.sweep")
    expect(notice).to_be_hidden()
    context.close()


def test_what_is_hidden_is_so_in_its_own_family_and_something_is_always_drawn(page: Page) -> None:
    open_chart(page)
    shown = page.locator("#measured-chart .dl-point:visible")
    page.locator("#measured-chart .dl-key", has_text="middle").click()
    expect(shown).to_have_count(2 * len(STEPS))
    refused = []
    page.on("response", lambda answer: refused.append(answer.url) if answer.status >= 400 else None)
    toggle(page, "family", "wrong")
    expect(page.locator("#measured-chart")).to_contain_text("python -m train.sweep")
    page.wait_for_timeout(1000)
    assert not refused  # the values of the family before, say
    toggle(page, "family", "toys")
    expect(shown).to_have_count(3 * len(STEPS))
    ticked = page.locator("#chart-caches input:checked")
    expect(ticked).to_have_count(1)
    ticked.click()
    expect(page.locator("#chart-caches").get_by_label("none")).to_be_checked()
    expect(shown).to_have_count(3 * len(STEPS))


def test_a_family_without_a_table_and_models_with_other_weights_are_told(page: Page) -> None:
    open_chart(page)
    expect(page.locator("#chart-seen")).to_contain_text("Other weights of small were measured")
    toggle(page, "family", "solids")
    expect(page.locator("#measured-chart")).to_contain_text("no table for solids")
    expect(page.locator("#chart-sampler")).to_be_hidden()


def test_a_model_that_is_not_on_the_page_leaves_explore_as_it_was(page: Page) -> None:
    before = explore(page)
    open_chart(page)
    page.mouse.click(*aim(page, point(page, "middle, 4 steps")))
    expect(page.locator("#cell-pictures")).to_contain_text("middle is not among")
    expect(page.locator("#cell-pictures img")).to_have_count(5)
    expect(page.locator("#open-explore")).to_be_hidden()
    page.get_by_role("tab", name="Explore").click()
    assert explore(page) == before


def test_toggles_change_the_chart_and_what_is_hidden_stays_so(page: Page) -> None:
    open_chart(page)
    shown = page.locator("#measured-chart .dl-point:visible")
    expect(shown).to_have_count(3 * len(STEPS))
    page.locator("#measured-chart .dl-key", has_text="middle").click()
    expect(shown).to_have_count(2 * len(STEPS))
    toggle(page, "cost", "seconds")
    expect(page.locator("#measured-chart")).to_contain_text("Seconds a picture")
    expect(page.locator("#measured-chart .dl-key", has_text="middle")).to_have_attribute(
        "aria-pressed", "false"
    )
    expect(shown).to_have_count(2 * len(STEPS))
    page.locator("#chart-caches").get_by_label("every 2 steps").check()
    expect(shown).to_have_count(4 * len(STEPS))
    page.locator("#measured-chart .dl-key", has_text="caching every 2 steps").click()
    expect(shown).to_have_count(2 * len(STEPS))
    expect(page.locator("#chart-seen")).to_contain_text("Attention and MLPs computed every 2 steps")


def test_the_view_of_models_has_a_line_and_the_papers_number(page: Page) -> None:
    open_chart(page)
    expect(page.locator("#chart-steps")).to_be_hidden()
    toggle(page, "view", "a model")
    chart = page.locator("#measured-chart")
    expect(chart).to_contain_text("GMACs of a forward pass")
    expect(chart.locator(".dl-point:visible")).to_have_count(3)
    expect(chart.locator(".dl-wide polyline.dl-dashed")).to_be_visible()
    expect(page.locator("#chart-seen")).to_contain_text("At 250 steps")
    expect(page.locator("#chart-seen")).to_contain_text("−0.93")
    expect(page.locator("#chart-cost")).to_be_hidden()
    toggle(page, "steps", "8")
    expect(page.locator("#chart-seen")).to_contain_text("At 8 steps")
    page.mouse.click(*aim(page, point(page, "small, 8 steps")))
    expect(page.locator("#cell-pictures")).to_contain_text("small, 8 steps")


def test_a_table_that_is_none_says_so_and_the_next_one_is_drawn(page: Page) -> None:
    open_chart(page)
    toggle(page, "family", "wrong")
    chart = page.locator("#measured-chart")
    expect(chart).to_contain_text("python -m train.sweep")
    expect(chart.locator("svg")).to_have_count(0)
    expect(page.locator("#chart-sampler")).to_be_hidden()
    toggle(page, "family", "toys")
    expect(chart.locator(".dl-point:visible")).to_have_count(3 * len(STEPS))
    expect(page.locator("#chart-sampler")).to_be_visible()
    page.mouse.move(*aim(page, point(page, "big, 8 steps")))  # it has come back to life
    expect(chart.locator(".dl-tip")).to_be_visible()


def test_the_keyboard_walks_along_a_model_and_to_the_next(page: Page) -> None:
    open_chart(page)
    tip = page.locator("#measured-chart .dl-tip b")
    page.locator("#measured-chart .dl-key").last.focus()
    page.keyboard.press("Tab")
    expect(tip).to_have_text("small, 1 step")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(tip).to_have_text("small, 4 steps")
    for _ in range(9):
        page.keyboard.press("ArrowLeft")  # it stops at the end of the line
    expect(tip).to_have_text("small, 1 step")
    focused = page.locator("#measured-chart .dl-point:focus")
    for key, side, way in (("ArrowDown", "y", 1), ("ArrowUp", "y", -1)):
        places = [focused.bounding_box()[side]]
        models = [focused.get_attribute("data-series")]
        for _ in range(30):
            page.keyboard.press(key)
            places.append(focused.bounding_box()[side])
            models.append(focused.get_attribute("data-series"))
        moves = [way * (b - a) for a, b in zip(places, places[1:], strict=False)]
        count = sum(move > 0 for move in moves)
        assert 0 < count < 30 and not any(moves[count:]), moves  # that way alone, and never round
        assert all(a != b for a, b in zip(models[:count], models[1 : count + 1], strict=True))
    page.keyboard.press("Enter")
    expect(page.locator("#measured-chart .dl-point[aria-pressed=true]")).to_have_count(1)
    expect(page.locator("#cell-pictures")).to_contain_text(tip.inner_text())
    page.keyboard.press("Escape")
    expect(page.locator("#measured-chart .dl-tip")).to_be_hidden()


@pytest.mark.parametrize("dark", [False, True])
def test_the_chart_fits_a_phone_and_answers_a_finger(open_phone: Callable[..., Page], dark: bool) -> None:
    phone = open_phone(dark)
    open_chart(phone)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    drawn = phone.locator("#measured-chart .dl-narrow").bounding_box()
    assert drawn["x"] >= 0 and drawn["width"] >= 350 and drawn["x"] + drawn["width"] <= 390
    phone.touchscreen.tap(*aim(phone, point(phone, "big, 1 step")))
    tip = phone.locator("#measured-chart .dl-tip")
    expect(tip).to_be_visible()
    frame = tip.bounding_box()
    assert frame["x"] >= 0 and frame["x"] + frame["width"] <= 390
    expect(phone.locator("#cell-pictures img")).to_have_count(5)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    ink = phone.locator("#measured-chart .dl-narrow .dl-axes text").first.evaluate(
        "text => getComputedStyle(text).fill"
    )
    numbers = [float(value) for value in re.findall(r"[\d.]+", ink)][:3]
    bright = sum(numbers) / 3 / (1 if "color(" in ink else 255)
    assert (bright > 0.5) == dark
