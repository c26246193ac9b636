"""A run's weights leave the page: as a folder for diffusers, and for a Hub on this machine."""

import asyncio
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import dit
from tests.hub import LoopbackHub, serve
from tests.run_folders import write_run
from ui.deliver import export, push
from ui.run import TrainingRun
from ui.runs import Runs


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "runs")


@pytest.fixture
def run(runs: Runs) -> TrainingRun:
    write_run(runs.folder, "mine")
    return runs.named("mine")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """For the processes that are started from here."""
    with serve(tmp_path / "store") as served:
        for name in ("HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_ENDPOINT", served.endpoint)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        yield served


def test_a_run_is_pushed_and_the_token_stays_nowhere(
    hub: LoopbackHub, run: TrainingRun, tmp_path: Path
) -> None:
    address = asyncio.run(push(run, "loopback/mine", f" {hub.token}\n", private=True))
    assert address.startswith(hub.endpoint) and "loopback/mine" in address
    files = hub.files("loopback/mine")
    assert hub.repos["loopback/mine"].private and {"README.md", "weights.safetensors"} <= set(files)
    assert dit.load(files["weights.safetensors"]).provenance["name"] == "mine"
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(hub.token.encode() in path.read_bytes() for path in kept)


def test_what_the_hub_refuses_is_told_in_one_line(hub: LoopbackHub, run: TrainingRun) -> None:
    with pytest.raises(ValueError, match="the Hub does not accept the token") as refused:
        asyncio.run(push(run, "loopback/mine", "hf_wrong", private=False))
    assert "\n" not in str(refused.value) and "hf_wrong" not in str(refused.value)
    assert not hub.repos


@pytest.mark.parametrize(
    ("repo_id", "token", "said"),
    [
        ("", "hf_x", "the repository has no name"),
        ("--private", "hf_x", "the repository has no name"),
        ("me/mine", "", "a token of your account is needed"),
        ("me/mine", "x" * 201, "of at most 200 letters"),
        ("me/mine", "a\x00b", "a token of your account is needed"),
        ("not a name", "hf_x", "expected OWNER/NAME"),
        (None, None, "the repository has no name"),
    ],
)
def test_what_cannot_be_pushed_is_said(run: TrainingRun, repo_id: str, token: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        asyncio.run(push(run, repo_id, token, private=False))


def test_a_model_of_latents_is_exported_for_diffusers(runs: Runs, vae_folder: Path, tmp_path: Path) -> None:
    from diffusers import DiTPipeline

    write_run(runs.folder, "latents", told={"autoencoder": str(vae_folder)}, in_channels=4, input_size=8)
    archive = asyncio.run(export(runs.named("latents"), tmp_path))
    assert archive.name == "latents-diffusers.zip"
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tmp_path / "out")
    opened = DiTPipeline.from_pretrained(tmp_path / "out" / "latents")
    assert opened.transformer.config.sample_size == 8


def test_a_model_of_pixels_is_not_for_diffusers(run: TrainingRun, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="latents"):
        asyncio.run(export(run, tmp_path))
    assert not list(tmp_path.glob("*.zip"))


def test_without_weights_there_is_nothing_to_deliver(runs: Runs, tmp_path: Path) -> None:
    (runs.folder / "empty").mkdir(parents=True)
    (runs.folder / "empty" / "config.json").write_text("{}")
    empty = runs.named("empty")
    for asked in (export(empty, tmp_path), push(empty, "me/mine", "hf_x", private=False)):
        with pytest.raises(ValueError, match="empty has no weights yet"):
            asyncio.run(asked)
