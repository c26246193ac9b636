"""Training runs as HTML: how far each is, its numbers and curves, and the samples that form as it learns."""

import html
import re
from collections.abc import Sequence

from PIL import Image

from dit.pictures import png
from train.curves import chart, number
from train.report import figures, resumed_after
from ui.costs import duration, numbers_html
from ui.pictures import data_url
from ui.run import FAILED, FINISHED, INTERRUPTED, PAUSED, RUNNING, STOPPED, TrainingRun

DRAWN = ("Loss", "Gradient norm", "Learning rate", "Speed")  # of the report's figures; one run has all
COMPARED = ("Loss",)  # of several runs
MOST_CHANGES = 3  # that are told of a run
GRID_PIXELS = 1100  # longest side of samples in the page
SAID = {
    RUNNING: "training",
    PAUSED: "paused: Resume goes on from its checkpoint",
    STOPPED: "stopped before its end: its weights can be used, and Resume goes on",
    INTERRUPTED: "interrupted: its process is gone",
    FINISHED: "finished",
    FAILED: "failed",
}
ENDING = {PAUSED: "pausing: it writes a checkpoint …", STOPPED: "stopping: it writes a checkpoint …"}
COLOURS = (("#4f46e5", "#9b95ff"), ("#0d9488", "#2dd4bf"), ("#c2410c", "#fb923c"), ("#be185d", "#f472b6"),
           ("#4d7c0f", "#a3e635"), ("#0369a1", "#38bdf8"))  # fmt: skip
CSS = (
    "".join(
        f".dl-run .c{i} {{ color: {light}; }} .dark .dl-run .c{i} {{ color: {dark}; }}\n"
        for i, (light, dark) in enumerate(COLOURS)
    )
    + """
.dl-run .dl-price b { font-size: 15px; }
.dl-run progress { appearance: none; width: 100%; height: 8px; margin: 6px 0 10px; border: 0;
  border-radius: 4px; overflow: hidden; background: var(--border-color-primary); color: var(--color-accent); }
.dl-run progress::-webkit-progress-bar { background: var(--border-color-primary); }
.dl-run progress::-webkit-progress-value { background: var(--color-accent); }
.dl-run progress::-moz-progress-bar { background: var(--color-accent); }
.dl-run .dl-state { margin: 2px; overflow-wrap: anywhere; }
.dl-run .dl-change { font-size: 13px; color: var(--dl-faint); }
.dl-run .dl-curves { display: grid; gap: 12px; margin-top: 12px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 320px), 1fr)); }
.dl-run figure { margin: 0; min-width: 0; border: 1px solid var(--border-color-primary); border-radius: 8px;
  padding: 8px 10px; }
.dl-run figure:first-child { grid-column: 1 / -1; }
.dl-run figcaption { font-weight: 600; font-size: 13px; }
.dl-run figcaption small { font-weight: 400; margin-left: 8px; color: var(--dl-faint); }
.dl-run svg { width: 100%; height: auto; display: block; max-height: 330px; }
.dl-run svg text { font-size: 12px; fill: var(--dl-faint); }
.dl-run svg { overflow: visible; } .dl-run figure:not(:first-child) svg text { font-size: 16px; }
@media (max-width: 640px) { .dl-run svg text { font-size: 16px; } }
.dl-run svg .grid { stroke: var(--border-color-primary); stroke-width: 1; }
.dl-run svg .mark { stroke: var(--dl-faint); stroke-dasharray: 3 4; }
.dl-run polyline { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }
.dl-run polyline.raw { opacity: .3; stroke-width: 1; }
.dl-run circle { fill: currentColor; }
.dl-run .keys { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 12.5px; color: var(--dl-faint); }
.dl-run .keys b { color: var(--body-text-color); font-weight: 500; }
.dl-run .keys i { display: inline-block; width: 14px; height: 3px; border-radius: 2px; margin-right: 5px;
  background: currentColor; vertical-align: middle; }
.dl-samples { margin: 0 auto; max-width: 540px; }
.dl-samples img { width: 100%; height: auto; border-radius: 6px; }
.dl-samples figcaption { font-size: 12.5px; color: var(--dl-faint); }
"""
)


