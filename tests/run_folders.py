"""Folders of training runs, as the trainer leaves them, with random weights."""

from pathlib import Path
from typing import Any

import torch

import dit
from dit.weights import save


def write_run(
    folder: Path, name: str, seed: int = 0, told: dict[str, Any] | None = None, **fields: Any
) -> Path:
    """A run's averaged weights. told: further provenance. fields: of the config."""
    path = folder / name / "weights.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name("config.json").write_text("{}")
    torch.manual_seed(seed)
    model = dit.build("DiT-E/4", **({"input_size": 16, "in_channels": 3, "num_classes": 2} | fields))
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.05)
    own = {"name": name, "dataset": "own", "classes": ["left", "right"], "images_seen": 8 * seed}
    save(path, model, own | (told or {}))
    return path
