"""EDM's non-leaky augmentation (2206.00364, appendix F.2): pictures warped at random, and told of it.

The network gets how each picture was warped as 9 numbers, all 0 when drawing, so that it draws unwarped ones.
A departure: pictures are resampled at twice their size with bicubic and bilinear filters, not with wavelets.
"""

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

SCALE, STRETCH, SHIFT = 0.2, 0.2, 0.125  # deviations: of log2 of the sizes, and in sides of the picture
ALONG_A_DIRECTION = 0.5  # share of the stretches that are along a random direction, not along the rows


@dataclass(frozen=True)
class Warps:
    """How each of N pictures is warped; all zero: not at all."""

    mirrored: Tensor  # (N,) 0 or 1: left to right
    upturned: Tensor  # (N,) 0 or 1: upside down
    scaled: Tensor  # (N,) log2 of the size, in units of SCALE
    turned: Tensor  # (N,) radians, counter-clockwise
    stretched: Tensor  # (N,) log2 of the longer side, in units of STRETCH; the other side shrinks as much
    along: Tensor  # (N,) direction of the stretch, radians
    moved: Tensor  # (N, 2) to the right and down, in units of SHIFT

    @classmethod
    def draw(cls, n: int, probability: float, generator: torch.Generator | None = None) -> "Warps":
        """Mirrored with even odds, all else with `probability` each, drawn on the CPU.

        generator: None is torch's own.
        """

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        def coins() -> Tensor:
            return torch.randint(0, 2, (n,), generator=generator).float()

        def chosen(value: Tensor) -> Tensor:
            """value (n, ...) where the dice say so, else 0."""
            dice = uniform(n, *[1] * (value.ndim - 1))
            return torch.where(dice < probability, value, torch.zeros_like(value))

        direction = (uniform(n) * 2 - 1) * math.pi
        return cls(
            mirrored=coins(),
            upturned=chosen(coins()),
            scaled=chosen(normal(n)),
            turned=chosen((uniform(n) * 2 - 1) * math.pi),
            stretched=chosen(normal(n)),
            along=torch.where(uniform(n) < ALONG_A_DIRECTION, direction, torch.zeros(n)),
            moved=chosen(normal(n, 2)),
        )

    def of(self, rows: slice) -> "Warps":
        """Those of some of the pictures."""
        return Warps(*(getattr(self, field.name)[rows] for field in fields(self)))

    def labels(self) -> Tensor:
        """The 9 numbers that the network is told, (N, 9)."""
        return torch.stack(
            [
                self.mirrored,
                self.upturned,
                self.scaled,
                self.turned.cos() - 1,
                self.turned.sin(),
                self.stretched * self.along.cos(),
                self.stretched * self.along.sin(),
                *self.moved.unbind(dim=1),
            ],
            dim=1,
        )

    def matrices(self) -> Tensor:
        """What is not a mirroring, as a map of places: (N, 3, 3) in units of half a side, rows downwards.

        In EDM's order: sized, turned, stretched along a direction of the picture's frame, then moved.
        """
        size, length = torch.exp2(SCALE * self.scaled), torch.exp2(STRETCH * self.stretched)
        stretch = _turning(self.along) @ _scaling(length, 1 / length) @ _turning(-self.along)
        return _moving(2 * SHIFT * self.moved) @ stretch @ _turning(-self.turned) @ _scaling(size, size)

    def apply(self, x: Tensor) -> Tensor:
        """The pictures x (N, C, H, W), warped; those with nothing to do stay as they are, bit for bit."""
        x = _where(self.mirrored, x.flip(-1), x)
        x = _where(self.upturned, x.flip(-2), x)
        others = torch.stack([self.scaled, self.turned, self.stretched, *self.moved.unbind(1)])
        is_warped = (others != 0).any(dim=0)
        if not is_warped.any():
            return x
        return _where(is_warped, _resample(x, self.matrices().inverse().to(x.device, x.dtype)), x)


def augment(x: Tensor, warps: Warps) -> tuple[Tensor, Tensor]:
    """Pictures x (N, C, H, W), warped, and the labels (N, 9) that say how, on the device of x."""
    with torch.autocast(x.device.type, enabled=False):  # half precision would warp otherwise than labelled
        return warps.apply(x), warps.labels().to(x.device)


def _where(flags: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(flags.bool().view(-1, 1, 1, 1).to(no.device), yes, no)


def _resample(x: Tensor, inverse: Tensor) -> Tensor:
    """x (N, C, H, W) seen through the inverse (N, 3, 3) of a map of places, mirrored beyond the edges."""
    N, C, H, W = x.shape
    grid = F.affine_grid(inverse[:, :2], [N, C, 2 * H, 2 * W], align_corners=False)
    larger = F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
    return F.avg_pool2d(F.grid_sample(larger, grid, padding_mode="reflection", align_corners=False), 2)


def _matrix(across: list[Tensor], down: list[Tensor]) -> Tensor:
    """(N, 3, 3) from two rows of three (N,)."""
    zero, one = torch.zeros_like(across[0]), torch.ones_like(across[0])
    return torch.stack([torch.stack(row, dim=-1) for row in (across, down, [zero, zero, one])], dim=-2)


def _scaling(across: Tensor, down: Tensor) -> Tensor:
    zero = torch.zeros_like(across)
    return _matrix([across, zero, zero], [zero, down, zero])


def _turning(angle: Tensor) -> Tensor:
    zero = torch.zeros_like(angle)
    return _matrix([angle.cos(), -angle.sin(), zero], [angle.sin(), angle.cos(), zero])


def _moving(by: Tensor) -> Tensor:
    across, down = by.unbind(dim=1)
    zero, one = torch.zeros_like(across), torch.ones_like(across)
    return _matrix([one, zero, across], [zero, one, down])
