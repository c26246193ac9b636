"""The Train tab in a real browser, with the real trainer behind it."""

import io
import os
import re
import signal
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, Request, Route, expect

from benchmarks.browser import Served, serve, set_slider
from tests.browser.visiting import EAGER, LONG, begin, fill, sent_by, steps_done
from tests.run_folders import write_run
from tests.train.picture_files import picture, png
from tests.ui.test_run_html import made
from train.solids import CLASSES
from ui.runs import Runs
from ui.runs_view import EVERY


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where runs are kept; none trains on when the module is done."""
    made = tmp_path_factory.mktemp("runs")
    yield made
    runs = Runs(made)
    for run in runs.found():
        if process := runs.process_of(run.folder):
            os.kill(process, signal.SIGKILL)


@pytest.fixture(scope="module")
def served(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The app, with a folder of runs of its own."""
    with serve(["--runs", str(folder)], tmp_path_factory.mktemp("app") / "log", EAGER) as app:
        yield app


@pytest.fixture(scope="module")
def address(served: Served) -> str:
    """Of its page."""
    return served.address


def test_a_run_is_started_seen_reloaded_paused_resumed_and_stopped(page: Page) -> None:
    begin(page, "first", 1_000_000)
    expect(page.locator("#run-page")).to_contain_text("training", timeout=LONG)
    chart = page.locator("#run-curves figure", has_text="Loss").locator("polyline").last
    expect(chart).to_be_attached(timeout=LONG)
    before = chart.get_attribute("points")
    page.wait_for_function(
        "before => [...document.querySelectorAll('#run-curves figure:first-child polyline')].at(-1)"
        ".getAttribute('points') !== before", arg=before, timeout=LONG,
    )  # fmt: skip
    page.reload()
    expect(page.locator("#run-page")).to_contain_text("first: training")
    expect(page.locator("#run-resume")).to_be_disabled()
    expect(page.locator("#run-delete")).to_be_disabled()
    page.click("#run-pause")
    expect(page.locator("#run-page")).to_contain_text("paused")
    done = steps_done(page)
    expect(page.locator("#run-pause")).to_be_disabled()
    page.click("#run-resume")
    page.wait_for_function(
        "done => parseInt(document.querySelector('#run-page .dl-price').innerText.replace(/,/g, '')) > done",
        arg=done, timeout=LONG,
    )  # fmt: skip
    page.click("#run-stop")
    expect(page.locator("#run-page")).to_contain_text("stopped before its end")
    assert steps_done(page) > done
    with page.expect_download() as download:
        page.click("#run-weights")
    assert download.value.suggested_filename == "weights.safetensors"


def test_a_run_is_looked_at_while_its_tab_is_open_alone(page: Page, folder: Path) -> None:
    write_run(folder, "watched")
    looks: list[Request] = []
    page.on("request", lambda request: looks.append(request) if "watched" in sent_by(request) else None)

    def looks_on() -> None:  # twice: the tab itself looks once, when it is opened
        for _ in range(2):
            with page.expect_request(lambda request: "watched" in sent_by(request)):
                pass

    for _ in range(2):
        page.get_by_role("tab", name="Train").click()
        expect(page.locator("#run-page")).to_contain_text("watched")
        looks_on()
        page.get_by_role("tab", name="Models").click()
        page.wait_for_timeout(1000 * EVERY)  # one may be on its way
        looks.clear()
        page.wait_for_timeout(2000 * EVERY)
        assert not looks
    page.get_by_role("tab", name="Train").click()
    held: list[Route] = []  # what Models asks when it is opened: of the Hub, which may take its time

    def hold(route: Route) -> None:
        held.append(route) if '"data":[]' in (route.request.post_data or "") else route.continue_()

    page.route("**/run/predict**", hold)
    page.get_by_role("tab", name="Models").click()
    for _ in range(200):
        if held:
            break
        page.wait_for_timeout(100)
    assert held
    page.get_by_role("tab", name="Train").click()
    looks_on()
    for route in held:
        route.continue_()
    looks_on()


def test_samples_form_over_time_and_runs_are_compared(page: Page, folder: Path) -> None:
    begin(page, "second", 60)
    expect(page.locator("#run-page")).to_contain_text("second: finished", timeout=LONG)
    newest = page.locator("#run-samples figcaption")
    expect(newest).to_contain_text("after step 60;")
    page.locator("#run-time input[type=number]").fill("1")
    page.keyboard.press("Enter")
    expect(newest).to_contain_text("after step 3;")
    assert [run.name for run in Runs(folder).found()][0] == "second"
    page.click("#run-draw")
    expect(page.locator(".dl-ladder .dl-chosen")).to_have_text("second")
    set_slider(page, "steps", 3)
    page.click("#generate")
    expect(page.locator("#status")).to_contain_text("Step 3 of 3")
    page.get_by_role("tab", name="Train").click()
    page.locator("#run-others input").click()
    page.get_by_role("option", name="first").click()
    keys = page.locator("#run-curves figure", has_text="Loss").locator(".keys").first
    expect(keys).to_contain_text("second: loss")
    expect(keys).to_contain_text("first: loss")


