"""Bundling a run: half the bytes, the same model, the same provenance."""

from pathlib import Path

import pytest
import torch

import dit
from dit.files import sha256
from dit.weights import WeightsError
from train.bundle import bundle


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run folder with the weights of a small random model."""
    torch.manual_seed(0)
    model = dit.build("DiT-N/8", in_channels=3, num_classes=2)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    dit.weights.save(tmp_path / "run" / "weights.safetensors", model, {"images_seen": 7})
    return tmp_path / "run"


def test_a_bundled_model_is_the_run_rounded_to_bfloat16(run_dir: Path, tmp_path: Path) -> None:
    path = bundle(run_dir, "DiT-N-8-test", tmp_path / "zoo")
    before, after = dit.load(run_dir / "weights.safetensors"), dit.load(path)
    trained = sha256(run_dir / "weights.safetensors")
    said = {"images_seen": 7, "name": "DiT-N-8-test", "licence": "Apache-2.0", "run": trained}
    assert after.provenance == said
    for name, tensor in before.state_dict().items():
        exact = tensor if name == "pos_embed" else tensor.bfloat16().float()
        assert torch.equal(after.state_dict()[name], exact), name
    assert path.stat().st_size < 0.6 * (run_dir / "weights.safetensors").stat().st_size


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden"])
def test_a_name_that_is_a_path_is_refused(run_dir: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="plain file name"):
        bundle(run_dir, name, tmp_path)


def test_a_run_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=str(tmp_path)):
        bundle(tmp_path, "x", tmp_path)
