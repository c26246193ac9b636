"""Measured numbers in the README: written between two marks by the commands that measured them."""

from pathlib import Path

from dit.files import atomic_write

README = Path(__file__).resolve().parent.parent / "README.md"


def write_block(name: str, lines: list[str], readme: Path = README) -> None:
    """Replace what stands between `<!-- NAME -->` and `<!-- /NAME -->`, atomically.

    Raises:
        ValueError: the README has no such marks.
    """
    begin, end, text = f"<!-- {name} -->\n", f"<!-- /{name} -->", readme.read_text()
    if begin not in text or end not in text:
        raise ValueError(
            f"{readme} has no marks {begin.strip()} and {end}; put them where the numbers belong"
        )
    before, rest = text.split(begin, 1)
    after = rest.split(end, 1)[1]
    new = before + begin + "\n".join(lines) + "\n" + end + after
    atomic_write(readme, lambda temporary: temporary.write_text(new))


def command(module: str, **flags: float | str) -> str:
    """What to type to measure the same again, as Markdown; every flag is spelt out."""
    words = [f"--{name.replace('_', '-')} {value}" for name, value in flags.items()]
    return f"`python -m {' '.join([module, *words])}`"
