"""Measured cells in words: what a point says, what is seen in a chart, and what stands behind its numbers."""

import math
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from dit import papers
from dit.measured import Cell, Family, correlation, frontier
from ui.costs import count_of
from ui.measured_choice import FEWEST, MACS, PICTURE, SECONDS, Choice, guidance_text

PAPER = "the DiT paper"
BUDGETS = 3  # of which the best cell is named
ALIKE = 0.03  # difference of two correlations that is none worth a word
UNIT = {MACS: "GMACs", SECONDS: "s"}
WORD = {MACS: "compute", SECONDS: "time"}


def short_name(family: Family, model: str) -> str:
    """Without the family's own name at its end."""
    return model.removesuffix(f"-{family.name}")


def three(value: float) -> str:
    """A number with three digits, all of them before the point from 100 on."""
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:.3g}"


def cost_of(cell: Cell, cost: str) -> float:
    """Of a picture, in GMACs or seconds."""
    return cell.macs / 1e9 if cost == MACS else cell.seconds


def priced(value: float, cost: str) -> str:
    """A cost with its unit."""
    return f"{three(value)} {UNIT[cost]}"


def setting_text(setting: tuple[Any, ...]) -> str:
    """Sampler, guidance and caching, as a reader says them."""
    sampler, scale, interval, cache = setting
    guidance = (
        "no guidance" if (scale, interval) == (1, None) else f"guidance {guidance_text((scale, interval))}"
    )
    cached = "" if cache == 1 else f", caching every {cache} steps"
    return f"{sampler}, {guidance}{cached}"


def details(family: Family, cell: Cell, best: bool = False) -> tuple[str, ...]:
    """A cell's lines: model and steps, settings, costs, measures, of how many pictures."""
    found = cell.measures
    interval = found.get("frechet_interval")
    sure = f" (95 %: {three(interval[0])} to {three(interval[1])})" if interval else ""
    shares = [
        f"{word} {found[name]:.3f}" for name, word in (("precision", "precision"), ("recall", "recall"))
        if name in found
    ]  # fmt: skip
    lines = (
        f"{short_name(family, cell.model)}, {count_of('step', cell.steps)}",
        setting_text(cell.setting),
        f"{priced(cell.macs / 1e9, MACS)} and {priced(cell.seconds, SECONDS)} a picture",
        f"Fréchet distance {three(cell.frechet)}{sure}",
        ", ".join(shares),
        f"class accuracy {found['accuracy']:.1%}" if "accuracy" in found else "",
        f"of {cell.samples:,} pictures",
        "on the efficient frontier" if best else "",
    )
    return tuple(filter(None, lines))


def seen(family: Family, choice: Choice) -> list[str]:
    """What the chart of a choice shows, in sentences; every number computed from its cells."""
    return seen_of_pictures(family, choice) if choice.view == PICTURE else seen_of_models(family, choice)


def seen_of_pictures(family: Family, choice: Choice) -> list[str]:
    """Who is best at which cost; the cheapest model against the dearest; the frontier; caching; who lacks."""
    cells = choice.cells(family)
    if not cells:
        return []
    said = [
        _budgets(family, choice, cells),
        _small_and_large(family, choice),
        _frontier(family, choice, cells),
    ]
    said += [_caching(family, choice, every) for every in choice.caches[1:]]
    return list(filter(None, [*said, _absent(family, cells)]))


def _absent(family: Family, cells: Sequence[Cell]) -> str:
    """Which models have no point, lest a cheaper one be taken for the best of all."""
    there = {cell.model for cell in cells}
    names = [short_name(family, model.name) for model in family.models if model.name not in there]
    were = "was" if len(names) == 1 else "were"
    return f"{_listed(names)} {were} not measured with these settings." if names else ""


def _budgets(family: Family, choice: Choice, cells: Sequence[Cell]) -> str:
    costs = [cost_of(cell, choice.cost) for cell in cells]
    powers = range(math.ceil(math.log10(min(costs))), math.floor(math.log10(max(costs))) + 1)
    if not powers:
        return ""
    asked = sorted({powers[round(i * (len(powers) - 1) / (BUDGETS - 1))] for i in range(BUDGETS)})
    parts = []
    for power in asked:
        within = [cell for cell in cells if cost_of(cell, choice.cost) <= 10.0**power]
        best = min(within, key=lambda cell: cell.frechet)
        budget = f"{10.0**power:,g} {UNIT[choice.cost]}"
        way = f"{count_of('step', best.steps)} of {short_name(family, best.model)}"
        parts.append(f"up to {budget}, {way} ({three(best.frechet)})")
    return f"The smallest distance for a picture of {'; of '.join(parts)}."


def _small_and_large(family: Family, choice: Choice) -> str:
    """Whether sampling compute makes up for model compute: told by the cheapest and the dearest model."""
    cells, cost = choice.cells(family, choice.caches[0]), choice.cost
    names = [model.name for model in family.models if any(cell.model == model.name for cell in cells)]
    if len(names) < 2:
        return ""
    small, large = ([cell for cell in cells if cell.model == name] for name in (names[0], names[-1]))
    little, big = short_name(family, names[0]), short_name(family, names[-1])
    best = min(small, key=lambda cell: cell.frechet)
    first = next((cell for cell in large if cell.frechet <= best.frechet), None)
    told = (
        f"{little}, the cheapest model, gets to {three(best.frechet)} at best, in "
        f"{count_of('step', best.steps)} for {priced(cost_of(best, cost), cost)}; "
    )
    if first is None:
        return f"{told}{big}, the dearest, is not as good at any number of steps tried."
    times = f"{three(cost_of(first, cost) / cost_of(best, cost))} times the {WORD[cost]}"
    summit = min(cell.frechet for cell in large)
    beyond = (
        f" {big} gets down to {three(summit)}, where {little} does not get at any number of steps tried."
        if summit < best.frechet
        else ""
    )
    return (
        f"{told}{big}, the dearest, gets there in {count_of('step', first.steps)}, for "
        f"{priced(cost_of(first, cost), cost)}: {times}.{beyond}"
    )


