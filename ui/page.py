"""The page: its tabs, its looks, and how it is served."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ui import (
    api,
    budget_html,
    chart_view,
    costs,
    downloads,
    explore,
    grid_html,
    limits_html,
    models,
    papers,
    pictures,
    share,
    tradeoff,
    train_tab,
)
from ui.downloads import Downloads
from ui.limits import Limits
from ui.runs import Runs
from ui.sent import CheckedBlocks
from ui.studio import Studio
from ui.trained import Trained
from ui.turns import Turns
from ui.upload_store import UploadStore

TITLE = "DiT Lab"
INTRO = """# DiT Lab
A **diffusion transformer** turns noise into a picture, one step at a time. Give it a bigger model or more
steps, and see what each buys, and what each costs."""
STYLED = (
    costs,
    pictures,
    models,
    downloads,
    papers,
    chart_view,
    grid_html,
    budget_html,
    share,
    train_tab,
    limits_html,
)
# Of small text: paler than the rest, and legible on every background. Where the theme's own colour is set.
FAINT = ".gradio-container { --dl-faint: color-mix(in srgb, var(--body-text-color) 75%, transparent); }"
# What launch() takes, but for limits; nothing outside Gradio's own cache is served.
SERVING: dict[str, Any] = {
    "theme": gr.themes.Soft(primary_hue="indigo", neutral_hue="slate", font=["system-ui", "sans-serif"]),
    "css": FAINT + "".join(part.CSS for part in STYLED),
    "allowed_paths": [],
    "enable_monitoring": False,
    "run_history": False,
    "ssr_mode": False,
    "footer_links": ["api", "settings"],
}


@dataclass(frozen=True)
class Page:
    """The whole page, and who does what visitors ask of it."""

    demo: gr.Blocks
    turns: Turns
    downloads: Downloads
    uploads: UploadStore | None  # None where nobody trains


def serving(limits: Limits) -> dict[str, Any]:
    """What `launch` takes. Where nobody trains, no upload is expected, and 1 MB is plenty."""
    return SERVING | {
        "max_file_size": limits.upload_bytes if limits.training else "1mb",
        "state_session_capacity": limits.sessions,
    }


def build(studio: Studio, runs: Runs | None = None, turns: Turns | None = None) -> Page:
    """The whole page over a studio's models, queue set, not yet served.

    runs: None where nobody trains. turns: how visitors share the device; None: in equal parts.
    """
    turns, limits, trained = turns or Turns(studio), studio.limits, Trained(studio, runs)
    uploads = UploadStore(runs.folder, limits) if runs else None
    trained.look()  # before the layout, which has a place for each model
    with CheckedBlocks(title=TITLE, delete_cache=(3600, 86400), analytics_enabled=False) as demo:
        gr.Markdown(INTRO, elem_id="intro")
        address = share.Share()
        address.notice()
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Explore", id="explore") as first:
                explored = explore.build(studio, turns, address)
            with gr.Tab("Trade-off", id="tradeoff") as second:
                refresh = tradeoff.build(studio, turns, explored, tabs, address)
            with gr.Tab("Train", id="train") as fourth:
                watch = train_tab.build(trained, turns, uploads, fourth, explored, tabs, address)
            with gr.Tab("Models", id="models") as third:
                fetching = models.build(studio, turns, third, refresh)
                limits_html.build(limits, runs is not None)
        named = {"explore": first, "tradeoff": second, "train": fourth, "models": third}
        address.add_tabs("tab", tabs, named)
        api.build(studio, turns)

        async def leave(session: gr.Request) -> None:
            """A visitor who closes the page leaves the line. Async, to stay in the thread of `turns`."""
            turns.stop(session.session_hash)
            fetching.leave(session.session_hash)

        demo.unload(leave)
        quick = {"show_progress": "hidden", "api_visibility": "private"}
        refresh(demo.load(trained.look, None, None, **quick).then(studio.ask_hub, None, None, **quick))
        address.wire(demo)
        # After the address: what the server answers would hold up its listeners.
        watch([first, second, third])
        for tab in (first, second):
            refresh(tab.select(trained.look, None, None, queue=False, **quick))
    return Page(demo.queue(max_size=limits.waiting), turns, fetching, uploads)
