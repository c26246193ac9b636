"""Everything that changes while training, as named tensors and numbers."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

import dit
from dit.config import ModelConfig
from dit.layers import drops_no_labels
from train.batch import Batch
from train.config import TrainConfig
from train.ema import Ema
from train.hardware import Hardware
from train.objective import losses

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class Counters:
    """How far a run is: whole numbers, the same in all processes."""

    step: int = 0  # optimizer steps done, skipped ones included
    skipped: int = 0  # of these, with a loss or gradient that was not finite
    in_row: int = 0  # of these, the last ones
    detours: int = 0  # how often the run went back to a checkpoint, to take other noise from there on


@dataclass
class TrainState:
    """Model, averages and optimizer, and how far they are."""

    model: nn.Module  # whose parameters are trained
    called: nn.Module  # what is called: the model, or what shares its work between processes
    losses: Callable[[Batch], dict[str, Tensor]]  # of what is called
    ema: Ema
    optimizer: torch.optim.Optimizer
    counters: Counters = field(default_factory=Counters)
    longest_row: int = 0  # of skipped steps, since the last line of metrics but one

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.counters.step

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that are trained, by name."""
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds: weights, averages, moments. Writing into them restores it."""
        parameters = self.trained()
        found = {f"model.{name}": value.detach() for name, value in parameters.items()}
        for i, average in enumerate(self.ema.averages):
            found |= {f"ema.{i}.{name}": value for name, value in average.items()}
        for name, value in parameters.items():
            found |= {f"optimizer.{moment}.{name}": self.optimizer.state[value][moment] for moment in MOMENTS}
        return found

    @torch.no_grad()
    def is_finite(self) -> bool:
        """Whether all weights, of what this process holds, are numbers."""
        parts = [
            value.to_local() if isinstance(value, DTensor) else value for value in self.trained().values()
        ]
        norms = torch._foreach_norm([part for part in parts if part.numel()], math.inf)
        return bool(torch.stack(norms).isfinite().all())

    @torch.no_grad()
    def restored(self, counters: Counters) -> None:
        """Note how far the state is that was written into `tensors`."""
        self.counters = counters
        for value in self.trained().values():  # AdamW's own count, for the correction of its bias
            self.optimizer.state[value]["step"].fill_(counters.step - counters.skipped)
        self.optimizer.zero_grad(set_to_none=True)


def fresh_state(config: TrainConfig, network: ModelConfig, hardware: Hardware) -> TrainState:
    """Model, averages and optimizer at step 0, a function of the seed."""
    torch.manual_seed(config.seed)
    model = drops_no_labels(dit.build(network).train())
    called = hardware.place(model, config)
    parameters = [value for value in model.parameters() if value.requires_grad]
    ema = Ema(model, (config.ema_decay, *config.extra_ema_decays))
    of_called = hardware.compile_losses(partial(losses, config, called), config)
    return TrainState(model, called, of_called, ema, hardware.optimizer(parameters, config))
