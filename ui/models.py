"""The Models tab: what is loaded and can be, sizes, licences, memory; download with progress, and unload."""

import asyncio
import contextlib
import html
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from dit.publish import pictures_of
from dit.published import size_of
from ui import costs, papers
from ui.downloads import Downloads
from ui.explore import Refresh
from ui.limits_html import SMALL
from ui.studio import Rung, Studio
from ui.tickets import Closed
from ui.turns import Full, Turns

CSS = """
.dl-models table { width: 100%; border-collapse: collapse; font-size: 13px; border: 0; }
.dl-models th, .dl-models td { text-align: left; vertical-align: top; padding: 6px 10px; border: 0;
  border-bottom: 1px solid var(--border-color-primary); }
.dl-models tr { border: 0; }
.dl-models td.dl-number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.dl-models td:first-child, .dl-models td:nth-child(2) { white-space: nowrap; }
.dl-models td:first-child { font-weight: 600; }
.dl-models tr.dl-missing { opacity: .65; }
.dl-models code { overflow-wrap: anywhere; }
@media (max-width: 760px) {
  .dl-models thead { display: none; }
  .dl-models tr { display: block; padding: 8px 0; border-bottom: 1px solid var(--border-color-primary); }
  .dl-models td, .dl-models td.dl-number, .dl-models td:first-child, .dl-models td:nth-child(2) {
    display: flex; gap: 10px; border: 0; padding: 2px 0; text-align: left; white-space: normal; }
  .dl-models td::before { content: attr(data-label); flex: 0 0 96px; font-weight: 400;
    color: var(--dl-faint); }
}
"""
FORMULATIONS = {"ddpm": "", "edm": " (EDM)", "flow": " (flow matching)"}
HEADS = ("Model", "Network", "Picture", "Parameters", "GMACs a pass", "Size", "Licence", "Where", "Results")
ABOUT = """Each model's cost is counted in GMACs, 10⁹ multiply-accumulates of one forward pass of one picture:
what the DiT paper prints as "Gflops". Parameters count everything in the weights file, the fixed position
table too. Accuracy is that of a small classifier on generated pictures; Fréchet is their distance from real
ones in its features, lower is better. FID values are quoted from the paper, not measured here."""


def table_html(studio: Studio) -> str:
    """All models: size, cost, licence, where they are, memory, and results."""
    rows = []
    for rung in studio.rungs:
        reason = studio.missing(rung)
        if reason:
            state = costs.missing_html(reason)
        elif rung.pipeline:
            state = f"in memory, {size_of(rung.bytes)}"
        else:
            state = "on this machine; read into memory when drawn with"
        cells = (
            ("", html.escape(rung.name)),
            ("", rung.config.design + FORMULATIONS[rung.config.formulation]),
            ("dl-number", f"{rung.side} × {rung.side}"),
            ("dl-number", f"{rung.parameters / 1e6:,.4g} M"),
            ("dl-number", costs.gmacs(rung.macs_per_pass)),
            ("dl-number", size_of(studio.size_on_disk(rung))),
            ("", html.escape(str(rung.provenance.get("licence", "not stated")))),
            ("", state),
            ("", html.escape(results_of(rung))),
        )
        kind = ' class="dl-missing"' if reason else ""
        tds = "".join(
            f'<td class="{name}" data-label="{head}"><div>{value}</div></td>'
            for head, (name, value) in zip(HEADS, cells, strict=True)
        )
        rows.append(f"<tr{kind}>{tds}</tr>")
    titles = "".join(f'<th scope="col">{head}</th>' for head in HEADS)
    total = sum(rung.bytes for rung in studio.rungs)
    count = costs.count_of("model", len(studio.resident))
    return (
        f'<div class="dl-models"><table><thead><tr>{titles}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div><p>In memory: {count}, {size_of(total)}; "
        f"at most {studio.limits.models} large ones at a time "
        f"({SMALL % size_of(studio.limits.small_bytes)}), the least recently used goes.</p>"
    )


