"""`python -m train RECIPE` or `python -m train --model NAME`: start a run, or continue it."""

import difflib
import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from dit.command import exit_status
from dit.files import filling
from train.config import TrainConfig
from train.hardware import select
from train.loop import train
from train.preemption import RESUME_ME, Preempted
from train.recipes import RECIPES, recipe_for
from train.rehearsal import rehearse
from train.run_folder import config_of

USAGE = "Train by a recipe, or any model of dit.MODELS: python -m train --model NAME [--key value ...]."


@dataclass(frozen=True, kw_only=True)
class Run:
    """Train a diffusion transformer. The same command again continues where it stopped."""

    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    run_dir: Path
    """where the run lives: config, metrics, samples, checkpoints, weights"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps, tpu; under torchrun cpu or cuda, shared out among the processes"""
    dry_run: bool = False
    """print the plan (parameters, compute, memory, disk, time), and train nothing"""
    json: bool = False
    """print the plan as JSON"""
    profile: bool = False
    """write where the time of a few steps goes into RUN_DIR/profile"""


def parse(arguments: list[str]) -> Run:
    """[RECIPE] --key value ... as a run; exits with a message on an unknown key.

    Without a recipe, --model decides: the one of its formulation, with settings that it needs. Without that
    too, --run-dir does, where it holds a run: it is continued with its own settings.

    Raises:
        ValueError: unknown recipe, or a value out of range.
    """
    given = {}
    if _value_of("--formulation", arguments) == "flow" and not _value_of("--prediction", arguments):
        given = {"prediction": "epsilon"}  # a recipe's own is DDPM's, of which flow knows nothing
    runs = {
        name: (
            f"{recipe.model} on {recipe.data}",
            Run(config=replace(recipe, **given), run_dir=run_folder(name)),
        )
        for name, recipe in RECIPES.items()
    }
    if arguments and not arguments[0].startswith("-") and arguments[0] not in RECIPES:
        near = difflib.get_close_matches(arguments[0], RECIPES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(RECIPES)}"
        raise ValueError(f"no recipe is called {arguments[0]!r}; {hint}")
    if not arguments:
        raise ValueError(
            f"what shall be trained? Give a recipe ({', '.join(RECIPES)}) or --model NAME, such as --model "
            "DiffiT-S/2; python -m train solids --help explains every setting"
        )
    if (model := _value_of("--model", arguments)) and arguments[0].startswith("-"):
        named = Run(config=replace(recipe_for(model), **given), run_dir=run_folder(model))
        runs[named.run_dir.name] = (f"{model} on solids", named)
        arguments = [named.run_dir.name, *arguments]
    elif arguments[0].startswith("-") and (folder := _value_of("--run-dir", arguments)):
        if config := config_of(Path(folder)):
            runs["continue"] = (f"the run in {folder}", Run(config=config, run_dir=Path(folder)))
            arguments = ["continue", *arguments]
    return tyro.extras.overridable_config_cli(runs, prog="python -m train", description=USAGE, args=arguments)


def run_folder(name: str) -> Path:
    """Where a run lives if nothing is said: under runs, by its recipe's or model's name, without slashes."""
    return Path("runs") / name.replace("/", "-")


def _value_of(flag: str, arguments: list[str]) -> str | None:
    """What is given for a flag, as `--flag value` or `--flag=value`; None if it is not given."""
    for word, following in zip(arguments, [*arguments[1:], None], strict=False):
        if word == flag:
            return following
        if word.startswith(f"{flag}="):
            return word.removeprefix(f"{flag}=")
    return None


def main(arguments: list[str]) -> int:
    """Parse, train, and say where the result is. Returns the exit status: RESUME_ME after a signal."""
    try:
        return exit_status(
            lambda: _train(arguments), "stopped; the same command continues from the last checkpoint"
        )
    except Preempted as signal:
        if os.environ.get("RANK", "0") == "0":
            print(f"{signal}; the same command continues", file=sys.stderr)
        return RESUME_ME


def _train(arguments: list[str]) -> None:
    run = parse(arguments)
    config, hardware = run.config, select(run.device, run.config.precision)
    try:
        if hardware.is_main:
            how = f"{hardware.describe()}{', compiled' if hardware.compiles(config) else ''}"
            print(f"{config.model} on {config.data}, {how}, in {run.run_dir}", file=sys.stderr)
            if (highest := config.highest_lr()) < config.lr / 2:
                told = f"{config.lr_warmup_steps} steps of warm-up and {config.lr_decay_steps} of decay"
                print(
                    f"--lr {config.lr:g} is not reached, the highest rate is {highest:.2g}: {told} in "
                    f"{config.total_steps} steps; set --lr-warmup-steps and --lr-decay-steps",
                    file=sys.stderr,
                )
        if run.dry_run:
            plan, assumed = rehearse(config, hardware)
            made = (
                json.dumps(plan.told() | {"assumed": assumed.strip()}) if run.json else assumed + plan.text()
            )
        else:
            with filling(run.run_dir):
                made = train(config, run.run_dir, hardware, run.profile)
        if hardware.is_main:
            print(made)
    except Preempted:
        hardware.close()
        raise
    hardware.close()  # not after an error: it might wait for the others, who wait for us, and never tell it


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
