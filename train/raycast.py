"""The ten solids of the data set: their geometry, and where rays meet them.

A solid lives in a frame of its own, about one unit large, with the axis of the round ones along z. A ray is
origin + t * d in that frame. All rays of a picture share d, and their origins are affine in the screen
coordinates; so an origin is a list of three (row, column) pairs of shapes (G, 1, S) and (G, S, 1), to be
added, and d is a list of three (G, 1, 1), for G pictures of side S. The distance to a plane is then a row
vector plus a column vector, which makes a convex solid (an intersection of half-spaces) nearly free.

Only operations which IEEE 754 rounds exactly are used, in a fixed order: see `train.solids`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np

# The kinds of solid, in the order of `train.solids.CLASSES`.
SPHERE, CUBE, CYLINDER, CONE, TORUS, CAPSULE, OCTAHEDRON, PYRAMID, PRISM, STAR = range(10)

_FAR = np.float32(1e4)  # stands for infinity, where a true infinity would breed NaN

# Sizes of the round solids.
_CYLINDER = (0.72, 0.82)  # radius, half the height
_CONE = (0.86, 0.95, 0.75)  # radius of the base, height of the apex, depth of the base
_TORUS = (0.72, 0.30)  # radius of the circle, radius of the tube
_CAPSULE = (0.52, 0.68)  # radius, half the length of the axis


class Hit(NamedTuple):
    """Where rays meet a solid, for G pictures of side S; t and normals mean something only where gap > 0."""

    gap: np.ndarray  # (G, S, S), positive exactly where the ray hits, and larger the longer it stays inside
    t: np.ndarray  # (G, S, S), where it enters
    normal_at: Callable[[list], list]  # points p on the surface -> outward normals, both three (G, S, S)


# ---- arithmetic ------------------------------------------------------------------------------------------


def sine(turns: np.ndarray) -> np.ndarray:
    """Sine of an angle in turns, of any shape, by its power series.

    Library sines differ in the last bit between vector widths and machines.
    """
    x = turns - np.floor(turns + 0.5)
    x = 2 * math.pi * np.where(np.abs(x) > 0.25, np.where(x < 0, -0.5, 0.5) - x, x)
    total = np.ones_like(x)
    for n in (14, 12, 10, 8, 6, 4, 2):
        total = 1 - x * x / (n * (n + 1)) * total
    return x * total


def dot(a: Sequence, b: Sequence) -> np.ndarray:
    """Inner product of two vectors, each three numbers or arrays that broadcast."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def unit(a: Sequence) -> list:
    """A vector of three arrays, brought to length one."""
    length = np.sqrt(dot(a, a))
    return [x / length for x in a]


# ---- geometry --------------------------------------------------------------------------------------------


def _polyhedron(vertices: Sequence, faces: Sequence) -> list[tuple[tuple[float, ...], float]]:
    """The half-spaces n . p <= w, as (n, w), of a convex polyhedron; a face is three of its vertices."""
    points = [tuple(map(float, v)) for v in vertices]
    # Not the builtin sum: from Python 3.12 on it compensates, and would round otherwise than before.
    centre = [reduce(operator.add, (v[i] for v in points)) / len(points) for i in range(3)]
    planes = []
    for i, j, k in faces:
        p, q, r = ([points[n][axis] - points[i][axis] for axis in range(3)] for n in (i, j, k))
        normal = [q[1] * r[2] - q[2] * r[1], q[2] * r[0] - q[0] * r[2], q[0] * r[1] - q[1] * r[0]]
        if dot(normal, [c - o for c, o in zip(centre, points[i], strict=True)]) > 0:
            normal = [-n for n in normal]
        length = math.sqrt(dot(normal, normal))
        normal = [n / length for n in normal]
        planes.append((tuple(normal), dot(normal, points[i])))
    return planes


def _flat_solids() -> tuple[dict[int, list], dict[int, np.ndarray]]:
    """For every flat-faced class its convex pieces (lists of half-spaces) and its vertices (V, 3)."""
    corners = [(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
    tips = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]
    pyramid = [(-1, -1, -0.65), (1, -1, -0.65), (1, 1, -0.65), (-1, 1, -0.65), (0, 0, 1.05)]
    prism = [(x, y, z) for y in (-1.15, 1.15) for x, z in ((-0.9, -0.55), (0.9, -0.55), (0, 0.95))]
    turns = np.arange(10) / 10 + 0.25
    radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.5)
    rim = [(r * c, 0.0, r * s) for r, c, s in zip(radius, sine(turns + 0.25), sine(turns), strict=True)]
    ridge = [(0, -0.42, 0), (0, 0.42, 0)]
    # An arm of the star is convex: front ridge, back ridge, notch, tip, notch; two cuts close it.
    arm = [(0, 2, 3), (0, 3, 4), (1, 2, 3), (1, 3, 4), (0, 1, 2), (0, 1, 4)]
    arms = [ridge + [rim[i - 1], rim[i], rim[(i + 1) % 10]] for i in range(0, 10, 2)]
    square = [(0, 1, 2), (4, 5, 6), (0, 1, 4), (2, 3, 6), (0, 2, 4), (1, 3, 5)]
    octants = [(a, b, c) for a in (0, 1) for b in (2, 3) for c in (4, 5)]
    sides = [(0, 1, 2), (0, 1, 4), (1, 2, 4), (2, 3, 4), (3, 0, 4)]
    roof = [(0, 1, 2), (3, 4, 5), (0, 1, 3), (1, 2, 4), (2, 0, 5)]
    pieces = {
        CUBE: [_polyhedron(corners, square)],
        OCTAHEDRON: [_polyhedron(tips, octants)],
        PYRAMID: [_polyhedron(pyramid, sides)],
        PRISM: [_polyhedron(prism, roof)],
        STAR: [_polyhedron(points, arm) for points in arms],
    }
    vertices = {CUBE: corners, OCTAHEDRON: tips, PYRAMID: pyramid, PRISM: prism, STAR: ridge + rim}
    return pieces, {kind: np.array(points, np.float64) for kind, points in vertices.items()}


