"""The U-Net that DiT and DiffiT are compared with: ADM's and LDM's kind, diffusers' UNet2DModel."""

from typing import Any

from torch import Tensor

from dit.backbone import Backbone, zero_module
from dit.config import ModelConfig
from dit.layers import LabelDropout


def norm_groups(config: ModelConfig) -> int:
    """As many groups as divide all widths, up to ADM's 32, each of at least 4 channels."""
    width = config.hidden_size
    return max(count for count in range(1, 33) if width % count == 0 and width // count >= 4)


def unet_arguments(config: ModelConfig) -> dict[str, Any]:
    """What UNet2DModel is made with: attention in all stages but the first, and in the middle."""
    inner = len(config.channel_mult) - 1
    return {
        "sample_size": config.input_size,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "block_out_channels": tuple(width for width, _ in config.stages),
        "layers_per_block": config.depth,
        "down_block_types": ("DownBlock2D", *["AttnDownBlock2D"] * inner),
        "up_block_types": (*["AttnUpBlock2D"] * inner, "UpBlock2D"),
        "attention_head_dim": config.head_size,
        "norm_num_groups": norm_groups(config),
        "dropout": config.dropout,
        "num_class_embeds": config.label_rows or None,
    }


class UNet(Backbone):
    """diffusers' UNet2DModel, called as all other networks are, with labels dropped in training."""

    def __init__(self, config: ModelConfig) -> None:
        from diffusers import UNet2DModel  # takes seconds: only where one is made

        super().__init__(config)
        self.label_dropout = LabelDropout(config.num_classes, config.class_dropout_prob)
        self.unet = UNet2DModel(**unet_arguments(config))

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """See `Backbone`."""
        self.check_labels(y)
        y = self.label_dropout(y) if self.config.num_classes else None
        return self.unet(x.to(self.unet.dtype), t, y, return_dict=False)[0].to(x.dtype)

    def init_weights(self) -> None:
        """diffusers' own, but that the output starts at exactly 0, as that of all other networks here."""
        zero_module(self.unet.conv_out)