def test_a_run_is_drawn_with_in_explore_and_in_the_grid(page: Page, address: str, folder: Path) -> None:
    write_run(folder, "drawn", told={"classes": CLASSES}, num_classes=len(CLASSES))
    page.get_by_role("tab", name="Train").click()
    expect(page.locator("#run-page")).to_contain_text("drawn: ")
    page.click("#run-draw")
    chip = page.locator(".dl-ladder .dl-chosen")
    expect(chip).to_have_text("drawn")
    set_slider(page, "steps", 3)
    page.click("#generate")
    expect(page.locator("#status")).to_contain_text("Step 3 of 3")
    page.wait_for_function("location.search.includes('model=drawn')")
    page.goto(f"{address}/?model=drawn&steps=2")  # of a page that was opened before the run there is more
    expect(chip).to_have_text("drawn")
    expect(page.locator("#share-notice")).to_be_hidden()
    page.get_by_role("tab", name="Trade-off").click()
    page.get_by_role("tab", name="Grid").click()
    page.locator("#grid-down-values textarea").fill("drawn, DiT-E-4-solids")
    page.locator("#grid-across-values textarea").fill("1, 2")
    page.click("#grid-fill")
    expect(page.locator("#grid-canvas img")).to_have_count(4)


def test_the_form_and_the_runs_are_in_the_address_and_come_back(
    page: Page, address: str, folder: Path
) -> None:
    for age, name in enumerate(("newest", "beside", "shown")):
        made(folder / name)
        for path in (folder / name).iterdir():
            os.utime(path, (time.time() - age, time.time() - age))
    fill(page, "", 20)
    page.get_by_label("a dataset on the Hub").check()
    page.locator("#train-hub :is(input, textarea)").fill("uoft-cs/cifar10")
    page.get_by_role("button", name="More").click()
    page.get_by_label("Mirror half of the pictures").uncheck()
    page.locator("#run-choice input").click()
    page.get_by_role("option", name="shown", exact=True).click()
    expect(page.locator("#run-page")).to_contain_text("shown: interrupted")
    page.locator("#run-others input").click()
    beside = page.get_by_role("option", name="beside", exact=True)
    expect(beside).to_have_count(1)  # the other list has closed
    beside.click()
    for part in ("tab=train", "train-source=hub", "train-hub=uoft-cs", "train-side=16", "train-images=160",
                 "train-mirror=0", "run=shown", "run-others=beside"):  # fmt: skip
        page.wait_for_function(f"location.search.includes('{part}')")
    assert "train-lr" not in page.url and "train-name" not in page.url
    page.reload()
    keys = page.locator("#run-curves figure", has_text="Loss").locator(".keys").first
    expect(keys).to_contain_text("beside: loss")
    expect(page.locator("#run-page")).to_contain_text("shown: interrupted")
    expect(page.locator("#train-hub :is(input, textarea)")).to_have_value("uoft-cs/cifar10")
    expect(page.locator("#train-hub")).to_be_visible()
    expect(page.locator("#train-batch input")).to_have_value("8")
    expect(page.locator("#share-notice")).to_be_hidden()
    page.goto(f"{address}/?tab=train&run=gone&train-batch=9999999&train-source=folder")
    notice = page.locator("#share-notice")
    expect(notice).to_contain_text("there is no run of this name here; the latest one is shown")
    expect(notice).to_contain_text("train-batch is '9999999', beyond its limit; 1024 is taken")
    expect(page.locator("#run-page")).to_contain_text("newest: interrupted")
    page.locator("#train-folder :is(input, textarea)").fill("/home/me/private")
    page.locator("#train-images input").fill("2048")
    page.wait_for_function("location.search.includes('train-images=2048')")
    assert "private" not in page.url and "run=newest" in page.url


