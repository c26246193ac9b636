"""What a forward pass costs, in multiply-accumulates (MACs): the unit that the paper prints as "Gflops"."""

from collections.abc import Callable

from dit.config import FREQUENCIES, TIME_FACTOR, ModelConfig

KERNEL = 9  # places of a 3x3 convolution
CACHEABLE = ("dit", "diffit")  # backbones whose steps can be cached
Matmuls = Callable[[int, int, int], int]  # queries, keys, width -> what attention's two matrix products cost


def macs(config: ModelConfig, *, with_attention_matmuls: bool = True, reused: bool = False) -> int:
    """Multiply-accumulates of one forward pass of one picture; 1 MAC = 2 FLOPs.

    Counts every matrix product and convolution, as the DiT paper's Table 4 does; norms and activations are
    left out. Equals half of what torch.utils.flop_counter.FlopCounterMode prints of all.

    with_attention_matmuls: without them, the products of queries with keys and of attention with values are
    left out, as in some published counts: profilers that look at modules do not see a product of activations.
    reused: of a pass whose attention and MLPs serve again what they gave (see `step_cache`).

    Raises:
        ValueError: a reused pass of a U-shape, whose blocks have no such branches.
    """
    if reused and config.backbone not in CACHEABLE:
        raise ValueError(
            f"backbone is {config.backbone!r}, whose steps cannot be cached; {' and '.join(CACHEABLE)} can"
        )
    matmuls = _matmuls if with_attention_matmuls else _none
    if config.backbone == "unet":
        return _unet(config, matmuls)
    if config.backbone == "diffit-image":
        return _image_diffit(config, matmuls)
    return _isotropic(config, matmuls, reused)


def _matmuls(queries: int, keys: int, width: int) -> int:
    """Queries with keys, then what comes of it with values; all heads."""
    return 2 * queries * keys * width


def _none(queries: int, keys: int, width: int) -> int:
    """The same, not counted."""
    return 0


def _isotropic(config: ModelConfig, matmuls: Matmuls, reused: bool) -> int:
    """DiT's four designs, and the latent DiffiT."""
    T, D, p = config.tokens, config.hidden_size, config.patch_size
    memory = 1 + (config.num_classes > 0)  # tokens of timestep and label
    design = "diffit" if config.backbone == "diffit" else config.conditioning
    length = T + memory if design == "in-context" else T
    branches = _attention(length, length, D, matmuls) + _mlp(length, D, config.mlp_ratio)
    branches += {
        "cross-attention": 2 * T * D**2 + 2 * memory * D**2 + matmuls(T, memory, D),  # q, proj; k, v
        "diffit": 3 * D**2,  # what time adds to q, k and v
    }.get(design, 0)
    block = {"adaln-zero": 6 * D**2, "adaln": 4 * D**2}.get(design, 0) + (0 if reused else branches)
    final = T * D * p**2 * config.out_channels + (2 * D**2 if design in ("adaln-zero", "adaln") else 0)
    timestep = (2 * FREQUENCIES * D + D**2) * (config.depth if config.block_embedders else 1)
    return T * config.in_channels * p**2 * D + config.depth * block + final + timestep


def _attention(tokens: int, keys: int, width: int, matmuls: Matmuls) -> int:
    """q, k, v, the two products (of a token with the `keys` that it sees), and the output's linear layer."""
    return 4 * tokens * width**2 + matmuls(tokens, keys, width)


def _mlp(tokens: int, width: int, ratio: float) -> int:
    return 2 * tokens * width * int(width * ratio)


def _conv(of: int, to: int, side: int) -> int:
    """A 3x3 convolution, `side` being that of its output."""
    return KERNEL * of * to * side**2


def _image_diffit(config: ModelConfig, matmuls: Matmuls) -> int:
    """Without the embedding of augmentations, which drawing leaves out."""
    time, stages, area = TIME_FACTOR * config.hidden_size, config.stages, config.window_size**2
    total = 2 * FREQUENCIES * time + time**2
    total += _conv(config.in_channels, stages[0][0], config.input_size)
    total += _conv(stages[0][0], config.out_channels, config.input_size)
    for i, (width, side) in enumerate(stages):
        block = _conv(width, width, side) + 3 * time * width
        block += _attention(side**2, area, width, matmuls) + _mlp(side**2, width, config.mlp_ratio)
        bottleneck = i == len(stages) - 1
        total += block * config.depth * (1 if bottleneck else 2)
        if not bottleneck:
            below, half = stages[i + 1]
            total += _conv(width, below, half) + _conv(below, width, side) + 2 * width**2 * side**2
    return total


def _unet(config: ModelConfig, matmuls: Matmuls) -> int:
    """diffusers' UNet2DModel with what `unet.unet_arguments` says."""
    first, stages = config.hidden_size * config.channel_mult[0], config.stages
    time = 4 * first

    def resnet(of: int, to: int, side: int) -> int:
        shortcut = of * to * side**2 if of != to else 0
        return _conv(of, to, side) + _conv(to, to, side) + time * to + shortcut

    def attention(width: int, side: int, stage: int) -> int:
        return _attention(side**2, side**2, width, matmuls) if stage else 0  # not in the first stage

    total = first * time + time**2
    total += _conv(config.in_channels, first, config.input_size)
    total += _conv(first, config.out_channels, config.input_size)
    skips, of = [first], first  # widths of what the way down leaves for the way up
    for i, (width, side) in enumerate(stages):
        for _ in range(config.depth):
            total += resnet(of, width, side) + attention(width, side, i)
            of = width
            skips.append(of)
        if i < len(stages) - 1:
            total += _conv(width, width, side // 2)
            skips.append(of)
    width, side = stages[-1]
    total += 2 * resnet(width, width, side) + attention(width, side, len(stages))
    for i, (width, side) in reversed(list(enumerate(stages))):
        for _ in range(config.depth + 1):
            total += resnet(of + skips.pop(), width, side) + attention(width, side, i)
            of = width
        if i > 0:
            total += _conv(width, width, 2 * side)
    return total
