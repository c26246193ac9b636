"""`python -m train.report RUN`: one page of a run, finished or not, that needs nothing from elsewhere."""

import base64
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import tyro
from PIL import Image

from dit.command import exit_status
from dit.config import ModelConfig
from dit.counts import count
from dit.files import atomic_write
from dit.weights import describe
from train.config import TrainConfig
from train.curves import Curve, chart, number
from train.history import History

GRIDS, GRID_PIXELS = 6, 700  # pictures of samples on the page at the most, and their longest side
QUARTILES = ("least noise", "less", "more", "most noise")

# The first that are drawn, as (title, keys and what they are called, whether logarithmic, unit); besides
# these, every number of metrics.jsonl gets a chart of its own.
CHARTS: tuple[tuple[str, dict[str, str], bool, str], ...] = (
    ("Loss", {"loss": "loss"}, True, ""),
    ("Error of the prediction (mse)", {"mse": "mse"}, True, ""),
    ("mse by noise level", {f"mse_q{q}": f"q{q} {QUARTILES[q - 1]}" for q in (1, 2, 3, 4)}, True, ""),
    ("Variance bound (vb)", {"vb": "vb"}, True, ""),
    ("vb by noise level", {f"vb_q{q}": f"q{q} {QUARTILES[q - 1]}" for q in (1, 2, 3, 4)}, True, ""),
    ("Gradient norm", {"grad_norm": "mean", "grad_norm_max": "largest"}, True, ""),
    ("Learning rate", {"lr": "lr"}, False, ""),
    ("Speed", {"images_per_second": "images/s"}, False, "pictures a second"),
    ("Model FLOPs utilisation", {"mfu": "mfu"}, False, "share of what matrix products reach"),
)
EXACT = {"lr", "step", "epoch"}  # not measured, and not smoothed
STYLE = """
:root { color-scheme: light dark; --paper: #fff; --card: #f6f6f8; --ink: #1c1c22; --faint: #63636e;
  --line: #dcdce2; --c0: #4f46e5; --c1: #0d9488; --c2: #c2410c; --c3: #be185d; --c4: #4d7c0f; --c5: #0369a1; }
@media (prefers-color-scheme: dark) { :root { --paper: #131317; --card: #1d1d23; --ink: #ececf1;
  --faint: #a0a0ad; --line: #34343d; --c0: #9b95ff; --c1: #2dd4bf; --c2: #fb923c; --c3: #f472b6;
  --c4: #a3e635; --c5: #38bdf8; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 20px 16px 40px; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 26px; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 32px 0 10px; }
p { margin: 4px 0 14px; color: var(--faint); overflow-wrap: anywhere; }
progress { width: 100%; height: 8px; margin-bottom: 12px; accent-color: var(--c0); }
.cards { display: grid; gap: 10px; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); }
.cards div { background: var(--card); border-radius: 8px; padding: 8px 12px; overflow-wrap: anywhere; }
.cards span { display: block; font-size: 12px; color: var(--faint); }
.charts { display: grid; gap: 12px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); }
figure { margin: 0; background: var(--card); border-radius: 8px; padding: 10px 12px; min-width: 0; }
figcaption { font-weight: 600; } figcaption small { font-weight: 400; color: var(--faint); margin-left: 8px; }
svg { width: 100%; height: auto; display: block; }
svg text { font-size: 12px; fill: var(--faint); }
@media (max-width: 560px) { svg text { font-size: 18px; } }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .mark { stroke: var(--faint); stroke-width: 1; stroke-dasharray: 3 4; }
polyline { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }
polyline.raw { opacity: 0.28; stroke-width: 1; } circle { fill: currentColor; }
.c0 { color: var(--c0); } .c1 { color: var(--c1); } .c2 { color: var(--c2); } .c3 { color: var(--c3); }
.c4 { color: var(--c4); } .c5 { color: var(--c5); }
.keys { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 13px; color: var(--faint); }
.key { max-width: 100%; overflow-wrap: anywhere; } .key b { color: var(--ink); font-weight: 500; }
.key i { display: inline-block; width: 14px; height: 3px; border-radius: 2px; background: currentColor;
  vertical-align: middle; margin-right: 5px; }
.samples { display: grid; gap: 12px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr)); }
.samples img { width: 100%; height: auto; display: block; border-radius: 4px; image-rendering: auto; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: 4px 12px 4px 0; border-bottom: 1px solid var(--line); font-weight: 400;
  vertical-align: top; overflow-wrap: anywhere; }
th { color: var(--faint); width: 40%; }
details { margin-top: 10px; } summary { cursor: pointer; color: var(--faint); }
"""


