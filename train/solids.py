"""The embedded data set: small pictures of shaded solids, drawn by code, one class for each kind of solid.

Picture `index` of stream `seed` is a pure function of the two numbers: a counter-based generator gives
the parameters (pose, light, colours), and an analytic ray caster draws them. Parameters and pixels use
only operations which IEEE 754 rounds exactly (+, -, *, /, square root, minimum, maximum, comparisons), so
a picture is bit-identical in every batch, in every order, for every thread count and on every machine.

The camera is orthographic: all rays of a picture share one direction and their origins are affine in the
screen coordinates, which is what makes casting them cheap (`train.raycast`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from train.raycast import cast, dot, sine, support, unit

CLASSES: tuple[str, ...] = (
    "sphere", "cube", "cylinder", "cone", "torus", "capsule", "octahedron", "pyramid", "prism", "star",
)  # fmt: skip
SOLIDS = "solids"  # what the data set is called
VERSION = 1  # the pictures' version: caches carry it; raise it whenever test_known_pictures has to change
MIN_SIDE, MAX_SIDE = 8, 1024  # pixels

_SAMPLES = 3  # the solid is sampled on a 3 x 3 grid in every pixel, the soft backdrop once
_TILE = 250_000  # samples drawn together: enough to hide the cost of a numpy call, few enough for the cache
_SIZE = (0.66, 0.82)  # half the larger extent of a solid, in units of half the frame
_JITTER = 0.04  # how far its centre may be off the centre of the frame
_BULGE = np.float32(0.28)  # how far flat faces are shaded as if rounded, so that light runs across them

# Pose ranges in degrees, such that no pose hides what makes the class: yaw about the vertical, lean in
# the picture plane (each with a random sign), pitch towards the camera.
_YAW = ((0, 0), (18, 72), (0, 0), (0, 0), (0, 0), (0, 0), (12, 78), (14, 76), (44, 66), (0, 28))
_LEAN = ((0, 0), (0, 9), (0, 24), (0, 16), (0, 28), (18, 62), (0, 12), (0, 9), (0, 7), (0, 16))
_PITCH = ((0, 0), (-6, 6), (-8, 14), (-10, 6), (12, 46), (-12, 12), (-8, 8), (-6, 6), (-4, 8), (-32, -6))


def render(
    indices: Sequence[int] | np.ndarray, seed: int = 0, side: int = 32, threads: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of stream `seed` as uint8 RGB (N, side, side, 3), with their int64 classes (N,).

    The class of a picture is `index % 10`. Different seeds give independent streams, so a held-out split
    is another seed. `threads` (default: one for each core) changes the speed only. Calls of some hundred
    pictures are fastest, because the pictures of a class are drawn together.
    """
    index = np.asarray(indices)
    if index.size == 0:
        index = index.astype(np.int64)
    if (
        index.ndim != 1
        or index.dtype.kind not in "iu"
        or (index.size and not 0 <= index.min() <= index.max() < 2**63)
    ):
        raise ValueError(
            f"indices is {_brief(indices)}, but has to be one-dimensional, of integers >= 0 (below 2**63); "
            "pass for example range(64) or numpy.arange(64)"
        )
    _check("seed", seed, 0, 2**63 - 1)
    _check("side", side, MIN_SIDE, MAX_SIDE)
    if threads is not None:
        _check("threads", threads, 1, 1024)
    index = index.astype(np.int64)
    classes = labels(index)
    pictures = np.empty((len(index), side, side, 3), np.uint8)
    size = max(1, _TILE // (side * _SAMPLES) ** 2)
    tiles = []
    for kind in range(len(CLASSES)):
        members = np.flatnonzero(classes == kind)
        tiles += [(kind, members[i : i + size]) for i in range(0, len(members), size)]

    def draw(tile: tuple[int, np.ndarray]) -> None:
        kind, members = tile
        pictures[members] = _draw(kind, _Draws(seed, index[members]), side)

    workers = min(threads or cores(), len(tiles))
    if workers > 1:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(draw, tiles))
    else:
        for tile in tiles:
            draw(tile)
    return pictures, classes


def labels(indices: np.ndarray) -> np.ndarray:
    """The class of each picture: they take turns."""
    return indices % len(CLASSES)


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _check(name: str, value: object, low: int, high: int) -> None:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or not low <= value <= high:
        raise ValueError(
            f"{name} is {value!r}, but has to be an integer from {low} to {high}; pass {name}={low}"
        )


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ---- parameters ------------------------------------------------------------------------------------------


