"""`python -m train.bundle RUN NAME`: a finished run's weights, at half the size, join the bundled models."""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

import dit
from dit.command import exit_status
from dit.files import sha256
from dit.weights import ZOO, save

LICENCE = "Apache-2.0"  # of the bundled weights: the repository's own


@dataclass(frozen=True)
class Bundle:
    """Store a run's averaged weights as bfloat16 in assets/zoo, ready to be evaluated and committed."""

    run_dir: tyro.conf.Positional[Path]
    """folder of the run"""
    name: tyro.conf.Positional[str]
    """what the page calls the model, such as DiT-T-4-solids"""


def bundle(run_dir: Path, name: str, zoo: Path = ZOO) -> Path:
    """Write zoo/NAME.safetensors from a run's weights.safetensors; returns its path.

    Raises:
        ValueError: a name that is no plain file name.
        WeightsError: the run has no weights, or they cannot be read.
    """
    if name != Path(name).name or name.startswith("."):
        raise ValueError(f"name is {name!r}; it must be a plain file name such as DiT-T-4-solids")
    trained = run_dir / "weights.safetensors"
    model = dit.load(trained)
    kept = {k: v for k, v in model.provenance.items() if k != "results"}  # those were of other digits
    path = zoo / f"{name}.safetensors"
    save(path, model, kept | {"name": name, "licence": LICENCE, "run": sha256(trained)}, dtype=torch.bfloat16)
    return path


def main(arguments: list[str]) -> int:
    """Bundle, and say where. Returns the exit status."""
    return exit_status(lambda: _bundle(arguments), "stopped; nothing was bundled")


def _bundle(arguments: list[str]) -> None:
    chosen = tyro.cli(Bundle, prog="python -m train.bundle", args=arguments)
    path = bundle(chosen.run_dir, chosen.name)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
