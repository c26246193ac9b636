"""Families: alike but for their models; trained, bundled, and left alone once that is done."""

import dataclasses

import pytest

import dit
from dit.weights import describe, set_provenance
from train import bundle, family
from train.family import FAMILIES, Run, Work, main

TINY = {"model": "DiT-E/4", "num_pictures": 20, "total_steps": 2, "batch_size": 4, "lr_decay_steps": 1}


@pytest.fixture
def config():
    """The smallest of the family's runs, shortened."""
    first = next(iter(FAMILIES["solids"].values()))
    return dataclasses.replace(first, **TINY, lr_warmup_steps=0, compile="no", sample_every=2, tracker="none")


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """A folder in place of that of the bundled models."""
    monkeypatch.setattr(family, "ZOO", tmp_path)
    monkeypatch.setattr(bundle, "ZOO", tmp_path)
    monkeypatch.setattr(family, "bundle", lambda run_dir, name: bundle.bundle(run_dir, name, tmp_path))
    return tmp_path


def test_models_of_a_family_differ_in_size_and_patch_alone():
    for name, configs in FAMILIES.items():
        assert len({dataclasses.replace(config, model="DiT-T/4") for config in configs.values()}) == 1
        costs = [dit.macs(config.network()) for config in configs.values()]
        assert costs == sorted(costs), f"{name} is not trained cheapest first"
    sizes, patches = zip(*(config.model.split("/") for config in FAMILIES["solids"].values()), strict=True)
    assert len(set(sizes)) >= 4 and len(set(patches)) >= 2
    assert costs[0] < 6e6 and 3e8 < costs[-1] < 4e8  # the compute of a pass spans a factor of sixty


def test_a_model_is_trained_and_bundled_once(config, zoo, tmp_path):
    item = Run("toy", config, tmp_path / "run")
    path = item()
    assert path == zoo / "toy.safetensors" and describe(path)[1]["images_seen"] == 8
    set_provenance(path, describe(path)[1] | {"results": {"guidance_scale": 3.0}})
    item()
    assert describe(path)[1]["results"] == {"guidance_scale": 3.0}  # nothing was bundled anew
    longer = dataclasses.replace(config, total_steps=3)
    Run("toy", longer, tmp_path / "run")()
    assert describe(path)[1]["images_seen"] == 12 and "results" not in describe(path)[1]


def test_an_unknown_model_is_refused(capsys):
    with pytest.raises(ValueError, match=r"only is \['DiT-Z-4'\]; solids has DiT-E-4-solids"):
        Work(only=("DiT-Z-4",))
    with pytest.raises(SystemExit):
        main(["nothing"])
    assert "nothing" in capsys.readouterr().err
