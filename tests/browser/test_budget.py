"""Equal budget as a visitor uses it: what stands on the page belongs together, whatever comes between."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Request, expect

from tests.browser.visiting import PATIENCE, context_of, sent_by
from ui import page as whole_page
from ui.limits import Limits
from ui.opening import open_studio
from ui.studio import Studio
from ui.tickets import Ticket
from ui.turns import Turns

pytestmark = pytest.mark.browser
DEAR = "40"  # place of 100 GMACs, counted from 1 GMAC: the slider's end
FIRST = {"solids": -47, "unknown data": -36}  # the slider's 0, counted so: one step of the cheapest model


def open_budget(page: Page, family: str | None = None, place: str | None = None) -> None:
    """The Trade-off tab's equal budget, of a family, at a place of the slider."""
    page.get_by_role("tab", name="Trade-off").click()
    page.get_by_role("tab", name="Equal budget").click()
    expect(page.locator("#budget-reading")).to_contain_text("GMACs a picture")
    if family:
        choose(page, family)
    if place:
        move(page, place, family or "solids")
    if place == DEAR:
        page.locator("#budget-pictures input[type=range]").fill("4")
        page.wait_for_url(re.compile("budget-pictures=4"))


def choose(page: Page, family: str) -> None:
    """A family, and wait until the slider stands where it has it."""
    slider = page.locator("#budget-at input[type=range]")
    before = slider.input_value()
    page.locator("#budget-family input").click()
    with answered(page, family, 2):  # a list tells twice of a choice
        page.get_by_role("option", name=family, exact=True).click()
    expect(slider).not_to_have_value(before)


