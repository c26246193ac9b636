"""The Train tab's left side: whose pictures, which model, how long; looked at and priced before it begins."""

import asyncio
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from ui import ask_trainer
from ui.costs import complaint_html
from ui.limits import Limits
from ui.runs import Runs
from ui.sources import dataset_of, folder_of
from ui.train_form import PRESETS, SIDES, SOLIDS, Form, name_of, shown
from ui.upload_store import UploadStore
from ui.uploads import Unpacked

DRAWN, ZIP, FOLDER, HUB = "code", "zip", "folder", "hub"
SOURCES = {"drawn by code": DRAWN, "a .zip": ZIP, "a folder here": FOLDER, "a dataset on the Hub": HUB}
NEEDED = {FOLDER: "a folder's path", HUB: "OWNER/NAME of a dataset"}  # where something is to be typed
MAX_DATASET = 200  # letters of its name
WELCOME = "<p>Check first: it looks at the pictures, and says how long it will take.</p>"
CSS = """
.dl-data img { max-width: 100%; image-rendering: pixelated; border-radius: 6px; margin-top: 6px; }
.dl-data p { margin: 4px 2px; font-size: 13.5px; }
.dl-data details { font-size: 13px; } .dl-data ul { columns: 160px; margin: 4px 0 4px 18px; }
.dl-command { overflow-wrap: anywhere; } .dl-command code { font-size: 12px; }
"""


@dataclass(frozen=True)
class Fields:
    """The controls, called as the fields of `Form` where they are one."""

    source: gr.Radio
    upload: gr.File
    folder: gr.Textbox
    hub: gr.Textbox
    preset: gr.Dropdown
    image_size: gr.Dropdown
    images: gr.Number
    batch_size: gr.Number
    lr: gr.Number
    guidance_dropout: gr.Number
    seed: gr.Number
    classes: gr.Checkbox
    mirror: gr.Checkbox

    def inputs(self) -> list[gr.components.Component]:
        """All of them, in order."""
        return list(vars(self).values())


NAMES = tuple(Fields.__dataclass_fields__)


def build(runs: Runs, uploads: UploadStore) -> tuple[Fields, Any, gr.Textbox]:
    """Lay out the form and wire it; returns its controls, the event of a new run, and what names that."""
    limits = uploads.limits
    fields = _fields(limits)
    check = gr.Button("Check and estimate", elem_id="train-check")
    found = gr.HTML(WELCOME, elem_id="train-found")
    with gr.Row():
        name = gr.Textbox(label="Name of the run", elem_id="train-name", max_length=64, min_width=160)
        start = gr.Button("Start training", variant="primary", elem_id="train-start", min_width=160)
    started = gr.Textbox("", visible="hidden", label="Started", elem_id="train-started")
    quick = {"show_progress": "hidden", "api_visibility": "private"}

    def on_source(source: str) -> list[dict]:
        return [gr.update(visible=source == kind) for kind in (ZIP, FOLDER, HUB)]

    async def looked_at(form: Form, unpacked: Unpacked | None) -> tuple[dict[str, Any], bytes]:
        try:
            return await ask_trainer.look(form.data, form.image_size)
        except ValueError:
            if unpacked:
                await asyncio.to_thread(uploads.forget, unpacked)
            raise

    async def on_check(wanted: str, *values: Any) -> tuple[str, dict]:
        try:
            form, unpacked = await asyncio.to_thread(form_of, uploads, values)
            told, preview = await looked_at(form, unpacked)
            form = fitted(form, told)
            plan = await ask_trainer.estimate(form.arguments())
        except (ValueError, OSError) as error:
            return complaint_html(runs.plain(str(error))), gr.skip()
        usual = name_of(form, runs.names(), titled(unpacked, values))
        title = wanted or usual
        left_out = unpacked.left_out if unpacked else ()
        # It says where things lie on this machine, which is for those alone who have a terminal there.
        command = shown(form.arguments(), runs.folder / title) if limits.folders is None else ""
        page = ask_trainer.plan_html(plan, command) + ask_trainer.data_html(told, preview, left_out)
        return page, gr.update(placeholder=usual)  # not the value: somebody may type one meanwhile

    async def on_start(wanted: str, *values: Any) -> tuple[str, str]:
        try:
            form, unpacked = await asyncio.to_thread(form_of, uploads, values)
            if form.data != SOLIDS:
                form = fitted(form, (await looked_at(form, unpacked))[0])
            title = wanted or name_of(form, runs.names(), titled(unpacked, values))
            run = await asyncio.to_thread(runs.start, title, form.arguments())
        except (ValueError, OSError) as error:
            raise gr.Error(runs.plain(str(error)), print_exception=False) from error
        return run.name, ""

    # First, and in the page alone: what was found of other settings must not look as if it was of these.
    changes = [control.change for control in fields.inputs()]
    gr.on(changes, None, None, found, js=f"() => {json.dumps(WELCOME)}", queue=False, **quick)
    where = [fields.upload, fields.folder, fields.hub]
    fields.source.change(on_source, fields.source, where, queue=False, **quick)
    check.click(on_check, [name, *fields.inputs()], [found, name], concurrency_limit=2, **quick)
    event = start.click(on_start, [name, *fields.inputs()], [started, name], concurrency_limit=2, **quick)
    return fields, event, started


