"""What activations take: a pass is run on tensors without contents, and the living storages are added up."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dit.config import U_SHAPED, ModelConfig
from dit.models import network


class Tally(TorchDispatchMode):
    """Counts, while it is entered, the bytes of the storages that operations make.

    Views cost nothing, and a storage counts until its last holder (a name, or the graph of the backward pass)
    lets go of it. Not seen: what a kernel allocates for itself and frees before it returns.
    """

    def __init__(self, *given: Tensor) -> None:
        """given: what was there before and must not be counted, such as weights and inputs."""
        super().__init__()
        self.given = {StorageWeakRef(tensor.untyped_storage()) for tensor in given}
        self.living: dict[StorageWeakRef, int] = {}
        self.peak = 0  # bytes

    def __torch_dispatch__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and note what it has made."""
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if (reference := StorageWeakRef(storage)) not in self.given:
                    self.living[reference] = storage.nbytes()
        self.peak = max(self.peak, self.now())
        return out

    def now(self) -> int:
        """Bytes that are alive."""
        self.living = {storage: size for storage, size in self.living.items() if not storage.expired()}
        return sum(self.living.values())


def forward_peak(model: nn.Module, *inputs: Tensor | None) -> int:
    """Peak bytes of activations in a forward pass without gradients; weights and inputs are not counted."""
    with torch.no_grad(), _tally(model, inputs) as tally:
        model.eval()(*inputs)
    return tally.peak


def kept_for_backward(model: nn.Module, *inputs: Tensor | None) -> int:
    """Bytes that a forward pass in training mode keeps for the backward pass, its output included."""
    with torch.enable_grad(), _tally(model, inputs) as tally:
        out = model.train()(*inputs)  # held, and with it the graph
        kept = tally.now()
    del out
    return kept


@lru_cache(maxsize=256)
def sampling_bytes(config: ModelConfig) -> int:
    """`forward_peak` of one picture: eager float32 on a CPU, nothing really computed."""
    if config.backbone not in U_SHAPED:  # whose blocks are alike, and leave nothing behind
        config = replace(config, depth=min(config.depth, 2))
    return _pretended(forward_peak, config)


def training_bytes(config: ModelConfig) -> int:
    """`kept_for_backward` of one picture, as `sampling_bytes`.

    Equal to a real pass for the transformers; up to 4% more for the U-Net, whose convolutions copy a little
    less when they really run.
    """
    return _pretended(kept_for_backward, config)


def _tally(model: nn.Module, inputs: tuple[Tensor | None, ...]) -> Tally:
    return Tally(*model.parameters(), *model.buffers(), *(given for given in inputs if given is not None))


def _pretended(measure: Callable[..., int], config: ModelConfig) -> int:
    # Not the meta device: the network chooses its kernels by device, and so does torch.
    with FakeTensorMode():
        picture = torch.empty(1, config.in_channels, config.input_size, config.input_size)
        label = torch.zeros(1, dtype=torch.long) if config.num_classes else None
        return measure(network(config), picture, torch.empty(1), label)
