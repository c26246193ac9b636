"""Sweeps: which cells there are, what they cost, and that stopping changes nothing."""

import base64
import dataclasses
import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

import dit
from dit.measured import load_family
from dit.weights import describe, save, set_provenance
from train import cells, evaluate, judging, solids
from train import sweep as sweeping
from train.family import FAMILIES
from train.jobs import LIBRARIES, at_once
from train.pass_times import PassTime
from train.sweep import Sweep, main, sweep

# Thirty pictures are too few for the features, which is not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*covariance is singular")
SIZE = {"input_size": 32, "in_channels": 3, "num_classes": 10}


@pytest.fixture(autouse=True)
def few_references(monkeypatch):
    """Real pictures to compare with: drawing ten thousand takes a minute."""
    monkeypatch.setattr(judging, "SOLIDS_PICTURES", 60)
    cells._judge.cache_clear()


def write(folder: Path, name: str, seed: int = 0, **fields) -> Path:
    """Random weights in a file, under a name."""
    torch.manual_seed(seed)
    model = dit.build("DiT-E/4", **SIZE | fields)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    path = folder / f"{name}.safetensors"
    said = {"name": name, "classes": list(solids.CLASSES), "dataset": "solids", "images_seen": 7}
    save(path, model, said | {"recipe": {"model": "DiT-E/4"}})
    return path


@pytest.fixture
def two(tmp_path):
    """A small and a smaller model."""
    return write(tmp_path, "larger"), write(tmp_path, "smaller", hidden_size=32)


def wanted(two, tmp_path, **fields) -> Sweep:
    usual = {"models": tuple(map(str, two)), "steps": (1, 3), "samples": 30, "jobs": 1, "device": "cpu"}
    usual |= {"reference_pictures": 60}
    usual |= {"out": tmp_path / "toy.json", "work_dir": tmp_path / "work"}
    return Sweep("toy", **usual | fields)


def timeless(family):
    """A family without what no two runs have alike."""
    models = tuple(dataclasses.replace(model, seconds=0, seconds_reused=0) for model in family.models)
    cells_ = tuple(dataclasses.replace(cell, seconds=0) for cell in family.cells)
    return dataclasses.replace(family, models=models, cells=cells_)


