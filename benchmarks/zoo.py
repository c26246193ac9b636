"""The bundled models, from what their files say of themselves.

python -m benchmarks.zoo [--readme]
"""

import sys
from typing import Any

import tyro

import dit
from benchmarks.readme import command, write_block
from dit.weights import describe, zoo


def row(title: str, accuracy: dict[str, Any]) -> str:
    """A row of the table of classes."""
    return f"| {title} | {' | '.join(f'{share:.1%}' for share in accuracy['per_class'].values())} |"


def main(readme: bool = False) -> None:
    """Print the tables.

    Args:
        readme: write them into README.md.
    """
    models = {name: describe(path) for name, path in zoo().items()}
    for name in [name for name, (_, provenance) in models.items() if "results" not in provenance]:
        print(f"{name} is left out: evaluate it, python -m train.evaluate {name} --record", file=sys.stderr)
        del models[name]
    commands: dict[str, list[str]] = {}
    models = dict(sorted(models.items(), key=lambda item: dit.macs(item[1][0])))
    lines = [
        "| model | parameters | GMACs a pass | pictures seen | steps, guidance | accuracy |",
        "|---|---|---|---|---|---|",
    ]
    for name, (config, provenance) in models.items():
        results = provenance["results"]
        count = sum(parameter.numel() for parameter in dit.load(name).parameters())
        lines.append(
            f"| {name} | {count / 1e6:.2f} M | {dit.macs(config) / 1e9:.3f} | {provenance['images_seen']:,} "
            f"| {results['steps']}, {results['guidance_scale']:g} | {results['accuracy']['overall']:.1%} |"
        )
    classes = list(results["accuracy"]["per_class"])
    lines += ["", f"| recognised | {' | '.join(classes)} |", "|---" * (1 + len(classes)) + "|"]
    for name, (_, provenance) in models.items():
        lines.append(row(name, provenance["results"]["accuracy"]))
    lines += [row("held-out real pictures", results["classifier"]["held_out"]), "", "Measured by:", ""]
    for name, (_, provenance) in models.items():
        results, settings = provenance["results"], ("steps", "guidance_scale", "sampler", "seed")
        pictures = results.get("pictures") or results["pictures_per_class"] * len(classes)  # of older files
        flags = {"samples": pictures} | {setting: results[setting] for setting in settings}
        commands.setdefault(command("train.evaluate NAME", **flags), []).append(name)
    lines += [f"- {typed} for {', '.join(names)}" for typed, names in commands.items()]
    print("\n".join(lines))
    if readme:
        write_block("zoo", lines)


if __name__ == "__main__":
    tyro.cli(main)
