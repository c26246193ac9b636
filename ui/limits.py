"""What visitors may ask of this machine, in one place."""

import os
from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Limits:
    """All that this server allows; whoever needs one of them is handed these.

    Raises:
        ValueError: one is not above 0.
    """

    # Of a request.
    pictures: int = 16  # and of a batch, which several requests may share
    steps: int = 1000
    gmacs: float = 1.2e6  # 4 guided pictures of 250 steps from DiT-XL/2-512 stay below; decoding apart
    # Of a grid, or of one budget for all models.
    cells: int = 64
    seconds: float = 900  # expected: others wait in the line
    pixels: int = 64 * 256 * 256  # of all pictures together, which a visitor's page keeps in memory
    # Of all visitors together.
    waiting: int = 20  # jobs that are drawn or wait
    sessions: int = 64  # each keeps up to 13 MB of frames at 32 x 32, 12.6 of a grid, 12.6 of a budget
    models: int = 3  # in memory; the least recently used goes, and a small one counts for its part
    small_bytes: float = 64e6  # weights below which a model is small; the bundled ones have 0.2 to 15 MB
    # Of training in the page.
    training: bool = True  # whether visitors may train at all
    runs: int = 1  # that train at a time
    upload_bytes: int = 200_000_000  # of a zip
    unpacked_bytes: int = 1_000_000_000
    upload_files: int = 100_000
    uploads_bytes: int = 5_000_000_000  # of the disk, for all that is unpacked
    upload_seconds: float = 86_400  # since it was used last, that an upload is kept which no run needs
    folders: tuple[Path, ...] | None = None  # of this machine, lent with all below them; None: any

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in ("training", "folders") and not value > 0:
                raise ValueError(f"the limit of {field.name} is {value}; it must be above 0")


USUAL = Limits()


def is_open() -> bool:
    """Whether others than this machine can reach the page, as far as it knows: of a proxy it does not."""
    bound = os.environ.get("GRADIO_SERVER_NAME", "").strip().strip("[]").lower()
    shared = os.environ.get("GRADIO_SHARE", "").lower() == "true"
    return is_space() or shared or bound not in ("", "127.0.0.1", "localhost", "::1")


def is_space() -> bool:
    """Whether this is a Space on Hugging Face; it says so itself."""
    return bool(os.environ.get("SPACE_ID"))
