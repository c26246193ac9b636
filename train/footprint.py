"""What a training step takes of a device's memory: a step is run on tensors without contents.

Not seen: what kernels allocate for themselves, and what an allocator cannot reuse.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from dit.config import U_SHAPED, ModelConfig
from dit.counts import count
from dit.memory import Tally
from dit.models import network
from train.remat import rematerialise

FLOAT = 4  # bytes of float32
MEASURED = (32, 64)  # pictures: so many that activations decide where the peak is
DEPTHS = (2, 4)  # of equal blocks; more of them add alike
LOSS_COPIES = 20  # tensors of a prediction's size that the loss and its gradient take besides


@dataclass(frozen=True)
class Footprint:
    """Bytes of one device; what does not depend on the pictures is `fixed`."""

    weights: int
    gradients: int
    moments: int  # AdamW's two
    averages: int
    passing: int  # of a step, but not growing with its pictures: bfloat16 copies of the weights, and such
    picture: int  # activations at the peak, of each picture

    @property
    def fixed(self) -> int:
        """All but activations."""
        return self.weights + self.gradients + self.moments + self.averages + self.passing

    def total(self, pictures: int) -> int:
        """Bytes of a step that computes so many pictures at once."""
        return self.fixed + pictures * self.picture


def footprint(
    config: ModelConfig,
    *,
    averages: int = 1,
    bf16: bool = False,
    remat: bool = False,
    parts: int = 1,
    roughly: bool = False,
) -> Footprint:
    """What training a model takes: weights, gradients, moments and averages in float32, and activations.

    averages: how many are kept. bf16: under autocast. parts: over how many devices all that is laid up (FSDP;
    then the largest share that is gathered at once is two blocks'). Eager: compiling saves some of it.
    roughly: never less, in a fraction of the time: as if all that a step of one picture takes grew with them.
    """
    counted = count(config)
    trained = counted.trainable * FLOAT
    fixed, picture = (0, _one(config, bf16, remat)) if roughly else _activations(config, bf16, remat)
    gathered = (
        2 * counted.weight_bytes // max(1, config.depth) if parts > 1 else 0
    )  # this block's and the next
    return Footprint(
        weights=counted.weight_bytes // parts,
        gradients=trained // parts,
        moments=2 * trained // parts,
        averages=averages * counted.weight_bytes // parts,
        passing=(gathered + fixed // config.depth) if parts > 1 else fixed,
        picture=picture + LOSS_COPIES * FLOAT * config.out_channels * config.input_size**2,
    )


@lru_cache(maxsize=64)
def _one(config: ModelConfig, bf16: bool, remat: bool) -> int:
    return _peak(config, 1, bf16, remat)


@lru_cache(maxsize=64)
def _activations(config: ModelConfig, bf16: bool, remat: bool) -> tuple[int, int]:
    """Bytes of a step beside weights and what accompanies them: in any case, and for each picture."""

    def line(depth: int) -> tuple[int, int]:
        of_depth = replace(config, depth=depth)
        one, few, many = (_peak(of_depth, n, bf16, remat) for n in (1, *MEASURED))
        slope = (many - few) // (MEASURED[1] - MEASURED[0])
        return max(0, one - slope), slope  # the peak is the highest of some lines: this one is above them all

    if config.backbone in U_SHAPED or config.depth <= DEPTHS[1]:
        fixed, picture = line(config.depth)
        return fixed, picture
    (low_fixed, low), (high_fixed, high) = map(line, DEPTHS)
    further = (config.depth - DEPTHS[1]) / (DEPTHS[1] - DEPTHS[0])
    return (
        int(high_fixed + further * (high_fixed - low_fixed)),
        int(high + further * (high - low)),
    )


def _peak(config: ModelConfig, pictures: int, bf16: bool, remat: bool) -> int:
    """Peak bytes of a forward and backward pass, without weights, inputs, and the gradients that stay."""
    with FakeTensorMode():
        model = network(config).train()
        if remat:
            rematerialise(model)
        for parameter in model.parameters():
            if parameter.requires_grad:  # as from the micro-batch before
                parameter.grad = torch.zeros_like(parameter)
        x = torch.empty(pictures, config.in_channels, config.input_size, config.input_size)
        y = torch.zeros(pictures, dtype=torch.long) if config.num_classes else None
        given = [*model.parameters(), *model.buffers(), x, *([] if y is None else [y])]
        given += [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        with Tally(*given) as tally:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                out = model(x, torch.empty(pictures), y)
            out.float().square().mean().backward()
        return tally.peak