@dataclass(frozen=True)
class Report:
    """One page of a run: what it is, how far it is, its curves and samples. More runs are drawn over it."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """folders of runs; the page is of the first, and the others' curves are drawn beside its own"""
    out: Path | None = None
    """.html or .png file to write; default: report.html in the first folder"""


def page(histories: Sequence[History]) -> str:
    """The page of the first of some runs, the others' curves drawn in; a whole HTML document."""
    first = histories[0]
    done = min(1.0, first.steps / max(1, first.total_steps))
    state = "finished" if first.steps >= first.total_steps else f"{done:.0%} done, as far as is logged"
    what = f"{first.settings.get('model')} on {first.settings.get('data')}"
    sections = [
        f"<h1>{escape(first.name)}</h1>",
        f"<p>{escape(what)}, {state}</p>",
        f'<progress value="{done:.4f}" aria-label="steps done"></progress>',
        _cards(facts(first)),
        "<h2>Curves</h2>",
        f'<div class="charts">{"".join(_charts(histories))}</div>',
        _samples(first),
        _results(first.provenance.get("results")),
        _events(first),
        _recipe(first),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(first.name)}</title><style>{STYLE}</style></head>\n"
        f"<body>{''.join(part + chr(10) for part in sections if part)}</body></html>\n"
    )


def facts(history: History) -> dict[str, str]:
    """What a run is and has done, by name, for the head of the page."""
    settings, seconds = history.settings, history.seconds()
    known = {"steps": f"{history.steps:,} of {history.total_steps:,}"}
    if config := network_of(history):
        counted = count(config)
        known["parameters"] = f"{counted.parameters / 1e6:,.2f} M"
        known["a forward pass"] = f"{counted.macs / 1e9:,.3f} GMACs"
    if "batch_size" in settings:
        known["pictures seen"] = f"{history.steps * settings['batch_size']:,}"
    if seconds is not None:
        known["time in training"] = duration(seconds)
        known["images/s, mean"] = f"{history.steps * settings.get('batch_size', 0) / max(seconds, 1e-9):,.1f}"
    known["loss, last"] = number(history.rows[-1].get("loss", float("nan")))
    for name in ("hardware", "commit"):
        if history.provenance.get(name):
            known[name] = str(history.provenance[name])
    return known


def network_of(history: History) -> ModelConfig | None:
    """Of the weights, where there are some; else by the settings, where they tell."""
    weights = history.folder / "weights.safetensors"
    try:
        if weights.exists():
            return describe(weights)[0]
        settings = {name: value for name, value in history.settings.items() if name in vars(TrainConfig())}
        config = TrainConfig(**settings)
        return config.network() if config.data == "solids" else None
    except (ValueError, TypeError, OSError):
        return None


