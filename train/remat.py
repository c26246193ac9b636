"""Less memory for more compute: blocks keep only their inputs, and compute the rest again when going back."""

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from dit.backbone import Backbone
from dit.diffit_image import ResBlock

UNET_PARTS = ("ResnetBlock2D", "Attention")  # of diffusers, whose import takes seconds


def parts(model: Backbone) -> list[nn.Module]:
    """What is computed again: transformer blocks; of the U-shapes residual blocks and attention."""
    if hasattr(model, "blocks"):
        return list(model.blocks)
    return [
        part for part in model.modules() if isinstance(part, ResBlock) or type(part).__name__ in UNET_PARTS
    ]


def rematerialise(model: Backbone) -> None:
    """Make a model's blocks keep only their inputs while gradients are wanted; its numbers stay the same.

    A third more compute, as each block runs forwards twice (Chen et al., 1604.06174). Copies that are
    made afterwards would compute with this one's blocks: copy it before, as for the average.
    """
    for part in parts(model):
        part.forward = partial(checkpoint, part.forward, use_reentrant=False)
