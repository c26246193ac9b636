"""A Hub on this machine, tiny models to publish there, and commands in processes of their own."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch

from dit.dit import DiT
from dit.weights import save
from tests.hub import LoopbackHub, serve

PINNED = "0123456789" * 4  # a commit


def connect(patch: pytest.MonkeyPatch, endpoint: str, home: Path) -> None:
    """Let the Hub's library use another Hub and cache, here and in processes that are started from here."""
    from huggingface_hub import constants, hf_api
    from huggingface_hub.utils import close_session

    for name in ("HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE"):
        patch.delenv(name, raising=False)
    patch.setenv("HF_ENDPOINT", endpoint)
    patch.setenv("HF_HOME", str(home))
    patch.setenv("HF_HUB_DISABLE_XET", "1")
    # The library has read all that when it was imported.
    patch.setattr(constants, "ENDPOINT", endpoint)
    patch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    patch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    patch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    patch.setattr(hf_api.api, "endpoint", endpoint)  # whose methods diffusers calls
    close_session()  # and with it connections to the Hubs of other tests


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A Hub without any repository, and a cache without any file."""
    with serve(tmp_path / "store") as hub:
        connect(monkeypatch, hub.endpoint, tmp_path / "home")
        yield hub


@pytest.fixture
def unplug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and the Hub is at an address where nobody answers; the cache stays."""
    return lambda: connect(monkeypatch, "http://127.0.0.1:9", tmp_path / "home")


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """The address of a server that gives everybody this answer, and hangs up."""

    def serve() -> None:
        with suppress(OSError):  # closed
            while True:
                with server.accept()[0] as connection:
                    connection.recv(10_000)
                    connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and HF_HUB_OFFLINE is set."""
    from huggingface_hub import constants

    def set_offline() -> None:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    return set_offline


# --- what others have published ---


@pytest.fixture(scope="session")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random autoencoder of the kind that Stable Diffusion has: 4 channels, half the side."""
    from diffusers import AutoencoderKL

    torch.manual_seed(1)
    module = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=4,
    )
    return save_module(module, tmp_path_factory.mktemp("kl") / "vae")


@pytest.fixture(scope="session")
def tiny_vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random autoencoder of the kind of TAESD."""
    from diffusers import AutoencoderTiny

    torch.manual_seed(2)
    module = AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )
    return save_module(module, tmp_path_factory.mktemp("tiny") / "taesd")


def save_module(module: torch.nn.Module, folder: Path) -> Path:
    module.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def diffusers_folder(tmp_path_factory: pytest.TempPathFactory, vae: Path) -> Path:
    """A DiTPipeline as diffusers saves it, of a tiny random DiT whose blocks embed alike."""
    from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    torch.manual_seed(0)
    model = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, out_channels=8, num_layers=2, sample_size=8
    )
    first, *others = (block.norm1.emb for block in model.transformer_blocks)
    for embedding in others:  # as in the conversion of the authors' models
        embedding.load_state_dict(first.state_dict())
    folder = tmp_path_factory.mktemp("published") / "pipeline"
    scheduler = DDIMScheduler(clip_sample=False)
    DiTPipeline(model, AutoencoderKL.from_pretrained(vae), scheduler).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def own_folder(tmp_path_factory: pytest.TempPathFactory, random_model: Callable[..., DiT]) -> Path:
    """What `dit.hub push` uploads of a model of pixels, roughly."""
    folder = tmp_path_factory.mktemp("own")
    save(folder / "weights.safetensors", random_model(), {"name": "tiny"})
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Tiny\n")
    return folder


# --- commands ---

# Runs modules in forks of a process that has imported the libraries: each costs a tenth of a second, not
# three. Not huggingface_hub, which reads the environment when it is imported.
FORKS = """
import json, os, runpy, signal, sys, traceback
import filelock, numpy, PIL.Image, safetensors.torch, torch, tqdm, tyro
for line in sys.stdin:
    asked = json.loads(line)
    if child := os.fork():
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(asked["env"])
    for number in (1, 2):
        os.dup2(os.open(asked["output"][number - 1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv, status = asked["argv"], 0
    run = runpy.run_path if sys.argv[0].endswith(".py") else runpy.run_module
    try:
        run(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # taking torch apart takes a second
"""


class Commands:
    """`python -m MODULE ...`, one at a time."""

    def __init__(self, project: Path, output: Path) -> None:
        self.files = [output / "stdout", output / "stderr"]
        self.server = subprocess.Popen(
            [sys.executable, "-c", FORKS],
            cwd=project,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, *argv: str) -> int:
        """Start one; returns its process id."""
        asked = {"argv": argv, "env": dict(os.environ), "output": list(map(str, self.files))}
        print(json.dumps(asked), file=self.server.stdin, flush=True)
        return int(self.server.stdout.readline())

    def wait(self) -> tuple[int, str, str]:
        """Exit status (negative: the signal that ended it), stdout and stderr of the one that was started."""
        status = int(self.server.stdout.readline())
        out, err = (path.read_text() for path in self.files)
        assert "Traceback" not in err, err
        return status, out, err

    def __call__(self, *argv: str) -> tuple[int, str, str]:
        """Start one and wait for it."""
        self.start(*argv)
        return self.wait()


@pytest.fixture(scope="session")
def commands(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """Runs commands with the environment that the test has when it calls."""
    commands = Commands(project, tmp_path_factory.mktemp("output"))
    yield commands
    commands.server.stdin.close()
    commands.server.send_signal(signal.SIGTERM)
    commands.server.wait()


def one_line(error: pytest.ExceptionInfo | str) -> str:
    """The message of an error, which must be one line."""
    text = error if isinstance(error, str) else str(error.value)
    assert "\n" not in text.strip(), text
    return text
