"""What the trainer's tests share: the process that others are forked from, and a small folder of latents."""

import shutil
from multiprocessing import forkserver, set_forkserver_preload
from pathlib import Path

import pytest

from tests.latents import NUMBER, run, solids_folder


@pytest.fixture(scope="session", autouse=True)
def forking_server(own_cache_and_one_thread: None) -> None:
    """Start it now: whoever needs a process first decides what it imports, and a loader asks for less."""
    set_forkserver_preload(["tests.train.preloaded"])
    forkserver.ensure_running()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen pictures of three classes; not to be written to."""
    return solids_folder(tmp_path_factory.mktemp("pictures"), NUMBER)


@pytest.fixture(scope="session")
def whole(folder: Path, vae_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their latents; not to be written to."""
    out = tmp_path_factory.mktemp("latents") / "whole"
    status, said = run(folder, out, vae_folder)
    assert status == 0, said
    return out


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    """A copy of them that may be changed."""
    return shutil.copytree(whole, tmp_path / "latents")
