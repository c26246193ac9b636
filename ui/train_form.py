"""What a visitor asks a training run to be, as the arguments of `python -m train`."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dit import flops, presets
from ui.request import number, whole

SOLIDS = "solids"
# Cheapest first; those of the paper itself take hours on a CPU, and are for the command line.
PRESETS = tuple(
    sorted(
        [f"DiT-{size}/{patch}" for size in "EFPNCTM" for patch in (2, 4)]
        + [f"DiffiT-{size}/{patch}" for size in "PNC" for patch in (2, 4)],
        key=lambda name: flops.macs(presets.MODELS[name]),
    )
)
SIDES = (16, 28, 32, 48, 64)  # pixels
MOST_IMAGES, MOST_BATCH, MOST_LR, MOST_DROPOUT, MOST_SEED = 20_000_000, 1024, 1, 0.99, 2**31 - 1
LOG_LINES, GRIDS, CHECKPOINTS = 200, 20, 10  # of a short run, about
LOG_EVERY, OTHERS_EVERY = 50, 1000  # steps: in a long one they come more often than that
WARM_UP, FALL = 20, 4  # shares of the run: a twentieth of it the rate rises, its last quarter it falls


@dataclass(frozen=True)
class Form:
    """The fields of the page. The defaults show something within five minutes on two cores."""

    data: str = SOLIDS  # or a folder of pictures, or OWNER/NAME on the Hub
    preset: str = "DiT-P/4"
    image_size: int = 32  # pixels
    images: int = 51_200  # that the model sees over the run
    batch_size: int = 32
    lr: float = 4e-3
    guidance_dropout: float = 0.1  # share of labels left out, so that guidance can be used
    seed: int = 0
    classes: bool = True  # whether the model is told what a picture shows
    mirror: bool = True

    @classmethod
    def of(cls, sent: Mapping[str, Any]) -> "Form":
        """What a browser sent, checked.

        Raises:
            ValueError: a value that is none, with the bounds.
        """
        preset = sent["preset"]
        if preset not in list(PRESETS):  # a list: what was sent need not be hashable
            raise ValueError(f"preset is {str(preset)[:80]!r}; choose one of {', '.join(PRESETS)}")
        data = sent["data"]
        if not isinstance(data, str) or not data.strip() or not data.isprintable() or data.startswith("-"):
            raise ValueError(
                "choose pictures: solids, a zip, a folder, or a dataset on the Hub as OWNER/NAME"
            )
        batch_size = whole("batch", sent["batch_size"], 1, MOST_BATCH)
        lr = number("learning rate", sent["lr"], 0, MOST_LR)
        if not lr:
            raise ValueError("learning rate is 0; give a positive number, such as 0.001")
        return cls(
            data.strip(),
            preset,
            whole("image side", sent["image_size"], 8, 256),
            whole("images to see", sent["images"], batch_size, MOST_IMAGES),
            batch_size,
            lr,
            number("guidance dropout", sent["guidance_dropout"], 0, MOST_DROPOUT),
            whole("seed", sent["seed"], 0, MOST_SEED),
            bool(sent["classes"]),
            bool(sent["mirror"]),
        )

    @property
    def steps(self) -> int:
        """Of the optimizer."""
        return max(1, round(self.images / self.batch_size))

    def arguments(self) -> list[str]:
        """Of `python -m train`, but for where the run is kept."""
        steps = self.steps
        given: list[tuple[str, Any]] = [
            ("data", self.data),
            ("model", self.preset),
            ("image-size", self.image_size),
            ("total-steps", steps),
            ("batch-size", self.batch_size),
            ("lr", f"{self.lr:g}"),
            ("lr-warmup-steps", steps // WARM_UP),
            ("lr-decay-steps", steps // FALL),
            ("grad-clip", 1),
            ("class-dropout-prob", f"{self.guidance_dropout if self.classes else 0:g}"),
            ("seed", self.seed),
            ("log-every", min(max(1, steps // LOG_LINES), LOG_EVERY)),
            ("sample-every", min(max(1, steps // GRIDS), OTHERS_EVERY)),
            ("checkpoint-every", min(max(1, steps // CHECKPOINTS), OTHERS_EVERY)),
        ]
        flags = ([] if self.classes else ["--no-class-conditional"]) + ([] if self.mirror else ["--no-flip"])
        return ["solids", *(word for name, value in given for word in (f"--{name}", str(value))), *flags]


def shown(arguments: Sequence[str], folder: Path | str) -> str:
    """The command, to be copied into a shell."""
    return shlex.join(["python", "-m", "train", *arguments, "--run-dir", str(folder)])


def name_of(form: Form, taken: Sequence[str], title: str = "") -> str:
    """A name for a run of these settings that none has yet. title: of its data, if not where they lie."""
    data = title or Path(form.data.split(":")[0]).name or SOLIDS
    plain = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in data)[:24]
    base = f"{form.preset.replace('/', '-')}-{plain.strip('-') or 'pictures'}"
    names = (base if count == 1 else f"{base}-{count}" for count in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)
