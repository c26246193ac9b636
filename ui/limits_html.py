"""What this server allows, as a visitor reads it."""

import html

import gradio as gr

from dit.published import size_of
from ui.costs import count_of, duration, gmacs
from ui.limits import Limits

CSS = """
.dl-limits table { border-collapse: collapse; font-size: 13px; border: 0; }
.dl-limits th, .dl-limits td { text-align: left; vertical-align: top; padding: 3px 14px 3px 0; border: 0; }
.dl-limits tr { border: 0; } .dl-limits th { font-weight: 400; color: var(--dl-faint); }
"""
SMALL = "those below %s count for their part of that"  # also told in the Models tab
ALONE = "One machine serves all visitors, step by step in turn; so that nobody takes it from the others:"


def limits_html(limits: Limits, training: bool) -> str:
    """All limits that a visitor can meet. training: whether one may train here."""
    rows = [
        ("A request", f"{count_of('picture', limits.pictures)}, {limits.steps:,} steps"),
        ("Its cost", f"{gmacs(limits.gmacs * 1e9)} GMACs, all its pictures together"),
        (
            "A grid, or equal budgets",
            f"{limits.cells} cells, {duration(limits.seconds)} expected, "
            f"{limits.pixels / 1e6:.1f} megapixels",
        ),
        (
            "The line",
            f"{limits.waiting} jobs that are drawn or wait; its last half takes one of each session",
        ),
        ("Visitors", f"{limits.sessions} whose pictures are kept; of more, the longest idle are forgotten"),
        ("In memory", f"{count_of('model', limits.models)}; {SMALL % size_of(limits.small_bytes)}"),
    ]
    if training:
        rows += [
            ("Training", f"{count_of('run', limits.runs)} at a time"),
            (
                "A .zip of pictures",
                f"{size_of(limits.upload_bytes)}, {size_of(limits.unpacked_bytes)} unpacked, "
                f"{limits.upload_files:,} files",
            ),
            (
                "All of them together",
                f"{size_of(limits.uploads_bytes)} unpacked; what no run needs goes "
                f"{duration(limits.upload_seconds)} after it was used last",
            ),
            ("Folders of this machine", _lent(limits)),
        ]
    told = "".join(f'<tr><th scope="row">{name}</th><td>{html.escape(most)}</td></tr>' for name, most in rows)
    return f'<div class="dl-limits"><p>{ALONE}</p><table><tbody>{told}</tbody></table></div>'


def _lent(limits: Limits) -> str:
    if limits.folders is None:
        return "all, as on one's own machine"
    return ", ".join(f"{folder} and below" for folder in limits.folders) or "none"


def build(limits: Limits, training: bool) -> None:
    """Lay them out, folded, inside the Blocks that is open."""
    with gr.Accordion("What this server allows, at most", open=False, elem_id="limits"):
        gr.HTML(limits_html(limits, training))