def duration(seconds: float) -> str:
    """75 -> 1 min 15 s."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def resumed_after(history: History) -> list[int]:
    """Steps after which something was set anew."""
    ends = (str(change.get("after", "")).removeprefix("step_") for change in history.changes)
    return [int(end) for end in ends if end.isdigit()]


def figures(histories: Sequence[History]) -> list[tuple[str, list[Curve], bool, str]]:
    """What there is to draw: title, curves, whether over a logarithmic axis, unit."""
    drawn = {"step", "skipped", *(key for _, keys, _, _ in CHARTS for key in keys)}
    others = dict.fromkeys(key for history in histories for row in history.rows for key in row)
    more = [(key.replace("_", " "), {key: key}, False, "") for key in others if key not in drawn]
    found = []
    for title, keys, log, unit in (*CHARTS, *more):
        curves = [
            Curve(
                name if len(histories) == 1 else f"{history.name}: {name}",
                history.series(key),
                (len(keys) * i + j) % 6,
                smooth=key not in EXACT,
            )
            for i, history in enumerate(histories)
            for j, (key, name) in enumerate(keys.items())
        ]
        if any(curve.points for curve in curves):
            found.append((title, curves, log, unit))
    return found


def _charts(histories: Sequence[History]) -> list[str]:
    marks = resumed_after(histories[0])
    return [chart(title, curves, log, marks, unit) for title, curves, log, unit in figures(histories)]


def _cards(known: Mapping[str, str]) -> str:
    cards = (f"<div><span>{escape(name)}</span>{escape(value)}</div>" for name, value in known.items())
    return f'<div class="cards">{"".join(cards)}</div>'


def chosen(samples: Sequence[tuple[int, Path]], most: int = GRIDS) -> list[tuple[int, Path]]:
    """The first, the last, and some between at even distances."""
    if len(samples) <= most:
        return list(samples)
    return [samples[round(i * (len(samples) - 1) / (most - 1))] for i in range(most)]


def _samples(history: History) -> str:
    shown = []
    for step, path in chosen(history.samples):
        try:
            with Image.open(path) as image:
                width, height = image.size
                picture = image.convert("RGB")
        except OSError as error:
            shown.append(f"<p>{escape(path.name)}: {escape(str(error))}</p>")
            continue
        picture.thumbnail((GRID_PIXELS, GRID_PIXELS), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        picture.save(file, format="PNG" if picture.size == (width, height) else "JPEG", quality=88)
        kind = "png" if picture.size == (width, height) else "jpeg"
        data = base64.b64encode(file.getvalue()).decode()
        shown.append(
            f'<figure><img src="data:image/{kind};base64,{data}" width="{width}" height="{height}" '
            f'alt="grid of samples after step {step:,}"><figcaption>after step {step:,}</figcaption></figure>'
        )
    if not shown:
        return ""
    note = f"<p>{len(shown)} of {len(history.samples)} grids</p>" if len(shown) < len(history.samples) else ""
    return f'<h2>Samples</h2>{note}<div class="samples">{"".join(shown)}</div>'


def _results(results: Any) -> str:
    return f"<h2>Evaluation</h2>{_table(_flat(results))}" if isinstance(results, dict) and results else ""


def _flat(value: Any, name: str = "") -> dict[str, str]:
    """A tree of values as a table: names of the branches joined."""
    if isinstance(value, dict):
        rows: dict[str, str] = {}
        for key, inner in value.items():
            rows |= _flat(inner, f"{name}, {key}" if name else str(key))
        return rows
    return {name: f"{value:.6g}" if isinstance(value, float) else str(value)}


def _events(history: History) -> str:
    rows: dict[str, str] = {}
    for after, what in history.on_the_way():
        title = f"after {after}"
        rows[title] = "; ".join([*([rows[title]] if title in rows else []), what])
    if skipped := [(step, value) for step, value in history.series("skipped") if value]:
        last = next(step for step, value in skipped if value == skipped[-1][1])  # they are counted on
        rows["steps skipped"] = f"{skipped[-1][1]:g}, the last by step {last:g}"
    if history.skipped:
        named = [", ".join(map(str, entry.values())) for entry in history.skipped[:5]]
        more = f" and {len(history.skipped) - 5:,} more" if len(history.skipped) > 5 else ""
        rows[f"{len(history.skipped):,} pictures unreadable"] = "; ".join(named) + more
    rows |= {f"not read ({i})": note for i, note in enumerate(history.notes, start=1)}
    return f"<h2>On the way</h2>{_table(rows)}" if rows else ""


def _recipe(history: History) -> str:
    unusual = history.unusual()
    rest = {name: str(value) for name, value in history.settings.items() if name not in unusual}
    return (
        f"<h2>Recipe</h2>{_table({name: str(value) for name, value in unusual.items()})}"
        f"<details><summary>{len(rest)} settings as usual</summary>{_table(rest)}</details>"
    )


def _table(rows: Mapping[str, str]) -> str:
    lines = (f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows.items())
    return f"<table>{''.join(lines)}</table>"


def report(command: Report) -> Path:
    """Write the page, and return where it is.

    Raises:
        ValueError: no run is given, one has told nothing yet, or a file of another kind is asked for.
    """
    if not command.runs:
        raise ValueError("which run? Give its folder: python -m train.report runs/solids")
    histories = [History.of(folder) for folder in command.runs]
    out = command.out or command.runs[0] / "report.html"
    if out.suffix.lower() in (".html", ".htm"):
        text = page(histories)
        atomic_write(out, lambda path: path.write_text(text, encoding="utf-8"))
    elif out.suffix.lower() == ".png":
        from train.report_picture import draw

        image = draw(histories[0], facts(histories[0]), figures(histories))
        atomic_write(out, lambda path: image.save(path, format="png"))
    else:
        raise ValueError(f"out is {out}; it must end in .html or .png")
    return out


def main(arguments: list[str]) -> int:
    """Report, and say where. Returns the exit status."""
    return exit_status(
        lambda: print(report(tyro.cli(Report, prog="python -m train.report", args=arguments))),
        "stopped; nothing was written",
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