_PIECES, _VERTICES = _flat_solids()


def support(kind: int, d: Sequence[np.ndarray]) -> np.ndarray:
    """How far a solid reaches from its origin along unit directions d, three (N,): (N,)."""
    if kind in _VERTICES:
        reach = [dot(vertex, d) for vertex in _VERTICES[kind]]
        for other in reach[1:]:
            reach[0] = np.maximum(reach[0], other)
        return reach[0]
    along, across = np.abs(d[2]), np.sqrt(d[0] * d[0] + d[1] * d[1])
    if kind == SPHERE:
        return np.ones_like(along)
    if kind == CYLINDER:
        return _CYLINDER[1] * along + _CYLINDER[0] * across
    if kind == CONE:
        return np.maximum(_CONE[1] * d[2], _CONE[0] * across - _CONE[2] * d[2])
    if kind == TORUS:
        return _TORUS[0] * across + _TORUS[1]
    return _CAPSULE[1] * along + _CAPSULE[0]


# ---- ray casting -----------------------------------------------------------------------------------------


def _away(x: np.ndarray, least: float = 1e-5) -> np.ndarray:
    """x kept away from zero, for division."""
    return np.where(np.abs(x) < least, np.where(x < 0, -least, least), x).astype(np.float32)


def _flat(kind: int, origin: list, d: list) -> Hit:
    """Convex pieces: enter through the last of the front planes, leave through the first back plane."""
    table = [plane for piece in _PIECES[kind] for plane in piece]
    nearest = gap = which = None
    number = 0
    for piece in _PIECES[kind]:
        enter = leave = face = None
        for normal, offset in piece:
            n = [np.float32(x) for x in normal]
            slope = _away(dot(n, d))
            row = (np.float32(offset) - dot(n, [o[0] for o in origin])) / slope
            column = -dot(n, [o[1] for o in origin]) / slope
            front = slope < 0
            if front.any():
                t = np.where(front, row, -_FAR) + column
                if enter is None:
                    enter, face = t, np.full(t.shape, number, np.uint8)
                else:
                    np.copyto(face, number, where=t > enter)
                    np.maximum(enter, t, out=enter)
            if not front.all():
                t = np.where(front, _FAR, row) + column
                leave = t if leave is None else np.minimum(leave, t, out=leave)
            number += 1
        inside = leave - enter
        if nearest is None:
            nearest, gap, which = enter, inside, face
            if len(_PIECES[kind]) > 1:
                nearest = np.where(inside > 0, enter, _FAR)
            continue
        closer = (inside > 0) & (enter < nearest)
        np.copyto(nearest, enter, where=closer)
        np.copyto(which, face, where=closer)
        np.maximum(gap, inside, out=gap)

    def normal_at(p: list) -> list:
        return [np.array([n[axis] for n, _ in table], np.float32)[which] for axis in range(3)]

    return Hit(gap, nearest, normal_at)


