"""The Explore tab: class, steps, guidance and model size; a picture that forms; what it costs."""

import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import gradio as gr

from dit.pipeline import Frame
from dit.samplers import SAMPLERS
from ui import costs
from ui.ladder import Rung
from ui.pictures import empty_html, figure_html, with_settings
from ui.request import MAX_PICTURES, PAGE_STEPS, Request, parse
from ui.turns import Full, Turns

MAX_FRAMES = 128  # that a visitor's trajectory keeps, evenly spread: memory is bounded at any step count
PREVIEW_SHARE = 0.05  # of the time; previews that cost more come less often
RANDOM_SEEDS = 2**31
PREDICTED, NOISY = "predicted picture", "noisy sample"
WELCOME = "Press Generate: a transformer turns noise into a picture, here, step by step."


@dataclass
class Trajectory:
    """What a visitor can scrub through: the frames of the last job."""

    request: Request
    frames: list[Frame] = field(default_factory=list)
    last: Frame | None = None

    def add(self, frame: Frame) -> None:
        """Keep a frame if it is one of the evenly spread ones."""
        self.last = frame
        if frame.index % -(-frame.steps // MAX_FRAMES) == 0:
            self.frames.append(frame)

    def close(self) -> Frame:
        """Make sure that the last frame is kept, and return it."""
        if self.frames[-1] is not self.last:
            self.frames.append(self.last)
        return self.last

    def show(self, position: int, view: str) -> tuple[str, str]:
        """Pictures and status line of a kept frame, counted from 1."""
        frame = self.frames[min(max(position, 1), len(self.frames)) - 1]
        return picture_html(self.request, frame, view), status_of(frame)


@dataclass
class Pace:
    """When the next preview is due: often, but previews never take more than their share of the time."""

    asked: float = 0.0
    last: float = 0.0
    cost: float = 0.0  # seconds that the last preview took, from making it to the next frame

    def due(self) -> bool:
        """Whether a preview may be sent now."""
        self.asked = time.perf_counter()
        return self.asked - self.last > max(0.1, self.cost / PREVIEW_SHARE)

    def shown(self) -> None:
        """Note that one has been."""
        self.last = time.perf_counter()
        self.cost = self.last - self.asked


def picture_html(request: Request, frame: Frame, view: str = PREDICTED) -> str:
    """The figures of one frame; after the last step they are downloads with their settings inside."""
    name = request.rung.classes[request.label] if request.rung.classes else "picture"
    last = frame.index == frame.steps - 1
    settings = [request.describe(i) for i in range(len(request.settings.seeds))] if last else None
    captions = [f"{name} · seed {seed}" for seed in request.settings.seeds]
    return figure_html(frame.x0 if view == PREDICTED else frame.x_t, captions, settings)


def status_of(frame: Frame) -> str:
    """One line on how far a frame is, and what it has cost."""
    return (
        f"**Step {frame.index + 1} of {frame.steps}** · noise level t = {frame.t} · "
        f"{costs.gmacs(frame.macs)} GMACs · {frame.seconds:.1f} s"
    )


def check(ladder: Sequence[Rung], *values: Any) -> Request:
    """`parse`, with its complaint as the page's and the API's error message."""
    try:
        return parse(ladder, *values)
    except (TypeError, ValueError) as error:
        raise gr.Error(str(error), print_exception=False) from error


async def draw(turns: Turns, request: Request, session: str) -> AsyncIterator[Frame | float]:
    """`Turns.draw` with a place taken; a full line becomes an error message."""
    try:
        ticket = turns.enter(session, request.rung.seconds(request.settings))
    except Full as error:
        raise gr.Error(str(error), print_exception=False) from error
    async for event in turns.draw(request, ticket):
        yield event


@dataclass(frozen=True)
class Controls:
    """The widgets whose values decide a picture, in the order in which `parse` takes them."""

    model: gr.Slider
    label: gr.Slider
    steps: gr.Slider
    guidance: gr.Slider
    seed: gr.Number
    pictures: gr.Slider
    sampler: gr.Dropdown

    def inputs(self) -> list[gr.components.Component]:
        """All of them, in order."""
        return [getattr(self, item.name) for item in fields(self)]


def build_controls(ladder: Sequence[Rung]) -> tuple[Controls, gr.Dropdown, gr.Checkbox]:
    """The left column; also the class list by name and the lock of the seed."""
    top, first = len(ladder) - 1, ladder[-1]
    names = list(first.classes)
    model = gr.Slider(
        0, max(top, 1), top, step=1, label="Model size", interactive=top > 0, elem_id="model",
        info="Compute a step, from little to much: " + " · ".join(rung.name for rung in ladder),
    )  # fmt: skip
    with gr.Row():
        label = gr.Slider(
            0, max(len(names) - 1, 1), 0, step=1, label="Class", info="What to draw", elem_id="class",
            min_width=140,
        )  # fmt: skip
        name = gr.Dropdown(
            names, value=names[0] if names else None, label="Class by name", info="Type to search",
            filterable=True, elem_id="class-name", min_width=140,
        )  # fmt: skip
    steps = gr.Slider(
        1, PAGE_STEPS, 50, step=1, label="Steps", elem_id="steps",
        info="How many times the network looks at the picture",
    )  # fmt: skip
    guidance = gr.Slider(
        1, 8, first.guidance_scale, step=0.1, label="Guidance scale", elem_id="guidance",
        info="How strongly the class pulls; above 1, each step costs two passes",
    )  # fmt: skip
    with gr.Row():
        pictures = gr.Slider(1, MAX_PICTURES, 4, step=1, label="Pictures", elem_id="pictures", min_width=140)
        sampler = gr.Dropdown(list(SAMPLERS), value="ddim", label="Sampler", elem_id="sampler", min_width=140)
    with gr.Row():
        seed = gr.Number(0, precision=0, minimum=0, label="Seed", elem_id="seed", min_width=140)
        lock = gr.Checkbox(True, label="Keep this seed", elem_id="lock", min_width=140)
    return Controls(model, label, steps, guidance, seed, pictures, sampler), name, lock


def build(ladder: Sequence[Rung], turns: Turns) -> None:
    """Lay out the tab and wire it, inside the Blocks that is open."""
    with gr.Row(elem_id="explore"):
        with gr.Column(scale=2, min_width=300):
            controls, name, lock = build_controls(ladder)
        with gr.Column(scale=3, min_width=300):
            with gr.Row():
                generate = gr.Button("Generate", variant="primary", elem_id="generate")
                stop = gr.Button("Stop", variant="stop", elem_id="stop", interactive=False)
            price = gr.HTML(elem_id="price")
            status = gr.Markdown(WELCOME, elem_id="status")
            canvas = gr.HTML(empty_html("Nothing drawn yet"), elem_id="canvas")
            with gr.Row():
                scrub = gr.Slider(
                    1, 2, 1, step=1, label="Back through the steps", info="Nothing is computed again",
                    interactive=False, scale=2, elem_id="scrub",
                )  # fmt: skip
                view = gr.Radio([PREDICTED, NOISY], value=PREDICTED, label="Show", scale=1, elem_id="view")
    trajectory = gr.State(None, time_to_live=3600)
    running = {generate: gr.update(interactive=False), stop: gr.update(interactive=True)}
    idle = {generate: gr.update(interactive=True), stop: gr.update(interactive=False)}

    def show_price(*values: Any) -> str:
        try:
            return costs.price_html(parse(ladder, *values))
        except (TypeError, ValueError) as error:
            return costs.complaint_html(str(error))

    async def on_generate(session: gr.Request, locked: bool, shown: str, *values: Any) -> AsyncIterator[dict]:
        chosen = values if locked else (*values[:4], random.randrange(RANDOM_SEEDS), *values[5:])
        request = check(ladder, *chosen)
        kept, pace = Trajectory(request), Pace()
        yield running | {
            controls.seed: request.settings.seeds[0],
            scrub: gr.update(interactive=False),
            status: "Starting …",
        }
        async for event in draw(turns, request, session.session_hash):
            if isinstance(event, float):
                yield {status: costs.waiting(turns, session.session_hash, event)}
                continue
            kept.add(event)
            if pace.due():
                yield {canvas: picture_html(request, event, shown), status: status_of(event)}
                pace.shown()
        if not kept.frames:
            yield idle | {status: "Stopped before the first step."}
            return
        last = kept.close()
        position = gr.update(
            maximum=max(2, len(kept.frames)), value=len(kept.frames), interactive=len(kept.frames) > 1
        )
        stopped = "" if last.index + 1 == last.steps else "**Stopped.** "
        yield idle | {
            canvas: picture_html(request, last, shown),
            status: stopped + status_of(last),
            scrub: position,
            trajectory: kept,
        }

    def on_stop(session: gr.Request) -> None:
        turns.stop(session.session_hash)  # the job itself says how it ended: two writers of a line would race

    def on_scrub(kept: Trajectory | None, position: float, shown: str) -> tuple[str, str]:
        return kept.show(int(position), shown) if kept else (gr.skip(), gr.skip())

    quick = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    names = ladder[-1].classes
    gr.on(None, show_price, controls.inputs(), price, **quick)
    controls.label.input(lambda y: names[int(y)], controls.label, name, **quick)
    name.input(lambda chosen: names.index(chosen), name, controls.label, **quick)
    job = generate.click(
        on_generate,
        [lock, view, *controls.inputs()],
        [canvas, status, scrub, trajectory, controls.seed, generate, stop],
        concurrency_limit=None,  # `turns` lets one at a time through, and says who is next
        show_progress="hidden",
        api_visibility="private",
    )
    job.failure(lambda: idle | {status: WELCOME}, None, [generate, stop, status], **quick)
    stop.click(on_stop, None, None, **quick)
    for control in (scrub, view):
        control.input(on_scrub, [trajectory, scrub, view], [canvas, status], **quick)
    build_api(ladder, turns)


def build_api(ladder: Sequence[Rung], turns: Turns) -> None:
    """The named endpoint: /generate(model, class, steps, guidance_scale, seed, pictures, sampler)."""
    first = ladder[-1]
    inputs = [
        gr.Textbox(first.name, label="model", visible=False),
        gr.Textbox(first.classes[0] if first.classes else "0", label="class", visible=False),
        gr.JSON(50, label="steps", visible=False),
        gr.JSON(first.guidance_scale, label="guidance_scale", visible=False),
        gr.JSON(0, label="seed", visible=False),
        gr.JSON(1, label="pictures", visible=False),
        gr.Textbox("ddim", label="sampler", visible=False),
    ]
    outputs = [
        gr.Gallery(label="pictures", format="png", visible=False),
        gr.JSON(label="settings", visible=False),
    ]

    async def endpoint(
        model: str, label: str, steps: Any, guidance_scale: Any, seed: Any, pictures: Any, sampler: str,
        session: gr.Request,
    ) -> AsyncIterator[tuple]:  # fmt: skip
        """Draw pictures of one class: PNG files with their settings inside, and what they cost."""
        request = check(ladder, model, label, steps, guidance_scale, seed, pictures, sampler)
        frame = None
        async for event in draw(turns, request, session.session_hash):
            if isinstance(event, Frame):
                frame = event
                yield None, {"step": frame.index + 1, "steps": frame.steps}
        if frame is None or frame.index + 1 < frame.steps:
            raise gr.Error("stopped before the last step", print_exception=False)
        described = [request.describe(i) for i in range(len(frame.x0))]
        images = [
            with_settings(pixels, settings) for pixels, settings in zip(frame.x0, described, strict=True)
        ]
        yield images, {"pictures": described, "gmacs": frame.macs / 1e9, "seconds": frame.seconds}

    gr.Button(visible=False).click(endpoint, inputs, outputs, api_name="generate", concurrency_limit=None)
