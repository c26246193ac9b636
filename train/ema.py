"""The exponential moving average of the weights, which is what samples are drawn from."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class Ema:
    """Averages of a model's trained weights, in float32, one for each decay; the first is the run's own.

    The decay rises as (1 + step) / (10 + step) up to its ceiling, so that a short run averages its last tenth
    and not its random start. What is not trained is the same in all averages, and is not kept.
    """

    def __init__(self, model: nn.Module, ceilings: tuple[float, ...]) -> None:
        """model: where the averages start, and, of a sharded one, how they are sharded."""
        self.model, self.ceilings = model, ceilings
        self.averages = [
            {name: parameter.detach().clone() for name, parameter in self._trained()} for _ in ceilings
        ]

    def _trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        return (
            (name, parameter) for name, parameter in self.model.named_parameters() if parameter.requires_grad
        )

    def decays(self, step: int) -> list[float]:
        """The decay of each average after optimizer step 0, 1, ..."""
        return [min(ceiling, (1 + step) / (10 + step)) for ceiling in self.ceilings]

    @torch.no_grad()
    def update(self, shares: list[float | Tensor]) -> None:
        """Move each average towards the weights by its share: 1 - decay, or 0 to leave it."""
        weights = [parameter.detach() for _, parameter in self._trained()]
        for average, share in zip(self.averages, shares, strict=True):
            if isinstance(share, Tensor):  # a list, as a single one would be fetched from the device
                share = [share] * len(weights)
            torch._foreach_lerp_(list(average.values()), weights, share)

    @contextlib.contextmanager
    def in_place(self, which: int = 0) -> Iterator[nn.Module]:
        """The model with an average's weights for its own, in evaluation mode, until the block ends."""
        training = [module for module in self.model.modules() if module.training]
        self._swap(which)
        self.model.eval()
        try:
            yield self.model
        finally:
            self._swap(which)
            for module in training:
                module.training = True

    @torch.no_grad()
    def _swap(self, which: int) -> None:
        for name, parameter in self._trained():
            own = parameter.detach().clone()
            parameter.copy_(self.averages[which][name])
            self.averages[which][name].copy_(own)