def _quadric(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple:
    """The two ends of a t^2 + 2 b t + c <= 0; equal where there are none, so that the gap is not positive."""
    root = np.sqrt(np.maximum(b * b - a * c, 0))
    return (-b - root) / a, (root - b) / a


def _slab(z: np.ndarray, dz: np.ndarray, low: float, high: float) -> tuple:
    """The two ends of low <= z + t dz <= high."""
    dz = _away(dz)
    first, last = (np.where(dz > 0, w, v) for v, w in ((low, high), (high, low)))
    return (last.astype(np.float32) - z) / dz, (first.astype(np.float32) - z) / dz


def _sphere(x: np.ndarray, y: np.ndarray, z: np.ndarray, d: list) -> Hit:
    enter, leave = _quadric(dot(d, d), dot((x, y, z), d), dot((x, y, z), (x, y, z)) - np.float32(1))
    return Hit(leave - enter, enter, lambda p: p)


def _cylinder(x: np.ndarray, y: np.ndarray, z: np.ndarray, d: list) -> Hit:
    dx, dy, dz = d
    a, b, c = dx * dx + dy * dy, x * dx + y * dy, x * x + y * y
    radius, half = map(np.float32, _CYLINDER)
    side = _quadric(_away(a), b, c - radius * radius)
    caps = _slab(z, dz, -half, half)
    enter, leave = np.maximum(side[0], caps[0]), np.minimum(side[1], caps[1])
    on_cap = caps[0] > side[0]

    def normal_at(p: list) -> list:
        wall = np.where(on_cap, 0, 1 / radius).astype(np.float32)
        return [p[0] * wall, p[1] * wall, np.where(on_cap, np.where(dz > 0, np.float32(-1), 1), 0)]

    return Hit(leave - enter, enter, normal_at)


def _cone(x: np.ndarray, y: np.ndarray, z: np.ndarray, d: list) -> Hit:
    dx, dy, dz = d
    a, b, c = dx * dx + dy * dy, x * dx + y * dy, x * x + y * y
    base, apex, depth = map(np.float32, _CONE)
    k = base / (apex + depth)
    down, kk = z - apex, k * k
    a = _away(a - kk * dz * dz, 1e-3)
    wall = _quadric(a, b - kk * dz * down, c - kk * down * down)
    # a < 0: the ray is steeper than the wall, and runs inside the lower nappe on one side of a root.
    wall = (wall[0] - _FAR * ((a < 0) & (dz > 0)), wall[1] + _FAR * ((a < 0) & (dz < 0)))
    caps = _slab(z, dz, -depth, apex)
    enter, leave = np.maximum(wall[0], caps[0]), np.minimum(wall[1], caps[1])
    on_base = caps[0] > wall[0]

    def normal_at(p: list) -> list:
        scale = 1 / (np.sqrt(1 + kk) * np.maximum(k * (apex - p[2]), np.float32(1e-3)))
        scale = np.where(on_base, 0, scale)
        return [p[0] * scale, p[1] * scale, np.where(on_base, np.float32(-1), k / np.sqrt(1 + kk))]

    return Hit(leave - enter, enter, normal_at)


def _capsule(x: np.ndarray, y: np.ndarray, z: np.ndarray, d: list) -> Hit:
    dx, dy, dz = d
    a, b, c = dx * dx + dy * dy, x * dx + y * dy, x * x + y * y
    radius, half = map(np.float32, _CAPSULE)
    square = radius * radius
    side = _quadric(_away(a), b, c - square)
    caps = _slab(z, dz, -half, half)
    enter, leave = np.maximum(side[0], caps[0]), np.minimum(side[1], caps[1])
    miss = leave <= enter
    enter, leave = np.where(miss, _FAR, enter), np.where(miss, -_FAR, leave)
    length = a + dz * dz
    for end in (-half, half):
        h = z - end
        ball = _quadric(length, b + h * dz, c + h * h - square)
        hit = ball[1] > ball[0]
        np.minimum(enter, ball[0], out=enter, where=hit)
        np.maximum(leave, ball[1], out=leave, where=hit)

    def normal_at(p: list) -> list:
        return [p[0] / radius, p[1] / radius, (p[2] - np.clip(p[2], -half, half)) / radius]

    return Hit(leave - enter, enter, normal_at)


def _torus(x: np.ndarray, y: np.ndarray, z: np.ndarray, d: list) -> Hit:
    """It has no cheap closed form: follow its signed distance function from the slab around the tube."""
    dx, dy, dz = d
    ring, tube = map(np.float32, _TORUS)
    t = _slab(z, dz, -tube, tube)[0]
    x, y, z = x + t * dx, y + t * dy, z + t * dz
    speed = 1 / np.sqrt(dx * dx + dy * dy + dz * dz)
    closest = np.full(t.shape, _FAR)
    for _ in range(16):
        across = np.sqrt(x * x + y * y) - ring
        distance = np.sqrt(across * across + z * z) - tube
        np.minimum(closest, distance, out=closest)
        step = distance * speed
        t += step
        x += step * dx
        y += step * dy
        z += step * dz

    def normal_at(p: list) -> list:
        radial = np.maximum(np.sqrt(p[0] * p[0] + p[1] * p[1]), np.float32(1e-3))
        bend = (radial - ring) / (radial * tube)
        return [p[0] * bend, p[1] * bend, p[2] / tube]

    return Hit(25 * (np.float32(0.015) - closest), t, normal_at)


_ROUND = {SPHERE: _sphere, CYLINDER: _cylinder, CONE: _cone, TORUS: _torus, CAPSULE: _capsule}


def cast(kind: int, origin: list, d: list) -> Hit:
    """Where rays meet a solid; `origin` and `d` as at the top of this module, d of any length."""
    if kind in _PIECES:
        return _flat(kind, origin, d)
    x, y, z = (row + column for row, column in origin)
    return _ROUND[kind](x, y, z, d)
