"""Weights files: what goes in comes out, a bad file is named, and nothing in one is executed."""

import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dit import tensors, weights
from dit.config import ModelConfig
from dit.files import atomic_write
from dit.weights import WeightsError, describe, load, save

PROVENANCE = {"dataset": "solids", "classes": ["cube", "cone"], "images_seen": 640_000, "ü": [1.5, None]}


@pytest.fixture
def model(random_model):
    return random_model(num_classes=7, prediction="v", mlp_ratio=2.5)


@pytest.fixture
def path(tmp_path, model) -> Path:
    """A good file."""
    save(tmp_path / "good.safetensors", model, PROVENANCE)
    return tmp_path / "good.safetensors"


def rewrite(path: Path, change=None, **metadata: str | None) -> None:
    """Replace tensors or metadata of a file; the rest stays."""
    tensors = load_file(path)
    config, provenance = describe(path)
    texts = {"format": weights.FORMAT, "config": json.dumps(config.to_dict()), "provenance": "{}"} | metadata
    if change:
        change(tensors)
    save_file(tensors, path, metadata={key: value for key, value in texts.items() if value is not None})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_round_trip(dtype, model, tmp_path):
    save(tmp_path / "m.safetensors", model, PROVENANCE, dtype=dtype)
    stored = load_file(tmp_path / "m.safetensors")
    assert stored.pop("pos_embed").dtype == torch.float32  # never trained, so never rounded
    assert {tensor.dtype for tensor in stored.values()} == {dtype}
    loaded = load(tmp_path / "m.safetensors")
    assert loaded.config == model.config and loaded.provenance == PROVENANCE
    assert not loaded.training and not loaded.pos_embed.requires_grad
    assert loaded.blocks[0].mlp.fc1.weight.requires_grad
    for name, tensor in model.state_dict().items():
        kept = tensor if name == "pos_embed" else tensor.to(dtype).float()
        assert torch.equal(loaded.state_dict()[name], kept), name
    x, t, y = torch.randn(2, 3, 8, 8), torch.tensor([1, 900]), torch.tensor([0, 6])
    with torch.no_grad():
        close = {"atol": 0, "rtol": 0} if dtype == torch.float32 else {"atol": 0.05, "rtol": 0.05}
        torch.testing.assert_close(loaded(x, t, y), model(x, t, y), **close)


def test_a_training_model_with_gradients_can_be_saved(model, tmp_path):
    model.train().requires_grad_(True)
    model(torch.randn(2, 3, 8, 8), torch.tensor([1, 2]), torch.tensor([1, 2])).sum().backward()
    save(tmp_path / "m.safetensors", model)
    assert load(tmp_path / "m.safetensors").provenance == {}
    assert model.training


def test_describe_reads_no_tensors(path, monkeypatch, model):
    """All that it needs stands in the header: the rest of the file may as well be missing from memory."""
    opened = []

    class HeaderOnly:
        def __init__(self, name, **settings):
            self.file = original(name, **settings)
            opened.append(name)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def __getattr__(self, name):
            assert name in ("metadata", "keys", "get_slice"), f"{name} is called: it may read tensors"
            return getattr(self.file, name)

    original = tensors.safe_open
    monkeypatch.setattr(tensors, "safe_open", HeaderOnly)
    assert describe(path) == (model.config, PROVENANCE)
    assert opened == [path]


# --- writing ---


