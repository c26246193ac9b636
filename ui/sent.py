"""What listeners are sent, checked against what the page's own controls can send.

Anybody can send anything to a listener, past the page. What no control of its kind could have sent is refused
here, for all of them: with a message, and without a word of it in the server's log.
"""

import logging
import math
from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio.block_function import BlockFunction

from ui.request import short

LOG = logging.getLogger(__name__)
MAX_TEXT = 10_000  # letters of a box that names no limit of its own
MAX_ITEMS = 1000  # of a choice of several
MAX_DIGITS = 400  # of a whole number, as many as the largest float has, and more
AGAIN = "load the page again"


class CheckedBlocks(gr.Blocks):
    """Blocks whose listeners get values of the kinds that their components have."""

    async def preprocess_data(
        self, block_fn: BlockFunction, inputs: list[Any], *state: Any, **more: Any
    ) -> list[Any]:
        """As Gradio's own; all that it raises becomes a message."""
        if len(inputs) != len(block_fn.inputs):
            said = f"{len(inputs)} values were sent, and {len(block_fn.inputs)} are expected; {AGAIN}"
            raise gr.Error(said, print_exception=False)
        for component, value in zip(block_fn.inputs, inputs, strict=True):
            if reason := complaint(component, value):
                raise gr.Error(reason, print_exception=False)
        try:
            return await super().preprocess_data(block_fn, inputs, *state, **more)
        except gr.Error as error:  # beyond a bound, or none of the choices
            raise gr.Error(error.message[:500], print_exception=False) from error
        except Exception as error:  # a file that nobody uploaded, and what else is not what it says
            LOG.warning("values for %s were refused: %s", block_fn.name, type(error).__name__)
            said = f"the values that were sent cannot be used; {AGAIN}"
            raise gr.Error(said, print_exception=False) from error


def complaint(component: gr.components.Component, value: Any) -> str:
    """What is wrong with a value of a component; empty if nothing is."""
    fits, kind = next(
        ((fits, kind) for types, fits, kind in KINDS if isinstance(component, types)), (_is_scalar, "a value")
    )
    if fits(component, value):
        return ""
    return f"{getattr(component, 'label', None) or 'a value'} is {short(value)}; it must be {kind}: {AGAIN}"


def _is_number(component: gr.components.Component, value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value is None and isinstance(component, gr.Number)
    return _is_scalar(component, value)


def _is_scalar(component: gr.components.Component, value: Any) -> bool:
    """A text, a number, a truth value or nothing, none of them too long to be read."""
    if isinstance(value, str):
        return len(value) <= (getattr(component, "max_length", None) or MAX_TEXT) and _is_text(value)
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return abs(value) < 10**MAX_DIGITS
    return value is None


def _is_text(value: str) -> bool:
    """Whether it can be written: JSON lets halves of characters through."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_list(component: gr.components.Component, value: Any) -> bool:
    return (
        isinstance(value, list) and len(value) <= MAX_ITEMS and all(_is_scalar(component, v) for v in value)
    )


def _is_choice(component: gr.Dropdown, value: Any) -> bool:
    return _is_list(component, value or []) if component.multiselect else _is_scalar(component, value)


def _is_file(component: gr.components.Component, value: Any) -> bool:
    """A file that was uploaded: Gradio checks where it lies, and would fetch what has an address."""
    if value is None:
        return True
    path = value.get("path") if isinstance(value, dict) else None
    return isinstance(path, str) and _is_text(path) and "://" not in path and "\0" not in path


Fits = Callable[[Any, Any], bool]
KINDS: tuple[tuple[Any, Fits, str], ...] = (
    (gr.State, lambda component, value: True, ""),  # Gradio takes its own, whatever is sent
    ((gr.Slider, gr.Number), _is_number, "a finite number"),
    (gr.Checkbox, lambda component, value: value is None or isinstance(value, bool), "true or false"),
    (gr.CheckboxGroup, _is_list, "a list of choices"),
    (gr.Dropdown, _is_choice, "a choice"),
    (gr.File, _is_file, "a file that was uploaded"),
    (gr.JSON, lambda *sent: _is_scalar(*sent) or _is_list(*sent), "a number, a text, or a list of them"),
    (object, _is_scalar, "a text or a number"),
)  # fmt: skip
