"""`python -m train`: what it says when something is wrong, and when everything is right."""

import dataclasses
import json
import re

import pytest

from dit.presets import MODELS
from train.__main__ import main, parse
from train.config import TrainConfig
from train.recipes import RECIPES, recipe_for

TINY = ["--model=DiT-N/8", "--image-size=16", "--num-pictures=64", "--batch-size=8", "--device=cpu"]
TINY += ["--total-steps=3", "--sample-every=1000"]


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output, standard error with its line breaks and boxes removed."""
    try:
        status = main(list(arguments))
    except SystemExit as end:
        status = int(end.code or 0)
    out, err = capsys.readouterr()
    return status, out, " ".join(err.replace("│", " ").split())


def test_a_run_prints_where_its_weights_are(tmp_path, capsys):
    status, out, err = run(capsys, "smoke", f"--run-dir={tmp_path}", *TINY)
    assert status == 0 and out == f"{tmp_path / 'weights.safetensors'}\n"
    assert "DiT-N/8 on solids, cpu" in err and str(tmp_path) in err
    assert json.loads((tmp_path / "config.json").read_text())["total_steps"] == 3


def test_flags_replace_the_recipes_values_and_nothing_else():
    config = parse(["smoke", "--lr=0.5", "--no-flip", "--prediction=epsilon"]).config
    assert config == dataclasses.replace(RECIPES["smoke"], lr=0.5, flip=False, prediction="epsilon")
    for name, recipe in RECIPES.items():
        assert parse([name]).config == recipe
        assert parse([name]).run_dir.parts == ("runs", name.replace("/", "-"))


@pytest.mark.parametrize(
    "recipe", [name for name, recipe in RECIPES.items() if MODELS[recipe.model].formulation != "edm"]
)
def test_flow_can_be_asked_of_any_recipe_of_ddpms(recipe):
    """Whose own prediction says nothing of it; one that is given is another matter."""
    assert parse([recipe, "--formulation=flow"]).config.formulation == "flow"
    with pytest.raises(ValueError, match="prediction is 'v', but formulation flow"):
        parse([recipe, "--formulation=flow", "--prediction=v"])


def test_a_rate_that_a_short_run_does_not_reach_is_told(tmp_path, capsys):
    rates = ["--lr=1e-3", "--lr-warmup-steps=10", "--lr-decay-steps=10"]
    status, _, err = run(capsys, "smoke", f"--run-dir={tmp_path}", *TINY, *rates)
    assert status == 0
    assert "--lr 0.001 is not reached, the highest rate is 0.0002: 10 steps of warm-up and 10 of decay" in err


def test_a_runs_folder_alone_continues_it_with_its_own_settings(tmp_path, capsys):
    folder = tmp_path / "run"
    assert run(capsys, "smoke", f"--run-dir={folder}", *TINY, "--lr=0.0025")[0] == 0
    again = parse([f"--run-dir={folder}", "--total-steps=5"])
    assert (again.config.lr, again.config.total_steps, again.config.batch_size) == (0.0025, 5, 8)
    assert again.config.model == "DiT-N/8" and again.run_dir == folder
    assert run(capsys, f"--run-dir={folder}", "--total-steps=5", "--device=cpu")[0] == 0
    assert json.loads((folder / "changes.jsonl").read_text())["set"] == {"total_steps": 5}
    (folder / "config.json").write_text('{"model": "DiT-N/8", "colour": "red"}')
    with pytest.raises(
        ValueError, match="config.json: expected the settings of a run of this version.*colour"
    ):
        parse([f"--run-dir={folder}"])
    status, _, err = run(capsys, f"--run-dir={tmp_path / 'none'}")
    assert status and "continue" not in err


def test_a_plan_can_be_had_as_json(capsys):
    status, out, _ = run(capsys, "smoke", *TINY, "--dry-run", "--json")
    told = json.loads(out)
    assert status == 0 and told["model"] == "DiT-N/8" and told["pictures_seen"] == 24
    assert told["seconds"] == pytest.approx(24 / told["images_per_second"])
    assert told["weight_bytes"] < told["disk_bytes"] and told["memory_bytes"] > 3 * told["weight_bytes"]


def test_an_unknown_recipe_names_those_there_are(capsys):
    status, out, err = run(capsys, "smok")
    assert status == 1 and out == "" and "'smok'" in err and "smoke" in err
    status, _, err = run(capsys, "imagenet")
    assert status == 1 and "imagenet" in err and "smoke" in err and "solids" in err


def test_an_unknown_key_names_the_nearest(capsys):
    status, _, err = run(capsys, "smoke", "--total-step", "3")
    assert status not in (0, 1) and "--total-step, 3" in err and "--total-steps INT" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--lr=-1"], "lr is -1.0; it must be a positive number"),
        (["--total-steps=0"], "total_steps is 0"),
        (["--image-size=30"], "input_size 30 is not a multiple of patch_size 8"),
        (["--model=DiT-Q/1"], "no model is called 'DiT-Q/1'"),
        (["--device=nonsense"], "device 'nonsense' cannot be used here"),
    ],
    ids=str,
)
def test_a_bad_value_is_one_line_and_status_1(arguments, said, tmp_path, capsys):
    status = main(["smoke", f"--run-dir={tmp_path / 'run'}", *arguments])
    out, err = capsys.readouterr()
    assert status == 1 and out == ""
    assert err.startswith("error: ") and said in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_value_of_another_type_is_refused(capsys):
    status, _, err = run(capsys, "smoke", "--total-steps=many")
    assert status not in (0, 1) and "--total-steps" in err and "many" in err


def test_another_recipe_in_the_same_folder_is_one_line_and_status_1(tmp_path, capsys):
    arguments = ["smoke", f"--run-dir={tmp_path}", *TINY]
    assert run(capsys, *arguments)[0] == 0
    status, out, err = run(capsys, *arguments, "--lr=0.5")
    assert status == 1 and out == "" and "lr was 0.001, now 0.5" in err


def test_a_diverging_run_is_one_line_and_status_1(tmp_path, capsys):
    status, out, err = run(capsys, "smoke", f"--run-dir={tmp_path}", *TINY, "--lr=1e30")
    assert status == 1 and out == "" and "Traceback" not in err
    assert re.search("error: (weights|loss or gradient) not finite", err)


def test_an_interruption_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("train.__main__.train", interrupted)
    status, _, err = run(capsys, "smoke", f"--run-dir={tmp_path}")
    assert status == 130 and "same command continues" in err


@pytest.mark.parametrize("recipe", RECIPES)
def test_help_shows_every_setting_with_its_default_and_unit(recipe, capsys):
    with pytest.raises(SystemExit) as end:
        main([recipe, "--help"])
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for field in dataclasses.fields(TrainConfig):
        default = getattr(RECIPES[recipe], field.name)
        default = " ".join(map(str, default)) if isinstance(default, tuple) else default
        assert f"--{field.name.replace('_', '-')}" in text, field.name
        assert f"(default: {default})" in text, field.name
    for unit in ("(pixels)", "(pictures)", "(optimizer steps)", "pictures a step", "(steps)"):
        assert unit in text


def test_help_lists_the_recipes(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in RECIPES)


def test_without_a_recipe_the_model_decides(tmp_path, capsys):
    """The one of its formulation, at the size and with the labels that the model has."""
    run_of = parse(["--model", "DiffiT-S/2", "--lr=0.5"])
    assert run_of.config == dataclasses.replace(RECIPES["solids"], model="DiffiT-S/2", lr=0.5)
    assert run_of.run_dir.parts == ("runs", "DiffiT-S-2")
    faces = parse(["--model=DiffiT-FFHQ-64"]).config
    assert (faces.image_size, faces.class_conditional, faces.augment) == (64, False, 0.12)
    assert parse(["solids", "--model=UNet-C"]).run_dir.parts == ("runs", "solids")
    status, out, _ = run(capsys, f"--run-dir={tmp_path}", *TINY)
    assert status == 0 and out == f"{tmp_path / 'weights.safetensors'}\n"


def test_neither_recipe_nor_model_shows_the_usage(capsys):
    status, out, err = run(capsys)
    assert (status, out) == (1, "") and "solids-edm" in err and "--model NAME" in err
    status, out, err = run(capsys, "--help")
    assert status == 0 and "python -m train --model NAME" in out
    status, _, err = run(capsys, "--lr=0.1")
    assert status == 2 and "solids" in err


@pytest.mark.parametrize("name", MODELS)
def test_every_preset_has_a_recipe_of_its_own(name):
    """Its network can be made; what the paper's models are told is what they are trained with."""
    config = recipe_for(name)
    assert config.model == name and config.network().backbone == MODELS[name].backbone