def test_a_failing_write_leaves_the_old_file_and_nothing_else(path):
    before = path.read_bytes()

    def fail(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        atomic_write(path, fail)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_failing_save_leaves_the_old_file(path, model):
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save(path, model, {"classes": object()})
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_a_write_makes_folders_and_an_ordinary_file(tmp_path):
    target = tmp_path / "a" / "b" / "file"
    (tmp_path / "ordinary").write_text("")
    atomic_write(target, lambda temporary: temporary.write_text("new"))
    atomic_write(target, lambda temporary: temporary.write_text("newer"))
    assert target.read_text() == "newer" and list(target.parent.iterdir()) == [target]
    assert target.stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_the_file_appears_only_when_it_is_whole(tmp_path):
    target = tmp_path / "file"

    def write(temporary: Path) -> None:
        temporary.write_text("whole")
        assert not target.exists() and temporary.parent == tmp_path

    atomic_write(target, write)
    assert target.read_text() == "whole"


# --- files that cannot be used ---


@pytest.mark.parametrize("use", [describe, load])
@pytest.mark.parametrize("length", [0, 1, 7, 8, 100, 2000, -1, -1000])
def test_a_truncated_file_is_named(length, use, path):
    content = path.read_bytes()
    path.write_bytes(content[:length])
    with pytest.raises(WeightsError, match=f"(?s){path.name}.*expected.*found") as error:
        use(path)
    assert f"{len(content[:length]):,} bytes" in str(error.value)


def test_garbage_is_named(path):
    content = bytearray(path.read_bytes())
    for start, junk in ((0, b"\xff" * 8), (8, b"not json"), (0, b"<!DOCTYPE html><html>")):
        path.write_bytes(bytes(content[:start]) + junk + bytes(content[start + len(junk) :]))
        with pytest.raises(WeightsError, match=path.name):
            load(path)


def test_a_foreign_safetensors_file_is_named(tmp_path):
    save_file({"w": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    with pytest.raises(WeightsError, match="foreign.safetensors: expected a DiT.*another architecture"):
        load(tmp_path / "foreign.safetensors")
    save_file({"w": torch.zeros(3)}, tmp_path / "other.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="other.safetensors: expected a DiT.*another architecture"):
        describe(tmp_path / "other.safetensors")


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("kind", ["pickle", "torch", "zip in front"])
def test_a_pickle_by_another_name_is_refused_and_not_executed(kind, tmp_path, path):
    trace, bomb = tmp_path / "executed", Bomb(tmp_path / "executed")
    evil = tmp_path / "evil.safetensors"
    if kind == "pickle":
        evil.write_bytes(pickle.dumps(bomb))
    elif kind == "torch":
        torch.save({"model": bomb}, evil)
    else:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(bomb))
        evil.write_bytes(buffer.getvalue() + path.read_bytes())
    for use in (describe, load):
        with pytest.raises(WeightsError, match="evil.safetensors"):
            use(evil)
    assert not trace.exists()
    pickle.loads(pickle.dumps(bomb))  # the bomb works
    assert trace.exists()


def test_missing_unexpected_and_misshapen_tensors_are_each_named(path):
    def change(tensors):
        del tensors["blocks.0.attn.qkv.weight"]
        tensors["blocks.9.attn.qkv.weight"] = torch.zeros(2)
        tensors["final_layer.linear.bias"] = torch.zeros(5)

    rewrite(path, change)
    with pytest.raises(WeightsError) as error:
        load(path)
    message = str(error.value)
    assert path.name in message
    assert "missing blocks.0.attn.qkv.weight (96, 32)" in message
    assert "unexpected blocks.9.attn.qkv.weight (2,)" in message
    assert "final_layer.linear.bias: expected (24,), found (5,)" in message


@pytest.mark.parametrize("name", ["pos_embed", "x_embedder.proj.bias", "y_embedder.embedding_table.weight"])
@pytest.mark.parametrize("kind", ["missing", "unexpected", "misshapen"])
def test_a_single_wrong_tensor_is_enough(kind, name, path):
    def change(tensors):
        if kind == "unexpected":
            tensors[name + ".extra"] = tensors[name].clone()
        elif kind == "missing":
            del tensors[name]
        else:
            tensors[name] = tensors[name].flatten()[:-1].clone()

    rewrite(path, change)
    with pytest.raises(WeightsError, match=name):
        load(path)


def test_a_long_list_of_differences_is_cut(path):
    rewrite(path, lambda tensors: [tensors.pop(name) for name in list(tensors)[:12]])
    with pytest.raises(WeightsError, match="; and 4 more"):
        load(path)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ('{"hidden_size": 32, "depth": 2, "num_heads": 2, "wings": 2}', "wings"),
        ('{"hidden_size": 32, "depth": 2, "num_heads": 5}', "num_heads 5"),
        ('{"hidden_size": "wide", "depth": 2, "num_heads": 2}', "'wide'"),
        ('{"depth": 2}', "hidden_size"),
        ("{", "broken"),
        ("[1, 2]", "broken"),
        ("3", "broken"),
        ("null", "broken"),
        (None, "config"),
    ],
    ids=str,
)
def test_a_broken_config_is_named(config, said, path):
    rewrite(path, config=config)
    for use in (describe, load):
        with pytest.raises(WeightsError, match=f"(?s){path.name}.*{said}"):
            use(path)


def test_a_file_from_before_provenance_still_loads(path, model):
    rewrite(path, provenance=None)
    assert describe(path) == (model.config, {})


# --- names ---


@pytest.fixture
def small_zoo(tmp_path, monkeypatch, model):
    monkeypatch.setattr(weights, "ZOO", tmp_path / "zoo")
    monkeypatch.setattr(weights, "BACKBONES", tmp_path / "none")
    for name in ("DiT-T-4", "DiT-N-8"):
        save(tmp_path / "zoo" / f"{name}.safetensors", model)
    return tmp_path / "zoo"


@pytest.mark.parametrize("name", ["DiT-T/4", "DiT-T-4"])
def test_bundled_weights_go_by_name(name, small_zoo, model):
    assert weights.locate(name) == small_zoo / "DiT-T-4.safetensors"
    assert load(name).config == model.config


def test_a_path_wins_over_a_name(small_zoo, path):
    assert weights.locate(path) == weights.locate(str(path)) == path


@pytest.mark.parametrize("use", [weights.locate, describe, load])
def test_an_unknown_name_lists_the_bundled_ones(use, small_zoo, tmp_path):
    for source in ("DiT-Q/3", tmp_path / "none.safetensors"):
        with pytest.raises(WeightsError, match=f"{source}: no such file.*DiT-N-8, DiT-T-4, DiT-XL/2-256"):
            use(source)


def test_a_folder_of_something_else_is_named(tmp_path):
    with pytest.raises(WeightsError, match=f"{tmp_path}: expected a diffusers folder"):
        load(tmp_path)


def test_an_empty_zoo_says_so(tmp_path, monkeypatch):
    for folder in ("ZOO", "BACKBONES"):
        monkeypatch.setattr(weights, folder, tmp_path / "nowhere")
    with pytest.raises(WeightsError, match="no model of that name; there are DiT-XL/2-256"):
        load("DiT-Q/3")


def test_a_preset_without_weights_says_how_to_make_some():
    with pytest.raises(WeightsError, match=r"DiT-S/2: .* \(python -m train --model DiT-S/2 makes"):
        load("DiT-S/2")
    with pytest.raises(WeightsError, match=r"; did you mean DiT-XL/2-256 or DiT-XL/2-512\?; there"):
        load("DiT-XL/2")


def test_bundled_weights_can_be_described():
    for name, file in weights.bundled().items():
        config, provenance = describe(file)
        assert isinstance(config, ModelConfig) and provenance, name
