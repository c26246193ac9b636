"""`python -m dit.hub`: what it prints, when, and with which exit status it ends."""

import hashlib
import os
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import dit
from dit import hub as command
from dit.published import AUTOENCODERS, PUBLISHED
from dit.remote import cached, fetch
from dit.weights import bundled
from tests.dit.conftest import PINNED, one_line

XL = PUBLISHED["DiT-XL/2-256"]
LICENCE = (
    "DiT-XL/2-256: 3.33 GB. Licence CC-BY-NC 4.0: not for commercial use, and credit must be given to "
    "Peebles and Xie."
)


@pytest.fixture
def hub_command(commands):
    """Runs `python -m dit.hub` with arguments."""
    return lambda *arguments: commands("dit.hub", *arguments)


def error_of(result: tuple[int, str, str]) -> str:
    """The one line that a command said before it ended with status 1; progress bars do not count."""
    status, out, err = result
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 1 and len(lines) == 1 and err.splitlines()[-1] == lines[0], result
    return lines[0]


# --- list ---


def test_list_names_all_there_is_and_asks_nobody(hub, diffusers_folder, hub_command):
    hub.add(XL.repo_id, diffusers_folder, XL.revision)
    home = fetch(XL.repo_id, XL.revision)
    hub.requests.clear()
    status, out, err = hub_command("list")
    assert status == 0 and hub.requests == []
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert list(lines) == [*bundled(), *PUBLISHED, *AUTOENCODERS] and len(out.splitlines()) == len(lines)
    assert "bundled" in lines["DiT-N-4-solids"] and "2.62 MB" in lines["DiT-N-4-solids"]
    assert lines["DiT-XL/2-256"].endswith(f"published   3.33 GB, CC-BY-NC 4.0: {home}")
    assert lines["DiT-XL/2-512"].endswith("3.33 GB, CC-BY-NC 4.0: python -m dit.hub pull DiT-XL/2-512")
    assert lines["ft-mse"].endswith("autoencoder python -m dit.hub pull ft-mse")


# --- pull ---


@pytest.mark.parametrize("name", ["DiT-XL/2-256", "DiT-XL-2-256"])
def test_a_published_model_is_pulled_by_its_name_once(name, hub, diffusers_folder, hub_command):
    hub.add(XL.repo_id, diffusers_folder, XL.revision)
    status, out, err = hub_command("pull", name)
    assert (status, out.splitlines()) == (0, [LICENCE, str(cached(XL.repo_id, XL.revision))])
    hub.requests.clear()
    assert hub_command("pull", name)[:2] == (0, out) and hub.requests == []


def test_the_licence_is_printed_before_anything_is_asked_for(hub, diffusers_folder, monkeypatch):
    hub.add(XL.repo_id, diffusers_folder, XL.revision)
    happened = hub.requests

    class Screen:
        def write(self, text: str) -> None:
            if text.strip():
                happened.append(("screen", text))

        def flush(self) -> None:
            happened.append(("screen", "flushed"))

    monkeypatch.setattr(sys, "stdout", Screen())
    assert command.main(command.Pull(XL.name)) == 0
    assert happened[:2] == [("screen", LICENCE), ("screen", "flushed")]
    assert hub.count("/storage/") and happened[-1] == ("screen", str(cached(XL.repo_id, XL.revision)))


def test_the_licence_is_printed_even_where_nobody_answers(hub, unplug, hub_command):
    unplug()
    status, out, err = result = hub_command("pull", "DiT-XL/2-256")
    assert out.splitlines() == [LICENCE]
    assert "cannot be reached" in error_of(result) and "check the network" in err


@pytest.mark.parametrize("name", ["ft-mse", "original"])
def test_an_autoencoder_is_pulled_by_its_name(name, hub, vae, hub_command, tmp_path):
    repo_id, revision, folder = AUTOENCODERS[name]
    shutil.copytree(vae, tmp_path / "published" / folder)
    hub.add(repo_id, tmp_path / "published", revision)
    status, out, err = hub_command("pull", name)
    assert (status, out.strip()) == (0, str(cached(repo_id, revision, folder)))
    assert f"autoencoder {out.strip()}" in hub_command("list")[1]


def test_a_repository_is_pulled_at_the_revision_asked_for(hub, own_folder, diffusers_folder, hub_command):
    hub.add("me/model", own_folder, PINNED)
    hub.add("me/model", diffusers_folder, PINNED[::-1])
    assert hub_command("pull", "me/model")[1].strip() == str(cached("me/model", PINNED[::-1]))
    assert cached("me/model", PINNED) is None
    status, out, err = hub_command("pull", "me/model", "--revision", PINNED)
    assert (status, out.strip()) == (0, str(cached("me/model", PINNED)))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("DiT-Q/3", "DiT-Q/3: no such file or folder, and no model of that name; there are DiT-"),
        ("nonsense", "nonsense: no such file or folder, and no model of that name; there are DiT-"),
        ("me/none", "me/none: no such repository on the Hub; correct the name, or, if it is private, log in"),
        ("a--b/c", "a--b/c"),
    ],
)
def test_an_unknown_name_is_one_line(name, said, hub, hub_command):
    result = hub_command("pull", name)
    assert error_of(result).startswith(f"error: {said}") and result[1] == ""


