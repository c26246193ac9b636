"""Waiting for what other processes come to."""

import time
from collections.abc import Callable
from typing import Any

from gradio_client import Client

SECONDS = 200  # until something is given up


def until(told: Callable[[], Any]) -> Any:
    """What it returns once that is something."""
    end = time.monotonic() + SECONDS
    while not (value := told()):
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.05)
    return value


def client_of(address: str) -> Client:
    """A client of a served app, as patient as `until`."""
    return Client(address, verbose=False, httpx_kwargs={"timeout": SECONDS})
