"""A budget as the page shows it: every model side by side, its steps, its picture, and what was measured."""

import html
from dataclasses import dataclass
from typing import Any

from ui import costs
from ui.budget import Allowance, compared, finding
from ui.families import Group, trained
from ui.grid_html import figure, seconds, source
from ui.measured_words import behind, three
from ui.several import Several

CSS = """
#budget-at :is(.tab-like-container, .min_value, .max_value) { display: none; }  /* places on a log scale */
.dl-budget { display: flex; flex-wrap: wrap; gap: 14px; padding: 0; margin: 0; list-style: none;
  font-size: 12px; }
.dl-budget li { margin: 0; }
.dl-budget .dl-cell { width: 140px; }
.dl-budget h4 { width: 140px; font-size: 12px; font-weight: 600; margin: 0 0 4px; overflow-wrap: anywhere;
  line-height: 1.25; min-height: 2.5em; display: flex; align-items: end; }
.dl-budget .dl-cell figcaption .dl-steps { font-weight: 600; color: inherit; }
.dl-reading { font-size: 20px; font-weight: 600; font-variant-numeric: tabular-nums; }
.dl-finding { font-size: 15px; margin: 2px 0; }
.dl-finding + p { font-size: 12.5px; margin: 2px 0; color: var(--dl-faint); }
"""

# The slider counts places on a logarithmic scale: what they stand for is read out in their stead.
SCRIPT = """
const say = () => {
  const said = element.querySelector('.dl-reading')?.textContent;
  for (const input of document.querySelectorAll('#budget-at input')) {
    if (said) input.setAttribute('aria-valuetext', said + ' a picture');
  }
};
new MutationObserver(say).observe(element, { childList: true, subtree: true, characterData: true });
say();
"""


@dataclass(eq=False)
class Shown:
    """A budget while it is drawn, and after."""

    budget: float
    group: Group
    given: list[Allowance]
    job: Several
    values: tuple[Any, ...] = ()  # of the controls that asked for it
    running: bool = False  # while it is drawn, or waits
    dropped: bool = False  # the controls have asked for something else since

    @classmethod
    def of(cls, budget: float, group: Group, given: list[Allowance], values: tuple[Any, ...] = ()) -> "Shown":
        """With nothing drawn yet; those who can afford least are drawn first."""
        able = sorted((each for each in given if each.request), key=lambda each: each.macs)
        return cls(budget, group, given, Several([each.request for each in able]), values)

    def html(self) -> str:
        """All models side by side."""
        return f'<ol class="dl-budget">{"".join(map(self._card, self.given))}</ol>'

    def _card(self, each: Allowance) -> str:
        name = html.escape(each.rung.name)
        if each.request is None:
            body = f'<div class="dl-cell"><div class="dl-blank">{html.escape(each.refusal)}</div></div>'
            return f"<li><h4>{name}</h4>{body}</li>"
        place = self.job.requests.index(each.request)
        more = f'<span class="dl-steps">{costs.count_of("step", each.steps)}</span>'
        if cell := each.measured:
            near = "" if cell.steps == each.steps else f" (at {cell.steps} steps)"
            more += f"<span>Fréchet {three(cell.frechet)}{near}</span>"
        if self.group.table is None or each.rung.in_training:  # nothing says that it was trained alike
            more += f"<span>{trained(each.rung)}</span>"
        cost = f"{costs.gmacs(each.macs)} GMACs"
        if drawn := self.job.drawn.get(place):
            body = figure(drawn, f"{name}, {costs.count_of('step', each.steps)}", more)
        elif place == self.job.now and self.job.frame is not None:
            picture = f'<img src="{source(self.job.frame.x0)}" alt="{name}, being drawn" decoding="sync">'
            now = f"<span>step {self.job.frame.index + 1} of {self.job.frame.steps}</span>"
            body = f'<figure class="dl-cell dl-now">{picture}<figcaption>{cost}{now}</figcaption></figure>'
        else:
            blank = '<div class="dl-blank">to be drawn</div>'
            body = f'<figure class="dl-cell">{blank}<figcaption>{cost}{more}</figcaption></figure>'
        return f"<li><h4>{name}</h4>{body}</li>"

    def finding(self) -> str:
        """What is seen, as HTML, and what its numbers are of; nothing before something is."""
        if not self.job.drawn:
            return ""
        told = finding(self.budget, self.given, list(self.job.drawn.values()))
        cells = [each.measured for each in compared(self.given)]
        below = f"<p>{html.escape(behind(self.group.table, cells))}</p>" if cells else ""
        return f'<p class="dl-finding">{html.escape(told)}</p>{below}'


def reading_html(shown: Shown) -> str:
    """The budget in numbers, and what drawing will take."""
    expected = seconds(shown.job.seconds)
    able = f"{len(shown.job.requests)} of {costs.count_of('model', len(shown.given))}"
    return (
        f'<div aria-live="polite"><span class="dl-reading">{costs.gmacs(shown.budget)} GMACs</span> a picture'
        f"<br>{able} can afford a step; about {expected} for all</div>"
    )
