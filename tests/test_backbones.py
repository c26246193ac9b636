"""The comparison of backbones: equal compute is checked, and what has been measured is kept."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

import dit
from benchmarks import backbones
from benchmarks.readme import README
from dit.weights import describe, save
from train import judging, solids


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few real pictures, and few drawn."""
    monkeypatch.setattr(backbones, "REFERENCE_PICTURES", 60)
    monkeypatch.setattr(judging, "SOLIDS_PICTURES", 60)
    drawn = {"pictures_per_class": 3, "steps": 2, "sampler": "ddim", "spacing": "even", "resamples": 20}
    monkeypatch.setattr(backbones, "DRAWN", drawn)


def test_all_cost_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    backbones.check_compute()
    costs = [dit.macs(config.network()) for config in backbones.RUNS.values()]
    assert len(costs) == 6 and max(costs) / min(costs) < 1.05
    assert all(90e6 < cost < 110e6 for cost in costs)
    monkeypatch.setitem(
        backbones.RUNS, "cross-attention", replace(backbones.RUNS["cross-attention"], depth=0)
    )
    with pytest.raises(ValueError, match=r"within 5%, but cross-attention differs by \+15"):
        backbones.check_compute()


def test_all_see_the_same_pictures() -> None:
    first, *others = backbones.RUNS.values()
    for config in others:
        assert replace(config, model=first.model, depth=0) == first
    assert first.total_steps * first.batch_size == 256_000


def test_the_held_out_loss_is_that_of_the_textbook() -> None:
    """Of a model whose output is 0, it is the mean square of v, by its formula."""
    model = dit.build("DiT-N/8", in_channels=3, num_classes=10, prediction="v").eval()
    torch.manual_seed(0)
    x0 = torch.from_numpy(solids.render(range(60), seed=1, side=32)[0]).float() / 127.5 - 1
    t = (torch.arange(60) * 7919) % 1000
    alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64), 0)[t].float()
    expected = (alpha_bar + (1 - alpha_bar) * x0.square().mean((1, 2, 3))).mean()
    assert backbones.held_out_loss(model, 60) == pytest.approx(float(expected), rel=0.03)


def test_what_is_measured_is_bundled_told_and_not_measured_again(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(backbones, "ASSETS", tmp_path / "assets")
    monkeypatch.setattr(backbones, "BACKBONES", tmp_path / "assets" / "zoo" / "backbones")
    runs = {name: replace(backbones.RUNS[name], model=f"DiT-N/8{end}") for name, end in
            (("adaLN-Zero", ""), ("adaLN", "-adaln"))}  # fmt: skip
    monkeypatch.setattr(backbones, "RUNS", runs)
    for name, config in runs.items():  # as if trained
        provenance = {"classes": list(solids.CLASSES), "images_seen": 256_000, "name": name}
        save(tmp_path / name / "weights.safetensors", dit.build(config.network()), provenance)
    monkeypatch.setattr(backbones, "train", lambda config, run_dir, hardware: run_dir)
    backbones.main(tmp_path, only=("adaLN",))
    assert list(backbones.measured()) == ["adaLN"]
    with pytest.raises(ValueError, match=r"\['adaLN-Zero'\] are not measured yet; the README gets the table"):
        backbones.main(tmp_path, only=("adaLN",), readme=True)
    backbones.main(tmp_path)

    rows = json.loads((tmp_path / "assets" / "backbones.json").read_text())["rows"]
    assert [row["backbone"] for row in rows] == list(runs)
    path = tmp_path / "assets" / "zoo" / "backbones" / "DiT-N-8-adaln-solids.safetensors"
    config, provenance = describe(path)
    assert config.conditioning == "adaln" and provenance["results"]["guidance_scale"] == 1.5
    assert rows[1]["macs"] == dit.macs(config) and rows[1]["guidance 1"]["frechet"]["distance"] > 0
    text = "\n".join(backbones.table(rows))
    assert "| adaLN | DiT-N-8-adaln-solids |" in text and f"{rows[0]['held_out_loss']:.4f}" in text
    assert (tmp_path / "assets" / "backbones.png").is_file()

    monkeypatch.setattr(backbones, "measure", lambda name, run_dir: pytest.fail("measured again"))
    monkeypatch.setattr(backbones, "sheet", lambda rows: Image.new("RGB", (4, 4)))
    backbones.main(tmp_path)
    assert json.loads((tmp_path / "assets" / "backbones.json").read_text())["rows"] == rows
    assert backbones.is_current(rows[1], tmp_path / "adaLN")
    assert not backbones.is_current(rows[1], tmp_path / "adaLN-Zero")  # another run
    assert not backbones.is_current(rows[1] | {"steps": 3}, tmp_path / "adaLN")
    path.unlink()
    assert not backbones.is_current(rows[1], tmp_path / "adaLN")


def test_what_the_repository_holds_is_one_comparison() -> None:
    """The table, the bundled weights and the README tell the same."""
    rows = list(backbones.measured().values())
    assert [row["backbone"] for row in rows] == list(backbones.RUNS)
    for row in rows:
        config, provenance = describe(backbones.BACKBONES / row["weights"])
        assert config == backbones.RUNS[row["backbone"]].network()
        assert row["macs"] == dit.macs(config) and row["images_seen"] == provenance["images_seen"] == 256_000
        guided = {key: provenance["results"][key] for key in ("accuracy", "frechet")}
        assert guided == row[f"guidance {provenance['results']['guidance_scale']:g}"]
    assert "\n".join(backbones.table(backbones.ranked())) in README.read_text()
