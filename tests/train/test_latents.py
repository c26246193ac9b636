"""Latents as training data: draws from what was stored, rows wherever they lie, folders that do not fit."""

import json
import pickle
import shutil
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dit.autoencoder import load_autoencoder
from dit.pipeline import from_pictures
from tests.latents import CLASSES, NUMBER, SIDE, run, solids_folder
from train.config import TrainConfig
from train.data import open_data
from train.decode import pixels
from train.folder import FolderPictures
from train.latents import LatentData
from train.pictures import DataInfo


@pytest.fixture(scope="module")
def posterior(whole) -> torch.Tensor:
    """All that is stored, (16, 2, 2, 4, 4, 4)."""
    return torch.cat([load_file(path)["posterior"] for path in sorted(whole.glob("shard-*"))]).float()


def config_for(path: Path, **settings: object) -> TrainConfig:
    return TrainConfig(model="DiT-N/2", data=str(path), **{"image_size": SIDE} | settings)


def opened(path: Path, **settings: object) -> LatentData:
    return LatentData(path, config_for(path, **settings))


def fetch(data: LatentData, indices: list[int], mirrored: bool = False, seed: int = 0):
    """Rows with seeds of their own."""
    n = len(indices)
    return data.fetch(np.array(indices), np.full(n, mirrored), np.arange(seed, seed + n))


# --- what is fetched ---


