"""The same compute for every model of a family: the steps that each can afford, and how good those are."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dit.measured import Cell, Family
from ui import costs
from ui.families import Group
from ui.judge import with_article
from ui.measured_choice import MACS
from ui.measured_words import priced, three
from ui.request import PAGE_STEPS, Request, Wish, parse
from ui.several import Drawn
from ui.studio import Rung, Studio

PER_DECADE = 20  # positions of the slider to a factor of 10
NEAR = 1.25  # ratio of two numbers of steps whose pictures are about as good
SAID = 3  # models that a sentence names, at most


@dataclass(frozen=True)
class Allowance:
    """What one model gets for the budget."""

    rung: Rung
    request: Request | None  # None: it gets nothing
    refusal: str = ""  # why not
    macs: int = 0  # of one of its pictures
    measured: Cell | None = None  # of nearly as many steps, otherwise alike

    @property
    def steps(self) -> int:
        """That it can afford."""
        return self.request.settings.steps if self.request else 0


def budget_at(position: float) -> float:
    """Multiply-accumulates a picture at a place of the slider, which counts 20 places to a factor of 10."""
    return 1e9 * 10 ** (position / PER_DECADE)


def positions(family: Sequence[Rung]) -> tuple[int, int]:
    """The slider's ends: one step of the cheapest model, and `PAGE_STEPS` guided steps of the dearest."""
    least, most = family[0].macs_per_pass / 1e9, 2 * family[-1].macs_per_pass / 1e9 * PAGE_STEPS
    low = math.ceil(PER_DECADE * math.log10(least) - 1e-9)
    return low, math.ceil(PER_DECADE * math.log10(most) - 1e-9)


def usual(group: Group) -> tuple[float, str]:
    """Guidance scale and sampler to begin with: of what this view can ask for, those most measured."""
    counts = Counter(
        (cell.guidance_scale, cell.sampler)
        for cell in (group.table.cells if group.table else ())
        if cell.guidance_interval is None and cell.cache_every == 1
    )
    return max(counts, key=counts.get) if counts else (group.compared[-1].guidance_scale, "auto")


def allow(
    studio: Studio, family: Sequence[Rung], budget: float, wish: Wish, table: Family | None
) -> list[Allowance]:
    """What each model of a family gets, cheapest a pass first.

    budget: multiply-accumulates a picture. wish: all but model and steps. table: what was measured.

    Raises:
        ValueError: the wish is none for any model, or all together would cost too much.
    """
    given = [_allowance(studio, rung, budget, wish, table) for rung in family]
    requests = [each.request for each in given if each.request]
    if not requests and not any("afford" in each.refusal for each in given):
        raise ValueError(given[0].refusal)
    limits = studio.limits
    costs.refuse_dear(requests, limits)
    seconds = sum(request.rung.seconds(request.settings) for request in requests)
    if seconds > limits.seconds:
        raise ValueError(
            f"{costs.gmacs(budget)} GMACs a picture are expected to take {costs.duration(seconds)} for "
            f"{costs.count_of('model', len(requests))}; at most {costs.duration(limits.seconds)} are given "
            "to one job: choose a smaller budget, or fewer pictures"
        )
    pixels = sum(len(request.settings.seeds) * request.rung.side**2 for request in requests)
    if pixels > limits.pixels:
        raise ValueError(
            f"the pictures have {pixels / 1e6:.1f} megapixels together; at most {limits.pixels / 1e6:.1f} "
            "are kept: choose fewer pictures"
        )
    return given


def _allowance(studio: Studio, rung: Rung, budget: float, wish: Wish, table: Family | None) -> Allowance:
    """The most steps whose cost is within the budget, guidance counted; found by halving."""
    if reason := studio.missing(rung):
        return Allowance(rung, None, str(reason))
    if not rung.config.has_null_class:
        wish = wish._replace(guidance_scale=1.0)  # it cannot be guided
    try:
        one = parse(studio.rungs, wish._replace(model=rung.name, steps=1), studio.limits)
    except (TypeError, ValueError) as error:
        return Allowance(rung, None, str(error))
    if (least := rung.macs(one.settings)) > budget:
        return Allowance(rung, None, f"cannot afford one step: that takes {costs.gmacs(least)} GMACs")
    low, high = 1, PAGE_STEPS  # low can be afforded
    while low < high:
        middle = (low + high + 1) // 2
        if rung.macs(replace(one.settings, steps=middle)) <= budget:
            low = middle
        else:
            high = middle - 1
    request = Request(rung, replace(one.settings, steps=low))
    return Allowance(rung, request, macs=rung.macs(request.settings), measured=near(table, request))


def near(table: Family | None, request: Request) -> Cell | None:
    """The measured cell of the same model and setting whose steps are nearest; None beyond a quarter."""
    settings = request.settings
    setting = settings.sampler, settings.guidance_scale, settings.guidance_interval, settings.cache_every
    found = [
        cell
        for cell in (table.cells if table else ())
        if cell.model == request.rung.name and cell.setting == setting
    ]
    best = min(found, key=lambda cell: abs(math.log(cell.steps / settings.steps)), default=None)
    return (
        best if best and max(best.steps, settings.steps) <= NEAR * min(best.steps, settings.steps) else None
    )


def finding(budget: float, given: Sequence[Allowance], drawn: Sequence[Drawn]) -> str:
    """A sentence of what is seen: by what was measured where two models were, else by the class check."""
    at = f"At {costs.gmacs(budget)} GMACs a picture"
    if pair := compared(given):
        return f"{at} {_compared(*pair)}"
    checked = [(each.request.rung.name, each.verdict) for each in drawn if each.verdict]
    unmeasured = (
        "Fewer than two of these models were measured at such settings, so this is one look, no measure."
    )
    if not checked:
        return f"{at}, judge by eye. {unmeasured}" if drawn else ""
    wanted = with_article(checked[0][1].wanted)
    wrong = [name for name, verdict in checked if not verdict.passed]
    right = f"{len(checked) - len(wrong)} of {costs.count_of('model', len(checked))}"
    told = f"{right} {'draws' if len(checked) == 1 else 'draw'} what passes for {wanted}"
    if 0 < len(wrong) <= SAID:
        told += f", and {' and '.join(wrong)} {'does' if len(wrong) == 1 else 'do'} not"
    return f"{at} {told}, says the class check. {unmeasured}"


def compared(given: Sequence[Allowance]) -> list[Allowance]:
    """The two that the sentence compares, the better first; none unless two models were measured.

    The best against the model that differs most in size; they are in order of size.
    """
    measured = [each for each in given if each.measured]
    if len(measured) < 2:
        return []
    best = min(measured, key=lambda each: each.measured.frechet)
    return [best, measured[0] if measured.index(best) >= len(measured) / 2 else measured[-1]]


def _compared(best: Allowance, other: Allowance) -> str:
    a, b = best.measured, other.measured
    smaller = best.rung.macs_per_pass < other.rung.macs_per_pass
    first, second = (
        f"{cell.model} (measured at {costs.count_of('step', cell.steps)}, {priced(cell.macs / 1e9, MACS)})"
        for cell in (a, b)
    )
    first = f"the {'smaller' if smaller else 'larger'} model {first}"
    second = f"the {'larger' if smaller else 'smaller'} {second}"
    values = f"Fréchet distance {three(a.frechet)} against {three(b.frechet)}"
    one, two = a.measures.get("frechet_interval"), b.measures.get("frechet_interval")
    if one and two and one[1] >= two[0]:
        return f"{first} and {second} cannot be told apart: {values}, and their 95 % intervals overlap."
    return f"{first} beats {second}: {values}; lower is better."