def results_of(rung: Rung) -> str:
    """What is known of a model's quality, with the settings that it was measured with."""
    if rung.published:
        return rung.published.results
    results: dict[str, Any] = rung.provenance.get("results", {})
    try:
        settings = f"{results['steps']} {results['sampler']} steps, guidance {results['guidance_scale']:g}"
        measured = []
        if accuracy := results.get("accuracy"):
            measured.append(f"accuracy {accuracy['overall']:.1%}")
        if frechet := results.get("frechet"):
            of_real = f" (real pictures {frechet['real']:.3g})" if "real" in frechet else ""
            measured.append(f"Fréchet {frechet['distance']:.3g}{of_real}")
        of = f"of {pictures_of(results)}: {settings}"
        return f"{', '.join(measured)}, {of}" if measured else "not evaluated"
    except (KeyError, TypeError, ValueError):  # somebody else's, or from before they were all written down
        return "not evaluated"


def terms_of(rung: Rung) -> str:
    """What a visitor must know before downloading."""
    model = rung.published
    return (
        f"**{rung.name}**: {size_of(model.bytes)} from `{model.repo_id}` at `{model.revision[:7]}`. "
        f"**Licence {model.licence}**: {model.terms}."
    )


def build(studio: Studio, turns: Turns, tab: gr.Tab, refresh: Refresh) -> Downloads:
    """Lay out the tab and wire it; returns the downloads. refresh: see `explore.build`."""
    published = [rung for rung in studio.rungs if rung.published]
    table = gr.HTML(table_html(studio), elem_id="models")
    with gr.Row(equal_height=True):
        with gr.Column(scale=2, min_width=280):
            choice = gr.Radio(
                [rung.name for rung in published], value=published[0].name, label="Published weights",
                elem_id="download-name",
            )  # fmt: skip
            terms = gr.Markdown(terms_of(published[0]), elem_id="terms")
        with gr.Column(scale=1, min_width=200):
            download = gr.Button("Download", variant="primary", elem_id="download")
            cancel = gr.Button(
                "Cancel download", variant="stop", interactive=False, elem_id="cancel-download"
            )
            unload = gr.Button("Free memory", elem_id="unload")
    progress = gr.HTML(elem_id="progress")
    gr.Markdown(ABOUT)
    papers.build()
    downloads = Downloads()
    quick = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

    def named(name: str | None) -> Rung:
        for rung in published:
            if rung.name == name:
                return rung
        raise gr.Error("no model is chosen; choose one of the published weights", print_exception=False)

    async def on_download(name: str, session: gr.Request) -> AsyncIterator[dict]:
        rung = named(name)
        if await asyncio.to_thread(studio.missing, rung) is None:
            yield {progress: f"<p>{html.escape(rung.name)} is here already.</p>"}
            return
        async with contextlib.aclosing(downloads.follow(rung, session.session_hash)) as events:
            try:
                async for job, shown in events:
                    own = job.session in (session.session_hash, None)
                    yield {
                        progress: shown,
                        download: gr.update(interactive=False),
                        cancel: gr.update(interactive=own),
                    }
            except Closed as error:
                raise gr.Error(str(error), print_exception=False) from error
        yield {
            download: gr.update(interactive=True),
            cancel: gr.update(interactive=False),
            table: await asyncio.to_thread(table_html, studio),
        }

    async def on_cancel(session: gr.Request) -> None:
        downloads.cancel(session.session_hash)

    async def on_unload() -> tuple[str, str]:
        try:
            for rung in list(studio.resident):
                await turns.unload(rung)
        except Full as error:
            raise gr.Error(str(error), print_exception=False) from error
        shown = await asyncio.to_thread(table_html, studio)
        return shown, "<p>All memory is free; models are read again when drawn with.</p>"

    def on_open() -> str:
        studio.ask_hub()
        return table_html(studio)

    choice.change(lambda name: terms_of(named(name)), choice, terms, **quick)
    # In two steps: an event's listeners wait for each other, and others of this one need not for the Hub.
    opened = tab.select(None, None, None, js="() => {}", **quick)
    refresh(opened.then(on_open, None, table, **quick))
    job = download.click(
        on_download,
        choice,
        [progress, download, cancel, table],
        concurrency_limit=None,
        show_progress="hidden",
        api_visibility="private",
    )
    refresh(job)
    cancel.click(on_cancel, None, None, **quick)
    refresh(unload.click(on_unload, None, [table, progress], **quick))
    return downloads
