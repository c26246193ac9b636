"""The tables of docs/findings.md, from a measured table: `python -m benchmarks.findings [--family solids]`.

Nothing is measured here: `python -m train.sweep` did that. Without --docs they are printed only.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tyro

from benchmarks.readme import write_block
from dit import papers
from dit.measured import Cell, Family, MeasuredModel, correlation, load_family
from dit.weights import ZOO
from ui.costs import count_of
from ui.measured_choice import FEWEST
from ui.measured_words import short_name

DOCS = Path(__file__).resolve().parent.parent / "docs" / "findings.md"
PLAIN = ("ddim", 1.0, None, 1)  # the setting whose steps are compared: no guidance, nothing reused
Row = Sequence[object]


def markdown(heads: Sequence[str], rows: Iterable[Row]) -> list[str]:
    """A table."""
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    return lines + [f"| {' | '.join(map(str, row))} |" for row in rows]


def three(value: float) -> str:
    """With three digits."""
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:#.3g}".rstrip(".")


def of_model(family: Family, name: str, setting: tuple[Any, ...] = PLAIN) -> list[Cell]:
    """A model's cells at one setting, fewest steps first."""
    return [cell for cell in family.at(setting) if cell.model == name]


def measured_models(family: Family) -> list[MeasuredModel]:
    """Those of which there are cells without guidance."""
    return [model for model in family.models if of_model(family, model.name)]


def common_steps(family: Family) -> list[int]:
    """Numbers of steps that were measured of every model, without guidance."""
    steps = [{cell.steps for cell in of_model(family, model.name)} for model in measured_models(family)]
    return sorted(set.intersection(*steps)) if steps else []


def overview(family: Family) -> list[str]:
    """Every model: what a pass costs, and its distance at each number of steps."""
    steps = sorted({cell.steps for cell in family.at(PLAIN)})
    rows = []
    for model in measured_models(family):
        found = {cell.steps: three(cell.frechet) for cell in of_model(family, model.name)}
        cost = [f"{model.parameters / 1e6:.2f} M", f"{model.macs / 1e6:.1f}"]
        rows.append([short_name(family, model.name), *cost, *(found.get(count, "") for count in steps)])
    heads = ["model", "parameters", "MMACs a pass", *(count_of("step", count) for count in steps)]
    return markdown(heads, rows)


def scaling(family: Family) -> list[str]:
    """How the distance follows the logarithm of a pass's compute, at each number of steps; so the paper."""
    rows = []
    for steps in common_steps(family):
        cells = [cell for cell in family.at(PLAIN) if cell.steps == steps]
        pairs = [(family.model(cell.model).macs, cell.frechet) for cell in cells]
        if len(pairs) < FEWEST:
            continue
        logs = [(cost, math.log(distance)) for cost, distance in pairs]
        rows.append(
            [count_of("step", steps), len(pairs), f"{correlation(pairs):.3f}", f"{correlation(logs):.3f}"]
        )
    paper = [(result.gflops, result.fid) for result in papers.SCALING]
    of_logs = correlation([(cost, math.log(fid)) for cost, fid in paper])
    rows.append(["DiT paper, 250 steps, FID", len(paper), f"{correlation(paper):.3f}", f"{of_logs:.3f}"])
    return markdown(["", "models", "of log compute and distance", "and log distance"], rows)


def making_up(family: Family) -> list[str]:
    """Each model at its best number of steps, and the cheapest cell of a dearer model that is better."""
    models, rows = measured_models(family), []
    for i, model in enumerate(models):
        best = min(of_model(family, model.name), key=lambda cell: cell.frechet)
        dearer = [cell for other in models[i + 1 :] for cell in of_model(family, other.name)]
        better = [cell for cell in dearer if cell.frechet < best.frechet]
        row = [short_name(family, model.name), best.steps, three(best.macs / 1e9), three(best.frechet)]
        if better:
            first = min(better, key=lambda cell: cell.macs)
            row += [f"{short_name(family, first.model)}, {first.steps}", three(first.macs / 1e9)]
            row += [three(first.frechet), f"{first.macs / best.macs:.2f}"]
        rows.append([*row, *[""] * (8 - len(row))])
    heads = ["model", "steps at its best", "GMACs", "Fréchet", "beaten most cheaply by", "GMACs", "Fréchet"]
    return markdown([*heads, "compute, relative"], rows)


def patches(family: Family) -> list[str]:
    """The same size with smaller patches, and the model of the larger patch nearest in compute."""
    steps, rows = max(common_steps(family), default=0), []
    at = {cell.model: cell for cell in family.at(PLAIN) if cell.steps == steps}
    models = {model.preset: model for model in measured_models(family) if model.name in at}
    for preset, fine in models.items():
        size, patch = preset.split("/")
        coarse = models.get(f"{size}/{2 * int(patch)}")
        if coarse is None:
            continue
        others = [m for m in models.values() if m.preset.split("/")[1] == str(2 * int(patch))]
        near = min(others, key=lambda model: abs(math.log(model.macs / fine.macs)))
        rows.append(
            [
                short_name(family, fine.name),
                *_costs(fine, at),
                f"{three(at[coarse.name].frechet)} at {coarse.macs / 1e6:.1f}",
                short_name(family, near.name),
                *_costs(near, at),
            ]
        )
    heads = ["model", "parameters", "MMACs", "Fréchet", "its size with twice the patch"]
    return [
        *markdown([*heads, "nearest in compute", "parameters", "MMACs", "Fréchet"], rows),
        "",
        f"All at {steps} DDIM steps without guidance.",
    ]


