"""Published numbers: what the papers print beside what is counted here, as a chart and as a table."""

import html

import gradio as gr

from dit import papers
from dit.counts import count
from dit.info import gflops_text, steps_text
from dit.papers import PaperResult
from ui import chart
from ui.chart import Axes, Family, Point

FAMILIES = {  # what is drawn alike -> its results
    Family(
        f"p{patch}",
        f"DiT, patch {patch}",
        f"four sizes, S to XL; the latent is cut into patches of {patch} x {patch}; 400,000 training steps",
        chart.CIRCLE,
        colour,
        joined=True,
    ): [result for result in papers.SCALING if result.name.endswith(f"/{patch}")]
    for patch, colour in ((8, "amber"), (4, "green"), (2, "blue"))
}
FAMILIES |= {
    Family(key, title, tip, path, colour, hollow=any(result.guided for result in results)): results
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
COLUMNS = {  # head -> kind, width in pixels
    "Model": ("str", 150),
    "Pixels": ("number", 70),
    "Gflops, printed": ("number", 84),
    "GMACs, ours": ("number", 84),
    "Params M, printed": ("number", 94),
    "Params M, ours": ("number", 94),
    "FID-50K": ("number", 84),
    "Guided": ("str", 76),
    "Steps (K)": ("number", 84),
    "Sampling": ("str", 240),
    "Source": ("str", 150),
}
WORDS = {
    "Gflops": "the papers' word for 10⁹ multiply-accumulates of one forward pass of one picture",
    "GMACs": "10⁹ multiply-accumulates of one forward pass of one picture; 1 MAC = 2 FLOPs",
    "FID-50K": "Fréchet Inception Distance of 50,000 generated pictures from real ones; lower is better",
    "guidance": "the prediction is pushed from what it is without the class towards what it is with it",
    "correlation": "Pearson's: 0 is no linear relation, -1 a falling straight line",
}
CSS = (
    chart.CSS
    + """
.dl-papers abbr { text-decoration: underline dotted; cursor: help; }
.dl-papers p { margin: 8px 2px; max-width: 100ch; }
#papers-table { --font-mono: var(--font); max-width: 1216px; }
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


def label_of(family: Family, result: PaperResult) -> str:
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
        f"{word('GMACs', 'GMACs, ours')} are one unit, and so comparable, but for DiffiT: its printed number "
        "leaves out a part of attention that the others' contain (<code>python -m dit.info</code> says it "
        "in full). Params are millions of trained parameters, without the fixed position table; steps are "
        "thousands of training steps. The FIDs of DiffiT-CIFAR-32 and DiffiT-FFHQ-64 are of other pictures "
        f"than ImageNet's. Papers: {links}.</p></div>"
    )


def rows() -> list[list[str | float | None]]:
    """The table's rows; what is not printed, or not built here, is empty."""
    return [_row(result) for result in papers.RESULTS]


def _row(result: PaperResult) -> list[str | float | None]:
    counted = count(result.config) if result.config else None
    return [
        result.name,
        result.resolution,
        result.gflops,
        round(counted.macs / 1e9, 2) if counted else None,
        result.parameters,
        round(counted.trainable / 1e6, 1) if counted else None,
        result.fid,
        "yes" if result.guided else "no",
        result.training_steps // 1000 if result.training_steps else None,
        result.settings,
        result.source,
    ]


def build(tab: gr.Tab) -> None:
    """Lay out the section. Its table is filled when the tab is opened: counting takes the start a second."""
    gr.Markdown("## Published numbers")
    gr.HTML(drawing(), js_on_load=chart.SCRIPT, elem_id="papers-chart")
    gr.HTML(seen())
    table = gr.Dataframe(
        headers=list(COLUMNS),
        datatype=[kind for kind, _ in COLUMNS.values()],
        type="array",
        interactive=False,
        show_search="search",
        wrap=True,
        column_widths=[f"{width}px" for _, width in COLUMNS.values()],
        pinned_columns=1,
        max_height=520,
        elem_id="papers-table",
        show_label=False,
        label="Published numbers",
    )
    gr.HTML(reading())
    tab.select(rows, None, table, queue=False, show_progress="hidden", api_visibility="private")
