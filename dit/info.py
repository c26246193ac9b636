"""`python -m dit.info`: what models cost, beside what the papers print of them."""

import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tyro
from tqdm import tqdm

from dit import memory, papers, weights
from dit.command import exit_status
from dit.config import ModelConfig
from dit.counts import count
from dit.flops import macs
from dit.papers import PaperResult
from dit.presets import MODELS, no_such_model, preset, similar
from dit.published import PUBLISHED, is_repo_id, published, size_of

HEADS = (
    *("model", "parameters", "GMACs", "tokens", "weights", "activations"),
    *("paper: Gflops", "parameters", "FID-50K"),
)
NONE = "-"


@dataclass(frozen=True)
class Info:
    """Parameters, compute and memory of a model, or of all that the papers print, beside their numbers."""

    model: tyro.conf.Positional[str | None] = None
    """preset (DiT-XL/2), bundled or published name (DiT-XL/2-256), weights file, diffusers folder, or
    OWNER/NAME on the Hub; default: a table of all that the papers print"""
    input_size: int | None = None
    """side of the latent, or of the picture for models of pixels, instead of the model's own"""


def config_of(model: str, input_size: int | None = None) -> ModelConfig:
    """The config that a name or a source means; weights of a published name are not downloaded.

    Raises:
        ValueError: no such model, or an input_size that does not fit it.
    """
    here = Path(model).exists() or model.replace("/", "-") in weights.bundled()
    if model in MODELS:
        config = preset(model)
    elif not here and (name := published(model)):
        config = weights.published_outline(PUBLISHED[name]).config
    elif not here and (
        similar(model, cutoff=0.85)  # and not a repository of that name
        or weights.MODEL_NAME.fullmatch(model)
        or not is_repo_id(model)
    ):
        names = ", ".join([*weights.bundled(), *PUBLISHED])
        raise ValueError(
            f"{no_such_model(model)}; with weights {names}; or give a file, a folder, OWNER/NAME"
        )
    else:
        config = weights.describe(model)[0]
    return config if input_size is None else replace(config, input_size=input_size)