def test_every_combination_is_a_cell_with_its_cost_and_its_worth(two, tmp_path):
    asked = wanted(two, tmp_path, guidance=(1.0, 2.0), cache_every=(1, 2), samplers=("dpm-solver++",))
    family = sweep(asked)
    assert load_family(asked.table) == family
    assert [model.name for model in family.models] == ["smaller", "larger"]  # cheapest first
    # 2 models, 2 scales: 1 step, 3 steps, 3 steps with reuse; of 1 step there is nothing to reuse
    assert len(family.cells) == 2 * 2 * 3 == len({cell.key for cell in family.cells})
    for cell in family.cells:
        model, passes = family.model(cell.model), cell.steps * (1 if cell.guidance_scale == 1 else 2)
        assert cell.passes == passes and cell.samples == 30
        assert cell.reused == (0 if cell.cache_every == 1 else passes // 3)
        if not cell.reused:
            assert cell.macs == passes * model.macs
            assert cell.seconds == pytest.approx(passes * model.seconds)
        else:
            assert passes * model.macs / 2 < cell.macs < passes * model.macs
        low, high = cell.measures["frechet_interval"]
        assert 0 <= low <= high and {"precision", "recall", "accuracy", "kernel"} <= set(cell.measures)
        kind, data = cell.thumbnails.split(",")
        assert kind == "data:image/webp;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (320, 32)
    assert family.about["reference"]["pictures"] == 60 and family.classes == tuple(solids.CLASSES)
    assert not any((tmp_path / "work").iterdir())  # nothing is left of what is done


def test_a_cell_is_what_evaluation_says(two, tmp_path):
    family = sweep(wanted(two[:1], tmp_path, steps=(2,), guidance=(1.5,)))
    asked = evaluate.Evaluation(
        weights=str(two[0]), samples=30, steps=2, guidance_scale=1.5, device="cpu", resamples=20
    )
    alone, pictures = evaluate.evaluate(asked)
    (cell,) = family.cells
    assert cell.frechet == pytest.approx(alone["frechet"]["distance"], rel=1e-6)
    assert cell.measures["accuracy"] == alone["accuracy"]["overall"]
    shown = Image.open(io.BytesIO(base64.b64decode(cell.thumbnails.split(",")[1])))
    strip = np.concatenate(list(pictures[:10]), axis=1)
    alike, mirrored = (
        np.corrcoef(np.asarray(shown.convert("RGB")).ravel(), one.ravel())[0, 1]
        for one in (strip, strip[:, ::-1])
    )
    assert alike > 0.5 > mirrored + 0.2  # WebP is lossy, and these pictures are noise


def test_a_sweep_that_is_stopped_and_continued_gives_the_same_table(two, tmp_path, monkeypatch):
    whole = sweep(wanted(two, tmp_path, out=tmp_path / "whole.json"))
    plain, drawn = cells.measure, []

    def measure(*given, **chosen):
        if len(drawn) == 2:
            drawn.append(None)
            raise KeyboardInterrupt  # the pictures of this cell are drawn, but it is not measured
        drawn.append(None)
        return plain(*given, **chosen)

    monkeypatch.setattr(cells, "measure", measure)
    with pytest.raises(KeyboardInterrupt):
        sweep(wanted(two, tmp_path))
    half = load_family(tmp_path / "toy.json")
    assert len(half.cells) == 2
    assert [cell.macs for cell in half.cells] == sorted(cell.macs for cell in whole.cells)[:2]
    family = sweep(wanted(two, tmp_path))
    assert len(drawn) == 3 + 2
    assert timeless(family) == timeless(whole)
    sweep(wanted(two, tmp_path))
    assert len(drawn) == 5  # all is there


def test_other_weights_are_measured_anew_and_more_settings_join(two, tmp_path, capsys):
    sweep(wanted(two, tmp_path, steps=(1,)))
    first = load_family(tmp_path / "toy.json")
    write(tmp_path, "larger", seed=1)
    family = sweep(wanted(two, tmp_path, steps=(2,)))
    assert "larger: other weights" in capsys.readouterr().err
    assert {(cell.model, cell.steps) for cell in family.cells} == {
        ("smaller", 1),
        ("smaller", 2),
        ("larger", 2),
    }
    assert family.model("larger").network != first.model("larger").network


def test_a_table_that_is_being_filled_is_left_alone(two, tmp_path):
    with FileLock(tmp_path / "toy.lock"), pytest.raises(ValueError, match="filled by another process"):
        sweep(wanted(two, tmp_path))


def test_the_commands_are_told(two, tmp_path):
    flags = [
        "toy",
        "--models",
        str(two[1]),
        "--samples",
        "20",
        "--jobs",
        "1",
        "--out",
        str(tmp_path / "t.json"),
    ]
    flags += ["--work-dir", str(tmp_path / "w"), "--out", str(tmp_path / "t.json")]
    for steps in ("1", "2", "1"):
        assert main([*flags, "--steps", steps]) == 0
    commands = load_family(tmp_path / "t.json").about["commands"]
    assert [command.split()[-1] for command in commands] == ["1", "2"]
    assert commands[0].startswith("python -m train.sweep toy --models")


def test_more_pictures_take_the_place_of_fewer(two, tmp_path):
    sweep(wanted(two[:1], tmp_path, steps=(1,)))
    more = sweep(wanted(two[:1], tmp_path, steps=(1,), samples=40))
    fewer = sweep(wanted(two[:1], tmp_path, steps=(1,), samples=20))
    assert [cell.samples for cell in more.cells] == [cell.samples for cell in fewer.cells] == [40]


def test_another_seed_is_measured_anew(two, tmp_path):
    (first,) = sweep(wanted(two[:1], tmp_path, steps=(1,))).cells
    (second,) = sweep(wanted(two[:1], tmp_path, steps=(1,), seed=9)).cells
    assert (first.seed, second.seed) == (0, 9) and first.frechet != second.frechet


def test_measures_by_another_reference_are_not_mixed(two, tmp_path):
    before = sweep(wanted(two[:1], tmp_path, steps=(1,)))
    with pytest.raises(ValueError, match="the reference of its cells is .*60.*now would be .*80.*--out"):
        sweep(wanted(two[:1], tmp_path, steps=(1, 3), reference_pictures=80))
    assert load_family(tmp_path / "toy.json").cells == before.cells
    sweep(wanted(two[:1], tmp_path, steps=(1,)))  # nothing is missing: nothing is compared


def test_a_model_of_another_recipe_is_not_of_the_family(two, tmp_path, monkeypatch, capsys):
    config = dataclasses.replace(FAMILIES["solids"]["DiT-E-4-solids"], total_steps=5, batch_size=3)
    right, short, other = (write(tmp_path, name) for name in ("right", "short", "other"))
    for path, seen, lr in ((right, 15, config.lr), (short, 12, config.lr), (other, 15, 1.0)):
        recipe = dataclasses.asdict(dataclasses.replace(config, lr=lr, compile="no", log_every=1))
        set_provenance(path, describe(path)[1] | {"images_seen": seen, "recipe": recipe})
    monkeypatch.setitem(sweeping.FAMILIES, "toy", {str(path): config for path in (right, short, other)})
    assert list(Sweep("toy").sources()) == ["right"]
    said = capsys.readouterr().err
    assert said.count("of another recipe") == 2 and "short" in said and "other" in said
    assert list(Sweep("toy", models=(str(short),)).sources()) == ["short"]  # who names it may have it


def test_pictures_are_kept_until_their_cell_is_on_disk(two, tmp_path, monkeypatch):
    asked = wanted(two[:1], tmp_path, steps=(1,))
    save_once = [sweeping.save_family]

    def full(path, family):
        if family.cells:
            raise OSError("no space left")
        save_once[0](path, family)

    monkeypatch.setattr(sweeping, "save_family", full)
    with pytest.raises(OSError, match="no space left"):
        sweep(asked)
    assert list(asked.work_dir.rglob("*.npy"))
    monkeypatch.undo()
    assert len(sweep(asked).cells) == 1 and not list(asked.work_dir.rglob("*.npy"))


def test_all_seconds_are_of_one_machine(two, tmp_path, monkeypatch):
    first = sweep(wanted(two[:1], tmp_path, steps=(1,)))
    times = []
    monkeypatch.setattr(sweeping, "machine", lambda device: "another machine")
    monkeypatch.setattr(
        sweeping,
        "time_passes",
        lambda of, device: times.append([*of]) or dict.fromkeys(of, PassTime(2.0, 1.0)),
    )
    same = sweep(wanted(two[:1], tmp_path, steps=(3,)))
    assert not times and same.about["machine"] == first.about["machine"]
    both = sweep(wanted(two, tmp_path, steps=(1,)))
    assert sorted(times[0]) == ["larger", "smaller"] and both.about["machine"] == "another machine"
    assert {model.seconds for model in both.models} == {2.0}


def test_two_at_a_time_make_the_same_table(two, tmp_path):
    alone = sweep(wanted(two, tmp_path, steps=(1, 2)))
    cache = wanted(two, tmp_path, steps=(1, 2), jobs=2, out=tmp_path / "both.json")
    both = sweep(cache)
    for one, other in zip(timeless(both).cells, timeless(alone).cells, strict=True):
        assert dataclasses.replace(one, measures={}) == dataclasses.replace(other, measures={})
        assert one.measures.keys() == other.measures.keys()
        for name, value in one.measures.items():  # those of jobs are computed by one thread each
            np.testing.assert_allclose(value, other.measures[name], rtol=1e-6, atol=1e-9)


def test_what_is_too_dear_is_left_out(two, tmp_path):
    dear = 250 * min(dit.macs(describe(path)[0]) for path in two)
    kept = []
    for limit in (dear - 1, dear + 1):
        asked = wanted(two, tmp_path, steps=(1, 250), max_gmacs=limit / 1e9)
        kept.append([(task.name, task.wish.steps) for task in asked.tasks(asked.sources())])
    assert sorted(kept[0]) == [("larger", 1), ("smaller", 1)]
    assert sorted(kept[1]) == [("larger", 1), ("smaller", 1), ("smaller", 250)]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["nothing"], "no family is called 'nothing'.*solids"),
        (["toy", "--models", "nowhere.safetensors"], "nowhere.safetensors"),
        (["toy", "--models", "LARGER", "--samplers", "heun"], "sampler is 'heun'.*ddpm"),
        (["toy", "--models", "LARGER", "--steps", "2000"], "steps is 2000"),
        (["toy", "--models", "OTHER", "--steps", "1"], "classifier"),
        (["toy", "--models", "LARGER", "--samples", "9"], "9 pictures are not one of each of 10 classes"),
        (
            ["toy", "--models", "LARGER", "--guidance-interval", "200", "700"],
            "nothing to measure.*--guidance",
        ),
        (["toy", "--models", "LARGER", "--max-gmacs", "1e-9"], "nothing to measure: all 9 cells cost more"),
    ],
)
def test_what_cannot_be_measured_is_said(flags, said, two, tmp_path, capsys):
    other = write(tmp_path, "other", num_classes=3)
    names = {"LARGER": str(two[0]), "OTHER": str(other)}
    more = ["--out", str(tmp_path / "t.json"), "--work-dir", str(tmp_path / "w"), "--jobs", "1"]
    assert main([names.get(flag, flag) for flag in flags] + more) == 1
    assert re.search(said, capsys.readouterr().err)


