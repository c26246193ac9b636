"""What every network shares: a config, where its weights come from, and how it is called."""

from typing import Any

import torch
from torch import Tensor, nn

from dit.config import ModelConfig


class Backbone(nn.Module):
    """A network of noisy pictures, noise levels and labels: `model(x, t, y)`.

    x: (N, C, H, W). t: (N,) raw timestep 0..999; of an EDM model (`config.formulation`) c_noise, that is
    ln(sigma) / 4; of a flow model 1000 t. y: (N,) labels, `num_classes` being the null class; None for an
    unconditional model.
    Returns (N, 2C, H, W), the prediction and the variance logits after it, or (N, C, H, W) without
    `learn_sigma`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.provenance: dict[str, Any] = {}  # of loaded weights: dataset, recipe, classes, results, ...

    def check_labels(self, y: Tensor | None) -> None:
        """Raises ValueError if a conditional model is called without labels."""
        if self.config.num_classes and y is None:
            raise ValueError(
                f"this model has {self.config.num_classes} classes: give y, a label for each picture"
            )


@torch.no_grad()
def init_linears(model: nn.Module) -> None:
    """Xavier-uniform weights and zero biases, as the DiT authors initialise every linear layer."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


@torch.no_grad()
def init_embedders(model: nn.Module) -> None:
    """Timestep MLPs and label tables from N(0, 0.02^2), as the DiT authors; wherever the model has them."""
    for module in model.modules():
        if hasattr(module, "t_embedder"):  # the model, or embedders of a block's own
            for linear in (module.t_embedder.mlp[0], module.t_embedder.mlp[2]):
                nn.init.normal_(linear.weight, std=0.02)
            if hasattr(module, "y_embedder"):
                nn.init.normal_(module.y_embedder.embedding_table.weight, std=0.02)


@torch.no_grad()
def zero_module(layer: nn.Linear | nn.Conv2d) -> None:
    """Weight and bias to 0: until it is trained, the layer's output is 0."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
