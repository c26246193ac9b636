"""What a model takes, counted from its config: parameters, bytes, multiply-accumulates."""

from dataclasses import dataclass
from functools import lru_cache

import torch

from dit import flops
from dit.config import ModelConfig
from dit.models import network


@dataclass(frozen=True)
class Count:
    """Of one model and one forward pass of one picture."""

    parameters: int  # all, the fixed position table included
    trainable: int  # without that table: what the DiT paper prints
    weight_bytes: int  # float32, buffers included
    macs: int  # multiply-accumulates, which the papers print as "flops"
    macs_without_attention_matmuls: int  # as profilers count that look at modules only


@lru_cache(maxsize=256)
def count(config: ModelConfig) -> Count:
    """Count a model; its weights are never made."""
    with torch.device("meta"):
        model = network(config)
    parameters = list(model.parameters())
    return Count(
        parameters=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        weight_bytes=sum(tensor.nbytes for tensor in [*parameters, *model.buffers()]),
        macs=flops.macs(config),
        macs_without_attention_matmuls=flops.macs(config, with_attention_matmuls=False),
    )