@contextmanager
def answered(page: Page, chosen: str, times: int = 1) -> Iterator[None]:
    """Wait until what follows from a list has been answered so often, since the block began."""
    came: list[Request] = []

    def note(asked: Request) -> None:
        came.append(asked)

    page.on("requestfinished", note)
    yield
    for _ in range(PATIENCE // 50):
        if sum(sent_by(asked)[1:2] == [chosen] for asked in came) >= times:
            break
        page.wait_for_timeout(50)
    else:
        raise AssertionError(f"nothing was told of {chosen}")
    page.remove_listener("requestfinished", note)
    page.wait_for_timeout(200)  # the answer is applied


def move(page: Page, place: str, family: str = "solids") -> None:
    """The slider, and wait until the page says so. place: 20 to a factor of 10, from 1 GMAC on."""
    page.locator("#budget-at input[type=range]").fill(str(int(place) - FIRST[family]))
    said = f"{10 ** (int(place) / 20):.3g}".removesuffix(".0")
    expect(page.locator("#budget-reading")).to_contain_text(said)


def draw(page: Page) -> None:
    """To the end."""
    page.click("#budget-draw")
    expect(page.locator("#budget-finding")).to_contain_text("GMACs a picture", timeout=120_000)
    expect(page.locator("#budget-draw")).to_be_enabled()


def begin(page: Page) -> None:
    """To draw something that takes long, until a picture forms."""
    page.click("#budget-draw")
    expect(page.locator("#budget-canvas .dl-now img")).to_be_visible()


def test_a_look_at_a_list_changes_nothing(page: Page) -> None:
    """Gradio tells of each time that a list is left."""
    open_budget(page, place="10")
    slider, family = page.locator("#budget-at input[type=range]"), page.locator("#budget-family input")
    before = slider.input_value()
    family.click()
    expect(page.get_by_role("option", name="solids", exact=True)).to_be_visible()
    with answered(page, "solids"):
        family.press("Tab")
    assert slider.input_value() == before
    page.get_by_role("tab", name="Grid").click()
    values = page.locator("#grid-across-values").locator("textarea, input")
    across = page.locator("#grid-across input")
    values.fill("3, 5")
    across.click()
    with answered(page, "steps"):
        page.get_by_role("option", name="steps", exact=True).click()
    expect(values).to_have_value("3, 5")
    across.click()
    page.get_by_role("option", name="guidance", exact=True).click()
    expect(values).to_have_value("1, 1.5, 2, 4")
    page.wait_for_url(re.compile(r"grid-across=guidance.*grid-across-values=1,\+1\.5"))
    page.reload()
    expect(values).to_have_value("1, 1.5, 2, 4")
    values.fill("7")
    across.click()
    with answered(page, "guidance"):  # what the address has chosen is known, too
        across.press("Tab")
    expect(values).to_have_value("7")


def test_the_slider_deals_out_steps_and_every_model_draws(page: Page) -> None:
    open_budget(page)
    slider, reading = page.locator("#budget-at input[type=range]"), page.locator("#budget-reading")
    slider.focus()
    slider.fill("35")  # 0.25 GMACs: enough for the smallest alone
    expect(reading).to_contain_text("0.251 GMACs a picture")
    expect(slider).to_have_attribute("aria-valuetext", "0.251 GMACs a picture")
    expect(page.locator("#budget-canvas")).to_contain_text("cannot afford one step")
    page.keyboard.press("ArrowRight")
    expect(reading).to_contain_text("0.282 GMACs")
    expect(slider).to_have_attribute("aria-valuetext", "0.282 GMACs a picture")
    slider.fill("47")
    expect(reading).to_contain_text("1.00 GMACs a picture")
    expect(page.locator("#budget-canvas")).not_to_contain_text("cannot afford")
    expect(page.locator("#budget-canvas")).to_contain_text("trained on 832,000 pictures")
    draw(page)
    expect(page.locator("#budget-finding")).to_contain_text("At 1.00 GMACs a picture")
    cards = page.locator("#budget-canvas li")
    assert cards.count() == page.locator("#budget-canvas img").count() >= 2
    for i in range(cards.count()):
        assert float(re.search(r"([\d.]+) GMACs", cards.nth(i).inner_text())[1]) <= 1.0
    assert "step" in cards.first.inner_text() and "looks like" in cards.first.inner_text()


def test_measured_models_are_compared_and_other_tabs_leave_them(page: Page) -> None:
    open_budget(page, "unknown data", "-7")
    expect(page.locator("#budget-canvas li")).to_have_count(2)  # those of the table, trained alike
    draw(page)
    told = page.locator("#budget-finding")
    expect(told).to_contain_text(
        re.compile(
            r"At 0.447 GMACs a picture the (larger|smaller) model (big|small) "
            r"\(measured at \d+ steps, [\d.]+ GMACs\)"
        )
    )
    expect(told).to_contain_text("measured on 5,000 pictures, against 5,000 real ones of toys")
    said, pictures = told.inner_text(), page.locator("#budget-canvas img")
    before = [pictures.nth(i).get_attribute("src") for i in range(2)]

    page.get_by_role("tab", name="Models").click()
    with page.expect_response(re.compile("gradio_api")):
        page.click("#unload")
    expect(page.locator("#progress")).to_contain_text("All memory is free")
    page.get_by_role("tab", name="Trade-off").click()
    page.wait_for_timeout(1000)  # for what follows these, and must not be seen
    assert [pictures.nth(i).get_attribute("src") for i in range(pictures.count())] == before
    expect(told).to_have_text(said, use_inner_text=True)

    move(page, "-6", "unknown data")  # another budget: its plan, and nothing of the old one
    expect(pictures).to_have_count(0)
    expect(told).to_have_text("")
    move(page, "-7", "unknown data")
    expect(pictures).to_have_count(2)
    expect(told).to_have_text(said, use_inner_text=True)


def test_a_change_while_pictures_form_stops_them(page: Page) -> None:
    open_budget(page, place=DEAR)
    begin(page)
    move(page, "0")
    expect(page.locator("#budget-draw")).to_be_enabled()
    expect(page.locator("#budget-stop")).to_be_disabled()
    page.wait_for_timeout(500)
    expect(page.locator("#budget-reading")).to_contain_text("1.00 GMACs")
    expect(page.locator("#budget-canvas img")).to_have_count(0)
    costs = page.locator("#budget-canvas figcaption").all_inner_texts()
    assert costs and all(float(re.search(r"([\d.]+) GMACs", text)[1]) <= 1.0 for text in costs)
    expect(page.locator("#budget-finding")).to_have_text("")
    expect(page.locator("#budget-status")).to_contain_text("Every model gets the steps")


def test_stop_keeps_what_was_drawn(page: Page) -> None:
    open_budget(page, place=DEAR)
    begin(page)
    expect(page.locator("#budget-status")).to_contain_text(re.compile(r"[1-9]\d* of \d+ models"))
    page.click("#budget-stop")
    expect(page.locator("#budget-status")).to_contain_text("Stopped")
    expect(page.locator("#budget-draw")).to_be_enabled()
    count = int(re.search(r"(\d+) of", page.inner_text("#budget-status"))[1])
    expect(page.locator("#budget-canvas img")).to_have_count(count)
    expect(page.locator("#budget-finding")).to_contain_text("At 100 GMACs a picture")


def test_the_grids_stop_leaves_the_budget_alone(page: Page) -> None:
    open_budget(page, place=DEAR)
    begin(page)
    page.get_by_role("tab", name="Grid").click()
    page.locator("#grid-across-values").locator("textarea, input").fill("100, 150, 200, 250")
    page.wait_for_url(re.compile("grid-across-values=100"))
    page.click("#grid-fill")
    expect(page.locator("#grid-stop")).to_be_enabled()  # both are drawn, a step of each in turn
    page.click("#grid-stop")
    expect(page.locator("#grid-status")).to_contain_text("Stopped")
    page.get_by_role("tab", name="Equal budget").click()
    expect(page.locator("#budget-canvas .dl-now img")).to_be_visible()
    expect(page.locator("#budget-stop")).to_be_enabled()
    page.click("#budget-stop")
    expect(page.locator("#budget-status")).to_contain_text("Stopped")


@dataclass(frozen=True)
class Own:
    """A page in this process, whose studio a test may break."""

    studio: Studio
    turns: Turns
    page: Page


@pytest.fixture
def own(browser: Browser, ladder_files: list[Path]) -> Iterator[Own]:
    """Over the bundled models and the random ones; opened at the Trade-off tab."""
    studio = open_studio(ladder_files)
    built = whole_page.build(studio)
    _, address, _ = built.demo.launch(
        prevent_thread_lock=True, quiet=True, **whole_page.serving(Limits(training=False))
    )
    context = context_of(browser, viewport={"width": 1280, "height": 1000})
    opened = context.new_page()
    opened.goto(f"{address}?tab=tradeoff")
    yield Own(studio, built.turns, opened)
    context.close()
    built.demo.close()


@pytest.mark.parametrize(
    ("tab", "name", "start"), [("Grid", "grid", "fill"), ("Equal budget", "budget", "draw")]
)
def test_what_fails_is_told_and_can_be_tried_again(
    own: Own, tab: str, name: str, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = own.page
    page.get_by_role("tab", name=tab).click()
    button, status, pictures = (page.locator(f"#{name}-{part}") for part in (start, "status", "canvas img"))
    if name == "grid":
        page.locator("#grid-across-values").locator("textarea, input").fill("1")
    else:
        page.locator("#budget-at input[type=range]").fill("47")
        expect(page.locator("#budget-reading")).to_contain_text("1.00 GMACs")
    with monkeypatch.context() as patch:
        patch.setattr(own.studio, "limits", Limits(waiting=1))
        patch.setattr(own.turns, "line", [Ticket("another", 1.0)])
        button.click()
        expect(page.get_by_text("1 jobs are waiting, and the line takes no more than 1")).to_be_visible()
        expect(button).to_be_enabled()
        expect(status).to_contain_text(re.compile(r"Stopped\. 0 of \d+ (cells|models) drawn"))
        expect(page.locator(f"#{name}-stop")).to_be_disabled()
        expect(pictures).to_have_count(0)

    if name == "grid":
        last = page.locator("#grid-canvas tbody th").last.inner_text()
    else:  # who spends most of the budget
        cards = page.locator("#budget-canvas li").all_inner_texts()
        last = max(cards, key=lambda card: float(re.search(r"([\d.]+) GMACs", card)[1])).split()[0]
    [dearest] = [rung for rung in own.studio.rungs if rung.name == last]  # its file is gone when it is read
    own.studio.unload(dearest)
    source, dearest.source = dearest.source, Path("/nowhere/gone.safetensors")
    button.click()
    expect(page.get_by_text("gone.safetensors").first).to_be_visible()
    expect(button).to_be_enabled()
    expect(status).to_contain_text("Stopped")
    count = int(re.search(r"(\d+) of", status.inner_text())[1])
    assert count >= 1
    expect(pictures).to_have_count(count)
    dearest.source = source
    button.click()
    expect(pictures).to_have_count(count + 1)
    expect(status).not_to_contain_text("Stopped")
