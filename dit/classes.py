"""Names of classes: ImageNet's thousand with all their synonyms, and how a name finds its label."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

IMAGENET = Path(__file__).resolve().parent.parent / "assets" / "imagenet_classes.txt"

# Classes whose whole line is another's too: which of the two it is, from WordNet's definitions.
TOLD_APART = {"n02012849": "the bird", "n03126707": "the machine"}


def imagenet_classes() -> tuple[str, ...]:
    """The 1000 classes of ImageNet-1k in label order, each with its synonyms: "tench, Tinca tinca"."""
    return tuple(imagenet_names().values())


def imagenet_names() -> dict[str, str]:
    """WordNet id -> names of each class of ImageNet-1k, in label order, which is that of the ids."""
    lines = (line.split("\t") for line in IMAGENET.read_text().splitlines())
    return {wnid: f"{names} ({TOLD_APART[wnid]})" if wnid in TOLD_APART else names for wnid, names in lines}


def class_names(provenance: dict[str, Any], num_classes: int) -> tuple[str, ...]:
    """The names of a model's classes, in label order, as its provenance has them; numbers for the rest."""
    names = provenance.get("classes")
    if names == "imagenet" or (names is None and num_classes == 1000):
        return imagenet_classes()
    known = [str(name) for name in names] if isinstance(names, list | tuple) else []
    return tuple(known[y] if y < len(known) else f"class {y}" for y in range(num_classes))


def titles(names: Sequence[str]) -> tuple[str, ...]:
    """A short name for each class: its first synonym; all of them where another class begins alike."""
    firsts = [name.split(",")[0] for name in names]
    counts = Counter(firsts)
    return tuple(first if counts[first] == 1 else name for first, name in zip(firsts, names, strict=True))


def find_class(names: Sequence[str], wanted: str) -> int:
    """The label that a name means: a whole entry, or one of its synonyms, capitals aside if need be.

    Raises:
        ValueError: no class is called so, or several are; the message names them.
    """
    wanted = wanted.strip()
    if wanted in names:
        return names.index(wanted)
    folded = wanted.casefold()
    spelt = [y for y, name in enumerate(names) if wanted in _synonyms(name)]
    whole = [y for y, name in enumerate(names) if name.casefold() == folded]
    if len(spelt) == 1 or whole:
        return spelt[0] if len(spelt) == 1 else whole[0]
    found = [y for y, name in enumerate(names) if folded in map(str.casefold, _synonyms(name))]
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(f"{y} ({names[y]})" for y in found)
        raise ValueError(f"class {wanted!r} may be {several}; give the number")
    near = [f"{y} ({name})" for y, name in enumerate(names) if folded and folded in name.casefold()]
    hint = f"; near are {', '.join(near[:5])}" if near else ""
    raise ValueError(f"no class is called {wanted[:60]!r}{hint}")


def _synonyms(name: str) -> list[str]:
    plain = name.split(" (the ")[0] if name.endswith(")") else name
    return [synonym.strip() for synonym in plain.split(",")]
