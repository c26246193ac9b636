"""Encoding pictures once: what is stored, and that no kill, no damage and no second process can spoil it."""

import json
import os
import re
import resource
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from dit.autoencoder import load_autoencoder
from dit.pipeline import from_pictures
from tests.latents import CLASSES, NUMBER, SHARD, SIDE, arguments, run, shards, solids_folder
from tests.train.forked import ended, start, wait_until
from train import encode as command
from train import shards as stored
from train.decode import pixels
from train.encode import Encoding, Share
from train.encoder import Decoder
from train.folder import FolderPictures
from train.preemption import RESUME_ME

LAST = "shard-00002"


def index_of(out: Path) -> dict:
    return json.loads((out / "index.json").read_text())


# --- what is stored ---


def test_mean_and_deviation_of_both_flips_lie_in_shards_in_the_order_of_the_pictures(
    folder, whole, vae_folder
):
    pictures, autoencoder = FolderPictures(folder), load_autoencoder(vae_folder)
    squares = np.stack([pixels(pictures.picture(i), SIDE, 3) for i in range(NUMBER)])
    x = from_pictures(squares)
    parts = [load_file(whole / f"shard-0000{k}.safetensors") for k in range(3)]
    assert [len(part["posterior"]) for part in parts] == [SHARD, SHARD, NUMBER - 2 * SHARD]
    posterior = torch.cat([part["posterior"] for part in parts])
    assert posterior.shape == (NUMBER, 2, 2, 4, SIDE // 8, SIDE // 8) and posterior.dtype == torch.float16
    for flip, seen in enumerate((x, x.flip(-1))):
        for moment, expected in enumerate(autoencoder.posterior(seen)):
            torch.testing.assert_close(posterior[:, flip, moment].float(), expected, atol=1e-4, rtol=1e-3)
    assert torch.cat([part["labels"] for part in parts]).tolist() == pictures.labels.tolist()
    assert posterior[:, :, 1].min() > 0


def test_the_index_says_what_is_there(folder, whole, vae_folder):
    index = index_of(whole)
    expected = {
        "format": "dit-lab-latents/1",
        "data": str(folder),
        "split": "train",
        "classes": list(CLASSES),
        "pictures": NUMBER,
        "stored": NUMBER,
        "autoencoder": str(vae_folder.resolve()),
        "scale": 0.18215,
        "side": SIDE,
        "latent_side": SIDE // 8,
        "channels": 4,
        "shard_size": SHARD,
        "complete": True,
        "precision": ["fp32"],
        "skipped": [],
    }
    assert {name: index[name] for name in expected} == expected
    sizes = [(one["name"], one["pictures"], one["bytes"]) for one in index["shards"]]
    assert sizes == [
        (name, n, len(content)) for (name, content), n in zip(shards(whole).items(), (6, 6, 4), strict=True)
    ]
    assert not list(whole.glob(".*"))


def test_decoded_again_they_are_what_the_autoencoder_makes_of_the_picture(folder, whole, vae_folder):
    pictures, autoencoder = FolderPictures(folder), load_autoencoder(vae_folder)
    x = from_pictures(np.stack([pixels(pictures.picture(i), SIDE, 3) for i in range(SHARD)]))
    posterior = load_file(whole / "shard-00000.safetensors")["posterior"].float()
    for flip, seen in enumerate((x, x.flip(-1))):
        again = autoencoder.decode(posterior[:, flip, 0])
        direct = autoencoder.decode(autoencoder.posterior(seen)[0])
        distances = (again[:, None] - direct[None]).square().mean((2, 3, 4))
        assert distances.diagonal().max() < 1e-3 * distances.fill_diagonal_(9).min()  # no other is so near
        other = autoencoder.decode(posterior[:, 1 - flip, 0])  # the random weights do not know of mirrors
        assert (again - direct).square().mean() < 1e-3 * (other - direct).square().mean()


def test_the_batch_and_the_processes_that_decode_change_nothing(folder, whole, vae_folder, tmp_path):
    status, said = run(folder, tmp_path / "a", vae_folder, "--batch-size=5", "--num-workers=2")
    assert status == 0, said
    assert shards(tmp_path / "a") == shards(whole)


def test_only_the_first_pictures(folder, whole, vae_folder, tmp_path):
    status, _ = run(folder, tmp_path / "few", vae_folder, "--limit=7")
    first, rest = (load_file(tmp_path / "few" / f"shard-0000{k}.safetensors")["posterior"] for k in range(2))
    assert status == 0 and len(rest) == 1 and index_of(tmp_path / "few")["pictures"] == 7
    assert torch.equal(first, load_file(whole / "shard-00000.safetensors")["posterior"])


def test_unreadable_pictures_are_left_out_by_name(folder, whole, vae_folder, tmp_path):
    data = shutil.copytree(folder, tmp_path / "pictures")
    pictures = FolderPictures(data)
    for place in (1, 13):
        (data / pictures.title(place)).write_bytes(b"no picture")
    status, said = run(data, tmp_path / "out", vae_folder)
    index = index_of(tmp_path / "out")
    assert status == 0 and "14 pictures, 2 left out" in said
    assert [one["picture"] for one in index["skipped"]] == [pictures.title(1), pictures.title(13)]
    assert all("no picture" in one["reason"] for one in index["skipped"])
    assert (index["pictures"], index["stored"]) == (16, 14)
    part = load_file(tmp_path / "out" / "shard-00000.safetensors")
    expected = load_file(whole / "shard-00000.safetensors")
    kept = [0, 2, 3, 4, 5]
    assert torch.equal(part["labels"], expected["labels"][kept])
    assert torch.equal(part["posterior"], expected["posterior"][kept])


def test_nothing_but_unreadable_pictures(vae_folder, tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(b"nothing")
    status, said = run(tmp_path, tmp_path / "out", vae_folder)
    assert status == 1 and "none of the 3 pictures" in said and "0.png" in said


# --- stopped and continued ---


def unfinished(words: list[str]) -> int:
    """The command, in a process of its own, which comes to no end: it stays at writing the last shard."""
    save = stored.save_file

    def waiting(tensors: Any, path: Path, **settings: Any) -> None:
        save(tensors, path, **settings)
        while LAST in path.name:
            time.sleep(1)

    stored.save_file = waiting
    return command.main(words)


def test_a_killed_process_goes_on_where_it_was(folder, whole, vae_folder, tmp_path):
    out, log = tmp_path / "killed", tmp_path / "log"
    process = start(unfinished, arguments(folder, out, vae_folder), log)
    try:
        wait_until(lambda: list(out.glob(f".*{LAST}*")), process, log)
    finally:
        process.kill()
    assert ended(process) == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in out.glob("shard-*")}
    assert 0 < len(before) < 3 and index_of(out)["complete"] is False
    assert list(out.glob(f".*{LAST}*.partial"))
    status, said = run(folder, out, vae_folder)
    assert status == 0, said
    assert shards(out) == shards(whole) and index_of(out) == index_of(whole)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not list(out.glob(".*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_process_says_how_to_go_on(number, folder, whole, vae_folder, tmp_path):
    out, log = tmp_path / "stopped", tmp_path / "log"
    process = start(unfinished, arguments(folder, out, vae_folder, "--num-workers=1"), log)
    wait_until(lambda: shards(out), process, log)
    os.kill(process.pid, number)
    assert ended(process) == RESUME_ME
    assert "the same command continues" in log.read_text() and "Traceback" not in log.read_text()
    assert 0 < len(shards(out)) < 3 and not list(out.glob(".*"))
    assert run(folder, out, vae_folder)[0] == 0 and shards(out) == shards(whole)


def test_what_is_done_is_not_done_again(out, whole, folder, vae_folder):
    before = {path: path.stat().st_mtime_ns for path in out.glob("shard-*")}
    status, said = run(folder, out, vae_folder)
    assert status == 0 and "made again" not in said
    assert {path: path.stat().st_mtime_ns for path in out.glob("shard-*")} == before


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-300] ^= 1
    path.write_bytes(content)


def of_other_settings(path: Path) -> None:
    tensors = load_file(path)
    header = stored.header_of(path) | {"settings": "0" * 64}
    save_file(tensors, path, metadata={stored.SAFETENSORS_KEY: json.dumps(header)})


def of_other_place(path: Path) -> None:
    shutil.copy(path.with_name("shard-00000.safetensors"), path)


def foreign(path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, path)


SPOILT = [truncate, flip_a_bit, of_other_settings, of_other_place, foreign, Path.unlink]


@pytest.mark.parametrize("spoil", SPOILT)
def test_a_spoilt_shard_is_made_again(spoil, out, whole, folder, vae_folder):
    spoil(out / "shard-00001.safetensors")
    assert shards(out) != shards(whole)
    status, said = run(folder, out, vae_folder)
    assert status == 0, said
    assert spoil is Path.unlink or "made again" in said and "shard-00001" in said
    assert shards(out) == shards(whole) and index_of(out) == index_of(whole)


OTHER = {
    "side": "--image-size=16",
    "shard_size": "--shard-size=5",
    "pictures": "--limit=9",
}


@pytest.mark.parametrize("name", OTHER)
def test_other_settings_are_refused_and_named(name, out, whole, folder, vae_folder):
    for more in ([], ["--dry-run"]):
        status, said = run(folder, out, vae_folder, OTHER[name], *more)
        assert status == 1 and f"{name} was {index_of(whole)[name]}, now" in said and str(out) in said
    assert shards(out) == shards(whole)


def test_another_autoencoder_and_other_pictures_are_refused(out, folder, vae_folder, tmp_path):
    vae = shutil.copytree(vae_folder, tmp_path / "vae")
    path = vae / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["encoder.conv_in.weight"][0] += 1
    save_file(tensors, path)
    status, said = run(folder, out, vae)
    assert status == 1 and "encoder_sha256 was" in said and "autoencoder was" in said
    data = shutil.copytree(folder, tmp_path / "pictures")
    shutil.move(data / "cube" / "0001.png", data / "cube" / "0000.png")
    status, said = run(data, out, vae_folder)
    assert status == 1 and "pictures_sha256 was" in said


def test_before_the_first_shard_settings_may_change(folder, vae_folder, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(stored.shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(9, 9, 0))
        assert run(folder, tmp_path / "out", vae_folder)[0] == 1
    assert index_of(tmp_path / "out")["complete"] is False
    assert run(folder, tmp_path / "out", vae_folder, "--limit=5")[0] == 0


# --- several processes ---


def test_two_processes_make_what_one_makes(folder, whole, vae_folder, tmp_path):
    out = tmp_path / "shared"
    processes = []
    for rank in range(2):
        environment = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
        log = tmp_path / f"log{rank}"
        processes.append(start(command.main, arguments(folder, out, vae_folder), log, **environment))
    for rank, process in enumerate(processes):
        assert ended(process) == 0, (tmp_path / f"log{rank}").read_text()
    assert shards(out) == shards(whole) and index_of(out) == index_of(whole)


def test_each_process_makes_its_own_shards(folder, whole, vae_folder, tmp_path, monkeypatch):
    out = tmp_path / "shared"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    status, said = run(folder, out, vae_folder)
    assert status == 0 and "others' are missing" in said
    assert sorted(shards(out)) == ["shard-00000.safetensors", "shard-00002.safetensors"]
    assert index_of(out)["complete"] is False
    monkeypatch.setenv("RANK", "1")
    assert run(folder, out, vae_folder)[0] == 0
    assert shards(out) == shards(whole) and index_of(out) == index_of(whole)


def test_two_processes_at_the_same_shards_do_no_harm(folder, whole, vae_folder, tmp_path):
    out = tmp_path / "both"
    wish = arguments(folder, out, vae_folder)
    processes = [start(command.main, wish, tmp_path / f"log{i}") for i in range(2)]
    for i, process in enumerate(processes):
        assert ended(process) == 0, (tmp_path / f"log{i}").read_text()
    assert shards(out) == shards(whole) and index_of(out) == index_of(whole)


def test_a_temporary_file_cleared_away_by_the_one_who_finished(out, whole, monkeypatch):
    """The slower of two finds its half of a file gone, and the shard there."""

    def cleared(path, write):
        raise FileNotFoundError(path)

    settings = stored.Settings.from_dict(index_of(out))
    monkeypatch.setattr(stored, "atomic_write", cleared)
    header, tensors = stored.header_of(out / "shard-00001.safetensors"), stored.mapped
    posterior, labels = tensors(out / "shard-00001.safetensors")
    stored.write_shard(out, settings, 1, posterior, labels, [], header["precision"])
    (out / "shard-00001.safetensors").unlink()
    with pytest.raises(FileNotFoundError):
        stored.write_shard(out, settings, 1, posterior, labels, [], header["precision"])


@pytest.mark.parametrize("said", [("2", "2"), ("-1", "2"), ("x", "2"), ("0", ""), (None, "2"), ("0", None)])
def test_a_rank_that_is_none(said, monkeypatch):
    for name, value in zip(("RANK", "WORLD_SIZE"), said, strict=True):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="RANK is .* as torchrun sets them"):
        Share.of_environment()


# --- what does not work, and says so ---


def test_a_disk_that_is_too_small(folder, vae_folder, tmp_path, monkeypatch):
    free = 1234
    monkeypatch.setattr(stored.shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(9999, 0, free))
    status, said = run(folder, tmp_path / "out", vae_folder)
    needed = NUMBER * (2 * 2 * 4 * 4 * 4 * 2 + 8)
    assert status == 1 and f"({needed:,} bytes)" in said and "only 1.23 kB free" in said
    assert not shards(tmp_path / "out")


def encode_in_files_of(given: tuple[int, list[str]]) -> int:
    """Where no file may become larger than so many bytes."""
    most, words = given
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    return command.main(words)


def test_a_disk_that_is_full_in_the_middle(folder, whole, vae_folder, tmp_path):
    """A limit on the size of files stands in for the disk: the last shard is small enough for it."""
    out, log = tmp_path / "full", tmp_path / "log"
    size = len(shards(whole)["shard-00000.safetensors"])

    small = run(folder, out, vae_folder)  # all of it, then without one shard
    assert small[0] == 0
    (out / "shard-00001.safetensors").unlink()
    process = start(encode_in_files_of, (size - 500, arguments(folder, out, vae_folder)), log)
    status = ended(process)
    said = " ".join(log.read_text().split())
    assert status == 1 and "shard-00001.safetensors: expected to write" in said, said
    assert "2 of 3 shards are done and stay" in said and "the same command goes on" in said
    assert sorted(shards(out)) == ["shard-00000.safetensors", "shard-00002.safetensors"]
    assert not list(out.glob(".*"))
    assert run(folder, out, vae_folder)[0] == 0 and shards(out) == shards(whole)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_numbers_that_are_not_finite_name_the_picture_and_the_remedy(
    precision, folder, vae_folder, tmp_path, monkeypatch
):
    """The autoencoder overflows for one picture: by a weight that only this one's brightness makes count."""
    autoencoder, place = load_autoencoder(vae_folder), 7
    pictures = FolderPictures(folder)
    marked = from_pictures(pixels(pictures.picture(place), SIDE, 3)[None])
    plain = autoencoder.module.encode

    def overflowing(x):
        encoded = plain(x)
        is_it = [bool(torch.allclose(one, marked[0], atol=0.01)) for one in x]
        encoded.latent_dist.parameters[is_it] = float("nan")
        return encoded

    monkeypatch.setattr(autoencoder.module, "encode", overflowing)
    encoding = Encoding(
        data="", out=tmp_path, image_size=SIDE, batch_size=4, shard_size=SHARD, precision=precision
    )
    with pytest.raises(FloatingPointError) as error:
        command.encode(encoding, pictures, autoencoder)
    remedy = {"bf16": "--precision fp32", "fp32": "weights of the autoencoder are damaged"}[precision]
    assert pictures.title(place) in str(error.value) and remedy in str(error.value)
    assert list(shards(tmp_path)) == ["shard-00000.safetensors"]


def test_after_half_precision_failed_single_goes_on(folder, whole, vae_folder, tmp_path):
    out = tmp_path / "mixed"
    assert run(folder, out, vae_folder, "--precision=bf16")[0] == 0
    half = shards(out)
    assert half["shard-00000.safetensors"] != shards(whole)["shard-00000.safetensors"]
    (out / "shard-00002.safetensors").unlink()
    assert run(folder, out, vae_folder, "--precision=fp32")[0] == 0
    assert shards(out)["shard-00002.safetensors"] == shards(whole)["shard-00002.safetensors"]
    assert index_of(out)["precision"] == ["bf16", "fp32"]
    rough = load_file(out / "shard-00000.safetensors")["posterior"].float()
    exact = load_file(whole / "shard-00000.safetensors")["posterior"].float()
    assert 0 < (rough - exact).abs().mean() < 0.05 * exact.std()


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("--image-size=30", "image_size is 30.*give a multiple, such as 24"),
        ("--limit=17", "limit is 17, but .* has 16 pictures"),
        ("--limit=-1", "limit is -1; it must be at least 0"),
        ("--shard-size=0", "shard_size is 0; it must be at least 1"),
        ("--batch-size=-2", "batch_size is -2; it must be at least 0"),
        ("--autoencoder=nonsense", "nonsense: no such folder.*ft-mse"),
        ("--device=nowhere", "device 'nowhere' cannot be used here"),
        ("--split=tets", "split"),
    ],
)
def test_settings_out_of_range(flag, reason, folder, vae_folder, tmp_path):
    status, said = run(folder, tmp_path / "out", vae_folder, flag)
    assert status in (1, 2) and "Traceback" not in said
    assert re.search(reason, said), said
    assert not (tmp_path / "out").exists()


def test_a_dry_run_says_bytes_and_hours_and_writes_nothing(folder, vae_folder, tmp_path):
    status, said = run(folder, tmp_path / "out", vae_folder, "--dry-run")
    assert status == 0 and "16 pictures" in said and "8.32 kB in 3 shards" in said
    assert " pictures/s: " in said and "for 16 pictures" in said
    assert not (tmp_path / "out").exists()


def test_a_decoder_leaves_the_unreadable_out(tmp_path):
    folder = solids_folder(tmp_path, 3, ())
    (folder / "0001.png").write_bytes(b"")
    Image.new("RGB", (4000, 1)).save(folder / "0002.png")
    decoded = Decoder(FolderPictures(folder), 256, (range(0), range(3)))
    assert decoded(0).pixels.shape == (0, 256, 256, 3)
    assert decoded(1).pixels.shape == (1, 256, 256, 3) and decoded(1).places == [0]
    assert [one["picture"] for one in decoded(1).skipped] == ["0001.png", "0002.png"]
