"""The parts that the transformers are made of, named as in the DiT authors' state dict."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dit.config import FREQUENCIES, ModelConfig

LAYER_NORM_EPS = 1e-6
HEAD_NORM_EPS = 1e-6
Run = Callable[[nn.Module, Callable[[], tuple[Tensor, ...]]], Tensor]  # a branch of a block, on its inputs


def compute(branch: nn.Module, inputs: Callable[[], tuple[Tensor, ...]]) -> Tensor:
    """What a branch (attention or MLP) gives: the usual `run` of a block. See `step_cache` for another."""
    return branch(*inputs())


def norm(x: Tensor, eps: float = LAYER_NORM_EPS) -> Tensor:
    """Layer norm over the width, without weights of its own. x: (N, T, D)."""
    return F.layer_norm(x, x.shape[-1:], eps=eps)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x * (1 + scale) + shift; x: (N, T, D); shift, scale: (N, 1, D). Peebles & Xie 2023, section 3.2."""
    return torch.addcmul(shift, x, 1 + scale)


def infers_eagerly_on_cpu(x: Tensor) -> bool:
    """Whether x is float32 on a CPU, outside a compiled graph, and nobody asks for gradients."""
    plain = x.device.type == "cpu" and x.dtype == torch.float32
    return plain and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def gelu(x: Tensor) -> Tensor:
    """GELU, tanh approximation (Hendrycks & Gimpel 2016), any shape.

    (1 + tanh(u)) / 2 = sigmoid(2u), and on a CPU PyTorch's tanh takes far longer. An eager backward pass
    would store every factor, so there, and on other devices, the library's kernel serves.
    """
    linear, cubic = 2 * math.sqrt(2 / math.pi), 2 * math.sqrt(2 / math.pi) * 0.044715
    if infers_eagerly_on_cpu(x):
        gate = torch.addcmul(x.new_tensor(linear), x, x, value=cubic)
        return gate.mul_(x).sigmoid_().mul_(x)
    if x.device.type == "cpu" and torch.compiler.is_compiling():
        return x * torch.sigmoid(x * (linear + cubic * x * x))
    return F.gelu(x, approximate="tanh")


class HeadNorm(nn.RMSNorm):
    """QK-norm: RMS norm of a query or key over the width of its head, with a learned scale.

    With it no product of queries and keys can grow without bound (Dehghani et al. 2023, 2302.05442, with
    layer norm; RMS norm as in Stable Diffusion 3, 2403.03206).
    """

    def __init__(self, head_size: int) -> None:
        super().__init__(head_size, eps=HEAD_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., head_size) -> as x. Computed in float32, also under autocast."""
        return F.rms_norm(x.float(), self.normalized_shape, self.weight.float(), self.eps).to(x.dtype)


def add_head_norms(attention: nn.Module, head_size: int, qk_norm: bool) -> None:
    """Give an attention layer q_norm and k_norm, by timm's names; without `qk_norm` they do nothing."""
    attention.q_norm = HeadNorm(head_size) if qk_norm else nn.Identity()
    attention.k_norm = HeadNorm(head_size) if qk_norm else nn.Identity()


class Attention(nn.Module):
    """Multi-head self-attention over all tokens; one linear makes q, k and v."""

    def __init__(self, hidden_size: int, num_heads: int, qk_norm: bool = False) -> None:
        super().__init__()
        self.num_heads = num_heads
        add_head_norms(self, hidden_size // num_heads, qk_norm)
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, T, D) -> (N, T, D)."""
        N, T, D = x.shape
        q, k, v = self.qkv(x).view(N, T, 3, self.num_heads, D // self.num_heads).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v)
        return self.proj(x.transpose(1, 2).reshape(N, T, D))


class Mlp(nn.Module):
    """Linear, GELU (tanh approximation), linear."""

    CACHED_TOKENS = 512  # at a time when sampling on a CPU: so the widest activation stays in its cache

    def __init__(self, hidden_size: int, mlp_ratio: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, int(hidden_size * mlp_ratio))
        self.fc2 = nn.Linear(int(hidden_size * mlp_ratio), hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, T, D) -> (N, T, D)."""
        if infers_eagerly_on_cpu(x):
            parts = x.flatten(0, 1).split(self.CACHED_TOKENS)
            return torch.cat([self.fc2(gelu(self.fc1(part))) for part in parts]).view_as(x)
        return self.fc2(gelu(self.fc1(x)))