@pytest.mark.parametrize("arguments", [[], ["pull"], ["fetch", "x"], ["push", "x"], ["list", "x"]], ids=str)
def test_a_wrong_command_line_ends_with_2(arguments, hub, hub_command):
    assert hub_command(*arguments)[0] == 2 and hub.requests == []


def test_ctrl_c_ends_with_130_and_the_next_pull_goes_on(
    hub, diffusers_folder, tmp_path, commands, hub_command
):
    shutil.copytree(diffusers_folder, tmp_path / "large")
    weights = tmp_path / "large" / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(b"".join(i.to_bytes(4, "big") for i in range(3_000_000)))
    hub.add(XL.repo_id, tmp_path / "large", XL.revision)
    hub.bytes_per_second = 10_000_000
    process, end = commands.start("dit.hub", "pull", XL.name), time.monotonic() + 200
    blobs = tmp_path / "home" / "hub" / "models--facebook--DiT-XL-2-256" / "blobs"
    partial = blobs / f"{hashlib.sha256(weights.read_bytes()).hexdigest()}.incomplete"
    while not (partial.exists() and partial.stat().st_size):
        assert time.monotonic() < end, "nothing arrives"
        time.sleep(0.01)
    os.kill(process, signal.SIGINT)
    status, out, err = commands.wait()
    assert status == 130 and out.splitlines() == [LICENCE]
    assert err.splitlines()[-1] == "stopped; what has come is kept, and the same command goes on from it"
    came = partial.stat().st_size
    assert 0 < came < 12_000_000 and cached(XL.repo_id, XL.revision) is None
    hub.bytes_per_second = None
    assert hub_command("pull", XL.name)[0] == 0
    assert [asked for path, asked in hub.ranges if "/storage/" in path] == [f"bytes={came}-"]
    home = cached(XL.repo_id, XL.revision)
    assert (home / "transformer" / weights.name).read_bytes() == weights.read_bytes()


# --- pull --authors-file ---


def test_the_authors_file_is_pulled_from_their_address(
    hub, cache, random_model, tmp_path, monkeypatch, capsys
):
    model = random_model(hidden_size=128, depth=4, in_channels=4)  # the sizes of a preset
    (tmp_path / "files").mkdir()
    torch.save(model.state_dict(), tmp_path / "files" / "DiT.pt")
    hub.add("authors/files", tmp_path / "files", PINNED)
    address = f"{hub.endpoint}/authors/files/resolve/main/DiT.pt"
    monkeypatch.setitem(PUBLISHED, XL.name, replace(XL, authors_file=address))
    assert command.main(command.Pull(XL.name, authors_file=True)) == 0
    assert capsys.readouterr().out.splitlines() == [LICENCE, str(cache / "DiT.pt")]
    assert dit.load(cache / "DiT.pt").config.hidden_size == 128 and not (tmp_path / "home").exists()
    hub.requests.clear()
    assert command.main(command.Pull(XL.name, authors_file=True)) == 0 and hub.requests == []


def test_an_authors_file_that_is_gone_is_one_line(hub, cache, monkeypatch, capsys):
    monkeypatch.setitem(PUBLISHED, XL.name, replace(XL, authors_file=f"{hub.endpoint}/gone.pt"))
    assert command.main(command.Pull(XL.name, authors_file=True)) == 1
    said = one_line(capsys.readouterr().err.splitlines()[-1])
    assert said.startswith(f"error: {hub.endpoint}/gone.pt: the server answers 404")


@pytest.mark.parametrize("name", ["ft-mse", "me/model", "DiT-N-4-solids"])
def test_only_published_models_have_an_authors_file(name, hub, hub_command):
    said = error_of(hub_command("pull", name, "--authors-file"))
    assert said == f"error: {name}: only DiT-XL/2-256, DiT-XL/2-512 have an authors' file"
    assert hub.requests == []


# --- push ---


def test_a_bundled_model_is_pushed(hub, hub_command, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    status, out, err = hub_command("push", "DiT-N-4-solids", "loopback/solids", "--steps", "1", "--private")
    assert status == 0 and out.strip().startswith(f"{hub.endpoint}/loopback/solids/commit/")
    assert hub.repos["loopback/solids"].private
    assert Path(hub.files("loopback/solids")["samples.png"]).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["DiT-N-4-solids", "solids"], "error: solids: expected OWNER/NAME"),
        (["DiT-Q/3", "loopback/solids"], "error: DiT-Q/3: no such file"),
        (["DiT-N-4-solids", "loopback/solids", "--steps", "0"], "error: .*steps is 0; it must be from 1"),
        (["DiT-N-4-solids", "loopback/solids", "--guidance", "-1"], "error: .*guidance_scale is -1"),
    ],
)
def test_a_push_that_cannot_be_is_one_line(arguments, said, hub, hub_command, monkeypatch):
    import re

    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert re.match(said, error_of(hub_command("push", *arguments)))
    assert hub.repos == {}
