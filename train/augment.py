"""EDM's non-leaky augmentation (2206.00364, appendix F.2): pictures warped at random, and told of it.

The network gets how each picture was warped as 9 numbers, all 0 when drawing, so that it draws unwarped ones.
A departure: pictures are resampled at twice their size with bicubic and bilinear filters, not with wavelets.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SCALE, ANISOTROPY, SHIFT = 0.2, 0.2, 0.125  # deviations: of log2 of the sizes, and in sides of the picture
TURNED_ANISOTROPY = 0.5  # share of the stretches that are along a random direction


def augment(x: Tensor, probability: float) -> tuple[Tensor, Tensor]:
    """Pictures x (N, C, H, W) warped, and the labels (N, 9) that say how, on the device of x.

    Mirrored always with even odds; upside down, scaled, turned, stretched and moved, each with `probability`.
    Drawn from torch's generator on the CPU.
    """
    N = len(x)

    def chosen(value: Tensor) -> Tensor:
        """value (N, ...) where the dice say so, else 0."""
        dice = torch.rand(N, *[1] * (value.ndim - 1))
        return torch.where(dice < probability, value, torch.zeros_like(value))

    mirrored = torch.randint(0, 2, (N,)).float()
    upturned = chosen(torch.randint(0, 2, (N,)).float())
    scaled = chosen(torch.randn(N))
    turned = chosen((torch.rand(N) * 2 - 1) * math.pi)
    stretched = chosen(torch.randn(N))
    along = torch.where(torch.rand(N) < TURNED_ANISOTROPY, (torch.rand(N) * 2 - 1) * math.pi, torch.zeros(N))
    moved = chosen(torch.randn(N, 2))
    labels = [mirrored, upturned, scaled, turned.cos() - 1, turned.sin()]
    labels += [stretched * along.cos(), stretched * along.sin(), moved[:, 0], moved[:, 1]]

    stretch = torch.exp2(ANISOTROPY * stretched)
    warp = _scaling(torch.exp2(SCALE * scaled), torch.exp2(SCALE * scaled)) @ _turning(-turned)
    warp = warp @ _turning(along) @ _scaling(stretch, 1 / stretch) @ _turning(-along)
    warp = warp @ _moving(moved * SHIFT * 2)  # affine_grid's picture is 2 wide
    x = _where(mirrored, x.flip(-1), x)
    x = _where(upturned, x.flip(-2), x)
    is_warped = ((scaled != 0) | (turned != 0) | (stretched != 0) | (moved != 0).any(dim=1)).float()
    if is_warped.any():
        x = _where(is_warped, _resample(x, warp.inverse().to(x.device)), x)  # the others stay as they are
    return x, torch.stack(labels, dim=1).to(x.device)


def _where(flags: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(flags.bool().view(-1, 1, 1, 1).to(no.device), yes, no)


def _resample(x: Tensor, inverse: Tensor) -> Tensor:
    """x (N, C, H, W) seen through the inverse (N, 3, 3) of its warp, mirrored beyond the edges."""
    N, C, H, W = x.shape
    grid = F.affine_grid(inverse[:, :2].to(x.dtype), [N, C, 2 * H, 2 * W], align_corners=False)
    larger = F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
    return F.avg_pool2d(F.grid_sample(larger, grid, padding_mode="reflection", align_corners=False), 2)


def _matrix(rows: list[list[Tensor]]) -> Tensor:
    """(N, 3, 3) from two rows of three (N,)."""
    like = rows[0][0]
    last = [torch.zeros_like(like), torch.zeros_like(like), torch.ones_like(like)]
    return torch.stack([torch.stack(row, dim=-1) for row in [*rows, last]], dim=-2)


def _scaling(across: Tensor, down: Tensor) -> Tensor:
    zero = torch.zeros_like(across)
    return _matrix([[across, zero, zero], [zero, down, zero]])


def _turning(angle: Tensor) -> Tensor:
    zero = torch.zeros_like(angle)
    return _matrix([[angle.cos(), -angle.sin(), zero], [angle.sin(), angle.cos(), zero]])


def _moving(by: Tensor) -> Tensor:
    zero, one = torch.zeros(len(by)), torch.ones(len(by))
    return _matrix([[one, zero, by[:, 0]], [zero, one, by[:, 1]]])
