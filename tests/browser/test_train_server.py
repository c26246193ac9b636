"""The Train tab where its server ends, is killed, or is public, in a real browser."""

import io
import os
import signal
import zipfile
from pathlib import Path

from gradio_client import Client
from playwright.sync_api import Browser, expect

from benchmarks.browser import serve
from tests.browser.visiting import EAGER, LONG, begin, context_of
from tests.run_folders import write_run
from tests.train.picture_files import picture, png
from ui.runs import Runs


def test_a_run_outlives_the_page_and_is_found_again(browser: Browser, tmp_path: Path) -> None:
    runs = Runs(tmp_path / "runs")
    arguments = ["--runs", str(runs.folder)]
    context = context_of(browser)
    page = context.new_page()
    try:
        with serve(arguments, tmp_path / "log", EAGER) as app:
            page.goto(f"{app.address}/?tab=train")
            begin(page, "lasting", 1_000_000)
            page.wait_for_function(
                "parseInt(document.querySelector('#run-page .dl-price').innerText) > 0", timeout=LONG
            )
            os.kill(app.process, signal.SIGKILL)
        with serve(arguments, tmp_path / "log2", EAGER) as app:
            page.goto(f"{app.address}/?tab=train")
            expect(page.locator("#run-page")).to_contain_text("lasting: training")
            process = runs.process_of(runs.folder / "lasting")
            assert process
            os.kill(process, signal.SIGKILL)
            expect(page.locator("#run-page")).to_contain_text("interrupted")
            expect(page.locator("#run-resume")).to_be_enabled()
    finally:
        context.close()
        for run in runs.found():
            if process := runs.process_of(run.folder):
                os.kill(process, signal.SIGKILL)


def test_temporary_files_are_gradios_own_and_are_all_deleted(browser: Browser, tmp_path: Path) -> None:
    """At the end of the server, by the same lists of files as `delete_cache` goes through every hour."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()

    def files() -> list[Path]:  # but for the empty ones that Gradio's upload component leaves
        return [path for path in temporary.rglob("*") if path.is_file() and path.stat().st_size]

    write_run(tmp_path / "runs", "mine")
    context = context_of(browser)
    page = context.new_page()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("a/1.png", png(picture(1)))
    environment = {"TMPDIR": str(temporary), "HF_HUB_OFFLINE": "1"}
    try:
        with serve(["--runs", str(tmp_path / "runs")], tmp_path / "log", environment) as app:
            client = Client(app.address, verbose=False, download_files=False)
            client.predict("mine", "left", "1", "auto", "0", "2", "auto", "all", "1", api_name="/generate")
            page.goto(f"{app.address}/?tab=train&train-source=zip")
            expect(page.locator("#run-weights")).to_be_enabled()
            with page.expect_download():
                page.click("#run-weights")
            page.locator("#train-upload input[type=file]").set_input_files(
                {"name": "set.zip", "mimeType": "application/zip", "buffer": archive.getvalue()}
            )
            expect(page.locator("#train-upload .file-preview")).to_contain_text("set")  # it has come
            page.click("#train-check")
            expect(page.locator("#train-found")).to_contain_text("1 pictures", timeout=LONG)
            here = files()
            assert {path.suffix for path in here} == {".png", ".safetensors", ".zip"}, here
            assert all(path.is_relative_to(temporary / "gradio") for path in here), here
    finally:
        context.close()
    assert not files()


def test_a_public_space_does_not_train(browser: Browser, tmp_path: Path) -> None:
    with serve([], tmp_path / "log", {"SPACE_ID": "a/b", "HF_HUB_OFFLINE": "1"}) as app:
        context = context_of(browser)
        page = context.new_page()
        page.goto(f"{app.address}/?tab=train")
        expect(page.locator("#train-off")).to_contain_text("Training is off")
        expect(page.locator("#duplicate")).to_be_visible()
        assert not page.locator("#train-start").count()
        context.close()