def state_html(run: TrainingRun) -> str:
    """How far a run is, and its numbers."""
    share = min(1.0, run.step / run.total_steps) if run.total_steps else 0.0
    changes = "".join(f'<p class="dl-state dl-change">{html.escape(one)}</p>' for one in happened(run))
    return (
        f'<div class="dl-run"><p class="dl-state"><b>{html.escape(run.name)}</b>: '
        f"{html.escape(state_of(run))}</p>"
        f'<progress value="{share:.4f}" aria-label="share of the steps that are done"></progress>'
        f"{changes}{numbers_html(facts(run))}</div>"
    )


def curves_html(run: TrainingRun, others: Sequence[TrainingRun] = ()) -> str:
    """Charts of a run; with others, that of the loss alone, of all of them."""
    histories = [one.history for one in (run, *others) if one.history]
    if not run.history:
        return ""
    wanted, marks = (COMPARED if len(histories) > 1 else DRAWN), resumed_after(run.history)
    drawn = {title: (lines, log, unit) for title, lines, log, unit in figures(histories)}
    charts = (chart(title, *drawn[title][:2], marks, drawn[title][2]) for title in wanted if title in drawn)
    return f'<div class="dl-run"><div class="dl-curves">{"".join(charts)}</div></div>'


def state_of(run: TrainingRun) -> str:
    """In words; why, where something went wrong."""
    if run.state == RUNNING and run.wanted in ENDING:
        return ENDING[run.wanted]
    if run.state == RUNNING and not run.history:
        # The bar of the steps does not move for as long as the first one is compiled.
        first = re.search(r"(step/s|s/step)\b", run.said)
        said = "its first steps, which take longest" if first else run.said[:160] or "reading its libraries"
        return f"beginning: {said} …"
    if run.state == FAILED:
        return f"failed: {run.said.removeprefix('error: ')} ({_resume(run)})"
    if run.state == INTERRUPTED and run.saved == run.total_steps > 0:
        return "all steps are done, but its weights are missing or damaged: Resume writes them again"
    return SAID[run.state] + (f"; {_resume(run)}" if run.state == INTERRUPTED else "")


def _resume(run: TrainingRun) -> str:
    return f"Resume goes on from step {run.saved:,}" if run.saved else "Resume begins anew"


def happened(run: TrainingRun) -> list[str]:
    """What happened to it on its way, the last few; in sentences."""
    told = run.history.on_the_way()[-MOST_CHANGES:] if run.history else []
    return [f"At step {after.removeprefix('step_').lstrip('0') or 0}: {what}." for after, what in told]


def facts(run: TrainingRun) -> list[tuple[str, str]]:
    """Name and value of each number."""
    last = run.history.rows[-1] if run.history else {}
    found = [("steps", f"{run.step:,} of {run.total_steps:,}" if run.total_steps else "…")]
    if batch := run.settings.get("batch_size"):
        found.append(("pictures seen", f"{run.step * batch:,}"))
    named = (
        ("loss", "loss"),
        ("images/s", "images_per_second"),
        ("learning rate", "lr"),
        ("gradient norm", "grad_norm"),
    )
    found += [(title, number(last[key])) for title, key in named if key in last]
    if run.seconds_left is not None:
        found.append(("left", f"≈ {duration(run.seconds_left)}"))
    return found


def samples_html(run: TrainingRun, position: int) -> str:
    """The grid of samples at a place of the slider, counted from 1; the last one for a place beyond."""
    grids = run.history.samples if run.history else []
    if not grids:
        return ""
    step, path = grids[min(max(position, 1), len(grids)) - 1]
    try:
        with Image.open(path) as image:
            picture = image.convert("RGB")
    except OSError:
        return f"<p>{html.escape(path.name)} cannot be shown: it is damaged or gone</p>"
    picture.thumbnail((GRID_PIXELS, GRID_PIXELS), Image.Resampling.LANCZOS)
    name = html.escape(run.name)
    return (
        f'<figure class="dl-samples"><img src="{data_url(png(picture))}" '
        f'alt="samples of {name} after step {step:,}, a row a class">'
        f"<figcaption>after step {step:,}; a row a class, the same noise at every step</figcaption></figure>"
    )
