"""`python -m dit.hub`: list, pull, export and push models."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from dit import remote
from dit.command import exit_status
from dit.published import AUTOENCODERS, PUBLISHED, published, size_of
from dit.tensors import WeightsError
from dit.weights import bundled, load, locate


@dataclass(frozen=True)
class List:
    """What there is: bundled models, published ones, autoencoders, and what of it is on this disk."""


@dataclass(frozen=True)
class Pull:
    """Download a model, or go on with a download that broke off. Ctrl-C stops it; the rest can come later."""

    name: tyro.conf.Positional[str]
    """a published model (DiT-XL/2-256), an autoencoder (ft-mse), or OWNER/NAME on the Hub"""
    revision: str | None = None
    """commit, tag or branch of OWNER/NAME"""
    authors_file: bool = False
    """fetch the DiT authors' own checkpoint from their address instead of the Hub's copy"""


@dataclass(frozen=True)
class Export:
    """Write a model of latents as a folder that diffusers' DiTPipeline.from_pretrained opens."""

    source: tyro.conf.Positional[str]
    """weights file, run folder, or name of a model"""
    folder: tyro.conf.Positional[Path]
    """a new folder, or one of an earlier export"""
    autoencoder: str | None = None
    """name, folder or repository, if it is not the one that the model came with"""


@dataclass(frozen=True)
class Push:
    """Upload a model with a card that says where it comes from. Log in first: hf auth login."""

    source: tyro.conf.Positional[str]
    """weights file, run folder, or name of a bundled model"""
    repo_id: tyro.conf.Positional[str]
    """OWNER/NAME, created if it does not exist"""
    private: bool = False
    """keep the repository to yourself"""
    guidance: float | None = None
    """guidance scale of the card's grid; what the model was evaluated at, else 4 for latents, 2 for pixels"""
    steps: int = 50
    """steps of the card's grid"""
    autoencoder: str | None = None
    """of a model of latents: name, folder or repository, if it is not the one it came with"""
    licence: str | None = None
    """of the weights, such as Apache-2.0 or CC-BY-4.0; default: what the weights say, else none is stated"""


Command = (
    Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Pull, tyro.conf.subcommand("pull")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Push, tyro.conf.subcommand("push")]
)


def show_list() -> None:
    """Print a line a model."""
    for name, path in bundled().items():
        print(f"{name:<32} bundled     {size_of(path.stat().st_size)}")
    for name, model in PUBLISHED.items():
        here = remote.cached(model.repo_id, model.revision)
        state = str(here) if here else f"python -m dit.hub pull {name}"
        print(f"{name:<18} published   {size_of(model.bytes)}, {model.licence}: {state}")
    for name, (repo_id, revision, folder) in AUTOENCODERS.items():
        here = remote.cached(repo_id, revision, folder)
        print(f"{name:<18} autoencoder {here or f'python -m dit.hub pull {name}'}")


def pull(command: Pull) -> Path:
    """Download what a name means; returns its file or folder.

    Raises:
        WeightsError: no such model, or it cannot be had now.
    """
    if name := published(command.name):
        model = PUBLISHED[name]
        print(f"{name}: {size_of(model.bytes)}. Licence {model.licence}: {model.terms}.", flush=True)
        if command.authors_file:
            return remote.fetch_authors_file(name)
        return locate(name, command.revision)
    if command.authors_file:
        raise WeightsError(f"{command.name}: only {', '.join(PUBLISHED)} have an authors' file")
    if command.name in AUTOENCODERS:
        repo_id, revision, folder = AUTOENCODERS[command.name]
        if command.revision:
            raise WeightsError(f"{command.name}: pinned to {revision[:7]}; leave --revision out")
        return remote.fetch(repo_id, revision, folder)
    for model in PUBLISHED.values():
        if command.name == model.repo_id:
            print(f"{command.name}: licence {model.licence}: {model.terms}.", flush=True)
    return locate(command.name, command.revision)


def run(command: Command) -> None:
    """Do what was asked for, and print what came of it."""
    if isinstance(command, List):
        show_list()
    elif isinstance(command, Pull):
        print(pull(command))
    elif isinstance(command, Export):
        from dit.export import export_diffusers

        print(export_diffusers(load(command.source), command.folder, command.autoencoder))
    else:
        from dit.publish import publish

        print(publish(command.source, command.repo_id, command.private, command.steps, command.guidance,
                      command.autoencoder, command.licence))  # fmt: skip


def main(command: Command) -> int:
    """Run a command; returns its exit status."""
    kept = "what has come is kept, and the same command goes on from it"
    return exit_status(lambda: run(command), f"stopped; {kept}" if isinstance(command, Pull) else "stopped")


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Command, prog="python -m dit.hub", description=__doc__)))
