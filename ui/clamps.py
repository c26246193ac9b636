"""Texts from an address as values that a control may have: brought into bounds, or refused.

A clamp gets the text and returns the value, or raises ValueError with what is wrong.
"""

from collections.abc import Callable, Iterable
from decimal import Decimal, InvalidOperation
from typing import Any

Clamp = Callable[[str], Any]


def whole(low: int, high: int) -> Clamp:
    """A whole number, brought between the two."""

    def clamp(text: str) -> int:
        return int(min(max(_decimal(text), Decimal(low)), Decimal(high)).to_integral_value())

    return clamp


def number(low: float, high: float) -> Clamp:
    """A number, brought between the two."""

    def clamp(text: str) -> float:
        return float(min(max(_decimal(text), Decimal(str(low))), Decimal(str(high))))

    return clamp


def one_of(choices: Iterable[str]) -> Clamp:
    """One of some texts, exactly."""
    known = list(choices)

    def clamp(text: str) -> str:
        if text not in known:
            raise ValueError("it is not one of the choices")
        return text

    return clamp


def several_of(choices: Iterable[str]) -> Clamp:
    """Any of some texts, with commas between; a list."""
    known = list(choices)

    def clamp(text: str) -> list[str]:
        items = [item for item in text.split(",") if item]
        if any(item not in known for item in items):
            raise ValueError("not all of it is among the choices")
        return list(dict.fromkeys(items))

    return clamp


def or_none(clamp: Clamp) -> Clamp:
    """The same, with None for an empty text: of a control that may have no value."""
    return lambda text: clamp(text) if text else None


def words(most: int) -> Clamp:
    """Any text of at most so many letters, of several lines too: of a box that is checked when it is used."""

    def clamp(text: str) -> str:
        if len(text) > most:
            raise ValueError(f"it has {len(text)} letters, and at most {most} are taken")
        if not text.replace("\n", "").isprintable():
            raise ValueError("it has characters that cannot be shown")
        return text

    return clamp


def yes_or_no(text: str) -> bool:
    """Whether a box is ticked: 1 or 0."""
    return one_of("01")(text) == "1"


def _decimal(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError("it must be a number") from None
    if value.is_nan():
        raise ValueError("it must be a number")
    return value
