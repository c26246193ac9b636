"""The Explore tab as a visitor uses it: every slider, generate, stop, scrub, download."""

import base64
import io
import re
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import APIResponse, Browser, Locator, Page, Route, expect

from benchmarks.browser import set_slider
from dit.pictures import read_settings
from tests.browser.visiting import PATIENCE, context_of, sent_by

pytestmark = pytest.mark.browser
STATUS = re.compile(r"Step (\d+) of (\d+) · noise level t = (\d+) · ([\d.,e+]+) GMACs · ([\d.]+) s")


def price(page: Page) -> dict[str, str]:
    """The cost panel: title -> value."""
    cells = page.locator("#price .dl-price > div")
    return {
        cells.nth(i).locator("span").inner_text(): cells.nth(i).locator("b").inner_text()
        for i in range(cells.count())
    }


def wait_for_price(page: Page, title: str, changed_from: str) -> str:
    """The panel's new value under a title, once it has changed."""
    cell = page.locator("#price .dl-price > div", has_text=title).locator("b")
    expect(cell).not_to_have_text(changed_from)
    return cell.inner_text()


def pixels(page: Page) -> list[np.ndarray]:
    """The pictures on the canvas, decoded."""
    sources = page.locator("#canvas img").evaluate_all("images => images.map(image => image.src)")
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))) for source in sources]


def generate(page: Page, steps: int) -> re.Match:
    """Press Generate and wait for the last step; returns the status line, matched."""
    page.locator("#status p").evaluate("line => line.textContent = ''")  # else the last job's end would pass
    page.click("#generate")
    expect(page.locator("#status")).to_contain_text(f"Step {steps} of {steps}", timeout=120_000)
    expect(page.locator("#generate")).to_be_enabled()
    return STATUS.search(page.inner_text("#status"))


def test_the_price_is_that_of_the_last_value_however_fast_it_comes(page: Page) -> None:
    steps = page.locator("#steps input[type=range]")
    for last in (61, 97):
        for count in range(last - 40, last + 1):
            steps.fill(str(count))
        expect(page.locator("#price")).to_contain_text(f"{last} steps, ")


def test_each_slider_moves_the_price(page: Page) -> None:
    first = page.locator("#ladder li").first.inner_text()
    set_slider(page, "model", 0)
    set_slider(page, "steps", 20)
    set_slider(page, "guidance", 1)
    expect(page.locator("#price")).to_contain_text(f"{first}: 20 steps, 1 pass a step")
    before = price(page)
    assert set(before) == {"parameters", "GMACs a pass", "GMACs a picture", "expected for 4"}

    set_slider(page, "steps", 40)
    doubled = wait_for_price(page, "GMACs a picture", before["GMACs a picture"])
    assert float(doubled) == pytest.approx(2 * float(before["GMACs a picture"]), rel=0.01)

    set_slider(page, "guidance", 3)
    guided = wait_for_price(page, "GMACs a picture", doubled)
    assert float(guided) == pytest.approx(4 * float(before["GMACs a picture"]), rel=0.01)
    expect(page.locator("#price")).to_contain_text("make 80 passes a picture")

    set_slider(page, "model", 1)
    wait_for_price(page, "parameters", before["parameters"])
    assert float(wait_for_price(page, "GMACs a pass", before["GMACs a pass"])) > float(before["GMACs a pass"])

    set_slider(page, "pictures", 9)
    expect(page.locator("#price")).to_contain_text("expected for 9")