def test_jobs_share_the_threads_and_an_error_ends_them(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    for name in LIBRARIES:
        monkeypatch.setenv(name, "4")
    found = []
    with pytest.raises(ValueError, match="nine, with 2 threads, of numpy 2"):
        found.extend(at_once(_process, [1, 9], 2))  # extend keeps what came before the error
    assert [os.environ[name] for name in LIBRARIES] == ["4"] * len(LIBRARIES)
    assert list(at_once(_process, [1], 1)) == [(os.getpid(), 4)]
    assert all(process != os.getpid() and threads == 2 for process, threads in found)


def _process(number: int) -> tuple[int, int]:
    if number == 9:
        numpys = os.environ["OPENBLAS_NUM_THREADS"]
        raise ValueError(f"nine, with {torch.get_num_threads()} threads, of numpy {numpys}")
    return os.getpid(), torch.get_num_threads()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"steps": (1, 1)}, r"steps is \(1, 1\); give at least one value, and each once"),
        ({"guidance": ()}, r"guidance is \(\)"),
        ({"samples": 1}, "samples is 1 and batch_size 50; give at least 2"),
        ({"max_gmacs": -1.0}, "0 or more"),
        ({"batch_size": 0}, "batch_size 0; give at least 2 and 1"),
    ],
)
def test_a_sweep_is_checked_when_it_is_made(fields, said):
    with pytest.raises(ValueError, match=said):
        Sweep(**fields)
