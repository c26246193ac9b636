"""The Train tab's last part: a run's weights for diffusers, and on the Hub."""

import html
import tempfile
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.processing_utils import save_file_to_cache

from ui import deliver
from ui.costs import complaint_html
from ui.grid_view import SAVE
from ui.runs import Runs

ABOUT = """Your token goes to the Hub with the upload and is kept nowhere: not on this machine, not in a log.
Make one that may write at huggingface.co/settings/tokens."""


def build(runs: Runs, choice: gr.Dropdown) -> None:
    """Lay out the view and wire it, inside the Blocks that is open. choice: of the run."""
    with gr.Accordion("Take it elsewhere", open=False, elem_id="run-elsewhere"):
        export = gr.Button("Export for diffusers (.zip)", elem_id="run-export")
        file = gr.File(visible="hidden", elem_id="run-export-file")
        gr.Markdown(ABOUT)
        with gr.Row():
            repo_id = gr.Textbox(
                label="Repository", placeholder="OWNER/NAME", elem_id="push-name", max_length=200,
                min_width=160,
            )  # fmt: skip
            token = gr.Textbox(
                label="Token", type="password", placeholder="hf_…", elem_id="push-token",
                max_length=deliver.MAX_TOKEN, min_width=160,
            )  # fmt: skip
        with gr.Row():
            private = gr.Checkbox(True, label="Private", elem_id="push-private", min_width=120)
            push = gr.Button("Push to the Hub", elem_id="run-push", min_width=160)
        said = gr.HTML(elem_id="push-said")
    options: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": 1}

    async def on_export(name: str | None) -> tuple[Any, str]:
        try:
            with tempfile.TemporaryDirectory(prefix="dit-lab-") as folder:
                made = await deliver.export(runs.named(name or ""), Path(folder))
                return save_file_to_cache(made, file.GRADIO_CACHE), ""
        except (ValueError, OSError) as error:
            return gr.skip(), complaint_html(runs.plain(str(error)))

    async def on_push(name: str | None, repo: str, secret: str, hidden: bool) -> tuple[str, str]:
        try:
            address = html.escape(
                await deliver.push(runs.named(name or ""), repo, secret, hidden), quote=True
            )
        except (ValueError, OSError) as error:
            return complaint_html(runs.plain(str(error))), ""
        return f'<p>It is there: <a href="{address}" target="_blank" rel="noopener">{address}</a></p>', ""

    working = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    export.click(lambda: "<p>Converting …</p>", None, said, **working)
    export.click(on_export, choice, [file, said], **options).success(None, file, None, js=SAVE, **working)
    push.click(lambda: "<p>Drawing samples for the card, then uploading …</p>", None, said, **working)
    push.click(on_push, [choice, repo_id, token, private], [said, token], **options)