def test_what_is_known_of_the_data(whole, vae_folder):
    data = opened(whole)
    assert data.info == DataInfo(str(whole), CLASSES, 4, SIDE // 8, str(vae_folder.resolve()))
    assert len(data) == NUMBER
    opened_by_name = open_data(config_for(whole))
    assert isinstance(opened_by_name, LatentData) and opened_by_name.info == data.info


def test_rows_from_anywhere(whole, posterior, folder):
    data, labels = opened(whole), FolderPictures(folder).labels
    indices, mirrored = np.array([15, 0, 6, 5, 0, 11]), np.array([0, 1, 1, 0, 0, 1], bool)
    mean, deviation = data.moments(indices, mirrored)
    assert torch.equal(mean, posterior[indices, mirrored.astype(int), 0])
    assert torch.equal(deviation, posterior[indices, mirrored.astype(int), 1])
    x0, y = data.fetch(indices, mirrored, np.arange(6))
    assert x0.shape == (6, 4, 4, 4) and x0.dtype == torch.float32 and x0.is_contiguous()
    assert y.tolist() == labels[indices].tolist() and y.dtype == torch.int64


@pytest.mark.parametrize("mirrored", [False, True])
def test_draws_have_the_stored_mean_and_deviation(mirrored, whole, posterior):
    draws, place = 20_000, 7
    x0, _ = fetch(opened(whole), [place] * draws, mirrored, seed=-draws // 2)
    mean, deviation = posterior[place, int(mirrored)]
    error = (x0.mean(dim=0) - mean) / (deviation / draws**0.5)
    assert error.abs().max() < 5 and 0.6 < error.std() < 1.4
    assert ((x0.std(dim=0) / deviation - 1).abs() < 5 / (2 * draws) ** 0.5).all()
    noise = ((x0 - mean) / deviation).flatten(1)
    correlations = noise.T @ noise / draws - torch.eye(64)
    assert correlations.abs().max() < 6 / draws**0.5  # each place has noise of its own
    assert (noise[1:] * noise[:-1]).mean().abs() < 5 / (64 * draws) ** 0.5  # and so has each seed


def test_a_draw_is_decided_by_its_seed_alone(whole):
    data = opened(whole)
    x0, _ = fetch(data, [3, 9, 3], seed=5)
    assert torch.equal(fetch(data, [9], seed=6)[0][0], x0[1])
    assert not torch.equal(x0[0], x0[2])
    again, _ = data.fetch(np.array([3]), np.array([False]), np.array([5]))
    assert torch.equal(again[0], x0[0])
    # Noise that somebody else draws with the same seed is not the same.
    mean, deviation = data.moments(np.array([3]), np.array([False]))
    others = torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(5))
    assert ((x0[0] - mean[0]) / deviation[0] * others).mean().abs() < 0.5


def test_decoded_they_are_the_pictures_reconstruction(whole, folder, vae_folder):
    """What training sees, decoded, against encoding and decoding the picture, or its mirror image, itself."""
    data, pictures, autoencoder = opened(whole), FolderPictures(folder), load_autoencoder(vae_folder)
    x = from_pictures(np.stack([pixels(pictures.picture(i), SIDE, 3) for i in range(NUMBER)]))
    for mirrored, seen in ((False, x), (True, x.flip(-1))):
        rows = np.arange(NUMBER), np.full(NUMBER, mirrored)
        x0, _ = data.fetch(*rows, np.arange(NUMBER))
        mean, deviation = autoencoder.posterior(seen)
        stored_mean, stored_deviation = data.moments(*rows)
        noise = (x0 - stored_mean) / stored_deviation
        direct = autoencoder.decode(mean + deviation * noise)
        assert (autoencoder.decode(x0) - direct).square().mean() < 1e-5 * direct.var()
        decoded, plain = autoencoder.decode(stored_mean), autoencoder.decode(mean)
        distances = (decoded[:, None] - plain[None]).square().mean((2, 3, 4))
        assert distances.diagonal().max() < 1e-3 * distances.fill_diagonal_(9).min()


# --- which pictures ---


def test_some_of_the_pictures(whole, posterior):
    first = opened(whole, num_pictures=7)
    assert len(first) == 7
    assert torch.equal(first.moments(np.arange(7), np.zeros(7, bool))[0], posterior[:7, 0, 0])
    few = opened(whole, overfit=4, class_conditional=False)
    assert len(few) == 4
    chosen = few.moments(np.arange(4), np.zeros(4, bool))[0]
    assert torch.equal(chosen, posterior[[0, 4, 8, 12], 0, 0])
    with pytest.raises(ValueError, match="num_pictures is 17, but .* has 16"):
        opened(whole, num_pictures=17)
    with pytest.raises(ValueError, match="overfit is 9, but .* has 7"):
        opened(whole, num_pictures=7, overfit=9)


def test_without_labels(whole, vae_folder, tmp_path):
    data = opened(whole, class_conditional=False)
    assert data.info.classes == () and fetch(data, [0, 1, 2])[1].tolist() == [0, 0, 0]
    assert run(solids_folder(tmp_path / "plain", 3, ()), tmp_path / "out", vae_folder)[0] == 0
    assert len(opened(tmp_path / "out", class_conditional=False)) == 3
    with pytest.raises(ValueError, match="has no labels; train without them: --no-class-conditional"):
        opened(tmp_path / "out")


def test_unreadable_pictures_leave_no_gap(folder, vae_folder, posterior, tmp_path):
    data = shutil.copytree(folder, tmp_path / "pictures")
    pictures = FolderPictures(data)
    (data / pictures.title(2)).write_bytes(b"no picture")
    assert run(data, tmp_path / "out", vae_folder)[0] == 0
    left = opened(tmp_path / "out")
    kept = [i for i in range(NUMBER) if i != 2]
    assert len(left) == NUMBER - 1
    assert torch.equal(left.moments(np.arange(15), np.zeros(15, bool))[0], posterior[kept, 0, 0])
    assert fetch(left, list(range(15)))[1].tolist() == pictures.labels[kept].tolist()


# --- processes ---


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_fetch_the_same(method, whole):
    data = opened(whole)
    x0, y = fetch(data, [1, 14])  # its shards are mapped here already
    assert data._mapped and not pickle.loads(pickle.dumps(data))._mapped  # and do not travel
    with get_context(method).Pool(1) as pool:
        theirs, labels = pool.apply(fetch, (data, [1, 14]))
    assert torch.equal(theirs, x0) and torch.equal(labels, y)


# --- folders that do not fit ---


def test_another_side_than_the_encoded_one(whole):
    with pytest.raises(ValueError, match="side 32 .*image_size is 64; give --image-size 32"):
        opened(whole, image_size=64)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def of_another_folder(path: Path) -> None:
    """As long as ours, and a shard of latents as well."""
    content = path.read_bytes()
    digest = json.loads((path.parent / "index.json").read_text())["shards"][1]["sha256"]
    path.write_bytes(content.replace(digest.encode(), b"0" * 64))


def swapped(path: Path) -> None:
    shutil.copy(path.with_name("shard-00000.safetensors"), path)


def foreign(path: Path) -> None:
    """Some other file, filled up to the same size."""
    size = path.stat().st_size
    save_file({"posterior": torch.zeros(10)}, path)
    save_file({"posterior": torch.zeros(10 + (size - path.stat().st_size) // 4)}, path)
    path.write_bytes(path.read_bytes().ljust(size))


@pytest.mark.parametrize("spoil", [truncated, longer, of_another_folder, swapped, foreign, Path.unlink])
def test_a_spoilt_shard_is_named_with_the_remedy(spoil, out, folder, vae_folder):
    spoil(out / "shard-00001.safetensors")
    with pytest.raises(ValueError, match="shard-00001.*python -m train.encode"):
        opened(out)
    assert run(folder, out, vae_folder)[0] == 0  # which is the remedy
    assert len(opened(out)) == NUMBER


def test_an_encoding_that_has_not_come_to_its_end(out):
    index = json.loads((out / "index.json").read_text())
    (out / "shard-00002.safetensors").unlink()
    (out / "index.json").write_text(json.dumps(index | {"complete": False}))
    with pytest.raises(ValueError, match="2 of 3 shards are there.*python -m train.encode"):
        opened(out)


@pytest.mark.parametrize("content", ["{", "[]", '{"format": "dit-lab-latents/1"}', "{}", None])
def test_a_broken_index_is_named(content, out):
    if content is None:
        (out / "index.json").unlink()
    else:
        (out / "index.json").write_text(content)
    with pytest.raises(ValueError, match=str(out)) as error:
        opened(out)
    assert "python -m train.encode" in str(error.value)


def test_another_version_of_the_format(out):
    index = json.loads((out / "index.json").read_text()) | {"format": "dit-lab-latents/2"}
    (out / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="expected format dit-lab-latents/1, found 'dit-lab-latents/2'"):
        opened(out)


def test_a_model_of_latents_fits_them(whole):
    config = config_for(whole)
    network = config.network(opened(whole).info)
    assert (network.in_channels, network.input_size, network.num_classes) == (4, 4, 3)
    assert replace(config, class_conditional=False).network(opened(whole).info).num_classes == 0


@pytest.mark.parametrize("setting", [{"channels": "rgb"}, {"split": "test"}, {"streaming": True}], ids=str)
def test_what_was_decided_when_they_were_encoded_is_refused(setting, whole):
    with pytest.raises(ValueError, match=f"{next(iter(setting))} is .*latents.*leave it out"):
        open_data(replace(config_for(whole), **setting))
