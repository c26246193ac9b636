"""DiT's four block designs, and the layers that end each: Peebles & Xie 2023, section 3.2 and Fig. 3.

In-context and cross-attention are plain ViT blocks. Whether their layer norms are affine, the paper does not
say; here they are, as in the ViT that it starts from, since nothing else could scale what they normalise.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dit.config import ModelConfig
from dit.layers import LAYER_NORM_EPS, Attention, Mlp, Run, add_head_norms, compute, modulate, norm


def modulation(hidden_size: int, parts: int) -> nn.Sequential:
    """From the conditioning to `parts` vectors, under the authors' name adaLN_modulation."""
    return nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, parts * hidden_size))


class AdaLNZeroBlock(nn.Module):
    """Layer norms and residual gates are set by the conditioning; gates of 0 make it the identity."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D = config.hidden_size
        self.mlp_norm_eps = config.mlp_norm_eps
        self.attn = Attention(D, config.num_heads, config.qk_norm)
        self.mlp = Mlp(D, config.mlp_ratio)
        self.adaLN_modulation = modulation(D, 6)

    def forward(self, x: Tensor, c: Tensor, run: Run = compute) -> Tensor:
        """x: (N, T, D) tokens. c: (N, D) conditioning."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = (
            self.adaLN_modulation(c).unsqueeze(1).chunk(6, dim=-1)
        )
        # addcmul is x + gate * branch, in one pass over memory
        x = torch.addcmul(x, gate_a, run(self.attn, lambda: (modulate(norm(x), shift_a, scale_a),)))
        return torch.addcmul(
            x, gate_m, run(self.mlp, lambda: (modulate(norm(x, self.mlp_norm_eps), shift_m, scale_m),))
        )


class AdaLNBlock(nn.Module):
    """Layer norms are set by the conditioning; the residual branches have no gates."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D = config.hidden_size
        self.attn = Attention(D, config.num_heads, config.qk_norm)
        self.mlp = Mlp(D, config.mlp_ratio)
        self.adaLN_modulation = modulation(D, 4)

    def forward(self, x: Tensor, c: Tensor, run: Run = compute) -> Tensor:
        """x: (N, T, D) tokens. c: (N, D) conditioning."""
        shift_a, scale_a, shift_m, scale_m = self.adaLN_modulation(c).unsqueeze(1).chunk(4, dim=-1)
        x = x + run(self.attn, lambda: (modulate(norm(x), shift_a, scale_a),))
        return x + run(self.mlp, lambda: (modulate(norm(x), shift_m, scale_m),))


class InContextBlock(nn.Module):
    """A plain ViT block: timestep and label are two of its tokens (see `DiT.forward`)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D = config.hidden_size
        self.norm1 = nn.LayerNorm(D, eps=LAYER_NORM_EPS)
        self.attn = Attention(D, config.num_heads, config.qk_norm)
        self.norm2 = nn.LayerNorm(D, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(D, config.mlp_ratio)

    def forward(self, x: Tensor, _: Tensor, run: Run = compute) -> Tensor:
        """x: (N, T + 2, D) tokens."""
        x = x + run(self.attn, lambda: (self.norm1(x),))
        return x + run(self.mlp, lambda: (self.norm2(x),))


class CrossAttention(nn.Module):
    """Multi-head attention from the picture's tokens to those of the conditioning."""

    def __init__(self, hidden_size: int, num_heads: int, qk_norm: bool = False) -> None:
        super().__init__()
        self.num_heads = num_heads
        add_head_norms(self, hidden_size // num_heads, qk_norm)
        self.q = nn.Linear(hidden_size, hidden_size)
        self.kv = nn.Linear(hidden_size, 2 * hidden_size)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """x: (N, T, D), memory: (N, M, D) -> (N, T, D)."""
        N, T, D = x.shape
        q = self.q(x).view(N, T, self.num_heads, -1).transpose(1, 2)
        k, v = self.kv(memory).view(N, memory.shape[1], 2, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v)
        return self.proj(x.transpose(1, 2).reshape(N, T, D))


class CrossAttentionBlock(nn.Module):
    """A ViT block that, after looking at itself, looks at two tokens: timestep and label."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D = config.hidden_size
        self.norm1 = nn.LayerNorm(D, eps=LAYER_NORM_EPS)
        self.attn = Attention(D, config.num_heads, config.qk_norm)
        self.norm_cross = nn.LayerNorm(D, eps=LAYER_NORM_EPS)
        self.cross_attn = CrossAttention(D, config.num_heads, config.qk_norm)
        self.norm2 = nn.LayerNorm(D, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(D, config.mlp_ratio)

    def forward(self, x: Tensor, memory: Tensor, run: Run = compute) -> Tensor:
        """x: (N, T, D) tokens. memory: (N, 2, D), the embeddings of timestep and label."""
        x = x + run(self.attn, lambda: (self.norm1(x),))
        x = x + run(self.cross_attn, lambda: (self.norm_cross(x), memory))
        return x + run(self.mlp, lambda: (self.norm2(x),))


class FinalLayer(nn.Module):
    """Of the adaLN designs: a modulated layer norm, then a linear to the pixels of a patch."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D = config.hidden_size
        self.linear = nn.Linear(D, config.patch_size**2 * config.out_channels)
        self.adaLN_modulation = modulation(D, 2)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """x: (N, T, D), c: (N, D) -> (N, T, p * p * channels)."""
        shift, scale = self.adaLN_modulation(c).unsqueeze(1).chunk(2, dim=-1)
        return self.linear(modulate(norm(x), shift, scale))


class PlainFinalLayer(nn.Module):
    """Of the other two: an ordinary layer norm and a linear."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)
        self.linear = nn.Linear(config.hidden_size, config.patch_size**2 * config.out_channels)

    def forward(self, x: Tensor, _: Tensor) -> Tensor:
        """x: (N, T, D) -> (N, T, p * p * channels)."""
        return self.linear(self.norm_final(x))


DESIGNS: dict[str, tuple[type[nn.Module], type[nn.Module]]] = {  # conditioning -> block and final layer
    "adaln-zero": (AdaLNZeroBlock, FinalLayer),
    "adaln": (AdaLNBlock, FinalLayer),
    "cross-attention": (CrossAttentionBlock, PlainFinalLayer),
    "in-context": (InContextBlock, PlainFinalLayer),
}
