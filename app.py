"""DiT Lab, the demo: `python app.py`."""

import inspect
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from ui.limits import USUAL, Limits, is_open, is_space

FLAGS = "DITLAB_FLAGS"  # environment variable of a Space, which is started without any


@dataclass(frozen=True)
class App:
    """Serve the page. Gradio's own variables (GRADIO_SERVER_NAME, GRADIO_SERVER_PORT, ...) are honoured.

    Flags may also stand in the variable DITLAB_FLAGS; those given here count more.
    """

    weights: tuple[str, ...] = ()
    """further models to offer: weights files, folders of diffusers, OWNER/NAME on the Hub"""
    device: str = "auto"
    """auto (a CUDA GPU if there is one, then Apple's, else the CPU), cpu, cuda, ..."""
    max_resident: int = USUAL.models
    """models in memory at a time, small ones counted in part; the least recently used goes"""
    max_gmacs: float = USUAL.gmacs
    """that one request may cost, all its pictures together; the page shows this and all other limits"""
    autoencoder: str | None = None
    """decodes latents: ft-mse, ft-ema, original, taesd (small, fast), a folder; default: each model's own"""
    tiling: bool = False
    """decode in tiles: 512 x 512 on little memory"""
    tables: Path | None = None
    """folder of what python -m train.sweep has measured; default: the bundled one, assets/zoo"""
    runs: Path = Path("runs")
    """folder of training runs, which the Train tab shows and adds to"""
    log: Path | None = None
    """file to whose end a line of JSON is written for each request to draw; default: stderr"""
    training: Literal["auto", "on", "off"] = "auto"
    """whether visitors may train on this machine; auto: not on a Space of Hugging Face, which is public"""
    folders: tuple[Path, ...] | None = None
    """folders of pictures that visitors may train on, with all below them; without any: none; default: every
    folder while only this machine can reach the page, else none"""


def main(app: App) -> None:
    """Load the models, time them, and serve until a signal."""
    from dit.pipeline import find_device
    from dit.weights import ZOO
    from ui import page
    from ui.log import open_log
    from ui.opening import open_studio
    from ui.runs import Runs
    from ui.serve import serve
    from ui.zero_gpu import borrow, is_zero_gpu

    training = app.training == "on" or (app.training == "auto" and not is_space())
    if (folders := app.folders) is None:
        folders = () if is_open() else None
    else:
        folders = tuple(folder.expanduser().resolve() for folder in folders)
    try:
        if absent := [str(folder) for folder in folders or () if not folder.is_dir()]:
            raise ValueError(f"--folders names {', '.join(absent)}, and there is no such folder; correct it")
        open_log(app.log)
        lent = is_zero_gpu()
        studio = open_studio(
            app.weights,
            "cuda" if lent else find_device(app.device),  # this process itself never has the GPU
            Limits(models=app.max_resident, gmacs=app.max_gmacs, training=training, folders=folders),
            app.autoencoder,
            app.tiling,
            app.tables or ZOO,
            timed=not lent,
        )
        if lent:
            borrow(studio)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    for rung in studio.rungs:
        missing = "" if studio.missing(rung) is None else ", not on this machine"
        print(f"{rung.name}: {rung.parameters / 1e6:.2f} M parameters, {rung.config.tokens} tokens{missing}")
    runs = Runs(app.runs.resolve(), studio.limits.runs) if training else None
    serve(page.build(studio, runs), runs)


def parse(given: Sequence[str], environment: Mapping[str, str]) -> App:
    """Flags, those of the environment first. Ends the program where one is none."""
    return tyro.cli(
        App, description=inspect.getdoc(App), args=[*shlex.split(environment.get(FLAGS, "")), *given]
    )


if __name__ == "__main__":
    main(parse(sys.argv[1:], os.environ))
