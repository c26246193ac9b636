"""DiT Lab, the demo: `python app.py`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro


@dataclass(frozen=True)
class App:
    """Serve the page. Gradio's own variables (GRADIO_SERVER_NAME, GRADIO_SERVER_PORT, ...) are honoured."""

    weights: tuple[str, ...] = ()
    """further models to offer: weights files, folders of diffusers, OWNER/NAME on the Hub"""
    device: str = "auto"
    """auto (a CUDA GPU if there is one, then Apple's, else the CPU), cpu, cuda, ..."""
    max_resident: int = 3
    """models in memory at a time; the least recently used goes"""
    autoencoder: str | None = None
    """decodes latents: ft-mse, ft-ema, original, taesd (small, fast), a folder; default: each model's own"""
    tiling: bool = False
    """decode in tiles: 512 x 512 on little memory"""
    tables: Path | None = None
    """folder of what python -m train.sweep has measured; default: the bundled one, assets/zoo"""
    runs: Path = Path("runs")
    """folder of training runs, which the Train tab shows and adds to"""
    training: Literal["auto", "on", "off"] = "auto"
    """whether visitors may train on this machine; auto: not on a Space of Hugging Face, which is public"""


def main(app: App) -> None:
    """Load the models, time them, and serve until interrupted."""
    from dit.pipeline import find_device
    from dit.weights import ZOO
    from ui import page
    from ui.limits import Limits, is_space
    from ui.opening import open_studio
    from ui.runs import Runs
    from ui.zero_gpu import borrow, is_zero_gpu

    try:
        lent = is_zero_gpu()
        studio = open_studio(
            app.weights,
            "cuda" if lent else find_device(app.device),  # this process itself never has the GPU
            app.max_resident,
            app.autoencoder,
            app.tiling,
            app.tables or ZOO,
            timed=not lent,
        )
        if lent:
            borrow(studio)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    for rung in studio.rungs:
        missing = "" if studio.missing(rung) is None else ", not on this machine"
        print(f"{rung.name}: {rung.parameters / 1e6:.2f} M parameters, {rung.config.tokens} tokens{missing}")
    limits = Limits(training=app.training == "on" or (app.training == "auto" and not is_space()))
    runs = Runs(app.runs.resolve(), limits.runs) if limits.training else None
    page.build(studio, runs, limits).launch(**page.serving(limits))


if __name__ == "__main__":
    main(tyro.cli(App, description=App.__doc__))
