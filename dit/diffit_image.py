"""DiffiT in image space (2312.02139, section 3.2 and appendix H): a U of windowed, time-dependent attention.

A stage is `depth` ResBlocks at one resolution; the way down ends in the bottleneck, and the way up mirrors
all stages but that. Windows are not shifted: what lies in two of them meets where the U is coarser.

Where the paper says nothing: a skip is concatenated and merged by a 1x1 convolution (U-ViT, 2209.12152, found
it best); group norms have EDM's group count; embeddings of label and augmentation are added to the time's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dit.backbone import Backbone, init_embedders, init_linears, zero_module
from dit.config import TIME_FACTOR, ModelConfig
from dit.diffit import DiffiTBlock, init_bias_tables
from dit.layers import LabelEmbedder, TimestepEmbedder


def group_norm(width: int) -> nn.GroupNorm:
    """At most 32 groups, of at least 4 channels, as in EDM's networks."""
    return nn.GroupNorm(min(32, width // 4), width)


def conv(of: int, to: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that keeps the side, or with stride 2 halves it."""
    return nn.Conv2d(of, to, 3, stride, padding=1)


def to_windows(x: Tensor, window: int) -> Tensor:
    """(N, C, H, W) -> (N * windows, window * window, C), row by row, the windows of a picture together."""
    N, C, H, W = x.shape
    x = x.view(N, C, H // window, window, W // window, window)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(-1, window * window, C)


def from_windows(x: Tensor, window: int, side: int) -> Tensor:
    """The inverse of `to_windows`: (N * windows, window * window, C) -> (N, C, side, side)."""
    count = side // window
    x = x.view(-1, count, count, window, window, x.shape[-1])
    return x.permute(0, 5, 1, 3, 2, 4).reshape(x.shape[0], -1, side, side)


class ResBlock(nn.Module):
    """x + DiffiTBlock(conv(swish(group_norm(x))), c): DiffiT, Eq. 9 and 10."""

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__()
        self.window, self.dropout = config.window_size, config.dropout
        self.norm = group_norm(width)
        self.conv = conv(width, width)
        self.block = DiffiTBlock(
            width,
            TIME_FACTOR * config.hidden_size,
            width // config.head_size,
            config.window_size,
            config.mlp_ratio,
            config.qk_norm,
        )

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """x: (N, width, H, W), c: (N, time width) -> as x."""
        inner = self.conv(F.dropout(F.silu(self.norm(x)), self.dropout, self.training))
        inner = self.block(to_windows(inner, self.window), c)
        return x + from_windows(inner, self.window, x.shape[-1])


class ImageDiffiT(Backbone):
    """The U-shaped DiffiT. Augmentation labels are 0 when drawing, as in EDM."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        widths, time = [width for width, _ in config.stages], TIME_FACTOR * config.hidden_size
        self.t_embedder = TimestepEmbedder(time)
        if config.num_classes:
            self.y_embedder = LabelEmbedder(config.num_classes, time, config.class_dropout_prob)
        if config.augment_dim:
            self.augment_embedder = nn.Linear(config.augment_dim, time, bias=False)
        self.tokenizer = conv(config.in_channels, widths[0])

        def stage(width: int) -> nn.ModuleList:
            return nn.ModuleList(ResBlock(config, width) for _ in range(config.depth))

        self.down = nn.ModuleList(stage(width) for width in widths)  # the last is the bottleneck
        self.downsample = nn.ModuleList(
            conv(of, to, stride=2) for of, to in zip(widths, widths[1:], strict=False)
        )
        inwards = list(zip(widths[::-1][1:], widths[::-1], strict=False))  # (width, that of the stage below)
        self.upsample = nn.ModuleList(conv(below, width) for width, below in inwards)
        self.merge = nn.ModuleList(nn.Conv2d(2 * width, width, 1) for width, _ in inwards)
        self.up = nn.ModuleList(stage(width) for width, _ in inwards)
        self.final_norm = group_norm(widths[0])
        self.final_conv = conv(widths[0], config.out_channels)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None, augment: Tensor | None = None) -> Tensor:
        """See `Backbone`. augment: (N, augment_dim) how EDM augmented each picture; None: not at all."""
        self.check_labels(y)
        c = self.t_embedder(t)
        if self.config.num_classes:
            c = c + self.y_embedder(y)
        if self.config.augment_dim and augment is not None:
            c = c + self.augment_embedder(augment.to(c.dtype))
        h, skips = self.tokenizer(x.to(self.tokenizer.weight.dtype)), []
        for i, stage in enumerate(self.down):
            for block in stage:
                h = block(h, c)
            if i < len(self.downsample):
                skips.append(h)
                h = self.downsample[i](h)
        for upsample, merge, stage in zip(self.upsample, self.merge, self.up, strict=True):
            h = upsample(F.interpolate(h, scale_factor=2, mode="nearest"))
            h = merge(torch.cat([h, skips.pop()], dim=1))
            for block in stage:
                h = block(h, c)
        return self.final_conv(F.silu(self.final_norm(h))).to(x.dtype)

    @torch.no_grad()
    def init_weights(self) -> None:
        """As the latent model, with Xavier-uniform convolutions; the output is exactly 0."""
        init_linears(self)
        init_bias_tables(self)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        init_embedders(self)
        if self.config.augment_dim:
            nn.init.normal_(self.augment_embedder.weight, std=0.02)
        zero_module(self.final_conv)
