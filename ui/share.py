"""The page's state in its address: what differs from the defaults is in the query string, and opens again.

A view hands in its controls, each under a key, with a clamp (`ui.clamps`), which makes of a text from an
address a value that the control may have:

    share = Share()
    share.add("steps", slider, whole(1, 250))
    share.add("model", ladder, None, words=names)  # a position, written as its name
    share.add_tabs("tab", tabs, {"explore": explore_tab, "tradeoff": tradeoff_tab})
    share.settle(fit)  # for values that bound each other: {key: value} -> {key: value or gr.update(...)}
    share.also([chart], draw)  # for what follows from them: {key: value} -> {component: value}
    share.button()  # "Copy link", where the layout stands
    share.notice()  # what of an address was not taken, where the layout stands
    share.wire(demo)  # at the end, inside the Blocks

Nothing in an address is trusted, and nothing in it is an error: what was not taken is said in a notice.
"""

import html
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

import gradio as gr

from ui.clamps import Clamp, one_of
from ui.request import short
from ui.share_script import COPY, READY, SETUP, TAB, WRITE

Settle = Callable[[dict[str, Any]], dict[str, Any]]
Words = Callable[[], Sequence[str]]
Extra = Callable[[dict[str, Any]], dict[Any, Any]]
MAX_KEYS = 100  # of an address that are read
MAX_TEXT = 2000  # letters of one value
MAX_SAID = 4  # complaints in the notice
FOREIGN = ("__", "utm_")  # how names begin that others put into addresses: __theme, __sign, utm_source
FOREIGN_NAMES = {"view", "logs", "deep_link", "session_hash"}  # Gradio's and Spaces'

CSS = """
.dl-notice { border: 1px solid var(--border-color-primary); border-left: 3px solid var(--color-accent);
  border-radius: 8px; padding: 6px 10px; font-size: 13px; overflow-wrap: anywhere; }
"""


@dataclass(frozen=True)
class Entry:
    """A control that is part of the address."""

    key: str
    component: gr.components.Component
    clamp: Clamp
    words: Words | None = None  # what is written for each position, where the value is one
    mirrors: tuple[gr.components.Component, ...] = ()  # what gets the same value when it is restored

    def read(self, text: str) -> Any:
        """The value that a text stands for. Raises ValueError."""
        if self.words is None:
            return self.clamp(text)
        words = self.words()
        if text not in words:
            raise ValueError("there is none of this name here")
        return words.index(text)

    def named(self, value: Any) -> str:
        """A value as a notice tells it."""
        if value is None or value == "":
            return "none"
        if self.words is not None:
            return self.words()[value]
        if isinstance(value, list):
            return ",".join(map(str, value)) or "none"
        return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass
