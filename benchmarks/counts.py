"""What the models of the Models tab take, counted: `python -m benchmarks.counts` writes assets/counts.json.

Counting takes half a minute, which the page has not; the numbers are the same on every machine.
"""

import json
from dataclasses import asdict

from tqdm import tqdm

from dit.config import ModelConfig
from dit.counts import count
from dit.files import atomic_write
from dit.memory import sampling_bytes, training_bytes
from dit.papers import models
from ui.papers import COUNTS


def counted(config: ModelConfig) -> dict[str, int]:
    """All of one model: what `dit.counts.Count` has, tokens, and bytes of activations of one picture."""
    memory = {"sampling_bytes": sampling_bytes(config), "training_bytes": training_bytes(config)}
    return asdict(count(config)) | {"tokens": config.tokens} | memory


def main() -> None:
    """Count all, and write the file."""
    found = {name: counted(config) for name, config in tqdm(models().items(), unit="model")}
    text = json.dumps(found, indent=1) + "\n"
    atomic_write(COUNTS, lambda temporary: temporary.write_text(text))


if __name__ == "__main__":
    main()
