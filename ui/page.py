"""The page: its tabs, its looks, and how it is served."""

from typing import Any

import gradio as gr

from ui import api, costs, explore, models, papers, pictures
from ui.studio import Studio
from ui.turns import Turns

TITLE = "DiT Lab"
INTRO = """# DiT Lab
A **diffusion transformer** turns noise into a picture, one step at a time. Give it a bigger model or more
steps, and see what each buys, and what each costs."""

# What launch() takes. No upload is expected, so 1 MB is plenty; nothing outside Gradio's own cache is served.
SERVING: dict[str, Any] = {
    "theme": gr.themes.Soft(primary_hue="indigo", neutral_hue="slate", font=["system-ui", "sans-serif"]),
    "css": costs.CSS + pictures.CSS + models.CSS + papers.CSS,
    "max_file_size": "1mb",
    "allowed_paths": [],
    "enable_monitoring": False,
    "run_history": False,
    "ssr_mode": False,
    "state_session_capacity": 64,  # a visitor's frames take up to 13 MB at 32 x 32
    "footer_links": ["api", "settings"],
}


def build(studio: Studio) -> gr.Blocks:
    """The whole page over a studio's models, queue set, not yet served."""
    turns = Turns(studio)
    with gr.Blocks(title=TITLE, delete_cache=(3600, 86400), analytics_enabled=False) as demo:
        gr.Markdown(INTRO, elem_id="intro")
        with gr.Tab("Explore"):
            refresh = explore.build(studio, turns)
        with gr.Tab("Models") as tab:
            downloads = models.build(studio, turns, tab, refresh)
        api.build(studio, turns)

        async def leave(session: gr.Request) -> None:
            """A visitor who closes the page leaves the line. Async, to stay in the thread of `turns`."""
            turns.stop(session.session_hash)
            downloads.leave(session.session_hash)

        demo.unload(leave)
        refresh(demo.load(lambda: studio.ask_hub(), show_progress="hidden", api_visibility="private"))
    return demo.queue(max_size=20)
