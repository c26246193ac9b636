"""Published numbers: what the papers print beside what is counted here, as a chart and as a table."""

import html
import json
from pathlib import Path

import gradio as gr

from dit import papers
from dit.info import diffit_note, gflops_text, steps_text
from dit.papers import PaperResult
from ui import chart, chart_behaviour, sortable
from ui.chart import Axes, Point, Series
from ui.sortable import Column, Value

# Written by `python -m benchmarks.counts`.
COUNTS = Path(__file__).resolve().parent.parent / "assets" / "counts.json"
FAMILIES = {  # what is drawn alike -> its results
    Series(
        key=f"p{patch}",
        title=f"DiT, patch {patch}",
        tip=f"four sizes, S to XL; the latent is cut into patches of {patch} x {patch}; 400,000 training "
        "steps",
        path=chart.CIRCLE,
        colour=colour,
        line=chart.FAINT,
    ): [result for result in papers.SCALING if result.name.endswith(f"/{patch}")]
    for patch, colour in ((8, "amber"), (4, "green"), (2, "blue"))
}
FAMILIES |= {
    Series(
        key=key, title=title, tip=tip, path=path, colour=colour, hollow=any(each.guided for each in results)
    ): results
    for key, title, tip, path, colour, results in (
        (
            "designs",
            "Block designs",
            "DiT-XL/2 whose blocks hear of timestep and class in other ways",
            chart.TRIANGLE,
            "pink",
            list(papers.DESIGNS[:3]),
        ),
        (
            "longer",
            "XL/2, more steps or 512 px",
            "trained for more than 400,000 steps, or for pictures of 512 pixels; labels say the steps",
            chart.PENTAGON,
            "blue",
            list(papers.LONGER),
        ),
        (
            "unets",
            "U-Nets",
            "convolutional networks that DiT is compared with: ADM and LDM",
            chart.SQUARE,
            "slate",
            [result for result in papers.UNETS if result.fid],
        ),
        (
            "guided-dit",
            "XL/2, guided",
            "the longest trained, drawn with guidance: pushed towards the class",
            chart.DIAMOND,
            "blue",
            list(papers.GUIDED_DIT),
        ),
        (
            "diffit",
            "DiffiT, guided",
            "a transformer whose attention depends on the timestep",
            chart.DIAMOND,
            "pink",
            [result for result in papers.GUIDED_OTHERS if result.name == "DiffiT" and result.gflops],
        ),
        (
            "others",
            "SiT and MDT, guided",
            "relatives of DiT-XL/2 that are trained otherwise",
            chart.DIAMOND,
            "violet",
            [result for result in papers.GUIDED_OTHERS if result.name != "DiffiT"],
        ),
    )
}
WORDS = {
    "Gflops": "the papers' word for 10⁹ multiply-accumulates of one forward pass of one picture",
    "GMACs": "10⁹ multiply-accumulates of one forward pass of one picture; 1 MAC = 2 FLOPs",
    "FID-50K": "Fréchet Inception Distance of 50,000 generated pictures from real ones; lower is better",
    "guidance": "the prediction is pushed from what it is without the class towards what it is with it",
    "correlation": "Pearson's: 0 is no linear relation, -1 a falling straight line",
}
PARAMETERS = "millions of parameters that are trained; the fixed position table is none"
COLUMNS = (
    Column("Model", "as the paper writes it"),
    Column("Pixels", "side of the pictures", 0),
    Column("Gflops, printed", WORDS["Gflops"], 2),
    Column("GMACs, ours", WORDS["GMACs"], 2),
    Column("Params, printed", PARAMETERS, 0),
    Column("Params, ours", PARAMETERS, 1),
    Column("Tokens", "patches of one picture, or latent; of a U-shape the places of its first stage", 0),
    Column("Weights, MB", "memory of the weights in float32", 0),
    Column("Activations, MB", "memory that drawing one picture takes besides, at its peak, in float32", 1),
    Column("FID-50K", WORDS["FID-50K"], 2),
    Column("Guided", f"whether with guidance: {WORDS['guidance']}"),
    Column("Steps (K)", "thousands of training steps", 0),
    Column("Sampling", "how the pictures were drawn whose FID is printed"),
    Column("Source", "paper and table"),
)
CSS = (
    chart_behaviour.CSS
    + sortable.CSS
    + """
.dl-papers abbr { text-decoration: underline dotted; cursor: help; }
.dl-papers p { margin: 8px 2px; max-width: 100ch; }
.dl-papers a { margin: 0; padding: 0; }
"""
)


def points() -> list[Point]:
    """Every result that has both Gflops and FID."""
    return [
        Point(family.key, result.gflops, result.fid, label_of(family, result), tooltip(result))
        for family, results in FAMILIES.items()
        for result in results
    ]


def label_of(family: Series, result: PaperResult) -> str:
    """What stands beside a point, where its colour and shape say the rest."""
    at_512 = "512 px" if result.resolution == 512 else ""
    if family.key in ("p2", "p4", "p8"):
        return result.name.removeprefix("DiT-").split("/")[0]
    if family.key == "designs":
        return result.name.split(", ")[1]
    if family.key == "longer":
        return ", ".join(filter(None, (at_512, f"{result.training_steps / 1e6:.3g}M")))
    if family.key == "guided-dit":
        return ", ".join(filter(None, (at_512, result.settings.split(", ")[1])))
    return f"{result.name} {at_512}".strip()


