"""The bundled models, from what their files say of themselves.

python -m benchmarks.zoo [--readme]
"""

import tyro

import dit
from benchmarks.readme import write_block
from dit.weights import describe, zoo


def main(readme: bool = False) -> None:
    """Print the tables.

    Args:
        readme: write them into README.md.
    """
    models = {name: describe(path) for name, path in zoo().items()}
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
    _, provenance = list(models.values())[-1]
    results = provenance["results"]
    generated, real = results["accuracy"], results["classifier"]["held_out"]
    lines += ["", f"| {list(models)[-1]} | {' | '.join(generated['per_class'])} |"]
    lines.append("|---" * (1 + len(generated["per_class"])) + "|")
    for title, shares in (("generated", generated), ("held-out real", real)):
        lines.append(f"| {title} | {' | '.join(f'{share:.0%}' for share in shares['per_class'].values())} |")
    count = results["pictures_per_class"]
    lines.append(
        f"\n{count} pictures a class, {results['sampler']}, seed {results['seed']}; "
        "`python -m train.evaluate NAME --record`, then `python -m benchmarks.zoo --readme`"
    )
    print("\n".join(lines))
    if readme:
        write_block("zoo", lines)


if __name__ == "__main__":
    tyro.cli(main)