def gflops_text(value: float) -> str:
    """As the papers print it: whole, or with two decimals."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"


def steps_text(steps: int) -> str:
    """400000 -> 400K."""
    return f"{steps // 1000:,}K"


def fid_text(result: PaperResult) -> str:
    """FID with what it must not be compared without: 19.47 (400K)."""
    notes = [steps_text(result.training_steps)] if result.training_steps else []
    notes += ["guided"] if result.guided else []
    return f"{result.fid:.2f}" + (f" ({', '.join(notes)})" if notes else "")


def table() -> str:
    """All models that the papers print, ours counted beside; below, the U-Nets and how all was counted."""
    first = {result.our_name: result for result in reversed(papers.RESULTS)}  # a model stands in several
    models = tqdm(papers.models().items(), "counting", leave=False, disable=None)  # takes half a minute
    rows = [_row(name, config, first.get(name)) for name, config in models]
    others = [result for result in papers.RESULTS if result.preset is None]
    rows += [(f"{r.name} at {r.resolution} px*", *[NONE] * 5, *_printed(r)) for r in others]
    return f"{_aligned([HEADS, *rows])}\n\n* not built here\n\n{notes()}"


def _row(name: str, config: ModelConfig, result: PaperResult | None) -> tuple[str, ...]:
    counted = count(config)
    return (
        name,
        f"{counted.parameters:,}",
        f"{counted.macs / 1e9:.3f}",
        f"{config.tokens:,}",
        size_of(counted.weight_bytes),
        size_of(memory.sampling_bytes(config)),
        *(_printed(result) if result else [NONE] * 3),
    )


def _printed(result: PaperResult) -> tuple[str, str, str]:
    return (
        gflops_text(result.gflops) if result.gflops else NONE,
        f"{result.parameters:g} M" if result.parameters else NONE,
        fid_text(result) if result.fid else NONE,
    )


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def block(name: str, config: ModelConfig) -> str:
    """One model: what it is, what it takes, what the papers print of it."""
    counted = count(config)
    kind = f"{config.design}: depth {config.depth}, width {config.hidden_size}"
    kind += f", patch {config.patch_size}" if not config.channel_mult else f" x {config.channel_mult}"
    unit = "latent" if config.is_latent else "picture"
    labels = f"{config.num_classes:,} classes" if config.num_classes else "no classes"
    lines = [
        ("network", f"{kind}, heads of {config.head_size}"),
        ("formulation", config.formulation),
        ("input", f"{unit} of {config.input_size} x {config.input_size} x {config.in_channels}, {labels}"),
        ("tokens", f"{config.tokens:,}"),
        ("parameters", f"{counted.parameters:,}, of them trained {counted.trainable:,}"),
        ("a forward pass", f"{counted.macs / 1e9:,.3f} GMACs = {2 * counted.macs / 1e9:,.3f} GFLOPs"),
        ("", f"{counted.macs_without_attention_matmuls / 1e9:,.3f} GMACs without attention's two products"),
        ("weights", f"{size_of(counted.weight_bytes)} in float32"),
        ("to sample", f"{size_of(memory.sampling_bytes(config))} of activations a picture, at the peak"),
        ("to train", f"{size_of(memory.training_bytes(config))} kept a picture for the backward pass"),
    ]
    shown = [f"{title:<16}{text}".rstrip() for title, text in lines]
    results = papers.of_config(config)
    shown += [f"{'papers':<16}{NONE if not results else ''}".rstrip()]
    for result in results:
        compute = f"{gflops_text(result.gflops)} Gflops, " if result.gflops else ""
        size = f"{result.parameters:g} M, " if result.parameters else ""
        shown.append(f"  {result.name}: {compute}{size}FID-50K {fid_text(result)}, {result.settings}")
        shown.append(f"    {result.source}")
    return "\n".join([name, *shown, "", notes()])


def notes() -> str:
    """How all this was counted, and where the papers count otherwise."""
    paragraphs = (
        "GMACs: 10^9 multiply-accumulates of one forward pass of one picture, which the papers print as "
        '"Gflops"; 1 MAC = 2 FLOPs. Our parameters are all that the weights file holds; the DiT paper\'s '
        "leave out the fixed position table, which is not trained.",
        "Activations: eager float32, one picture, counted operation by operation on tensors without "
        "contents; what a kernel allocates for itself is not seen.",
        "FID-50K: the papers', not measured here; lower is better. (400K): after so many training steps. "
        "Guided FIDs must not be compared with unguided ones, nor those of different data: all are of "
        "ImageNet, but for DiffiT-CIFAR-32 and DiffiT-FFHQ-64.",
        diffit_note(),
        f"Papers: {', '.join(f'{name} arXiv:{number}' for name, number in papers.ARXIV.items())}.",
    )
    return "\n\n".join(textwrap.fill(text, width=100) for text in paragraphs)


def diffit_note() -> str:
    """Why DiffiT's printed Gflops are lower than our count, in numbers that are counted now."""
    result = next(r for r in papers.GUIDED_OTHERS if r.preset == "DiffiT-XL/2" and r.gflops)
    (diffit, diffit_seen), (dit, dit_seen) = (
        (macs(config), macs(config, with_attention_matmuls=False))
        for config in (result.config, preset("DiT-XL/2"))
    )
    return (
        f"DiffiT is printed with {gflops_text(result.gflops)} Gflops, and counts {diffit / 1e9:.3f} "
        f"GMACs. {diffit_seen / 1e9:.3f} is what is left without attention's two products, "
        "queries with keys and attention with values, which DiT's numbers contain: counted that way DiT-XL/2 "
        f"has {dit_seen / 1e9:.3f}, not {dit / 1e9:.3f}. Like for like, DiffiT saves "
        f"{1 - diffit / dit:.1%} of the compute."
    )


def info(command: Info) -> str:
    """The text that was asked for.

    Raises:
        ValueError: no such model; or an input_size without a model, or that does not fit it.
    """
    if command.model is None:
        if command.input_size is not None:
            raise ValueError(f"input_size is {command.input_size}, but no model is named; name one before it")
        return table()
    return block(command.model, config_of(command.model, command.input_size))


if __name__ == "__main__":
    wish = tyro.cli(Info, prog="python -m dit.info", description=Info.__doc__)
    sys.exit(exit_status(lambda: print(info(wish)), "stopped"))