class _Draws:
    """A counter-based generator (splitmix64): draw k of a picture depends on (seed, index, k) alone."""

    def __init__(self, seed: int, index: np.ndarray) -> None:
        stream = self._mix(np.full(1, seed, np.uint64) + np.uint64(0x9E3779B97F4A7C15))
        self._key = self._mix(stream ^ self._mix(index.astype(np.uint64)))
        self._count = 0

    @staticmethod
    def _mix(x: np.ndarray) -> np.ndarray:
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))

    def __call__(self, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """The next uniform draw in [low, high) of every picture: float64 (N,)."""
        self._count += 1
        step = np.full(1, self._count, np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        return low + (high - low) * ((self._mix(self._key + step) >> np.uint64(11)) * 2.0**-53)

    def sign(self) -> np.ndarray:
        return np.where(self() < 0.5, -1.0, 1.0)


def _polar(degrees: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return sine(degrees / 360 + 0.25), sine(degrees / 360)


def _colour(lightness: np.ndarray, chroma: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Oklch to linear RGB (3, N): in Oklch all hues look equally bright and equally saturated."""
    a, b = chroma * sine(turns + 0.25), chroma * sine(turns)
    l, m, s = (  # noqa: E741
        (lightness + p * a + q * b) * (lightness + p * a + q * b) * (lightness + p * a + q * b)
        for p, q in (
            (0.3963377774, 0.2158037573),
            (-0.1055613458, -0.0638541728),
            (-0.0894841775, -1.291485548),
        )
    )
    red = 4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s
    green = -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s
    blue = -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s
    return np.maximum(np.stack([red, green, blue]), 0.004)


# ---- pictures --------------------------------------------------------------------------------------------


def _f(x: np.ndarray | float) -> np.ndarray:
    """A number for each picture, ready to meet (G, rows, columns)."""
    return np.asarray(x, np.float32).reshape(-1, 1, 1)


def _affine(parts: tuple, u: np.ndarray, v: np.ndarray) -> list:
    """(factor of u, factor of v, constant), each a vector of three (G,), as three (row, column) pairs."""
    return [(_f(c) + _f(a) * u, _f(b) * v) for a, b, c in zip(*parts, strict=True)]


def _along(start: list, length: np.ndarray, direction: list) -> list:
    return [x + length * y for x, y in zip(start, direction, strict=True)]


def _shadow(kind: int, ground: list, lamps: list) -> np.ndarray:
    """The part of the lamps hidden from the ground; a short way through the solid hides less: soft edges."""
    total = 0
    for lamp in lamps:
        total = total + np.clip(cast(kind, ground, [_f(x) for x in lamp]).gap * np.float32(1.3), 0, 1)
    return total * np.float32(1 / len(lamps))


def _shade(kind: int, rays: list, view: list, light: list, up: list, gloss: np.ndarray) -> list:
    """What the samples see: diffuse light, upward slope, rim and highlight, and 1 where they hit, else 0."""
    half = [_f(x) for x in unit([x - y for x, y in zip(light, view, strict=True)])]
    view, light, up = ([_f(x) for x in direction] for direction in (view, light, up))
    gap, t, normal_at = cast(kind, rays, view)
    hit = (gap > 0).astype(np.float32)
    p = [row + column + t * x for (row, column), x in zip(rays, view, strict=True)]
    n = _along(normal_at(p), _BULGE, p)
    inverse = hit / np.sqrt(np.maximum(dot(n, n), np.float32(1e-6)))
    n = [x * inverse for x in n]
    diffuse = np.maximum(dot(n, light) + np.float32(0.12) * hit, 0) / np.float32(1.12)
    upward = dot(n, up)
    edge = hit - np.maximum(-dot(n, view), 0)
    rim = edge * edge * edge * (np.float32(0.6) + np.float32(0.4) * upward)
    shine = np.maximum(dot(n, half), 0)
    power = _f(6 + 74 * gloss * gloss)
    shine = shine / (power - (power - 1) * shine)  # Schlick's rational stand-in for a power
    return [diffuse, upward, rim, shine * shine, hit]


def _pixel_mean(x: np.ndarray) -> np.ndarray:
    """Mean over the samples of a pixel: samples are ordered sub-position first, so it adds whole blocks."""
    for axis in (1, 2):
        blocks = np.split(x, _SAMPLES, axis)
        x = blocks[0]
        for block in blocks[1:]:
            x = x + block
    return x * np.float32(1 / _SAMPLES**2)


def _draw(kind: int, draw: _Draws, side: int) -> np.ndarray:
    """Pictures of one class: uint8 (G, side, side, 3)."""
    # World axes: x to the right, y away from the camera, z up. `local` brings a direction into the frame
    # of the solid: it undoes lean, pitch and yaw.
    (cy, sy), (cl, sl) = (_polar(draw.sign() * draw(*pose[kind])) for pose in (_YAW, _LEAN))
    cp, sp = _polar(draw(*_PITCH[kind]))

    def local(x: np.ndarray | float, y: np.ndarray | float, z: np.ndarray | float) -> list:
        x, z = cl * x - sl * z, sl * x + cl * z
        y, z = cp * y + sp * z, cp * z - sp * y
        return [cy * x + sy * y, cy * y - sy * x, z]

    # The camera looks down a little. The frame spans -1..1; the solid is scaled and centred by its reach.
    ce, se = _polar(draw(20, 38))
    right, upright, sky, view = local(1, 0, 0), local(0, se, ce), local(0, 0, 1), local(0, ce, -se)
    reach = [support(kind, [s * x for x in axis]) for axis in (right, upright) for s in (1, -1)]
    scale = draw(*_SIZE) / (np.maximum(reach[0] + reach[1], reach[2] + reach[3]) / 2)
    cu, cv = (draw(-_JITTER, _JITTER) - scale * (a - b) / 2 for a, b in (reach[:2], reach[2:]))
    across, down = ([x / scale for x in axis] for axis in (right, upright))
    eye = [-(cu * x + cv * y) for x, y in zip(across, down, strict=True)]
    # A view ray meets the ground at the distance depth + v * slope: affine in the screen again.
    slope = ce / (se * scale)
    depth = (support(kind, [-x for x in sky]) + draw(0, 0.12)) / se - cv * slope
    # The light comes from the camera's side, left or right; four lamps around it make the penumbra.
    (ca, sa), (ch, sh) = _polar(draw.sign() * draw(28, 78)), _polar(draw(38, 58))
    light = local(sa * ch, -ca * ch, sh)
    lamps = [
        local(sa * ch + p * ca, -ca * ch + p * sa, sh + q)
        for p, q in ((0.10, 0.04), (-0.04, 0.10), (-0.10, -0.04), (0.04, -0.10))
    ]
    # Colours: a saturated solid before two calm, related hues from the other side of the hue circle. Yellow
    # has to be light to look yellow, blue may be darker.
    hue = draw()
    solid = _colour(draw(0.58, 0.72) + 0.07 * sine(hue - 0.05), draw(0.15, 0.21), hue)
    back = hue + 0.5 + draw(-0.2, 0.2)
    far = _colour(draw(0.50, 0.88), draw(0.05, 0.10), back)
    near = _colour(draw(0.76, 0.96), draw(0.03, 0.08), back + draw.sign() * draw(0.03, 0.12))
    gloss, warmth, strength = draw(), draw(-0.12, 0.12), draw(0.85, 1.1)
    key = [strength * (1 + warmth), strength, strength * (1 - warmth)]

    # The backdrop is smooth: one sample for each pixel.
    u = ((2 * np.arange(side, dtype=np.float32) + 1) / np.float32(side) - 1).reshape(1, 1, -1)
    v = -u.reshape(1, -1, 1)
    shadow = _shadow(
        kind, _affine((across, _along(down, slope, view), _along(eye, depth, view)), u, v), lamps
    )
    x, y = (u - _f(cu)) / _f(scale), _f(se / scale) * (v - _f(cv)) + _f(ce) * (_f(depth) + _f(slope) * v)
    near_solid = 1 / (1 + np.float32(1.6) * (x * x + y * y))
    near_solid = near_solid * near_solid
    lit = (1 - np.float32(0.6) * shadow) * (1 - np.float32(0.3) * near_solid)
    lit = lit * (np.float32(1.06) - np.float32(0.14) * (u * u + v * v))
    bled = np.float32(0.25) * near_solid * (1 - shadow)
    mix = np.float32(0.5) + np.float32(0.5) * v
    mix = mix * mix * (3 - 2 * mix)

    # The solid has edges: several samples for each pixel, in the part of the frame that it can reach.
    first = int((1 - _SIZE[1] - _JITTER) / 2 * side)
    order = np.arange(first * _SAMPLES, (side - first) * _SAMPLES).reshape(-1, _SAMPLES).T.reshape(1, 1, -1)
    u = (2 * order.astype(np.float32) + 1) / np.float32(side * _SAMPLES) - 1
    rays = _affine((across, down, eye), u, -u.reshape(1, -1, 1))
    terms = _shade(kind, rays, view, light, sky, gloss)
    diffuse, upward, rim, shine, cover = (_pixel_mean(x) for x in terms)

    picture = np.empty((len(hue), side, side, 3), np.uint8)
    inner = slice(first, side - first)
    for i in range(3):
        above, below = 0.30 + 0.30 * far[i], 0.10 + 0.35 * near[i]
        ambient = _f((above + below) / 2) * cover + _f((above - below) / 2) * upward
        body = _f(solid[i]) * (_f(key[i]) * diffuse + ambient)
        body = body + _f((0.10 + 0.75 * gloss) * key[i]) * shine + _f(0.25 + 0.5 * far[i]) * rim
        linear = (_f(near[i]) + _f(far[i] - near[i]) * mix) * lit + _f(solid[i]) * bled
        linear[:, inner, inner] = linear[:, inner, inner] * (1 - cover) + body
        over = np.maximum(linear - np.float32(0.7), 0)  # highlights roll off instead of clipping
        linear = np.minimum(linear, np.float32(0.7)) + np.float32(0.3) * over / (over + np.float32(0.3))
        picture[..., i] = np.sqrt(linear) * np.float32(255) + np.float32(0.5)
    return picture
