"""What follows from controls, asked of the server once in a moment, and always after the last change.

Controls that are set together, by a link or by a choice which others follow, change one after the other.
Gradio asks at each change, with the values of that moment. Where changes are milliseconds apart it asks
several times at once, even if `trigger_mode` is "always_last", and the answers come in any order: one to
values that no control has any more may stand last, as a price or a chart of something else than is chosen.
Here no two questions of a listener are under way. What other events put in the same place is theirs to order.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

WINDOW = 40  # milliseconds: longer than controls take that are set together, too short to be felt
COUNT = itertools.count()  # of listeners: each has a window of its own
# The first change opens a window, others in it are left unanswered, and its end asks. In a step of its own:
# Gradio lets an event's listeners wait for each other.
END = """() => new Promise((done) => {
  const open = (window.ditlabSettling ??= {});
  open[%(listener)d] ??= setTimeout(() => { delete open[%(listener)d]; done(); }, %(window)d);
})"""


def unless_sent(sent: Any, update: dict[str, Any]) -> dict[str, Any]:
    """An update, without its value if that is what was sent: the control may have been moved meanwhile."""
    return {name: value for name, value in update.items() if name != "value" or value != sent}


def on_settled(
    controls: Sequence[gr.components.Component] | None,
    function: Callable[..., Any],
    inputs: Sequence[gr.components.Component],
    outputs: Any,
) -> None:
    """Call a function of the server after controls have changed, past the queue; the last answer counts.

    controls: None for all inputs, and when the page opens.
    """
    quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    changes = None if controls is None else [control.change for control in controls]
    begun = gr.on(changes, None, inputs, None, js="() => {}", **quick)
    ended = begun.then(None, None, None, js=END % {"listener": next(COUNT), "window": WINDOW}, **quick)
    ended.then(function, inputs, outputs, trigger_mode="always_last", **quick)
