"""DiT Lab, the demo: `python app.py`."""

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class App:
    """Serve the page. Gradio's own variables (GRADIO_SERVER_NAME, GRADIO_SERVER_PORT, ...) are honoured."""

    weights: tuple[Path, ...] = ()
    """further weights files to offer beside the bundled ones"""
    device: str = "auto"
    """auto (a CUDA GPU if there is one, then Apple's, else the CPU), cpu, cuda, ..."""


def main(app: App) -> None:
    """Load the models, time them, and serve until interrupted."""
    from dit.pipeline import find_device
    from ui import page
    from ui.ladder import open_ladder

    try:
        ladder = open_ladder(app.weights, find_device(app.device))
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    for rung in ladder:
        print(f"{rung.name}: {rung.parameters / 1e6:.2f} M parameters, {rung.config.tokens} tokens")
    page.build(ladder).launch(**page.SERVING)


if __name__ == "__main__":
    main(tyro.cli(App, description=App.__doc__))
