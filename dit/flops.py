"""What a forward pass costs, in multiply-accumulates (MACs): the unit that the paper prints as "Gflops"."""

from dit.config import ModelConfig


def macs(config: ModelConfig) -> int:
    """Multiply-accumulates of one forward pass of one picture; 1 MAC = 2 FLOPs.

    Counts every matrix product, attention's two included, as the paper's Table 4 does; norms and activations
    are left out. Equals half of what torch.utils.flop_counter.FlopCounterMode prints.
    """
    T, D, p = config.tokens, config.hidden_size, config.patch_size
    patchify = T * config.in_channels * p**2 * D
    mlp = 2 * T * D * int(D * config.mlp_ratio)
    attention = 4 * T * D**2 + 2 * T**2 * D
    block = attention + mlp + 6 * D**2
    final = 2 * D**2 + T * D * p**2 * config.out_channels
    timestep = (256 * D + D**2) * (config.depth if config.block_embedders else 1)
    return patchify + config.depth * block + final + timestep
