"""Times of passes: of each model, whole and reused, in its name."""

import pytest
import torch

import dit
from dit.weights import save
from train import pass_times
from train.pass_times import time_passes


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Three models: a cheap one, a dear one, and one whose steps cannot be cached."""
    monkeypatch.setattr(pass_times, "ROUNDS", 3)
    monkeypatch.setattr(pass_times, "BATCH", 8)
    size = {"input_size": 32, "in_channels": 3, "num_classes": 10}
    models = {
        "cheap": dit.build("DiT-E/8", **size),
        "dear": dit.build("DiT-N/2", **size),
        "unet": dit.build("UNet-C", **size, num_heads=1, hidden_size=32, channel_mult=(1, 2)),
    }
    for name, model in models.items():
        save(tmp_path / f"{name}.safetensors", model, {"classes": [str(i) for i in range(10)]})
    return {name: tmp_path / f"{name}.safetensors" for name in models}


def test_every_model_has_both_times(files):
    times = time_passes(files, "cpu")
    assert list(times) == list(files)
    assert all(time.whole > 0 and time.reused > 0 for time in times.values())


def test_a_reused_pass_computes_no_branch(files, monkeypatch):
    calls = []
    plain = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda *given, **named: calls.append(1) or plain(*given, **named),
    )
    time_passes({"dear": files["dear"]}, "cpu")
    depth = dit.load(files["dear"]).config.depth
    assert len(calls) == depth * (1 + 3 + 1)  # rounds, one to warm up, and one to fill the cache