def _fields(limits: Limits) -> Fields:
    usual = Form()
    offered = [(label, kind) for label, kind in SOURCES.items() if kind != FOLDER or limits.folders != ()]
    source = gr.Radio(offered, value=DRAWN, label="Pictures", elem_id="train-source")
    upload = gr.File(
        label="A .zip of pictures, a folder for each class", file_types=[".zip"], visible=False,
        elem_id="train-upload", height=120,
    )  # fmt: skip
    folder = gr.Textbox(
        label="Folder", placeholder="pictures/ with a sub-folder for each class", visible=False,
        elem_id="train-folder", max_length=500,
    )  # fmt: skip
    hub = gr.Textbox(
        label="Dataset",
        placeholder="uoft-cs/cifar10",
        visible=False,
        elem_id="train-hub",
        max_length=MAX_DATASET,
    )
    with gr.Row():
        preset = gr.Dropdown(
            list(PRESETS), value=usual.preset, label="Model", elem_id="train-preset", min_width=140,
            info="From little compute to much",
        )  # fmt: skip
        image_size = gr.Dropdown(
            list(SIDES), value=usual.image_size, label="Image side", elem_id="train-side", min_width=140,
            info="Pixels; all are cropped to squares",
        )  # fmt: skip
    with gr.Row():
        images = gr.Number(
            usual.images, precision=0, label="Images to see", elem_id="train-images", min_width=140,
            info="Over the whole run, again and again",
        )  # fmt: skip
        batch = gr.Number(
            usual.batch_size, precision=0, label="Batch", elem_id="train-batch", min_width=140,
            info="Images of an optimizer step",
        )  # fmt: skip
    with gr.Accordion("More", open=False, elem_id="train-more"):
        with gr.Row():
            lr = gr.Number(usual.lr, label="Learning rate", elem_id="train-lr", min_width=120, step=1e-4)
            dropout = gr.Number(
                usual.guidance_dropout, label="Guidance dropout", elem_id="train-dropout", min_width=120,
                info="Share of labels left out, so that guidance can be used", step=0.05,
            )  # fmt: skip
            seed = gr.Number(usual.seed, precision=0, label="Seed", elem_id="train-seed", min_width=120)
        with gr.Row():
            classes = gr.Checkbox(
                usual.classes, label="Tell the model the class", elem_id="train-classes", min_width=140
            )
            mirror = gr.Checkbox(
                usual.mirror, label="Mirror half of the pictures", elem_id="train-mirror", min_width=140
            )
    return Fields(
        source, upload, folder, hub, preset, image_size, images, batch, lr, dropout, seed, classes, mirror
    )


def form_of(uploads: UploadStore, values: tuple[Any, ...]) -> tuple[Form, Unpacked | None]:
    """What the controls' values, in their order, ask for; an upload is unpacked.

    Raises:
        ValueError: a value that is none, or an upload that is refused.
    """
    sent = dict(zip(NAMES, values, strict=True))
    if sent["source"] != ZIP:
        return Form.of(sent | {"data": named(sent, uploads.limits)}), None
    if not sent["upload"]:
        raise ValueError("no .zip has been uploaded yet; choose one, or other pictures")
    form = Form.of(sent | {"data": ZIP})  # before anything is unpacked
    unpacked = uploads.unpacked(Path(sent["upload"]))
    return replace(form, data=str(unpacked.folder)), unpacked


def titled(unpacked: Unpacked | None, values: tuple[Any, ...]) -> str:
    """How an upload is called by its visitor; empty without one."""
    return Path(dict(zip(NAMES, values, strict=True))["upload"]).stem if unpacked else ""


def named(sent: dict[str, Any], limits: Limits) -> Any:
    """The data that a visitor has named. Raises ValueError where it is not for visitors."""
    source = sent["source"]
    if source in NEEDED and not (isinstance(sent[source], str) and sent[source].strip()):
        raise ValueError(f"nothing is named yet; give {NEEDED[source]}, or choose other pictures")
    if source == FOLDER:
        return folder_of(sent["folder"], limits)
    if source == HUB:
        return dataset_of(sent["hub"])
    return SOLIDS if source == DRAWN else None


def fitted(form: Form, told: dict[str, Any]) -> Form:
    """The form for what was found in its data: without classes where there are none to tell apart."""
    return form if len(told["classes"]) > 1 else replace(form, classes=False)