class Share:
    """All that the address holds, and how it is read and written."""

    entries: list[Entry] = field(default_factory=list)
    groups: dict[str, tuple[gr.Tabs, dict[str, gr.Tab]]] = field(default_factory=dict)
    settles: list[Settle] = field(default_factory=list)
    extras: list[tuple[Sequence[gr.components.Component], Extra]] = field(default_factory=list)
    buttons: list[gr.Button] = field(default_factory=list)
    said: gr.HTML | None = None  # where the notice stands

    def add(
        self,
        key: str,
        component: gr.components.Component,
        clamp: Clamp | None,
        words: Words | None = None,
        mirrors: Sequence[gr.components.Component] = (),
    ) -> None:
        """Put a control into the address. clamp may be None where there are words.

        words: gives the names of the positions that are its values; there may be more later. mirrors: what
        gets the same value when it is restored, such as a `gr.State` that remembers it.
        """
        assert key not in self.keys, f"the key {key!r} is taken"
        assert clamp or words is not None, f"the key {key!r} has neither a clamp nor words"
        self.entries.append(Entry(key, component, clamp or str, words, tuple(mirrors)))

    def add_tabs(self, key: str, tabs: gr.Tabs, items: Mapping[str, gr.Tab]) -> None:
        """Put the chosen tab into the address. items: id -> tab, the first is open at the start."""
        assert key not in self.keys, f"the key {key!r} is taken"
        self.groups[key] = (tabs, dict(items))

    def settle(self, function: Settle) -> None:
        """Have values that were taken from an address fitted to each other before they are shown.

        function: gets {key: value} of those taken, returns the ones to change, as values or `gr.update(...)`.
        """
        self.settles.append(function)

    def also(self, components: Sequence[gr.components.Component], function: Extra) -> None:
        """Have other components follow from what was taken from an address, and settled.

        function: gets {key: value or update} of those taken, returns values or updates of these components.
        """
        self.extras.append((components, function))

    def button(self) -> gr.Button:
        """A button that copies the page's address, where the layout stands."""
        self.buttons.append(gr.Button("Copy link", size="sm", elem_classes="dl-copy", min_width=120, scale=0))
        return self.buttons[-1]

    def notice(self) -> gr.HTML:
        """The place of the notice, where the layout stands; hidden while there is none."""
        self.said = gr.HTML(visible=False, elem_id="share-notice")
        return self.said

    @property
    def keys(self) -> list[str]:
        """All that are taken."""
        return [entry.key for entry in self.entries] + list(self.groups)

    def read(self, pairs: Iterable[tuple[str, str]]) -> tuple[dict[str, Any], list[str]]:
        """What an address holds, by key, each as its control may have it; and what was left or changed."""
        readers: dict[str, Clamp] = {entry.key: entry.read for entry in self.entries}
        readers |= {key: one_of(items) for key, (_, items) in self.groups.items()}
        pairs = [pair for pair in pairs if not pair[0].startswith(FOREIGN) and pair[0] not in FOREIGN_NAMES]
        taken: dict[str, Any] = {}
        moved: dict[str, str] = {}  # what is taken as another value, and why
        said = (
            [] if len(pairs) <= MAX_KEYS else [f"only the first {MAX_KEYS} of {len(pairs)} values are read"]
        )
        seen: set[str] = set()
        for key, text in pairs[:MAX_KEYS]:
            if key not in readers:
                said.append(f"{short(key)} is not known here")
            elif key in seen:
                said.append(f"{key} is there more than once, and the first counts")
            elif len(text) > MAX_TEXT:
                said.append(f"{key} has {len(text)} letters, and at most {MAX_TEXT} are read")
            else:
                try:
                    taken[key] = readers[key](text)
                except (ValueError, TypeError, ArithmeticError) as error:
                    said.append(f"{key} is {short(text)}, but {error}")
                else:
                    if _moved(text, taken[key]):
                        moved[key] = f"is {short(text)}, beyond its limit"
            seen.add(key)
        before = dict(taken)
        for function in self.settles:
            taken |= function(dict(taken))
        moved |= {
            key: "does not fit the rest"
            for key, value in before.items()
            if key not in moved and plain(taken[key]) != value
        }
        named = {entry.key: entry.named for entry in self.entries}
        said += [
            f"{key} {why}; {named.get(key, str)(plain(taken[key]))} is taken" for key, why in moved.items()
        ]
        return taken, said

    def wire(self, demo: gr.Blocks) -> None:
        """Read the address when the page opens, and write it when a control changes, without the server."""
        notice = self.said or self.notice()
        controls = [entry.component for entry in self.entries]
        outputs = [notice, *(tabs for tabs, _ in self.groups.values()), *controls]
        outputs += [mirror for entry in self.entries for mirror in entry.mirrors]
        outputs += [component for components, _ in self.extras for component in components]

        def restore(session: gr.Request) -> dict:
            taken, said = self.read(_pairs(session))
            shown: dict = {notice: gr.update(value=notice_html(said), visible=bool(said))}
            for key, (tabs, _) in self.groups.items():
                if key in taken:
                    shown[tabs] = gr.update(selected=taken[key])
            for entry in self.entries:
                if entry.key in taken:
                    value = taken[entry.key]
                    shown[entry.component] = value
                    shown |= {mirror: plain(value) for mirror in entry.mirrors}
            for _, function in self.extras:
                shown |= function(taken)
            return shown

        frontend = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        demo.load(None, None, None, js=SETUP % json.dumps(self._config()), **frontend)
        opened = demo.load(restore, None, outputs, **frontend)
        opened.then(None, controls, None, js=READY, **frontend)
        gr.on([control.change for control in controls], None, controls, None, js=WRITE, **frontend)
        for key, (_, items) in self.groups.items():
            for name, tab in items.items():
                tab.select(None, None, None, js=TAB % json.dumps([key, name]), **frontend)
        for button in self.buttons:
            button.click(None, controls, None, js=COPY, **frontend)

    def _config(self) -> dict[str, Any]:
        """What the script must know: keys, defaults, words, tabs."""
        return {
            "keys": [entry.key for entry in self.entries],
            "defaults": [getattr(entry.component, "value", None) for entry in self.entries],
            "words": {entry.key: entry.words() for entry in self.entries if entry.words is not None},
            "tabs": {key: list(items) for key, (_, items) in self.groups.items()},
        }


def notice_html(said: Sequence[str]) -> str:
    """What of an address was not taken, in a few lines; empty if all was."""
    if not said:
        return ""
    more = [f"and {len(said) - MAX_SAID} more"] if len(said) > MAX_SAID else []
    lines = "; ".join(map(html.escape, [*said[:MAX_SAID], *more]))
    return f'<div class="dl-notice" role="status">Not all of this address was taken: {lines}.</div>'


def plain(value: Any) -> Any:
    """What a control gets, out of an update or as it is."""
    return value.get("value") if isinstance(value, dict) else value


def _moved(text: str, value: Any) -> bool:
    """Whether a number was brought into its bounds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return Decimal(text) != Decimal(str(value))
    except InvalidOperation:  # a word that stands for a position
        return False


def _pairs(session: gr.Request) -> list[tuple[str, str]]:
    """Names and values of the query string, in order, repeated ones too where they are known."""
    params = session.request.query_params if session.request else session.query_params
    items = params.multi_items() if hasattr(params, "multi_items") else dict(params).items()
    return [(str(key), str(value)) for key, value in items]