def tooltip(result: PaperResult) -> tuple[str, ...]:
    """A point's lines: model, Gflops, parameters, FID, settings, source."""
    trained = f"{steps_text(result.training_steps)} training steps" if result.training_steps else ""
    lines = (
        f"{result.name}, {result.resolution} px",
        f"{gflops_text(result.gflops)} Gflops a forward pass",
        f"{result.parameters:g} M parameters" if result.parameters else "",
        f"FID-50K {result.fid:.2f}, {'with' if result.guided else 'without'} guidance",
        ", ".join(filter(None, (trained, result.settings))),
        result.source,
    )
    return tuple(filter(None, lines))


def drawing() -> str:
    """The chart of all published points."""
    shown = points()
    axes = Axes(
        x_range=(0.25, 5500),
        y_range=(1.4, 200),
        x_ticks=(0.3, 1, 3, 10, 30, 100, 300, 1000, 3000),
        y_ticks=(2, 5, 10, 20, 50, 100),
        x_title="Gflops of a forward pass, as printed (log)",
        y_title="FID-50K (log; lower is better)",
        summary=f"{len(shown)} published results, Gflops against FID-50K, both logarithmic. "
        "Arrow keys go from point to point, Enter pins its description.",
    )
    return chart.chart_html(list(FAMILIES), shown, axes)


def word(name: str, shown: str | None = None) -> str:
    """A term with its explanation as a tooltip."""
    return f'<abbr title="{html.escape(WORDS[name], quote=True)}">{html.escape(shown or name)}</abbr>'


def seen() -> str:
    """What the chart shows, in sentences; all numbers computed from the records."""
    relation = papers.correlation(papers.SCALING)
    designs = [result.fid for result in papers.DESIGNS]
    unguided = min(r.fid for r in papers.LONGER if r.resolution == 256)
    guided = min(r.fid for r in papers.GUIDED_DIT if r.resolution == 256)
    return (
        '<div class="dl-papers">'
        f"<p>Of the DiT paper's twelve models (joined, by patch) one with more {word('Gflops')} tends to "
        f"have a lower {word('FID-50K')}: the {word('correlation')} of log₁₀ Gflops with FID is "
        f"{_minus(relation)}. The four block designs cost nearly the same, and still range from "
        f"{max(designs):.2f} to {min(designs):.2f}.</p>"
        f"<p><b>Hollow marks are drawn with {word('guidance')}, filled ones without: their FIDs must not be "
        "compared with each other.</b> Guidance alone brings the same weights of DiT-XL/2 from "
        f"{unguided:.2f} to {guided:.2f}, and costs a second forward pass a step, which the Gflops here "
        "leave out. Nor are 256 and 512 pixels one scale.</p>"
        "<p>Point at a mark, or press Tab and then the arrow keys; a click or Enter pins what is said of "
        "it. The legend hides and shows.</p></div>"
    )


def _minus(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def reading() -> str:
    """How the table is to be read."""
    links = ", ".join(
        f'<a href="https://arxiv.org/abs/{number}" target="_blank" rel="noopener">{name}</a>'
        for name, number in papers.ARXIV.items()
    )
    return (
        f'<div class="dl-papers"><p>A click on a head sorts. {word("Gflops", "Gflops, printed")} and '
        f"{word('GMACs', 'GMACs, ours')} are one unit, and so comparable, but for DiffiT. What a paper "
        "does not print, or is not built here, is empty. The FIDs of DiffiT-CIFAR-32 and DiffiT-FFHQ-64 are "
        f"of other pictures than ImageNet's. Papers: {links}.</p><p>{html.escape(diffit_note())}</p></div>"
    )


def rows() -> list[list[Value]]:
    """The table's rows; what is not printed, or not built here, is empty.

    Raises:
        ValueError: a model that has not been counted.
    """
    stored = json.loads(COUNTS.read_text())
    if missing := papers.models().keys() - stored.keys():
        raise ValueError(f"{COUNTS} has not {sorted(missing)}; make it anew: python -m benchmarks.counts")
    counts = {name: _numbers(counted) for name, counted in stored.items()}
    own = []
    for name in papers.BASELINES:
        gmacs, *others = counts[name]
        own.append([name, None, None, gmacs, None, *others, None, "", None, "", "not in the papers"])
    return [_row(result, counts) for result in papers.RESULTS] + own


def _numbers(counted: dict[str, int]) -> list[Value]:
    """GMACs, parameters (M), tokens, and both memories (MB), counted by us."""
    return [
        counted["macs"] / 1e9,
        counted["trainable"] / 1e6,
        counted["tokens"],
        counted["weight_bytes"] / 1e6,
        counted["sampling_bytes"] / 1e6,
    ]


def _row(result: PaperResult, counts: dict[str, list[Value]]) -> list[Value]:
    gmacs, *others = counts[result.our_name] if result.preset else [None] * 5
    return [
        result.name,
        result.resolution,
        result.gflops,
        gmacs,
        result.parameters,
        *others,
        result.fid,
        "yes" if result.guided else "no",
        result.training_steps // 1000 if result.training_steps else None,
        result.settings,
        result.source,
    ]


def build() -> None:
    """Lay out the section."""
    gr.Markdown("## Published numbers")
    gr.HTML(drawing(), js_on_load=chart_behaviour.SCRIPT, elem_id="papers-chart")
    gr.HTML(seen())
    gr.HTML(sortable.table_html(COLUMNS, rows()), js_on_load=sortable.SCRIPT, elem_id="papers-table")
    gr.HTML(reading())
