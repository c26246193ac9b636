"""What follows from controls is asked of the server once they have settled, with what they have by then.

Controls that are set together, by a link or by a choice which others follow, change one after the other.
Gradio asks at each change, with the values of that moment. Where changes are milliseconds apart it asks
several times at once, even if `trigger_mode` is "always_last", and the answers come in any order: one to
values that no control has any more may stand last, as a price or a chart of something else than is chosen.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

WINDOW = 40  # milliseconds: longer than controls take that are set together, too short to be felt
# The first change opens a window, others in it are left unanswered, and its end asks. In a step of its own:
# Gradio lets an event's listeners wait for each other.
END = """() => new Promise((done) => {
  const open = (window.ditlabSettling ??= {});
  open[%(key)s] ??= setTimeout(() => { delete open[%(key)s]; done(); }, %(window)d);
})"""


def on_settled(
    key: str,
    controls: Sequence[gr.components.Component] | None,
    function: Callable[..., Any],
    inputs: Sequence[gr.components.Component],
    outputs: Any,
) -> None:
    """Call a function of the server after controls have changed, past the queue; the last answer counts.

    key: its own, of this listener. controls: None for all inputs, and when the page opens.
    """
    quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    changes = None if controls is None else [control.change for control in controls]
    begun = gr.on(changes, None, inputs, None, js="() => {}", **quick)
    ended = begun.then(None, None, None, js=END % {"key": json.dumps(key), "window": WINDOW}, **quick)
    ended.then(function, inputs, outputs, trigger_mode="always_last", **quick)
