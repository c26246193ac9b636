"""What an evaluation found, for a terminal."""

from typing import Any

import numpy as np

MEASURES = {  # name -> title, title on Inception's features, key of the value, decimals
    "frechet": ("Frechet", "FID", "distance", 3),
    "spatial": ("spatial", "sFID", "distance", 3),
    "kernel": ("kernel", "KID", "distance", 5),
    "score": ("score", "IS", "mean", 3),
    "precision": ("precision", "precision", "share", 3),
    "recall": ("recall", "recall", "share", 3),
}


def table(results: dict[str, Any]) -> str:
    """The results for a terminal: what is recognised, of generated and of real pictures, and the measures."""
    lines = [f"{'class':<12}{'generated':>10}{'real':>10}"] if "accuracy" in results else []
    if found := results.get("accuracy"):
        real = results["classifier"]["held_out"]
        for name, share in found["per_class"].items():
            lines.append(f"{name:<12}{share:>10.1%}{real['per_class'][name]:>10.1%}")
        lines.append(f"{'all':<12}{found['overall']:>10.1%}{real['overall']:>10.1%}")
    standard = results.get("extractor", {}).get("name") == "inception"
    for name, (title, fid, key, digits) in MEASURES.items():
        if name in results:
            value = results[name]
            low, high = value.get("interval", [np.nan] * 2)
            real = f"  real pictures {value['real']:.{digits}f}" if "real" in value else ""
            lines.append(
                f"{fid if standard else title:<12}{value[key]:>10.{digits}f}"
                f"  ({low:.{digits}f} to {high:.{digits}f}){real}"
            )
    return "\n".join(lines)