def _costs(model: MeasuredModel, at: dict[str, Cell]) -> list[str]:
    return [f"{model.parameters / 1e6:.2f} M", f"{model.macs / 1e6:.1f}", three(at[model.name].frechet)]


def shares(family: Family, cells: Iterable[Cell]) -> list[str]:
    """Cells with all their measures, a line each: what guidance, intervals and caching do."""
    rows = []
    for cell in cells:
        guidance = f"{cell.guidance_scale:g}"
        if cell.guidance_interval:
            guidance += " in {:g} to {:g}".format(*cell.guidance_interval)
        found = [three(cell.measures[name]) for name in ("frechet", "precision", "recall")]
        found.append(f"{cell.measures['accuracy']:.1%}" if "accuracy" in cell.measures else "")
        setting = [short_name(family, cell.model), cell.sampler, cell.steps, guidance, cell.cache_every]
        rows.append([*setting, three(cell.macs / 1e9), *found])
    if not rows:
        return ["Not measured yet."]
    heads = ["model", "sampler", "steps", "guidance", "computed every", "GMACs", "Fréchet", "precision"]
    return markdown([*heads, "recall", "accuracy"], rows)


def compared(family: Family, of: int) -> list[Cell]:
    """All cells, of every model, at the number of steps of which most differ in one part of their setting.

    of: the part, as in `Cell.setting`: 1 guidance scale, 2 interval.
    """
    found = []
    for model in measured_models(family):
        plain = {cell.steps: cell for cell in of_model(family, model.name)}
        others = [cell for cell in family.cells if cell.model == model.name and _differs(cell, of)]
        if of == 2:  # of the scales that have an interval too
            scales = {cell.guidance_scale for cell in others if cell.guidance_interval}
            others = [cell for cell in others if cell.guidance_scale in scales]
        counts = {steps: sum(cell.steps == steps for cell in others) for steps in plain}
        if steps := max(counts, key=lambda steps: (counts[steps], steps), default=0):
            if counts[steps]:
                found += [plain[steps], *(cell for cell in others if cell.steps == steps)]
    return found


def cached(family: Family) -> list[Cell]:
    """Of every model what caching was measured at, most steps first, and what costs as much without it."""
    found = []
    for model in measured_models(family):
        plain = of_model(family, model.name)
        reusing = [cell for cell in family.cells if cell.model == model.name and _differs(cell, 3)]
        beside = [cell for cell in plain if cell.steps in {cell.steps for cell in reusing}]
        for macs in [cell.macs for cell in reusing]:
            nearest = min(plain, key=lambda cell, macs=macs: abs(math.log(cell.macs / macs)))
            beside += [nearest] if nearest not in beside else []
        found += sorted([*reusing, *beside], key=lambda cell: (-cell.steps, cell.cache_every))
    return found


def samplers(family: Family) -> list[str]:
    """The distance with each sampler, models by steps, where more than one was measured without guidance."""
    names = list(dict.fromkeys([PLAIN[0], *(cell.sampler for cell in family.cells)]))
    at = {
        (cell.model, cell.sampler, cell.steps): three(cell.frechet)
        for cell in family.cells
        if cell.setting[1:] == PLAIN[1:]
    }
    steps = sorted({n for _, name, n in at if name != PLAIN[0]})
    rows = []
    for model in measured_models(family):
        for name in names:
            found = [at.get((model.name, name, n), "") for n in steps]
            if any((model.name, other, n) in at for other in names[1:] for n in steps) and any(found):
                rows.append([short_name(family, model.name), name, *found])
    if not rows:
        return ["Not measured yet."]
    return markdown(["model", "sampler", *(count_of("step", n) for n in steps)], rows)


def _differs(cell: Cell, of: int) -> bool:
    """Whether a setting is the plain one but for a part; beside intervals stands guidance without one."""
    parts = [i for i, (own, plain) in enumerate(zip(cell.setting, PLAIN, strict=True)) if own != plain]
    return parts == [of] or (of == 2 and parts in ([1], [1, 2]))


BLOCKS = {
    "models": overview,
    "scaling": scaling,
    "making-up": making_up,
    "patches": patches,
    "samplers": samplers,
    "guidance": lambda family: shares(family, compared(family, 1)),
    "intervals": lambda family: shares(family, compared(family, 2)),
    "caching": lambda family: shares(family, cached(family)),
}


def main(family: str = "solids", docs: bool = False) -> None:
    """Print the tables.

    Args:
        family: whose table in assets/zoo.
        docs: write them into docs/findings.md.
    """
    measured = load_family(ZOO / f"{family}.json")
    for name, lines_of in BLOCKS.items():
        lines = lines_of(measured)
        print(f"\n{name}\n" + "\n".join(lines))
        if docs:
            write_block(name, lines, DOCS)


if __name__ == "__main__":
    tyro.cli(main)
