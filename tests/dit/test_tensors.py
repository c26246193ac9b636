"""Files of tensors: every container gives the same, damage is named, nothing is executed, little is read."""

import argparse
import gc
import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import dit
from dit.tensors import TensorFile, WeightsError
from tests.weights_files import BOMBS, Bomb, assert_it_would_have_run, mapped_ranges, memory, write_hollow

MB = 1_000_000
linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is counted in /proc")


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        "a.weight": torch.randn(3, 5),
        "a.bias": torch.randn(3).to(torch.bfloat16),
        "b": torch.randn(1000),
        "one": torch.tensor(7.0),
    }


def write_parts(path: Path, tensors: dict[str, Tensor], ending: str) -> None:
    """An index and two files beside it."""
    names, weight_map = list(tensors), {}
    for i, part in enumerate((names[:2], names[2:])):
        file = f"{path.stem.split('.')[0]}-{i + 1:05}-of-00002.{ending}"
        write(path.parent / file, {name: tensors[name] for name in part})
        weight_map |= dict.fromkeys(part, file)
    path.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def write(path: Path, tensors: dict[str, Tensor]) -> Path:
    """A container of the kind that a name says."""
    if path.name.endswith(".index.json"):
        write_parts(path, tensors, path.name.split(".")[1])
    elif path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization="legacy" not in path.name)
    return path


CONTAINERS = ["m.safetensors", "m.pt", "m.pth", "m.bin", "m.ckpt", "legacy.pt"]
CONTAINERS += ["m.safetensors.index.json", "m.bin.index.json"]


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_gives_names_shapes_and_tensors(name, tensors, tmp_path):
    file = TensorFile(write(tmp_path / name, tensors))
    assert file.shapes == {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for wanted in ([], ["b"], ["one", "a.bias"], list(tensors)):
        found = file.read(wanted)
        assert set(found) == set(wanted)
        for key in wanted:
            assert found[key].dtype == tensors[key].dtype and torch.equal(found[key], tensors[key]), key


def test_the_metadata_of_a_safetensors_file_is_kept(tensors, tmp_path):
    save_file(tensors, tmp_path / "m.safetensors", metadata={"format": "x", "config": "{}"})
    assert TensorFile(tmp_path / "m.safetensors").metadata == {"format": "x", "config": "{}"}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("keys", "taken"),
    [
        (["model", "ema", "opt"], "ema"),
        (["model", "opt"], "model"),
        (["state_dict", "epoch"], "state_dict"),
        (["ema", "state_dict"], "ema"),
    ],
    ids=str,
)
def test_the_average_of_a_checkpoint_is_taken_else_its_model(keys, taken, legacy, tmp_path):
    content = {key: {"w": torch.full((2,), float(i)), "step": i} for i, key in enumerate(keys)}
    torch.save(content, tmp_path / "c.pt", _use_new_zipfile_serialization=not legacy)
    file = TensorFile(tmp_path / "c.pt")
    assert file.shapes == {"w": (2,)}
    assert torch.equal(file.read(["w"])["w"], content[taken]["w"])
    assert set(file.extras) == set(keys)


@pytest.mark.parametrize("legacy", [False, True])
def test_the_arguments_of_a_training_script_are_a_plain_record(legacy, tmp_path):
    """The DiT authors' train.py saves its Namespace; afterwards torch must not trust it any further."""
    args = argparse.Namespace(model="DiT-XL/2", image_size=256, lr=1e-4, data=None)
    content = {"ema": {"w": torch.ones(2)}, "args": args}
    torch.save(content, tmp_path / "c.pt", _use_new_zipfile_serialization=not legacy)
    assert TensorFile(tmp_path / "c.pt").shapes == {"w": (2,)}
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


# --- files that cannot be used ---


