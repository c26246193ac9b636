"""The Explore tab: class, steps, guidance and model size; a picture that forms; what it costs."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from dit.pipeline import Frame
from ui import costs
from ui.controls import Controls, build_controls, fitted, register, wire_model, wish_of, with_random_seed
from ui.jobs import check, draw
from ui.pictures import empty_html, figure_html
from ui.request import Request, parse
from ui.settled import on_settled
from ui.share import Share
from ui.share_script import NAMES
from ui.studio import Studio
from ui.tickets import Loading, Wait
from ui.turns import Turns

MAX_FRAMES = 128  # that a visitor's trajectory keeps, evenly spread: memory is bounded at any step count
PREVIEW_SHARE = 0.05  # of the time; previews that cost more come less often
KIND = "explore"  # of its jobs
PREDICTED, NOISY = "predicted picture", "noisy sample"
Refresh = Callable[[Any], Any]  # given an event of Gradio: shows prices and models anew after it
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
        if self.frames and self.frames[-1].index == frame.index:  # the same step, more of it decoded
            self.frames[-1] = frame
        elif frame.index % -(-frame.steps // MAX_FRAMES) == 0:
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
    name = request.rung.titles[request.label] if request.rung.classes else "picture"
    settings = [request.describe(i) for i in range(len(request.settings.seeds))] if frame.done else None
    captions = [f"{name} · seed {seed}" for seed in request.settings.seeds]
    pixels = frame.x0 if view == PREDICTED else frame.x_t
    return figure_html(pixels, captions, settings, smooth=request.rung.latent)


def status_of(frame: Frame) -> str:
    """One line on how far a frame is, and what it has cost."""
    left = (
        ""
        if frame.done or frame.index + 1 < frame.steps
        else (f" · decoding picture {frame.finished + 1} of {len(frame.x0)} …")
    )
    return (
        f"**Step {frame.index + 1} of {frame.steps}** · noise level {frame.level} · "
        f"{costs.gmacs(frame.macs)} GMACs · {frame.seconds:.1f} s{left}"
    )


@dataclass(frozen=True)
class Explore:
    """What other tabs need of this one."""

    controls: Controls
    name: gr.Dropdown  # the class by name
    wished: gr.State  # the guidance that comes back after a model that cannot be guided
    refresh: Refresh

    def outputs(self) -> list[gr.components.Component]:
        """What `controls.chosen` gives updates of."""
        return [*self.controls.inputs(), self.name, self.wished]


def build(studio: Studio, turns: Turns, share: Share) -> Explore:
    """Lay out the tab and wire it, inside the Blocks that is open."""
    with gr.Row(elem_id="explore"):
        with gr.Column(scale=2, min_width=300):
            controls, name, lock, ladder = build_controls(studio)
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
                    interactive=False, scale=2, elem_id="scrub", buttons=[],
                )  # fmt: skip
                view = gr.Radio([PREDICTED, NOISY], value=PREDICTED, label="Show", scale=1, elem_id="view")
    trajectory = gr.State(None, time_to_live=3600)
    names = gr.Textbox(visible="hidden")  # of the models, for the address
    # With each update: of several that come at once, a busy browser shows the last alone.
    running = {generate: gr.update(interactive=False), stop: gr.update(interactive=True)}
    running |= {scrub: gr.update(interactive=False), view: gr.update(interactive=False)}  # the old pictures'
    idle = {generate: gr.update(interactive=True), stop: gr.update(interactive=False)}
    idle |= {view: gr.update(interactive=True)}

    def show_price(*values: Any) -> tuple[str, str]:
        try:
            request = parse(studio.rungs, wish_of(studio, fitted(studio, values)), studio.limits)
            costs.refuse_dear([request], studio.limits)
        except (TypeError, ValueError) as error:
            shown = costs.complaint_html(str(error))
        else:
            shown = costs.price_html(request)
        return shown, costs.ladder_html(studio, studio.at(values[0]))

    def show_ladder(*values: Any) -> tuple:
        top = gr.update(maximum=max(len(studio.rungs) - 1, 1))
        return *show_price(*values), top, json.dumps(studio.names)

    async def on_generate(
        session: gr.Request, before: Trajectory | None, locked: bool, shown: str, *values: Any
    ) -> AsyncIterator[dict]:
        wish = wish_of(studio, values if locked else with_random_seed(values))
        request = await asyncio.to_thread(check, studio, wish, KIND)
        kept, pace = Trajectory(request), Pace()
        yield running | {controls.seed: request.settings.seeds[0], status: "Starting …"}
        async with contextlib.aclosing(draw(turns, request, session.session_hash, KIND)) as events:
            async for event in events:
                if isinstance(event, Wait):
                    yield running | {status: costs.waiting(event)}
                    continue
                if isinstance(event, Loading):
                    yield running | {status: f"Reading {event.name} into memory …"}
                    continue
                kept.add(event)
                if pace.due():
                    drawn = await asyncio.to_thread(picture_html, request, event, shown)
                    yield running | {canvas: drawn, status: status_of(event)}
                    pace.shown()
        if not kept.frames:
            yield idle | {status: "Stopped before the first step.", scrub: scrubber(before)}
            return
        last = kept.close()
        stopped = "" if last.done else "**Stopped.** "
        yield idle | {
            canvas: await asyncio.to_thread(picture_html, request, last, shown),
            status: stopped + status_of(last),
            scrub: scrubber(kept) | {"value": len(kept.frames)},
            trajectory: kept,
        }

    def on_failure(before: Trajectory | None) -> dict:
        return idle | {status: WELCOME, scrub: scrubber(before)}

    async def on_stop(session: gr.Request) -> None:  # async, to stay in the thread of `turns`
        turns.stop(session.session_hash, KIND)  # the job says how it ended: two writers of a line would race

    def on_scrub(kept: Trajectory | None, position: float, shown: str) -> tuple[str, str]:
        return kept.show(int(position), shown) if kept else (gr.skip(), gr.skip())

    quick = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    latest = quick | {"trigger_mode": "always_last"}  # of several events at once the last must count
    on_settled(None, show_price, controls.inputs(), [price, ladder])
    wished = wire_model(studio, controls, name, latest)
    register(studio, share, controls, wished)
    job = generate.click(
        on_generate,
        [trajectory, lock, view, *controls.inputs()],
        [canvas, status, scrub, view, trajectory, controls.seed, generate, stop],
        concurrency_limit=None,  # `turns` lets one at a time through, and says who is next
        show_progress="hidden",
        api_visibility="private",
    )
    job.then(
        show_price, controls.inputs(), [price, ladder], **quick
    )  # its seconds are corrected by what the job took
    job.failure(on_failure, trajectory, [generate, stop, status, scrub, view], **quick)
    stop.click(on_stop, None, None, **quick)
    for control in (scrub, view):
        control.input(on_scrub, [trajectory, scrub, view], [canvas, status], **latest)

    def refresh(event: Any) -> Any:
        shown = event.then(show_ladder, controls.inputs(), [price, ladder, controls.model, names], **quick)
        return shown.then(None, names, None, js=NAMES % "model", **quick)

    return Explore(controls, name, wished, refresh)


def scrubber(kept: Trajectory | None) -> dict[str, Any]:
    """The slider over a trajectory, as an update: locked while there is nothing to move through."""
    count = len(kept.frames) if kept else 0
    return gr.update(maximum=max(2, count), interactive=count > 1)
