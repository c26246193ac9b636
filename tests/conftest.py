"""What all tests share: a cache of their own, one thread, the authors' numbers, small random models."""

import base64
import importlib.util
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import dit
from dit.backbone import Backbone
from dit.config import ModelConfig
from dit.digest import digest_of
from dit.dit import DiT
from dit.measured import Family, save_family
from dit.pictures import png
from dit.pipeline import Pipeline
from dit.presets import MODELS
from tests.families import made_up
from train.draws import Draw, draw

DATA = Path(__file__).parent / "data"

# These have an environment of their own, and a command: make test-tpu.
collect_ignore = [] if importlib.util.find_spec("torch_xla") else ["tpu"]


@pytest.fixture(scope="session", autouse=True)
def own_cache_and_one_thread(tmp_path_factory: pytest.TempPathFactory):
    """Keep out of the user's cache, and make sums come out alike in this process and in those it starts."""
    own = tmp_path_factory.getbasetemp()
    # Solids are drawn once for all workers.
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DITLAB_CACHE", str(shared / "ditlab"))
        patch.setenv("OMP_NUM_THREADS", "1")
        torch.set_num_threads(1)
        yield


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for one test."""
    monkeypatch.setenv("DITLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _read(name: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    with safe_open(DATA / name, framework="pt") as file:
        return file.metadata(), {key: file.get_tensor(key) for key in file.keys()}


@pytest.fixture(scope="session")
def golden() -> dict[str, Tensor]:
    """One forward pass and guided outputs, from the authors' code."""
    return _read("dit.safetensors")[1]


@pytest.fixture(scope="session")
def golden_diffusion() -> dict[str, Tensor]:
    """Losses and sampled trajectories, from the authors' code."""
    return _read("dit_diffusion.safetensors")[1]


@pytest.fixture(scope="session")
def golden_model(golden: dict[str, Tensor]) -> DiT:
    """The small random model that the authors' numbers were computed with."""
    model = DiT(ModelConfig(**json.loads(_read("dit.safetensors")[0]["config"])))
    weights = {key.removeprefix("w."): value for key, value in golden.items() if key.startswith("w.")}
    model.load_state_dict(weights, strict=True)
    return model.eval()


@pytest.fixture(scope="session")
def golden_diffit() -> dict[str, Tensor]:
    """One forward pass and guided outputs of the latent DiffiT, from its authors' code."""
    return _read("diffit.safetensors")[1]


@pytest.fixture(scope="session")
def golden_diffit_model(golden_diffit: dict[str, Tensor]) -> Backbone:
    """The small random DiffiT of those numbers; the file's index buffers, which we compute, are left out."""
    fields = json.loads(_read("diffit.safetensors")[0]["config"])
    model = dit.models.network(ModelConfig(backbone="diffit", **fields))
    weights = {key[2:]: value for key, value in golden_diffit.items() if key.startswith("w.")}
    weights = {key: value for key, value in weights.items() if not key.endswith("relative_position_index")}
    model.load_state_dict(weights, strict=True)
    return model.eval()


@pytest.fixture(scope="session")
def random_model() -> Callable[..., Backbone]:
    """Makes tiny models whose every weight is random: a fresh model's output is 0 whatever it is given."""

    def make(seed: int = 0, **fields: object) -> Backbone:
        sizes = {"hidden_size": 32, "depth": 2, "num_heads": 2, "input_size": 8, "in_channels": 3}
        model = dit.build(ModelConfig(**(sizes | {"num_classes": 10} | fields)))
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.normal_(std=0.1, generator=generator)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def project() -> Path:
    """The folder that holds dit/, train/ and ui/."""
    return Path(os.path.dirname(os.path.dirname(os.path.abspath(dit.__file__))))


# --- a served page over two small models with random weights ---

SERVED_CLASSES = ["sphere", "cube", "cylinder", "cone", "torus"]


def random_weights(path: Path, preset: str, classes: Sequence[str] = SERVED_CLASSES) -> Path:
    """A small model whose output is not the zero of its initialisation, as a weights file."""
    torch.manual_seed(0)
    prediction = "epsilon" if MODELS[preset].formulation == "edm" else "v"
    sizes = {"input_size": 32, "in_channels": 3, "num_classes": len(classes)}
    model = dit.build(preset, **sizes, prediction=prediction)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.05)
    dit.weights.save(path, model, {"classes": list(classes), "name": path.stem})
    return path


@pytest.fixture(scope="session")
def ladder_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two weights files, cheap and less cheap."""
    folder = tmp_path_factory.mktemp("weights")
    return [
        random_weights(folder / "small.safetensors", "DiT-N/8"),
        random_weights(folder / "big.safetensors", "DiT-N/4"),
    ]


DRAWN = {"model": "big", "sampler": "ddim", "steps": 4, "guidance_scale": 3.0, "cache_every": 1}


def drawn_by(path: Path, family: Family) -> Family:
    """A made-up family whose model "big" is a file's, and whose cell `DRAWN` has the pictures of that."""
    pipeline, first = Pipeline.load(path), 7
    wish = Draw(samples=len(SERVED_CLASSES), steps=4, guidance_scale=3.0, sampler="ddim", seed=first)
    row = np.concatenate(list(draw([pipeline], wish, progress=False)[0]), axis=1)
    thumbnails = "data:image/png;base64," + base64.b64encode(png(row)).decode()
    models = tuple(
        replace(model, network=digest_of(dit.load(path))) if model.name == "big" else model
        for model in family.models
    )
    cells = tuple(
        replace(cell, thumbnails=thumbnails, seed=first)
        if all(getattr(cell, name) == value for name, value in DRAWN.items())
        else cell
        for cell in family.cells
    )
    assert sum(cell.thumbnails == thumbnails for cell in cells) == 1
    return replace(family, models=models, cells=cells)


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory, ladder_files: list[Path]) -> Iterator[str]:
    """Address of the app: the bundled models, the random ones, "edm", and "free", which knows no classes.

    Of the random ones there is a table, made up but for what `drawn_by` says, and another file that is none.
    """
    from benchmarks.browser import serve  # needs playwright, which the other tests do without

    folder = tmp_path_factory.mktemp("app")
    others = [
        random_weights(folder / "edm.safetensors", "DiffiT-C-32"),
        random_weights(folder / "free.safetensors", "DiT-C/4", classes=()),
    ]
    tables = folder / "tables"
    save_family(tables / "toys.json", drawn_by(ladder_files[1], made_up()))
    (tables / "wrong.json").write_text("{}")  # and none for the bundled ones
    arguments = ["--weights", *map(str, [*ladder_files, *others]), "--tables", str(tables)]
    arguments += ["--training", "off"]  # tests of that serve a page of their own
    with serve(arguments, folder / "app.log") as served:
        yield served.address


# --- a small folder of diffusers ---


@pytest.fixture(scope="session")
def pipeline_folder() -> Path:
    """A whole DiTPipeline with random weights, as diffusers 0.42.1 saved it; not to be written to."""
    return DATA / "diffusers_pipeline"


@pytest.fixture(scope="session")
def vae_folder(pipeline_folder: Path) -> Path:
    """Its autoencoder: four latent channels, an eighth of the side; not to be written to."""
    return pipeline_folder / "vae"
