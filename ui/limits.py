"""All limits of the page in one place, as it shows them."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What one visitor, and all together, may ask of this machine."""

    pictures: int = 4  # of a request
    steps: int = 1000  # of a request
    gmacs: float = 20_000  # of a request, all pictures together
    queue: int = 20  # requests that wait
    upload_bytes: int = 200_000_000  # of a zip
    unpacked_bytes: int = 1_000_000_000
    upload_files: int = 100_000
    runs: int = 1  # that train at a time
    training: bool = True  # whether visitors may train at all


def is_space() -> bool:
    """Whether this is a Space on Hugging Face; it says so itself."""
    return bool(os.environ.get("SPACE_ID"))
