"""DiffiT, Hatamizadeh et al. 2024 (2312.02139): attention whose queries, keys and values depend on time.

The latent model, in the layout of the authors' files. Depth is a field: the paper says 30, the released code
builds 28, and only 28 has the 561 M parameters of the paper's Table 9.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dit.config import ModelConfig
from dit.dit import DiT
from dit.layers import Mlp, Run, add_head_norms, compute, norm


def relative_position_index(window: int, device: torch.device | None = None) -> Tensor:
    """Row of the bias table for each pair of places in a square window -> (T, T) int64, T = window**2.

    Liu et al. 2021 (Swin, 2103.14030), section 3.2: rows are counted by vertical, then horizontal offset.
    """
    place = torch.arange(window, device=device)
    rows, columns = place.repeat_interleave(window), place.repeat(window)
    down, right = rows[:, None] - rows, columns[:, None] - columns
    return (down + window - 1) * (2 * window - 1) + right + window - 1


class TMSA(nn.Module):
    """Time-dependent multi-head self-attention over a square window (DiffiT, Eq. 3 to 6).

    In evaluation the bias stays one mask for all pictures. In training it wants a gradient, for which torch
    has only kernels that keep the scores of every picture: (N, heads, T, T) a block.

    c enters as it is, without the activation that adaLN has in front; both projections have a bias: the
    authors' code, where the paper's equations have none.
    """

    def __init__(
        self, width: int, time_width: int, num_heads: int, window: int, qk_norm: bool = False
    ) -> None:
        super().__init__()
        add_head_norms(self, width // num_heads, qk_norm)
        self.num_heads, self.window = num_heads, window
        self.qkv = nn.Linear(width, 3 * width)
        self.qkv_temb = nn.Linear(time_width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, num_heads))

    def bias(self) -> Tensor:
        """B of Eq. 6, for all pictures alike: (1, heads, T, T)."""
        table = self.relative_position_bias_table
        return table[relative_position_index(self.window, table.device)].permute(2, 0, 1).unsqueeze(0)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """x: (N * windows, T, width), windows of a picture together; c: (N, time_width) -> as x."""
        B, T, D = x.shape
        time = self.qkv_temb(c).repeat_interleave(B // len(c), dim=0).unsqueeze(1)
        q, k, v = (self.qkv(x) + time).view(B, T, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        # One mask for all, broadcast inside the kernel: no copy a picture.
        q, k, mask = self.q_norm(q), self.k_norm(k), self.bias().to(q.dtype)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(x.transpose(1, 2).reshape(B, T, D))


class DiffiTBlock(nn.Module):
    """x + TMSA(norm(x), c), then x + MLP(norm(x)): no gates, no modulation (DiffiT, Eq. 7 and 8)."""

    def __init__(
        self,
        width: int,
        time_width: int,
        num_heads: int,
        window: int,
        mlp_ratio: float,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        self.attn = TMSA(width, time_width, num_heads, window, qk_norm)
        self.mlp = Mlp(width, mlp_ratio)

    def forward(self, x: Tensor, c: Tensor, run: Run = compute) -> Tensor:
        """x: (N * windows, T, width), c: (N, time_width) -> as x."""
        x = x + run(self.attn, lambda: (norm(x), c))
        return x + run(self.mlp, lambda: (norm(x),))


class GlobalBlock(DiffiTBlock):
    """The latent model's block: its window is the whole grid."""

    def __init__(self, config: ModelConfig) -> None:
        D, window = config.hidden_size, config.input_size // config.patch_size
        super().__init__(D, D, config.num_heads, window, config.mlp_ratio, config.qk_norm)


class DiffiTFinalLayer(nn.Module):
    """Layer norm, SiLU, linear; it does not hear of the conditioning (the authors' code)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.hidden_size, config.patch_size**2 * config.out_channels)

    def forward(self, x: Tensor, _: Tensor) -> Tensor:
        """x: (N, T, D) -> (N, T, p * p * channels)."""
        return self.linear(F.silu(norm(x)))


class DiffiT(DiT):
    """The latent DiffiT: a DiT whose blocks are TMSA and whose final layer is unconditioned."""

    def _design(self, config: ModelConfig) -> tuple[type[nn.Module], type[nn.Module]]:
        return GlobalBlock, DiffiTFinalLayer

    @torch.no_grad()
    def init_weights(self) -> None:
        """As DiT, but no block starts as the identity; bias tables from a truncated normal, 0.02."""
        super().init_weights()
        init_bias_tables(self)


def init_bias_tables(model: nn.Module) -> None:
    """Truncated normal, standard deviation 0.02, as in Swin."""
    for module in model.modules():
        if isinstance(module, TMSA):
            nn.init.trunc_normal_(module.relative_position_bias_table, std=0.02)