def test_a_run_is_deleted_after_it_was_asked_and_a_new_one_takes_its_place(page: Page, folder: Path) -> None:
    write_run(folder, "doomed", seed=1)
    made(folder / "doomed")
    page.get_by_role("tab", name="Train").click()
    expect(page.locator("#run-page")).to_contain_text("doomed")
    page.click("#run-draw")
    expect(page.locator(".dl-ladder .dl-chosen")).to_have_text("doomed")
    place = page.locator("#model input[type=number]").input_value()
    set_slider(page, "steps", 2)
    page.click("#generate")
    expect(page.locator("#status")).to_contain_text("Step 2 of 2")
    page.get_by_role("tab", name="Train").click()
    page.click("#run-delete")
    asked, step = page.locator("#run-delete-asked"), page.locator("#run-delete-step")
    expect(asked).to_contain_text("Delete doomed and its")
    page.wait_for_timeout(4000)  # while the run is looked at again and again
    expect(step).to_be_visible()
    page.click("#run-delete-cancel")
    expect(step).to_be_hidden()
    assert (folder / "doomed" / "weights.safetensors").exists()
    page.click("#run-delete")
    page.click("#run-delete-sure")
    expect(page.locator(".toast-body")).to_contain_text("doomed is deleted")
    expect(page.locator("#run-page")).not_to_contain_text("doomed")
    expect(step).to_be_hidden()
    assert not (folder / "doomed").exists()
    page.get_by_role("tab", name="Explore").click()
    expect(page.locator("#ladder")).to_contain_text("doomed was deleted")
    page.click("#generate")
    expect(page.locator(".toast-body").last).to_contain_text("doomed was deleted")
    write_run(folder, "doomed", seed=2)
    page.get_by_role("tab", name="Train").click()
    page.locator("#run-choice input").click()
    page.get_by_role("option", name="doomed", exact=True).click()
    expect(page.locator("#run-page")).to_contain_text("doomed")
    page.click("#run-draw")
    expect(page.locator(".dl-ladder .dl-chosen")).to_have_text("doomed")
    expect(page.locator("#ladder")).not_to_contain_text("was deleted")
    assert page.locator("#model input[type=number]").input_value() == place
    page.click("#generate")
    expect(page.locator("#status")).to_contain_text("Step 2 of 2")


def test_what_cannot_leave_the_page_is_said_and_the_token_goes(page: Page, folder: Path) -> None:
    write_run(folder, "staying")
    page.get_by_role("tab", name="Train").click()
    expect(page.locator("#run-page")).to_contain_text("staying: ")
    page.get_by_role("button", name="Take it elsewhere").click()
    said = page.locator("#push-said")
    page.click("#run-export")
    expect(said).to_contain_text("latents")  # which this model does not draw
    page.locator("#push-token input").fill("hf_secret")
    page.click("#run-push")
    expect(said).to_contain_text("the repository has no name")
    expect(page.locator("#push-token input")).to_have_value("")


def test_an_uploaded_zip_is_looked_at_before_it_is_trained_on(page: Page, tmp_path: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        for label in "ab":
            for i in range(3):
                opened.writestr(f"set/{label}/{i}.png", png(picture(i)))
        opened.writestr("set/a/broken.png", b"none")
        opened.writestr("set/notes.txt", b"hello")
    fill(page, "")
    page.get_by_label("a .zip").check()
    page.locator("#train-upload input[type=file]").set_input_files(
        {"name": "set.zip", "mimeType": "application/zip", "buffer": archive.getvalue()}
    )
    expect(page.locator("#train-upload .file-preview")).to_contain_text("set")  # it has come
    page.click("#train-check")
    found = page.locator("#train-found")
    expect(found).to_contain_text("7 pictures; 2 classes", timeout=LONG)
    expect(found).to_contain_text("a/broken.png: it is no picture that Pillow knows")
    expect(found).to_contain_text("set/notes.txt")
    expect(found).to_contain_text("python -m train solids --data")
    expect(found.locator("img")).to_have_count(1)
    name = page.locator("#train-name :is(input, textarea)")
    expect(name).to_have_attribute("placeholder", re.compile("DiT-E-4-set$"))
    expect(name).to_have_value("")
    page.locator("#train-images input").fill("4800")
    expect(found).to_contain_text("Check first")  # nothing of what was found is of this


def test_what_cannot_be_trained_is_said(page: Page) -> None:
    fill(page, "bad name!")
    page.click("#train-start")
    expect(page.locator(".toast-body")).to_contain_text("use letters, digits")
    page.get_by_label("a folder here").check()
    page.click("#train-check")
    expect(page.locator("#train-found")).to_contain_text(
        "nothing is named yet; give a folder's path", timeout=LONG
    )
    page.locator("#train-folder :is(input, textarea)").fill("/nowhere/at/all")
    page.click("#train-check")
    expect(page.locator("#train-found")).to_contain_text("there is no such folder", timeout=LONG)


@pytest.mark.parametrize("dark", [False, True])
def test_the_tab_fits_a_phone(open_phone: Callable[..., Page], dark: bool, folder: Path) -> None:
    made(folder / f"phone-{dark}")
    phone = open_phone(dark, "?tab=train")
    expect(phone.locator("#run-page")).to_contain_text(f"phone-{dark}: interrupted")
    expect(phone.locator("#run-curves figure")).to_have_count(4)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
