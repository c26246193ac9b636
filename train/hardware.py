"""The one place of the trainer that knows what the machine has."""

import contextlib
from dataclasses import dataclass

import torch

from dit.pipeline import find_device


@dataclass(frozen=True)
class Hardware:
    """A device, and the precision that its matrix products run in."""

    device: torch.device
    bf16: bool

    def autocast(self) -> contextlib.AbstractContextManager:
        """bf16 matrix products over float32 weights, or nothing."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def seed(self, seed: int, step: int) -> None:
        """Make everything random in a step a function of (seed, step), so that a resumed run repeats it."""
        torch.manual_seed((seed * 0x9E3779B97F4A7C15 + step) % 2**63)

    def describe(self) -> str:
        """One line for the log."""
        threads = f", {torch.get_num_threads()} threads" if self.device.type == "cpu" else ""
        return f"{self.device}{threads}, {'bf16 autocast' if self.bf16 else 'float32'}"


def select(device: str = "auto", precision: str = "auto") -> Hardware:
    """The hardware to train on.

    device: auto (a CUDA GPU if there is one, then Apple's, else the CPU; the choice is printed at the start),
    or a device by name, which must be there.

    Raises:
        ValueError: no such device on this machine.
    """
    chosen = find_device(device)
    has_bf16 = chosen.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return Hardware(chosen, precision == "bf16" or (precision == "auto" and has_bf16))