class PatchEmbed(nn.Module):
    """Cut a picture into p x p patches, row by row, and project each to a token."""

    def __init__(self, patch_size: int, in_channels: int, hidden_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, hidden_size, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) -> (N, T, D)."""
        return self.proj(x).flatten(2).transpose(1, 2).contiguous()  # later layers are slow on strides


def sinusoids(t: Tensor, shift: int = 0) -> Tensor:
    """t: (N,) in 0..999 -> (N, 256) float32, cosines first: the DiT authors' order.

    shift: what diffusers calls downscale_freq_shift; its DiT has 1, the authors' 0.
    """
    steps = torch.arange(FREQUENCIES, dtype=torch.float32, device=t.device)
    angles = t.float()[:, None] * torch.exp(-math.log(10000.0) * steps / (FREQUENCIES - shift))
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimestepEmbedder(nn.Module):
    """Sinusoids of the raw timestep (see `Backbone` for other formulations), then a two-layer MLP."""

    def __init__(self, hidden_size: int, frequency_shift: int = 0) -> None:
        super().__init__()
        self.frequency_shift = frequency_shift
        self.mlp = nn.Sequential(
            nn.Linear(2 * FREQUENCIES, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size)
        )

    def forward(self, t: Tensor) -> Tensor:
        """t: (N,) -> (N, D)."""
        return self.mlp(sinusoids(t, self.frequency_shift).to(self.mlp[0].weight.dtype))


class LabelDropout(nn.Module):
    """In training mode, each label becomes the null class with a probability."""

    def __init__(self, num_classes: int, dropout_prob: float) -> None:
        super().__init__()
        self.num_classes, self.dropout_prob = num_classes, dropout_prob

    def forward(self, y: Tensor) -> Tensor:
        """y: (N,) -> (N,)."""
        if not (self.training and self.dropout_prob > 0):
            return y
        return torch.where(torch.rand(y.shape, device=y.device) < self.dropout_prob, self.num_classes, y)


def drops_no_labels(model: nn.Module) -> nn.Module:
    """The model, its label dropout off until the next `model.train()`: its labels come dropped already."""
    for module in model.modules():
        if isinstance(module, LabelDropout):
            module.eval()
    return model


class LabelEmbedder(nn.Module):
    """A table of class vectors; its last row is the null class, if labels are ever dropped."""

    def __init__(self, num_classes: int, hidden_size: int, dropout_prob: float) -> None:
        super().__init__()
        self.dropout = LabelDropout(num_classes, dropout_prob)
        table = torch.empty(num_classes + (dropout_prob > 0), hidden_size)
        if not table.is_meta:  # there, drawing normal numbers takes torch more than a second the first time
            nn.init.normal_(table)
        self.embedding_table = nn.Embedding.from_pretrained(table, freeze=False)

    def forward(self, y: Tensor) -> Tensor:
        """y: (N,) -> (N, D). In training mode each label becomes the null class with `dropout_prob`."""
        return self.embedding_table(self.dropout(y))


class Embedders(nn.Module):
    """A timestep embedder and a label embedder."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.t_embedder = TimestepEmbedder(config.hidden_size, config.frequency_shift)
        if config.num_classes:
            self.y_embedder = LabelEmbedder(config.num_classes, config.hidden_size, config.class_dropout_prob)


def sincos_position_table(hidden_size: int, side: int) -> Tensor:
    """Fixed 2-D sine-cosine positions -> (side * side, D), float32, tokens row by row.

    The first D/2 channels encode the COLUMN, the rest the row, each as [sin, cos]; computed in float64 as the
    authors do, so that a table in an official file equals ours bit for bit.
    """
    omega = 10000.0 ** -(torch.arange(hidden_size // 4, dtype=torch.float64) / (hidden_size // 4))
    angles = torch.arange(side, dtype=torch.float64)[:, None] * omega
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, D/2)
    columns, rows = axis.repeat(side, 1), axis.repeat_interleave(side, 0)
    return torch.cat([columns, rows], dim=1).float()
