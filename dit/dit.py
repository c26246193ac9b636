"""DiT, Peebles & Xie 2023 (2212.09748): a transformer that predicts the noise in a latent or a picture."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dit.config import ModelConfig
from dit.layers import (
    Attention,
    LabelEmbedder,
    Mlp,
    PatchEmbed,
    TimestepEmbedder,
    modulate,
    sincos_position_table,
)

LAYER_NORM_EPS = 1e-6


class AdaLNZeroBlock(nn.Module):
    """Transformer block whose layer norms and residual gates are set by the conditioning (Fig. 3)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D = config.hidden_size
        self.mlp_norm_eps = config.mlp_norm_eps
        self.attn = Attention(D, config.num_heads)
        self.mlp = Mlp(D, config.mlp_ratio)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(D, 6 * D))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """x: (N, T, D) tokens. c: (N, D) conditioning."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = (
            self.adaLN_modulation(c).unsqueeze(1).chunk(6, dim=-1)
        )
        norm = x.shape[-1:]  # below, addcmul is x + gate * branch, in one pass over memory
        x = torch.addcmul(
            x, gate_a, self.attn(modulate(F.layer_norm(x, norm, eps=LAYER_NORM_EPS), shift_a, scale_a))
        )
        return torch.addcmul(
            x, gate_m, self.mlp(modulate(F.layer_norm(x, norm, eps=self.mlp_norm_eps), shift_m, scale_m))
        )


class FinalLayer(nn.Module):
    """Modulated layer norm, then a linear to the pixels of a patch."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D = config.hidden_size
        self.linear = nn.Linear(D, config.patch_size**2 * config.out_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(D, 2 * D))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """x: (N, T, D), c: (N, D) -> (N, T, p * p * channels)."""
        shift, scale = self.adaLN_modulation(c).unsqueeze(1).chunk(2, dim=-1)
        return self.linear(modulate(F.layer_norm(x, x.shape[-1:], eps=LAYER_NORM_EPS), shift, scale))


class Embedders(nn.Module):
    """A timestep embedder and a label embedder."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.t_embedder = TimestepEmbedder(config.hidden_size, config.frequency_shift)
        if config.num_classes:
            self.y_embedder = LabelEmbedder(config.num_classes, config.hidden_size, config.class_dropout_prob)


class DiT(nn.Module):
    """The diffusion transformer, adaLN-Zero. Its state dict has the authors' layout."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.provenance: dict[str, Any] = {}  # of loaded weights: dataset, recipe, classes, results, ...
        D = config.hidden_size
        self.x_embedder = PatchEmbed(config.patch_size, config.in_channels, D)
        for name, embedder in Embedders(config).named_children():  # here, not below: the authors' layout
            self.add_module(name, embedder)
        # A parameter, though never trained, because the authors' files carry it.
        self.pos_embed = nn.Parameter(torch.empty(1, config.tokens, D), requires_grad=False)
        self.blocks = nn.ModuleList(AdaLNZeroBlock(config) for _ in range(config.depth))
        if config.block_embedders:  # of all blocks but the first, which shares the final layer's
            self.embedders = nn.ModuleList(Embedders(config) for _ in range(config.depth - 1))
        self.final_layer = FinalLayer(config)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Predict the noise, and the variance logits after it.

        x: (N, C, H, W). t: (N,) raw timestep 0..999. y: (N,) labels, `num_classes` being the null class; None
        for an unconditional model. Returns (N, 2C, H, W), or (N, C, H, W) without `learn_sigma`.
        """
        if self.config.num_classes and y is None:
            raise ValueError(
                f"this model has {self.config.num_classes} classes: give y, a label for each picture"
            )
        c = self._condition(self, t, y)
        tokens = self.x_embedder(x.to(self.pos_embed.dtype)) + self.pos_embed
        for i, block in enumerate(self.blocks):
            own = self.config.block_embedders and i > 0
            tokens = block(tokens, self._condition(self.embedders[i - 1], t, y) if own else c)
        return self.unpatchify(self.final_layer(tokens, c)).to(x.dtype)  # weights may be in half precision

    def _condition(self, embedders: nn.Module, t: Tensor, y: Tensor | None) -> Tensor:
        """t: (N,), y: (N,) -> (N, D)."""
        c = embedders.t_embedder(t)
        return c + embedders.y_embedder(y) if self.config.num_classes else c

    def unpatchify(self, tokens: Tensor) -> Tensor:
        """(N, T, p * p * channels), laid out row, column, channel -> (N, channels, H, W)."""
        p, side = self.config.patch_size, self.config.input_size // self.config.patch_size
        patches = tokens.view(len(tokens), side, side, p, p, self.config.out_channels)
        return patches.permute(0, 5, 1, 3, 2, 4).reshape(
            len(tokens), self.config.out_channels, self.config.input_size, self.config.input_size
        )


@torch.no_grad()
def init_weights(model: DiT) -> None:
    """The authors' initialisation: every block starts as the identity and the output as exactly 0."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    nn.init.xavier_uniform_(model.x_embedder.proj.weight.flatten(1))  # as the linear layer that it is
    nn.init.zeros_(model.x_embedder.proj.bias)
    for module in model.modules():
        if isinstance(module, DiT | Embedders):
            for linear in (module.t_embedder.mlp[0], module.t_embedder.mlp[2]):
                nn.init.normal_(linear.weight, std=0.02)
            if model.config.num_classes:
                nn.init.normal_(module.y_embedder.embedding_table.weight, std=0.02)
    side = model.config.input_size // model.config.patch_size
    model.pos_embed.copy_(sincos_position_table(model.config.hidden_size, side)[None])
    for layer in (*model.blocks, model.final_layer):
        nn.init.zeros_(layer.adaLN_modulation[1].weight)
        nn.init.zeros_(layer.adaLN_modulation[1].bias)
    nn.init.zeros_(model.final_layer.linear.weight)
    nn.init.zeros_(model.final_layer.linear.bias)
