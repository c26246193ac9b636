"""What visitors may ask of this machine, in one place."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Of training in the page."""

    training: bool = True  # whether visitors may train at all
    runs: int = 1  # that train at a time
    upload_bytes: int = 200_000_000  # of a zip
    unpacked_bytes: int = 1_000_000_000
    upload_files: int = 100_000


def is_space() -> bool:
    """Whether this is a Space on Hugging Face; it says so itself."""
    return bool(os.environ.get("SPACE_ID"))
