"""What things cost, in words: the numbers beside the sliders and in the status line."""

import html
from collections.abc import Iterable, Sequence

from ui.limits import Limits
from ui.request import Request
from ui.studio import Missing, Rung, Studio
from ui.tickets import Wait

CSS = """
.dl-price { display: grid; grid-template-columns: repeat(auto-fit, minmax(128px, 1fr)); gap: 8px; }
.dl-price div { border: 1px solid var(--border-color-primary); border-radius: 8px; padding: 6px 10px; }
.dl-price b { display: block; font-size: 18px; font-variant-numeric: tabular-nums; }
.dl-price span, .dl-price + p { font-size: 12px; color: var(--dl-faint); }
.dl-price + p { margin: 8px 2px 0; }
.dl-ladder { display: flex; flex-wrap: wrap; gap: 4px 6px; list-style: none; padding: 0; margin: 0;
  font-size: 12px; }
.dl-ladder li { margin: 0; }
.dl-ladder button { border: 1px solid var(--border-color-primary); border-radius: 999px; padding: 1px 9px;
  margin: 0; background: none; box-shadow: none; color: inherit; font: inherit; cursor: pointer; }
.dl-ladder button:hover { border-color: var(--color-accent); }
.dl-ladder button:focus-visible { outline: 2px solid var(--color-accent); outline-offset: 1px; }
.dl-ladder .dl-chosen { border-color: var(--color-accent); color: var(--color-accent); font-weight: 600; }
.dl-ladder .dl-missing { border-style: dashed; opacity: .65; }
.dl-ladder + p { margin: 6px 2px 0; font-size: 12px; overflow-wrap: anywhere; }
"""

# A click moves the slider here, not by way of the server, so that the last of quick clicks counts.
# Listens on the component, which stays when its contents are set anew.
LADDER_SCRIPT = """
element.addEventListener('click', (event) => {
  const chip = event.target.closest('.dl-ladder button');
  if (!chip) return;
  const slider = document.querySelector('#model input[type=range]');
  slider.value = chip.dataset.index;
  slider.dispatchEvent(new Event('input', { bubbles: true }));
});
"""


def gmacs(macs: int) -> str:
    """Multiply-accumulates as GMACs: three decimals below 1, none from 100 on."""
    value = macs / 1e9
    decimals = next((n for n, limit in ((3, 1), (2, 10), (1, 100)) if round(value, n) < limit), 0)
    return f"{value:,.{decimals}f}"


def refuse_dear(requests: Sequence[Request], limits: Limits) -> None:
    """Let one job pass if the server allows what it costs.

    Raises:
        ValueError: it does not; the message names cost, limit and remedy.
    """
    total = sum(request.macs for request in requests)
    if total > limits.gmacs * 1e9:
        count = count_of("picture", sum(len(request.settings.seeds) for request in requests))
        raise ValueError(
            f"{count} would cost {gmacs(total)} GMACs, and this server gives at most "
            f"{gmacs(limits.gmacs * 1e9)} to a request: choose fewer steps, fewer pictures, or a smaller "
            "model"
        )


def price_html(request: Request) -> str:
    """Parameters, GMACs a pass, GMACs a picture, expected seconds; then a sentence that ties them."""
    rung, settings = request.rung, request.settings
    cost, count = rung.cost(settings), len(settings.seeds)
    cells = (
        ("parameters", f"{rung.parameters / 1e6:,.4g} M", "the fixed position table included"),
        ("GMACs a pass", gmacs(rung.macs_per_pass), "10⁹ multiply-accumulates of one forward pass"),
        ("GMACs a picture", gmacs(rung.macs(settings)), "all steps, guidance and reuse counted"),
        (
            f"expected for {count}",
            f"≈ {duration(rung.seconds(settings))}",
            "estimate from a timing at start and the last job",
        ),
    )
    grid = "".join(
        f'<div title="{html.escape(tip, quote=True)}"><b>{value}</b><span>{title}</span></div>'
        for title, value, tip in cells
    )
    calls = rung.calls(settings)
    decoding = f" Decoding its latent adds {gmacs(rung.decoder_macs)} GMACs." if rung.latent else ""
    kind = "look" if settings.sampler == "heun" else "step"
    steps, total = count_of("step", settings.steps), count_of("pass", cost.passes)
    per_step = f"1 pass a {kind}"
    if cost.passes > calls:
        some = "" if cost.passes == 2 * calls else f", {count_of(kind, cost.passes - calls)} of them guided"
        per_step = f"2 passes a {'guided ' if some else ''}{kind}, one with and one without the class{some}"
    reused = f"; {cost.reused} of them reuse what the blocks gave before" if cost.reused else ""
    if settings.sampler == "heun":
        steps += f" of Heun's method, {count_of('look', calls)} at the picture"
    return (
        f'<div class="dl-price">{grid}</div><p>{html.escape(rung.name)}: {steps}, {per_step}, '
        f"make {total} a picture{reused}. 1 MAC = 2 FLOPs.{decoding}</p>"
    )


def numbers_html(cells: Iterable[tuple[str, str]]) -> str:
    """Names and values of some numbers, side by side."""
    told = (f"<div><b>{html.escape(value)}</b><span>{name}</span></div>" for name, value in cells)
    return f'<div class="dl-price">{"".join(told)}</div>'


def duration(seconds: float) -> str:
    """Seconds as 8.6 s, 95 s, 13 min or 24 h."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 20 else f"{seconds:.0f} s"
    if seconds >= 10 * 3600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 60:.0f} min"


def ladder_html(studio: Studio, chosen: Rung | None) -> str:
    """The models from little to much compute; those that cannot be had now are grey, and say why."""
    items = []
    for index, rung in enumerate(studio.rungs):
        reason, chosen_here = studio.missing(rung), rung is chosen
        kind = f"{'dl-missing' if reason else ''} {'dl-chosen' if chosen_here else ''}".strip()
        tip = html.escape(str(reason or "") or f"{gmacs(rung.macs_per_pass)} GMACs a pass", quote=True)
        items.append(
            f'<li><button type="button" class="{kind}" title="{tip}" data-index="{index}" '
            f"{' aria-current=true' if chosen_here else ''}>{html.escape(rung.name)}</button></li>"
        )
    reason = studio.missing(chosen) if chosen else None
    note = f"<p>{missing_html(reason)}</p>" if reason else ""
    return f'<ol class="dl-ladder" aria-label="models, cheapest first">{"".join(items)}</ol>{note}'


def missing_html(missing: Missing) -> str:
    """Why a model is not here, and the command that helps, ready to be copied."""
    return f"{html.escape(missing.reason)}: <code>{html.escape(missing.command)}</code>"


def count_of(noun: str, number: int) -> str:
    """A number and its noun: 1 step, 2 steps, 2 passes."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}{'es' if noun.endswith('s') else 's'}"


def complaint_html(message: str) -> str:
    """What stands there when the settings cannot be drawn."""
    return f'<div class="dl-price"><div>{html.escape(message)}</div></div>'


def waiting(wait: Wait) -> str:
    """Who shares the machine with a visitor, and when the own job will be done."""
    others = "another job" if wait.others == 1 else f"{wait.others} other jobs"
    shared = f"{others} and yours share the machine, a step of each in turn" if wait.others else "a long step"
    return f"**Waiting:** {shared}; yours is done in about {duration(wait.seconds)}."
