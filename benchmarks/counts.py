"""What the models of the Models tab take, counted: `python -m benchmarks.counts` writes assets/counts.json.

Counting takes half a minute, which the page has not; the numbers are the same on every machine.
"""

import json
from dataclasses import asdict

from tqdm import tqdm

from dit.config import ModelConfig
from dit.counts import count
from dit.memory import sampling_bytes, training_bytes
from dit.papers import RESULTS
from dit.presets import MODELS
from dit.weights import atomic_write
from ui.papers import COUNTS, key


def counted(config: ModelConfig) -> dict[str, int]:
    """All numbers of one model: those of `dit.counts.Count`, and the bytes of activations of one picture."""
    memory = {"sampling_bytes": sampling_bytes(config), "training_bytes": training_bytes(config)}
    return asdict(count(config)) | memory


def main() -> None:
    """Count all, and write the file."""
    configs = [result.config for result in RESULTS if result.config]
    configs += [config for config in MODELS.values() if config.backbone == "unet"]
    found = {key(config): counted(config) for config in tqdm(dict.fromkeys(configs), unit="model")}
    text = json.dumps(found, indent=1) + "\n"
    atomic_write(COUNTS, lambda temporary: temporary.write_text(text))


if __name__ == "__main__":
    main()
