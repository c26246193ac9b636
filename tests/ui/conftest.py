"""A served page over two small models with random weights, for tests that talk to it as a client would."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import dit

REPOSITORY = Path(__file__).resolve().parents[2]
CLASSES = ["sphere", "cube", "cylinder", "cone", "torus"]


def random_weights(path: Path, preset: str) -> Path:
    """A small model whose output is not the zero of its initialisation, as a weights file."""
    torch.manual_seed(0)
    model = dit.build(preset, input_size=32, in_channels=3, num_classes=len(CLASSES), prediction="v")
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.05)
    dit.weights.save(path, model, {"classes": CLASSES, "name": path.stem})
    return path


@pytest.fixture(scope="session")
def ladder_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two weights files, cheap and less cheap."""
    folder = tmp_path_factory.mktemp("weights")
    return [
        random_weights(folder / "small.safetensors", "DiT-N/8"),
        random_weights(folder / "big.safetensors", "DiT-N/4"),
    ]


def serve(folder: Path, arguments: list[str]) -> Iterator[str]:
    """`python app.py` on a free port: yields its address, then ends it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"GRADIO_SERVER_PORT": str(port), "HF_HUB_OFFLINE": "1"}
    log = (folder / "app.log").open("w")
    app = subprocess.Popen(
        [sys.executable, "app.py", *arguments], cwd=REPOSITORY, env=environment, stdout=log, stderr=log
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(address, timeout=5).read()
                break
            except OSError:
                if app.poll() is not None:
                    raise RuntimeError((folder / "app.log").read_text()) from None
                time.sleep(0.2)
        yield address
    finally:
        app.terminate()
        app.wait(timeout=30)


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory, ladder_files: list[Path]) -> Iterator[str]:
    """Address of the app, offering the bundled models and the two random ones."""
    yield from serve(tmp_path_factory.mktemp("app"), ["--weights", *map(str, ladder_files)])
