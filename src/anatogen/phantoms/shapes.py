"""Drawing primitives of the phantoms: a canvas in millimetres, solids, smooth random fields, branching tubes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anatogen.volume import Volume

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]
Point = tuple[float, float, float]

_WARP_MM = 15.0  # largest displacement by the warp; a cropped canvas is larger by this much


@dataclass(frozen=True)
class Canvas:
    """Intensities and labels (X, Y, Z) to draw on, and the position of each voxel.

    Attributes:
        axes: Voxel centres in millimetres along each axis: to the patient's left, to posterior, to superior.
        x, y, z: (X, Y, Z), the same after the patient's smooth warp; solids are drawn in these coordinates.
    """

    values: Array
    labels: NDArray[np.uint8]
    axes: tuple[Array, Array, Array]
    x: Array
    y: Array
    z: Array

    @classmethod
    def blank(
        cls, grid: tuple[int, int, int], spacing_mm: Point, centre: Point, value: float, warp: Sequence[Array]
    ) -> Canvas:
        """A canvas of `value` and background around the point `centre`, warped by three fields in millimetres."""
        x, y, z = (
            ((np.arange(n) - (n - 1) / 2) * step + middle).astype(np.float32)
            for n, step, middle in zip(grid, spacing_mm, centre, strict=True)
        )
        return cls(
            np.full(grid, value, np.float32),
            np.zeros(grid, np.uint8),
            (x, y, z),
            x[:, None, None] + warp[0],
            y[None, :, None] + warp[1],
            z[None, None, :] + warp[2],
        )

    def around(self, centre: Point, reach: Point | float) -> Canvas:
        """A view of the part of the canvas within `reach` mm of `centre`; painting on it paints on the whole."""
        reaches = (reach,) * 3 if isinstance(reach, float | int) else reach
        part = self.window(centre, reaches)
        axes = tuple(axis[s] for axis, s in zip(self.axes, part, strict=True))
        return Canvas(
            self.values[part],
            self.labels[part],
            (axes[0], axes[1], axes[2]),
            self.x[part],
            self.y[part],
            self.z[part],
        )

    def window(self, centre: Point, reach: Point) -> tuple[slice, slice, slice]:
        """The index ranges of the part within `reach` mm of `centre`."""
        spans = []
        for axis, middle, half in zip(self.axes, centre, reach, strict=True):
            low, high = np.searchsorted(axis, (middle - half - _WARP_MM, middle + half + _WARP_MM))
            spans.append(slice(int(low), int(high)))
        return spans[0], spans[1], spans[2]

    def paint(self, mask: Mask, value: float | Array, label: int = 0) -> None:
        """Set the intensity and label of the voxels in `mask`."""
        np.copyto(self.values, np.float32(value) if isinstance(value, float | int) else value, where=mask)
        np.copyto(self.labels, np.uint8(label), where=mask)

    def volumes(self, image: NDArray[np.int16], spacing_mm: Point) -> tuple[Volume, Volume]:
        """`image` and the labels as volumes with voxels of `spacing_mm`, centred on the origin."""
        left, posterior, superior = spacing_mm
        affine = np.diag([-left, -posterior, superior, 1.0])
        affine[:3, 3] = -affine[:3, :3] @ ((np.array(image.shape) - 1) / 2)
        return Volume(image, affine), Volume(self.labels, affine)


def ellipsoid(canvas: Canvas, centre: Point, radii: Point, turn: Point = (0.0, 0.0, 0.0)) -> Array:
    """(distance from `centre` over the radius in that direction) squared: below 1 inside.

    Args:
        turn: Radians about the three axes, applied to the solid in the order z, y, x.
    """
    x, y, z = canvas.x - centre[0], canvas.y - centre[1], canvas.z - centre[2]
    about_x, about_y, about_z = turn
    if about_z:
        x, y = _rotate(x, y, about_z)
    if about_y:
        x, z = _rotate(x, z, about_y)
    if about_x:
        y, z = _rotate(y, z, about_x)
    result: Array = (x / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2
    return result


def _rotate(a: Array, b: Array, angle: float) -> tuple[Array, Array]:
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return c * a + s * b, c * b - s * a


def capsule(canvas: Canvas, start: Point, end: Point) -> Array:
    """The distance in millimetres to the segment from `start` to `end`."""
    a, d = np.array(start, np.float32), np.array(end, np.float32) - np.array(start, np.float32)
    x, y, z = canvas.x - a[0], canvas.y - a[1], canvas.z - a[2]
    along = np.clip((x * d[0] + y * d[1] + z * d[2]) / np.float32(d @ d), 0, 1)
    result: Array = np.sqrt((x - along * d[0]) ** 2 + (y - along * d[1]) ** 2 + (z - along * d[2]) ** 2)
    return result


def smooth_field(
    rng: np.random.Generator, grid: Sequence[int], spacing_mm: Sequence[float], knots_mm: float | Sequence[float]
) -> Array:
    """A random field of about zero mean and unit variance: cubic B-splines over normal random numbers at knots.

    Args:
        knots_mm: The distance of the knots.
    """
    distances = [float(knots_mm)] * len(grid) if isinstance(knots_mm, float | int) else list(knots_mm)
    bases = [_splines(n, d / step) for n, step, d in zip(grid, spacing_mm, distances, strict=True)]
    field = rng.standard_normal([basis.shape[1] for basis in bases], dtype=np.float32)
    for basis in bases:
        field = np.tensordot(field, basis, axes=(0, 1))  # contracts the first axis, appends the finer one
    variance = (151 / 315) ** len(bases)  # of a cubic B-spline's weights, averaged over the phase
    result: Array = np.ascontiguousarray(field / np.float32(np.sqrt(variance)))
    return result


def _splines(count: int, knot_distance: float) -> Array:
    """(count, knots): the weight of each knot at each voxel."""
    position = np.arange(count) / knot_distance
    distance = np.abs(position[:, None] - np.arange(-1, int(position[-1]) + 3)[None, :])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


@dataclass(frozen=True)
class Tubes:
    """Straight vessel segments: start and end (N, 3) and radius (N,), in millimetres."""

    start: Array
    end: Array
    radius: Array


@dataclass(frozen=True)
class Branching:
    """The shape of a vessel tree.

    Attributes:
        length, radius: Of the first branch, in mm; both shrink with each generation.
        generations: The number of generations of branches.
        spread: Of the directions at a division, relative to the direction.
        wander: Along a branch, relative to the direction.
        taper: The factor by which the radius shrinks.
    """

    length: float
    radius: float
    generations: int
    spread: float = 0.6
    wander: float = 0.15
    taper: float = 0.75


def grow_tree(
    rng: np.random.Generator, start: Sequence[float], towards: Sequence[float], branching: Branching
) -> Tubes:
    """A vessel tree from the point `start` in the direction `towards`; each branch divides into two."""
    length, radius = branching.length, branching.radius
    tips = np.array([start], np.float32)
    ways = _unit(np.array([towards], np.float32))
    starts, ends, radii = [], [], []
    for _ in range(branching.generations):
        for _ in range(3):
            ways = _unit(ways + branching.wander * rng.standard_normal(ways.shape, dtype=np.float32))
            nexts = tips + ways * (length / 3 * rng.uniform(0.7, 1.3, (len(tips), 1))).astype(np.float32)
            starts.append(tips)
            ends.append(nexts)
            radii.append(np.full(len(tips), radius, np.float32))
            tips = nexts
        aside = branching.spread * rng.standard_normal(ways.shape, dtype=np.float32)
        tips, ways = np.concatenate([tips, tips]), _unit(np.concatenate([ways + aside, ways - aside]))
        length, radius = length * 0.82, radius * branching.taper
    return Tubes(np.concatenate(starts), np.concatenate(ends), np.concatenate(radii))


def _unit(vectors: Array) -> Array:
    result: Array = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return result


def coverage(rng: np.random.Generator, canvas: Canvas, tubes: Sequence[Tubes]) -> Array:
    """The share of each voxel inside a tube, 0 to 1 (X, Y, Z), by sampling points in the tubes. Not warped."""
    steps = [float(axis[1] - axis[0]) for axis in canvas.axes]
    start, end, radius = (np.concatenate([getattr(t, name) for t in tubes]) for name in ("start", "end", "radius"))
    length = np.linalg.norm(end - start, axis=1)
    each = 8 * np.ceil(length / min(steps) * (1 + radius / min(steps)) ** 2).astype(int)  # points in each piece
    piece = np.repeat(np.arange(len(start)), each)
    points = start[piece] + (end - start)[piece] * rng.random((len(piece), 1), dtype=np.float32)
    points += _unit(rng.standard_normal(points.shape, dtype=np.float32)) * (
        radius[piece, None] * np.cbrt(rng.random((len(piece), 1), dtype=np.float32))
    )
    volume = (np.pi * radius**2 * length / each / np.prod(steps))[piece]
    index = [np.rint((points[:, i] - axis[0]) / steps[i]).astype(int) for i, axis in enumerate(canvas.axes)]
    shape = canvas.values.shape
    inside = np.logical_and.reduce([(i >= 0) & (i < n) for i, n in zip(index, shape, strict=True)])
    flat = np.ravel_multi_index([i[inside] for i in index], shape)
    filled = np.bincount(flat, volume[inside], minlength=canvas.values.size).reshape(shape)
    return np.minimum(filled, 1).astype(np.float32)