def _frontier(family: Family, choice: Choice, cells: Sequence[Cell]) -> str:
    best = frontier(cells, choice.cost)
    on = {cell.model for cell in best}
    there = [short_name(family, model.name) for model in family.models if model.name in on]
    never = [
        short_name(family, model.name)
        for model in family.models
        if model.name not in on and any(cell.model == model.name for cell in cells)
    ]
    rest = f"; never {_listed(never)}" if never else ""
    return f"On the efficient frontier lie {len(best)} of {len(cells)} points, of {_listed(there)}{rest}."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _caching(family: Family, choice: Choice, every: int) -> str:
    """What caching saves and costs, against the first of the chosen, over models and steps that have both."""
    plain = {(cell.model, cell.steps): cell for cell in choice.cells(family, choice.caches[0])}
    both = [
        (plain[cell.model, cell.steps], cell)
        for cell in choice.cells(family, every)
        if (cell.model, cell.steps) in plain and cell.steps > 1
    ]
    if not both:
        return f"Caching every {every} steps was not measured with these settings."

    def ratio(value: Callable[[Cell], float]) -> float:
        return median(value(cached) / value(other) for other, cached in both)

    cost, distance = ratio(lambda cell: cost_of(cell, choice.cost)), ratio(lambda cell: cell.frechet)
    better = sum(cached.frechet < other.frechet for other, cached in both)
    return (
        f"Attention and MLPs computed every {every} steps only: {three(100 * cost)} % of the "
        f"{WORD[choice.cost]} at {three(100 * distance)} % of the distance "
        f"(medians of {len(both)} pairs alike in model and steps; nearer in {better} of them)."
    )


def seen_of_models(family: Family, choice: Choice) -> list[str]:
    """How closely quality follows the models' compute here, beside what the paper has."""
    cells = [cell for cell in choice.cells(family, choice.caches[0]) if cell.steps == choice.steps]
    pairs = [(family.model(cell.model).macs / 1e9, cell.frechet) for cell in cells]
    if not pairs:
        return []
    published = papers.correlation(papers.SCALING)
    theirs = f"{PAPER}'s {len(papers.SCALING)} models have {signed(published)} (FID, ImageNet at 256 pixels)"
    at = f"At {count_of('step', choice.steps)} ({setting_text(choice.setting(choice.caches[0]))})"
    try:
        ours = correlation(pairs)
    except ValueError as error:
        return [f"{at} there is no correlation to tell: {error}. {theirs[0].upper()}{theirs[1:]}."]
    said = [
        f"{at}, log₁₀ GMACs of a pass and distance have a correlation of {signed(ours)} over "
        f"{len(pairs)} models; {theirs}: {_compared(ours, published)}."
    ]
    if interval := fisher(ours, len(pairs)):
        low, high = interval
        within = "within" if low <= published <= high else "not within"
        said.append(
            f"So few models tell it only roughly: its 95 % interval is {signed(low)} to {signed(high)}, and "
            f"the paper's lies {within}."
        )
    return said


def signed(value: float) -> str:
    """A correlation, with a minus sign that looks like one."""
    return f"{value:.2f}".replace("-", "−")


def fisher(r: float, number: int) -> tuple[float, float] | None:
    """95 % interval of a correlation between so many pairs, by Fisher's z; None where it has none."""
    if number <= FEWEST or abs(r) >= 1:
        return None
    centre, half = math.atanh(r), 1.96 / math.sqrt(number - 3)
    return math.tanh(centre - half), math.tanh(centre + half)


def _compared(ours: float, published: float) -> str:
    if ours > 0:
        return "here it is the other way round, more compute goes with a larger distance"
    if abs(ours - published) <= ALIKE:
        return "quality follows model compute about as closely here"
    return f"quality follows model compute {'less' if ours > published else 'more'} closely here"


def is_fid(family: Family) -> bool:
    """Whether its distance is in the standard Inception's features, and so called FID."""
    return _part(family, "features").get("name") == "inception"


def distance(family: Family) -> str:
    """What its distance is, in words."""
    return "FID" if is_fid(family) else "Fréchet distance in the classifier's features"


def behind(family: Family, cells: Sequence[Cell]) -> str:
    """What the numbers are of: measure, pictures, reference set, machine."""
    counts = sorted({cell.samples for cell in cells})
    number = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    what = f"{distance(family)}{'' if is_fid(family) else ', not FID'}; lower is better"
    told = [f"{what}. Each point is measured on {number} pictures"]
    if name := (reference := _part(family, "reference")).get("name"):
        real = reference.get("pictures")
        told[0] += f", against {f'{real:,} ' if isinstance(real, int) else ''}real ones of {name}"
    if machine := family.about.get("machine"):
        told.append(f"Seconds on {machine}")
    return f"{'. '.join(told)}."


def _part(family: Family, name: str) -> dict[str, Any]:
    """What a table tells of its reference or features; nothing where it is no such thing."""
    part = family.about.get(name)
    return part if isinstance(part, dict) else {}


def nothing(family: Family, choice: Choice) -> str:
    """What to say of a combination of settings that was not measured."""
    at = "" if choice.view == PICTURE else f" at {count_of('step', choice.steps)}"
    said = " or ".join(setting_text(choice.setting(every)) for every in choice.caches)
    return f"Of {family.name}, nothing was measured{at} with {said}; choose other settings above."
