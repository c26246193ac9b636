"""The Models tab as a visitor uses it, against a Hub on the loopback: licence, download, cancel, draw."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser, Page, expect

import dit
from benchmarks.browser import serve, set_slider
from benchmarks.full_size import diffusers_state, random_model
from dit.export import scheduler_config, transformer_config
from dit.published import PUBLISHED
from dit.weights import bundled
from tests.browser.visiting import context_of
from tests.conftest import DATA
from tests.hub import LoopbackHub
from tests.hub import serve as serve_hub

pytestmark = pytest.mark.browser
NAME = "DiT-XL/2-256"


def published_layout(folder: Path, model: dit.DiT) -> Path:
    """A pipeline as the published ones are: .bin, and configs from before diffusers had a class for DiT."""
    config = transformer_config(model.config) | {"_class_name": "Transformer2DModel"}
    del config["norm_eps"]
    for part, name, values in (
        ("transformer", "config.json", config),
        ("scheduler", "scheduler_config.json", scheduler_config(model.config)),
    ):
        (folder / part).mkdir(parents=True)
        (folder / part / name).write_text(json.dumps(values))
    index = {"_class_name": "DiTPipeline", "vae": ["diffusers", "AutoencoderKL"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    torch.save(diffusers_state(model), folder / "transformer" / "diffusion_pytorch_model.bin")
    shutil.copytree(DATA / "diffusers_pipeline" / "vae", folder / "vae")
    return folder


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackHub]:
    """A Hub with a small model, 20 MB, under the published name."""
    folder = tmp_path_factory.mktemp("hub")
    pipeline = published_layout(folder / "pipeline", random_model("DiT-T/2", input_size=8))
    with serve_hub(folder / "store") as served:
        model = PUBLISHED[NAME]
        served.add(model.repo_id, pipeline, model.revision)
        yield served


@pytest.fixture
def page(
    browser: Browser, hub: LoopbackHub, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Page]:
    """The page of an app with an empty cache, whose Hub is the one on the loopback."""
    environment = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    with serve(["--runs", str(tmp_path / "runs")], tmp_path / "app.log", environment) as app:
        context = context_of(browser, viewport={"width": 1280, "height": 1000})
        opened = context.new_page()
        opened.goto(app.address)
        opened.wait_for_selector("#generate")
        yield opened
        context.close()


def open_models(page: Page) -> None:
    page.get_by_role("tab", name="Models").click()
    expect(page.locator("#models tbody tr")).to_have_count(len(bundled()) + len(PUBLISHED))


def test_download_cancel_go_on_and_draw(page: Page, hub: LoopbackHub) -> None:
    page.locator("#ladder").get_by_role("button", name=NAME).click()
    expect(page.locator("#ladder .dl-chosen")).to_have_class("dl-missing dl-chosen")
    expect(page.locator("#ladder")).to_contain_text(f"python -m dit.hub pull {NAME}")
    page.click("#generate")
    expect(page.get_by_test_id("toast-body")).to_contain_text("not on this machine yet")

    open_models(page)
    expect(page.locator("#terms")).to_contain_text("CC-BY-NC 4.0: not for commercial use")
    assert not any("resolve" in path for _, path in hub.requests)  # nothing comes before the licence is said
    hub.bytes_per_second = 500_000
    page.click("#download")
    # Of the weights, not only of the small files before them: there must be something to go on from.
    expect(page.locator("#progress")).to_contain_text(re.compile(r"[1-9][\d.]* MB of .*/s, about"))
    page.click("#cancel-download")
    expect(page.locator("#progress")).to_contain_text("Cancelled. What has come is kept")
    expect(page.locator("#models tr.dl-missing")).to_have_count(2)

    hub.bytes_per_second = None
    page.click("#download")
    expect(page.locator("#progress")).to_contain_text(f"{NAME} is here")
    assert [bounds for _, bounds in hub.ranges if bounds.startswith("bytes=") and bounds != "bytes=0-"]
    expect(page.locator("#models tr.dl-missing")).to_have_count(1)

    page.get_by_role("tab", name="Explore").click()
    expect(page.locator("#ladder .dl-chosen")).to_have_class("dl-chosen")
    box = page.locator("#class-name input")
    box.click()
    box.press("Control+a")
    box.press_sequentially("crane", delay=20)
    expect(page.get_by_role("option")).to_have_count(2)
    page.get_by_role("option", name="crane (the machine)").click()
    expect(page.locator("#class input[type=number]")).to_have_value("517")
    set_slider(page, "steps", 3)
    set_slider(page, "pictures", 2)
    page.click("#generate")
    expect(page.locator("#status")).to_contain_text("Step 3 of 3")
    expect(page.locator("#canvas a")).to_have_count(2)
    expect(page.locator("#canvas figcaption").first).to_contain_text("crane (the machine) · seed 0")
    sides = page.locator("#canvas img").evaluate_all("images => images.map(image => image.naturalWidth)")
    assert sides == [64, 64]  # decoded: eight pixels a latent
    set_slider(page, "scrub", 1)
    expect(page.locator("#status")).to_contain_text("Step 1 of 3")

    open_models(page)
    expect(page.locator("#models")).to_contain_text(re.compile(r"In memory: [1-9]"))
    page.click("#unload")
    expect(page.locator("#models")).to_contain_text("In memory: 0 models")
    page.get_by_role("tab", name="Explore").click()
    page.click("#generate")
    expect(page.locator("#canvas a")).to_have_count(2)


def test_a_download_that_fails_says_why_and_the_page_lives_on(page: Page, hub: LoopbackHub) -> None:
    open_models(page)
    page.get_by_label("DiT-XL/2-512").check()
    expect(page.locator("#terms")).to_contain_text("facebook/DiT-XL-2-512")
    page.click("#download")
    expect(page.locator("#progress")).to_contain_text("no such repository on the Hub")
    expect(page.locator("#download")).to_be_enabled()
    page.get_by_role("tab", name="Explore").click()
    set_slider(page, "steps", 2)
    page.click("#generate")
    expect(page.locator("#status")).to_contain_text("Step 2 of 2")


def test_the_models_fit_a_phone(open_phone: Callable[..., Page]) -> None:
    phone = open_phone()
    phone.get_by_role("tab", name="Models").click()
    expect(phone.locator("#models")).to_contain_text("DiT-XL/2-512")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    assert phone.locator("#models table").bounding_box()["width"] <= 390
