"""From a config to its network."""

from dit.backbone import Backbone
from dit.config import ModelConfig
from dit.diffit import DiffiT
from dit.diffit_image import ImageDiffiT
from dit.dit import DiT
from dit.unet import UNet

NETWORKS: dict[str, type[Backbone]] = {
    "dit": DiT,
    "diffit": DiffiT,
    "diffit-image": ImageDiffiT,
    "unet": UNet,
}


def network(config: ModelConfig) -> Backbone:
    """The network of a config, its weights not yet set: to be loaded, or to be counted on the meta device."""
    return NETWORKS[config.backbone](config)


def initialised(config: ModelConfig) -> Backbone:
    """The network of a config, ready to be trained; its output is exactly 0."""
    model = network(config)
    model.init_weights()
    return model
