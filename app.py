"""DiT Lab, the demo: `python app.py`."""

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro


@dataclass(frozen=True)
class App:
    """Serve the page. Gradio's own variables (GRADIO_SERVER_NAME, GRADIO_SERVER_PORT, ...) are honoured."""

    weights: tuple[Path, ...] = ()
    """further weights files to offer beside the bundled ones"""
    device: str = "auto"
    """auto (a CUDA GPU if there is one, else the CPU), cpu, cuda, ..."""


def main(app: App) -> None:
    """Load the models, time them, and serve until interrupted."""
    from ui import page
    from ui.ladder import open_ladder

    device = app.device if app.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    ladder = open_ladder(app.weights, device)
    for rung in ladder:
        print(f"{rung.name}: {rung.parameters / 1e6:.2f} M parameters, {rung.config.tokens} tokens")
    page.build(ladder).launch(**page.SERVING)


if __name__ == "__main__":
    main(tyro.cli(App, description=App.__doc__))
