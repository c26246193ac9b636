"""What a run's numbers are between two lines of metrics.jsonl: means, also by how noisy the pictures were.

All of it stays on the device until a line is due, in shapes that never change: fetching a number, or choosing
rows by a mask, would stall an accelerator.
"""

import math

import torch
from torch import Tensor

from dit.diffusion import NUM_TIMESTEPS
from dit.edm import LOG_DEVIATION, LOG_MEAN

QUARTILES = 4
WHOLE = "loss"  # the term that is minimised; its quartiles would mix the others', and are left out


def level(t: Tensor, formulation: str) -> Tensor:
    """How noisy, as a share from 0 to 1 of all that is trained: (N,) float32 of noise levels t (N,).

    DDPM: timesteps of 1000. EDM: the share of its log-normal sigmas that are smaller. Flow: its time.

    Raises:
        ValueError: no such formulation.
    """
    if formulation == "ddpm":
        return t.float() / NUM_TIMESTEPS
    if formulation == "edm":
        return (1 + torch.erf((t.float().log() - LOG_MEAN) / (LOG_DEVIATION * math.sqrt(2)))) / 2
    if formulation == "flow":
        return t.float()
    raise ValueError(f"formulation is {formulation!r}; noise levels are known of ddpm, edm and flow")


class Meter:
    """Sums and counts since the last line, as tensors on the device of what is added.

    A line has the mean of each term over the pictures; of each term but `loss` the means by quartile of the
    noise level, "mse_q1" (least noisy) to "mse_q4"; and mean and largest gradient norm. A quartile of which
    there was no picture is left out.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._sums: Tensor | None = (
            None  # (terms, 1 + QUARTILES): over all pictures, and over each quartile's
        )
        self._counts: Tensor | None = None  # (1 + QUARTILES,)
        self._norms: Tensor | None = None  # (3,) sum, number, largest

    def add(
        self,
        terms: dict[str, Tensor],
        t: Tensor,
        formulation: str,
        grad_norm: Tensor | None = None,
        counted: Tensor | None = None,
    ) -> None:
        """Note one step, or one micro-batch of it.

        terms: of each picture, (N,) each; the same names every time. t: (N,) noise levels, on their device.
        grad_norm: of the whole step, a scalar; with the last of its micro-batches only.
        counted: a scalar tensor, false if the step was skipped: then nothing of it counts.
        """
        names, values = sorted(terms), torch.stack([terms[name].detach().float() for name in sorted(terms)])
        quartile = (level(t, formulation) * QUARTILES).long().clamp(0, QUARTILES - 1)
        places = torch.arange(QUARTILES, device=quartile.device)
        masks = torch.cat([torch.ones_like(quartile)[None] > 0, quartile[None] == places[:, None]])
        if counted is not None:
            masks = masks & counted.bool()
        if self._sums is None:
            self._names = names
            self._sums = values.new_zeros(len(names), 1 + QUARTILES)
            self._counts = values.new_zeros(1 + QUARTILES)
        if names != self._names:
            raise ValueError(f"terms are {names}, but were {self._names}; a meter knows one kind of loss")
        # where, not a product: a skipped step's numbers may be none, and 0 times those is none either.
        self._sums = self._sums + torch.where(masks, values[:, None], 0).sum(dim=2)
        self._counts = self._counts + masks.sum(dim=1)
        if grad_norm is not None:
            self._add_norm(grad_norm.detach().float(), counted)

    def _add_norm(self, norm: Tensor, counted: Tensor | None) -> None:
        one = torch.ones_like(norm)
        if counted is not None:
            norm, one = (torch.where(counted.bool(), value, 0) for value in (norm, one))
        before = norm.new_zeros(3) if self._norms is None else self._norms
        self._norms = torch.stack([before[0] + norm, before[1] + one, torch.maximum(before[2], norm)])

    def state(self) -> Tensor:
        """All sums and counts as one flat vector: those of several processes may be added up.

        Gradient norms are not in it: they are of the whole step, and alike in every process.

        Raises:
            ValueError: nothing was added.
        """
        if self._sums is None or self._counts is None:
            raise ValueError("the meter is empty; add a step before its numbers are taken")
        return torch.cat([self._sums.flatten(), self._counts])

    def take(self, reduced: Tensor | None = None) -> dict[str, float]:
        """The means since the last time, fetched from the device at once; the meter starts anew.

        reduced: the sum of `state()` over all processes; None: there is one process.

        Raises:
            ValueError: nothing was added, or reduced is of another meter.
        """
        state = self.state()
        if reduced is not None and reduced.shape != state.shape:
            raise ValueError(
                f"reduced is of shape {tuple(reduced.shape)}, but state() of {tuple(state.shape)}"
            )
        norms = state.new_zeros(3) if self._norms is None else self._norms
        numbers = torch.cat([state if reduced is None else reduced, norms]).tolist()
        sums, (*counts, norm, norms_added, largest) = (
            numbers[: len(self._names) * (1 + QUARTILES)],
            numbers[len(self._names) * (1 + QUARTILES) :],
        )
        row = {}
        for i, name in enumerate(self._names):
            of_all, *of_quartiles = sums[i * (1 + QUARTILES) : (i + 1) * (1 + QUARTILES)]
            row[name] = of_all / counts[0] if counts[0] else math.nan
            if name != WHOLE:
                row |= {
                    f"{name}_q{q}": total / count
                    for q, (total, count) in enumerate(zip(of_quartiles, counts[1:], strict=True), start=1)
                    if count
                }
        if norms_added:
            row |= {"grad_norm": norm / norms_added, "grad_norm_max": largest}
        self._sums = self._counts = self._norms = None
        return row
