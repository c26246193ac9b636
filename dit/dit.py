"""DiT, Peebles & Xie 2023 (2212.09748): a transformer that predicts the noise in a latent or a picture."""

import torch
from torch import Tensor, nn

from dit.backbone import Backbone, init_embedders, init_linears, zero_module
from dit.blocks import DESIGNS, AdaLNZeroBlock, FinalLayer
from dit.config import ModelConfig
from dit.layers import Embedders, PatchEmbed, Run, compute, sincos_position_table


class DiT(Backbone):
    """The diffusion transformer in its four block designs; adaLN-Zero has the authors' state-dict layout."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        block, final_layer = self._design(config)
        D = config.hidden_size
        self.x_embedder = PatchEmbed(config.patch_size, config.in_channels, D)
        for name, embedder in Embedders(config).named_children():  # here, not below: the authors' layout
            self.add_module(name, embedder)
        # A parameter, though never trained, because the authors' files carry it.
        self.pos_embed = nn.Parameter(torch.empty(1, config.tokens, D), requires_grad=False)
        self.blocks = nn.ModuleList(block(config) for _ in range(config.depth))
        if config.block_embedders:  # of all blocks but the first, which shares the final layer's
            self.embedders = nn.ModuleList(Embedders(config) for _ in range(config.depth - 1))
        self.final_layer = final_layer(config)

    def _design(self, config: ModelConfig) -> tuple[type[nn.Module], type[nn.Module]]:
        """Classes of the blocks and of the final layer."""
        return DESIGNS[config.conditioning]

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None, run: Run = compute) -> Tensor:
        """See `Backbone`. run: how the branches of the blocks come to their results (see `step_cache`)."""
        self.check_labels(y)
        c, T = self._condition(self, t, y), self.config.tokens
        tokens = self.x_embedder(x.to(self.pos_embed.dtype)) + self.pos_embed
        if self.config.conditioning == "in-context":
            tokens = torch.cat([tokens, c], dim=1)
        for i, block in enumerate(self.blocks):
            own = self.config.block_embedders and i > 0
            tokens = block(tokens, self._condition(self.embedders[i - 1], t, y) if own else c, run)
        return self.unpatchify(self.final_layer(tokens[:, :T], c)).to(x.dtype)  # weights may be in half

    def _condition(self, embedders: nn.Module, t: Tensor, y: Tensor | None) -> Tensor:
        """t: (N,), y: (N,) -> (N, D), the sum of both; (N, 2, D) if the design wants tokens."""
        parts = [embedders.t_embedder(t)]
        if self.config.num_classes:
            parts.append(embedders.y_embedder(y))
        if self.config.conditioning in ("in-context", "cross-attention"):
            return torch.stack(parts, dim=1)
        return sum(parts[1:], parts[0])

    def unpatchify(self, tokens: Tensor) -> Tensor:
        """(N, T, p * p * channels), laid out row, column, channel -> (N, channels, H, W)."""
        p, side = self.config.patch_size, self.config.input_size // self.config.patch_size
        patches = tokens.view(len(tokens), side, side, p, p, self.config.out_channels)
        return patches.permute(0, 5, 1, 3, 2, 4).reshape(
            len(tokens), self.config.out_channels, self.config.input_size, self.config.input_size
        )

    @torch.no_grad()
    def init_weights(self) -> None:
        """The authors' initialisation: the output is exactly 0, and every adaLN-Zero block the identity.

        The other designs differ only in that no block is: what is zeroed, its name says. The final layer's
        modulation, zero in the authors' code, is so wherever there is one.
        """
        init_linears(self)
        nn.init.xavier_uniform_(self.x_embedder.proj.weight.flatten(1))  # as the linear layer that it is
        nn.init.zeros_(self.x_embedder.proj.bias)
        init_embedders(self)
        side = self.config.input_size // self.config.patch_size
        self.pos_embed.copy_(sincos_position_table(self.config.hidden_size, side)[None])
        for layer in self.modules():
            if isinstance(layer, AdaLNZeroBlock | FinalLayer):
                zero_module(layer.adaLN_modulation[1])
        zero_module(self.final_layer.linear)
