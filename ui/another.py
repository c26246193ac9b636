"""What follows from another choice in a list, and not from a mere look at it."""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr


def on_other_choice(
    listed: gr.Dropdown,
    function: Callable[..., Sequence[Any]],
    inputs: Sequence[gr.components.Component],
    outputs: Sequence[gr.components.Component],
) -> gr.State:
    """Call a function of the server when something else is chosen from a list, past the queue.

    function: gets what is chosen now and the inputs' values. Gradio sends `input` also when a list is left,
    whether or not another thing was chosen; that must not undo what the visitor has changed since. Returns
    what remembers the choice: hand it to `Share.add`, among the mirrors, if an address may set the list.
    """
    before = gr.State(listed.value)

    def answer(before: Any, chosen: Any, *values: Any) -> Sequence[Any]:
        if chosen == before:
            return [gr.skip()] * (1 + len(outputs))
        return [chosen, *function(chosen, *values)]

    listed.input(
        answer,
        [before, listed, *inputs],
        [before, *outputs],
        queue=False,
        show_progress="hidden",
        api_visibility="private",
        trigger_mode="always_last",
    )
    return before