@pytest.mark.parametrize("length", [0, 1, 4, 7, 8, 100, 1000, 3000, -1, -100, -1000])
@pytest.mark.parametrize("name", ["m.safetensors", "m.pt", "m.bin", "legacy.pt"])
def test_a_truncated_file_is_named(name, length, tensors, tmp_path):
    path = write(tmp_path / name, tensors)
    path.write_bytes(path.read_bytes()[:length])
    size = path.stat().st_size
    with pytest.raises(WeightsError, match=f"{name}: expected a whole .* found {size:,} bytes") as error:
        TensorFile(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300 + len(str(path))


@pytest.mark.parametrize("name", ["m.safetensors", "m.pt", "m.bin", "m.ckpt", "m.safetensors.index.json"])
@pytest.mark.parametrize(
    "content", [b"<!DOCTYPE html><html>Not found</html>", b"\x00" * 64, b"\xff\xfe" * 99, b"PK\x03\x04" * 9]
)
def test_a_page_or_noise_in_place_of_a_file_is_named(content, name, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=f"{name}: expected .*found") as error:
        TensorFile(tmp_path / name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"), [([1, 2], "found a list"), (torch.ones(3), "found a Tensor")], ids=str
)
def test_a_checkpoint_of_something_else_is_named(content, said, tmp_path):
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(WeightsError, match=f"c.pt: expected a dictionary of tensors, {said}"):
        TensorFile(tmp_path / "c.pt")


@pytest.mark.parametrize("content", [{1: torch.ones(3)}, {"x": torch.ones(1), 2: torch.ones(2)}], ids=str)
def test_names_that_are_no_texts_are_no_model(content, tmp_path):
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(WeightsError, match="c.pt"):
        dit.load(tmp_path / "c.pt")


def test_a_script_archive_is_no_checkpoint(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "script.pt")
    with zipfile.ZipFile(tmp_path / "script.pt", "a") as archive:
        archive.writestr("script/constants.pkl", pickle.dumps(()))  # by this torch knows one
    with pytest.raises(WeightsError, match="script.pt: expected a whole torch checkpoint.*TorchScript"):
        TensorFile(tmp_path / "script.pt")


# --- files in parts ---


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_missing_parts_are_all_named(ending, tensors, tmp_path):
    path = write(tmp_path / f"m.{ending}.index.json", tensors)
    for part in tmp_path.glob("m-*"):
        part.unlink()
    with pytest.raises(WeightsError, match=f"index.json.*m-00001-of-00002.{ending}, m-00002.* missing"):
        TensorFile(path)


def test_a_damaged_part_is_named(tensors, tmp_path):
    path = write(tmp_path / "m.safetensors.index.json", tensors)
    (tmp_path / "m-00002-of-00002.safetensors").write_bytes(b"<html>")
    with pytest.raises(WeightsError, match="m-00002-of-00002.safetensors: expected a whole"):
        TensorFile(path)


WRONG_MAPS = ["[]", "3", '{"b": 3}', '{"b": []}', '{"b": null}', '{"b": "", "c": ".."}']


@pytest.mark.parametrize("content", ["", "[]", "{}"] + [f'{{"weight_map": {wrong}}}' for wrong in WRONG_MAPS])
def test_a_broken_index_is_named(content, tmp_path):
    path = tmp_path / "m.safetensors.index.json"
    path.write_text(content)
    with pytest.raises(WeightsError, match="index.json: expected"):
        TensorFile(path)


def test_an_index_that_lists_itself_is_named(tmp_path):
    path = tmp_path / "m.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"b": path.name}}))
    with pytest.raises(WeightsError, match="index.json: expected"):
        TensorFile(path)


@pytest.mark.parametrize("where", ["../secret.safetensors", "sub/../../secret.safetensors", "absolute"])
def test_an_index_cannot_point_outside_its_folder(where, tensors, tmp_path):
    outside = write(tmp_path / "secret.safetensors", tensors)
    (tmp_path / "model" / "sub").mkdir(parents=True)
    path = tmp_path / "model" / "m.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"b": str(outside) if where == "absolute" else where}}))
    with pytest.raises(WeightsError, match="index.json: expected"):
        TensorFile(path)


# --- nothing is executed ---


def placed(place: str, tensors: dict[str, Tensor], bomb: Bomb) -> object:
    """A checkpoint with a bomb somewhere."""
    return {
        "alone": bomb,
        "beside the tensors": tensors | {"c": bomb},
        "in the state dict": {"ema": tensors | {"c": bomb}},
        "in another state dict": {"ema": tensors, "model": tensors | {"c": bomb}},
        "in the optimizer": {"ema": tensors, "opt": {"state": {0: {"exp_avg": bomb}}, "param_groups": []}},
        "in the arguments": {"ema": tensors, "args": argparse.Namespace(lr=bomb)},
        "in our config": {"ema": tensors, "config": {"depth": bomb}},
    }[place]


PLACES = ["alone", "beside the tensors", "in the state dict", "in another state dict", "in the optimizer"]
PLACES += ["in the arguments", "in our config"]


@pytest.mark.parametrize("name", ["m.pt", "m.bin", "m.ckpt", "legacy.pt", "legacy.bin"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("callee", BOMBS)
def test_a_pickle_that_would_run_code_is_refused(callee, place, name, tensors, tmp_path):
    path, trace = tmp_path / name, tmp_path / "trace"
    content = placed(place, tensors, BOMBS[callee](trace))
    torch.save(content, path, _use_new_zipfile_serialization="legacy" not in name)
    with pytest.raises(WeightsError, match=rf"{name}: refused, .*run \S*{callee};.*nothing was run") as error:
        TensorFile(path)
    assert "\n" not in str(error.value)
    assert_it_would_have_run(path, trace)


def test_a_part_that_would_run_code_is_refused(tensors, tmp_path):
    path = write(tmp_path / "m.bin.index.json", tensors)
    part, trace = tmp_path / "m-00002-of-00002.bin", tmp_path / "trace"
    torch.save({"b": BOMBS["system"](trace)}, part)
    with pytest.raises(WeightsError, match="m-00002-of-00002.bin: refused.*system"):
        TensorFile(path)
    assert_it_would_have_run(part, trace)


@pytest.mark.parametrize("use", [dit.load, dit.weights.describe])
@pytest.mark.parametrize("folder", [False, True])
def test_loading_refuses_it_too(folder, use, tensors, tmp_path):
    path, trace = tmp_path / "diffusion_pytorch_model.bin", tmp_path / "trace"
    torch.save(tensors | {"c": BOMBS["eval"](trace)}, path)
    config = {"_class_name": "DiTTransformer2DModel", "num_layers": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="model.bin: refused.*eval"):
        use(tmp_path if folder else path)
    assert_it_would_have_run(path, trace)


@pytest.mark.parametrize("callee", BOMBS)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_bare_pickle_is_refused(protocol, callee, tmp_path):
    path, trace = tmp_path / "m.pt", tmp_path / "trace"
    path.write_bytes(pickle.dumps({"w": BOMBS[callee](trace)}, protocol=protocol))
    with pytest.raises(WeightsError, match="m.pt"):
        TensorFile(path)
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists()


@pytest.mark.parametrize("protocol", [4, 5])
def test_a_pickle_of_a_newer_protocol_is_not_called_damaged(protocol, tmp_path):
    """torch reads protocols up to 3 without running them; another download would bring the same file."""
    torch.save({"w": torch.ones(2)}, tmp_path / "m.pt", pickle_protocol=protocol)
    with pytest.raises(WeightsError, match="m.pt") as error:
        TensorFile(tmp_path / "m.pt")
    assert "download it again" not in str(error.value) and "protocol" in str(error.value)


# --- little is read ---


@linux
@pytest.mark.parametrize("name", ["m.safetensors", "m.pt"])
def test_tensors_stay_in_the_file_until_they_are_used(name, tmp_path):
    path, shapes = tmp_path / name, {f"w{i}": (10 * MB // 4,) for i in range(15)}
    if path.suffix == ".pt":
        with torch.serialization.skip_data():
            torch.save({key: torch.empty(shape) for key, shape in shapes.items()}, path)
    else:
        write_hollow(path, shapes)
    assert path.stat().st_size > 150 * MB
    gc.collect()  # what other tests have left is not to go meanwhile
    before = memory("VmRSS")
    file = TensorFile(path)
    found = file.read(shapes)
    assert set(found) == set(shapes)
    assert memory("VmRSS") - before < 5 * MB
    found["w3"].sum(), found["w7"].sum()
    assert 19 * MB < memory("VmRSS") - before < 30 * MB  # so the measure does see what is touched
    del found
    assert memory("VmRSS") - before < 5 * MB


@linux
@pytest.mark.parametrize("layout", ["ours", "authors", "diffusers"])
def test_float32_weights_of_a_loaded_model_lie_in_the_file(layout, random_model, tmp_path, pipeline_folder):
    """Private pages of it: what a caller does to the weights changes no file."""
    if layout == "diffusers":
        source, path = pipeline_folder, pipeline_folder / "transformer/diffusion_pytorch_model.safetensors"
    else:
        model = random_model(hidden_size=128, num_heads=2, depth=4, in_channels=4)  # DiT-N
        source = path = tmp_path / ("m.safetensors" if layout == "ours" else "m.pt")
        dit.weights.save(path, model) if layout == "ours" else torch.save(model.state_dict(), path)
    content = path.read_bytes()
    loaded = dit.load(source)
    inside = mapped_ranges(path)
    copied = {
        name
        for name, tensor in loaded.state_dict().items()
        if not any(tensor.data_ptr() in addresses for addresses in inside)
    }
    joined = {name for name in loaded.state_dict() if "attn.qkv" in name} | {"pos_embed"}
    assert copied == (joined if layout == "diffusers" else set())
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.add_(1)
    assert path.read_bytes() == content