def test_what_is_moved_while_it_is_asked_what_follows_from_a_model_stays(page: Page) -> None:
    held: list[tuple[Route, APIResponse]] = []

    def hold(route: Route) -> None:
        values = sent_by(route.request)
        follows = len(values) == 11 and values[:2] == [None, 0]  # what is wished, the model, and all others
        held.append((route, route.fetch())) if follows else route.continue_()

    guidance = page.locator("#guidance input[type=number]")
    assert guidance.input_value() != "5"
    page.route("**/run/predict**", hold)
    set_slider(page, "model", 0)
    for _ in range(PATIENCE // 50):
        if held:
            break
        page.wait_for_timeout(50)
    set_slider(page, "guidance", 5)
    with page.expect_event("requestfinished", lambda asked: asked == held[0][0].request):
        for route, answer in held:
            route.fulfill(response=answer)
    page.wait_for_timeout(200)  # the answer is applied
    expect(guidance).to_have_value("5")


def test_an_edm_model_brings_its_own_sampler(page: Page) -> None:
    """And the next model its own again."""
    names = page.locator("#ladder li").all_inner_texts()
    sampler = page.locator("#sampler input")
    expect(sampler).to_have_value("ddim")
    set_slider(page, "model", names.index("edm"))
    expect(sampler).to_have_value("heun")
    set_slider(page, "steps", 3)
    expect(page.locator("#price")).to_contain_text("3 steps of Heun's method, 5 looks")
    page.click("#generate")
    expect(page.locator("#status")).to_contain_text("Step 3 of 3 · noise level σ = 0.002", timeout=120_000)
    expect(page.locator("#canvas figcaption").first).to_contain_text("sphere")
    set_slider(page, "model", 0)
    expect(sampler).to_have_value("ddim")


def test_a_model_without_classes_is_not_guided_and_the_next_one_is_again(page: Page) -> None:
    names = page.locator("#ladder li").all_inner_texts()
    guidance = page.locator("#guidance input[type=number]")
    set_slider(page, "guidance", 3)
    set_slider(page, "model", names.index("free"))
    expect(guidance).to_have_value("1")
    expect(guidance).to_be_disabled()
    expect(page.locator("#price")).to_contain_text("free: ")
    expect(page.locator("#price")).to_contain_text("1 pass a step")
    set_slider(page, "model", names.index("edm"))
    expect(guidance).to_have_value("3")
    expect(guidance).to_be_enabled()


def test_many_models_in_a_row_end_with_the_last(page: Page) -> None:
    """Faster than the server answers, across models of both formulations."""
    names = page.locator("#ladder li").all_inner_texts()
    slider, edm = page.locator("#model input[type=range]"), names.index("edm")
    set_slider(page, "model", edm)
    expect(page.locator("#price")).to_contain_text("edm: ")
    slider.focus()
    for key in ("ArrowRight", "ArrowLeft", "ArrowLeft", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
        page.wait_for_timeout(40)
    expect(page.locator("#price")).to_contain_text(f"{names[edm + 1]}: ")
    expect(page.locator("#sampler input")).to_have_value("ddim")
    expect(page.locator("#ladder .dl-chosen")).to_have_text(names[edm + 1])
    assert not page.get_by_text("not in the list").count()  # what Gradio says of a value it has no choice for


def test_a_click_on_the_ladder_chooses_a_model(page: Page) -> None:
    """With all that follows from a model, as the slider does."""
    chips, slider = page.locator("#ladder li"), page.locator("#model input[type=number]")
    names = chips.all_inner_texts()
    edm = names.index("edm")
    chips.nth(edm).get_by_role("button").click()
    expect(slider).to_have_value(str(edm))
    expect(page.locator("#sampler input")).to_have_value("heun")
    expect(page.locator("#ladder .dl-chosen")).to_have_text("edm")
    expect(page.locator("#price")).to_contain_text("edm: ")
    chips.nth(0).get_by_role("button").focus()
    page.keyboard.press("Enter")
    expect(slider).to_have_value("0")
    expect(page.locator("#sampler input")).to_have_value("ddim")
    expect(page.locator('#ladder [aria-current="true"]')).to_have_text(names[0])


def leave(page: Page, box: Locator, text: str) -> None:
    """Type into a number box, and after a moment, in which 99 is refused, go elsewhere."""
    box.fill(text)
    page.wait_for_timeout(1500)
    box.blur()


def test_of_quick_clicks_the_last_one_counts(page: Page) -> None:
    names = page.locator("#ladder li").all_inner_texts()
    edm, free = names.index("edm"), names.index("free")
    for first, last, sampler in ((edm, free, "ddim"), (free, edm, "heun")):
        page.evaluate("at => document.querySelectorAll('#ladder button')[at].click()", first)
        page.evaluate("at => document.querySelectorAll('#ladder button')[at].click()", last)
        expect(page.locator("#model input[type=number]")).to_have_value(str(last))
        expect(page.locator("#price")).to_contain_text(f"{names[last]}: ")
        expect(page.locator("#sampler input")).to_have_value(sampler)
        expect(page.locator("#ladder .dl-chosen")).to_have_text(names[last])


def test_reset_and_numbers_out_of_range_choose_a_model_too(page: Page) -> None:
    """The slider changes otherwise than by moving it; what follows from the model follows."""
    names = page.locator("#ladder li").all_inner_texts()
    slider, sampler = page.locator("#model input[type=number]"), page.locator("#sampler input")
    first = slider.input_value()
    set_slider(page, "model", names.index("edm"))
    expect(sampler).to_have_value("heun")
    page.locator("#model button").click()  # reset
    expect(slider).to_have_value(first)
    expect(sampler).to_have_value("ddim")
    leave(page, slider, "99")
    expect(slider).to_have_value(str(len(names) - 1))  # DiT-XL/2 for 512 pixels
    expect(page.locator("#class-name input")).to_have_value("tench, Tinca tinca")


def test_a_class_out_of_range_becomes_the_last_and_is_named(page: Page) -> None:
    box = page.locator("#class input[type=number]")
    leave(page, box, "99")
    expect(box).to_have_value("9")
    expect(page.locator("#class-name input")).to_have_value("star")


def test_class_slider_and_list_go_together(page: Page) -> None:
    set_slider(page, "class", 3)
    chosen = page.locator("#class-name input")
    expect(chosen).to_have_value("cone")
    chosen.fill("tor")
    page.get_by_role("option", name="torus").click()
    expect(page.locator("#class input[type=number]")).to_have_value("4")
    set_slider(page, "steps", 2)
    generate(page, 2)
    expect(page.locator("#canvas figcaption").first).to_contain_text("torus · seed 0")


def test_pictures_form_are_shown_large_and_crisp_and_can_be_scrubbed(page: Page) -> None:
    set_slider(page, "model", 0)
    set_slider(page, "steps", 12)
    status = generate(page, 12)
    assert int(status[3]) == 0
    last = pixels(page)
    assert [picture.shape for picture in last] == [(32, 32, 3)] * 4
    shown = page.locator("#canvas img").first
    assert shown.evaluate("image => getComputedStyle(image).imageRendering") == "pixelated"
    assert shown.bounding_box()["width"] > 150
    assert shown.get_attribute("alt") == "sphere · seed 0"

    set_slider(page, "scrub", 3)
    expect(page.locator("#status")).to_contain_text("Step 3 of 12")
    third = pixels(page)
    assert not np.array_equal(third[0], last[0])
    before = shown.get_attribute("src")
    page.get_by_label("noisy sample").check()
    page.wait_for_function("before => document.querySelector('#canvas img').src !== before", arg=before)
    set_slider(page, "scrub", 12)
    expect(page.locator("#status")).to_contain_text("Step 12 of 12")
    assert STATUS.search(page.inner_text("#status"))[5] == status[5]  # nothing was computed again
    assert np.array_equal(pixels(page)[0], last[0])  # after the last step both views are the result


def test_the_same_settings_draw_the_same_picture_and_a_free_seed_another(page: Page) -> None:
    set_slider(page, "steps", 3)
    generate(page, 3)
    first = pixels(page)
    generate(page, 3)
    assert all(np.array_equal(a, b) for a, b in zip(first, pixels(page), strict=True))
    page.get_by_label("Keep this seed").uncheck()
    generate(page, 3)
    assert not np.array_equal(first[0], pixels(page)[0])
    assert page.locator("#seed input").input_value() != "0"


def test_a_download_holds_its_settings(page: Page) -> None:
    set_slider(page, "steps", 2)
    set_slider(page, "seed", 41)
    generate(page, 2)
    with page.expect_download() as download:
        page.locator("#canvas a").nth(1).click()
    image = Image.open(download.value.path())
    assert download.value.suggested_filename == "dit-lab-sphere-42-2.png"
    settings = read_settings(image)
    assert (settings["seed"], settings["steps"], settings["class"]) == (42, 2, "sphere")
    assert np.array_equal(np.asarray(image), pixels(page)[1])


def test_stop_keeps_what_there_is_and_the_page_stays_usable(page: Page) -> None:
    set_slider(page, "steps", 250)
    set_slider(page, "pictures", 16)
    page.click("#generate")
    # Two at least: there is nothing to scrub through in one.
    expect(page.locator("#status")).to_contain_text(re.compile(r"Step ([2-9]|\d\d+) of 250"))
    page.click("#stop")
    expect(page.locator("#status")).to_contain_text("Stopped")
    stopped = STATUS.search(page.inner_text("#status"))
    assert 2 <= int(stopped[1]) < 250
    page.wait_for_timeout(1000)
    assert STATUS.search(page.inner_text("#status"))[1] == stopped[1]  # nothing goes on behind
    set_slider(page, "scrub", 1)
    expect(page.locator("#status")).to_contain_text("Step 1 of 250")
    set_slider(page, "steps", 2)
    set_slider(page, "pictures", 1)
    generate(page, 2)


def test_a_second_visitor_does_not_wait_for_a_long_job(browser: Browser, page: Page, address: str) -> None:
    set_slider(page, "steps", 250)
    set_slider(page, "pictures", 16)
    page.click("#generate")
    page.wait_for_selector("#canvas img")
    context = context_of(browser)
    second = context.new_page()
    second.goto(address)
    second.wait_for_selector("#generate")
    set_slider(second, "steps", 2)
    second.click("#generate")
    expect(second.locator("#status")).to_contain_text("Step 2 of 2")
    expect(page.locator("#stop")).to_be_enabled()  # the first one's job goes on all the while
    second.click("#generate")
    page.click("#stop")  # one's own: the second's goes on
    expect(page.locator("#status")).to_contain_text("Stopped")
    expect(second.locator("#status")).to_contain_text("Step 2 of 2")
    context.close()


@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_cut_off_at_phone_width(open_phone: Callable[..., Page], dark: bool) -> None:
    phone = open_phone(dark)
    set_slider(phone, "steps", 2)
    generate(phone, 2)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    assert phone.locator("body").evaluate("body => document.body.classList.contains('dark')") == dark
