"""The Trade-off tab: a family of models, measured; model compute against sampling compute."""

import gradio as gr

from ui import budget_view, chart_address, chart_view, grid_view
from ui.explore import Explore, Refresh
from ui.families import groups_of
from ui.judge import Judge
from ui.share import Share
from ui.shelf import Shelf
from ui.studio import Studio
from ui.tables import load_tables
from ui.turns import Turns

ABOUT = """A picture's compute is spent on a **bigger model** or on **more steps**. Models that were trained
alike, and measured at many step counts: see what each way of spending buys."""


def build(studio: Studio, turns: Turns, explore: Explore, tabs: gr.Tabs, share: Share) -> Refresh:
    """Lay out the tab and wire it, inside the Blocks that is open. tabs: those of the page.

    Returns how to follow an event after which other models may be here.
    """
    judge = Judge.bundled()
    lasting = [rung for rung in studio.rungs if not rung.in_training]
    groups = groups_of(lasting, studio.first, load_tables(studio.tables))
    with gr.Row(elem_id="tradeoff-head"):
        gr.Markdown(ABOUT, elem_id="tradeoff-about")
        share.button()
    with gr.Tabs(elem_id="tradeoff-tabs") as views:
        with gr.Tab("Chart", id="chart") as chart:
            chart_address.register(
                studio, chart_view.build(studio, explore, tabs, Shelf.of(studio, groups)), share
            )
        with gr.Tab("Grid", id="grid") as grid:
            follow_grid = grid_view.build(studio, turns, judge, share, next(iter(groups.values())))
        with gr.Tab("Equal budget", id="budget") as budget:
            follow_budget = budget_view.build(studio, turns, judge, share, groups)
    share.add_tabs("tradeoff", views, {"chart": chart, "grid": grid, "budget": budget})
    return lambda event: follow_budget(follow_grid(explore.refresh(event)))
