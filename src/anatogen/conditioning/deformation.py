"""Elastic deformation of label maps: smooth random displacements that never fold."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import BSpline

from anatogen.conditioning.edit import LabelMap, Spacing
from anatogen.errors import DataError

STRONGEST = 0.9
_KNOTS = 4  # knots of the spline along the longest side, by default


def deform(
    labels: LabelMap,
    strength: float,
    seed: int,
    *,
    scale: float | None = None,
    spacing_mm: Spacing = None,
) -> LabelMap:
    """The map under a smooth random displacement.

    Each pixel takes the class at x + u(x), so that no class appears, and classes keep their neighbours. As the gradient
    of u is at most `strength` < 1 everywhere, x + u(x) is one-to-one: nothing folds, and structures that are some
    pixels thick keep their topology. Where a tip becomes thinner than the pixels, specks of up to 2^d of them come
    off in the grid; these take the nearest other class. Longer thin parts can be interrupted.

    Args:
        labels: Class indices, of any number of dimensions.
        strength: The largest local change of length, in (0, 0.9]; 0.3 stretches or shortens by up to 30 %.
        seed: Of the displacement.
        scale: The distance between knots of the displacement's cubic splines, so that bumps are about twice as wide; by
            default a quarter of the longest side.
        spacing_mm: Pixel size along each axis.
    """
    field = displacement(labels.shape, strength, seed, scale=scale, spacing_mm=spacing_mm)
    spacing = np.reshape(spacing_mm or (1.0,) * labels.ndim, (-1, *(1,) * labels.ndim))
    at = np.indices(labels.shape, dtype=np.float64) + field / spacing
    places = np.arange(labels.size).reshape(labels.shape)
    return _without_specks(labels, ndimage.map_coordinates(places, at, order=0, mode="nearest"))


def _without_specks(labels: LabelMap, source: NDArray[np.int64]) -> LabelMap:
    """The map that takes its pixels from `labels.ravel()[source]`, without specks that came off a piece.

    A speck is a connected part (diagonals count) of at most 2^d pixels whose piece has a larger part. It takes the
    nearest other class.
    """
    deformed: LabelMap = labels.ravel()[source]
    specks, full = np.zeros(deformed.shape, dtype=bool), np.ones((3,) * labels.ndim)
    for index in np.unique(deformed):
        there = deformed == index
        parts, count = ndimage.label(there, full)
        small = there & (np.bincount(parts.ravel())[parts] <= 2**labels.ndim)
        if count > 1 and small.any():
            origin = ndimage.label(labels == index, full)[0].ravel()[source]
            left = np.bincount(origin[there & ~small], minlength=origin.max() + 1)
            specks |= small & (left[origin] > 0)
    if specks.any():
        nearest = ndimage.distance_transform_edt(specks, return_distances=False, return_indices=True)
        deformed = deformed[tuple(nearest)]
    return deformed


def displacement(
    shape: Sequence[int], strength: float, seed: int, *, scale: float | None = None, spacing_mm: Spacing = None
) -> NDArray[np.float64]:
    """The displacement u (d, *shape) of `deform`, in the unit of the spacing: cubic B-splines with random knots.

    It is scaled so that the largest Frobenius norm of its gradient, by differences of neighbouring pixels, is
    `strength`; that bounds the spectral norm, the largest change of length in any direction.

    Raises:
        DataError: A strength outside (0, 0.9], or a scale below two pixels.
    """
    if not 0 < strength <= STRONGEST:
        raise DataError(f"deformation {strength:g} is out of range", hint=f"Choose above 0, up to {STRONGEST:g}")
    spacing = tuple(spacing_mm) if spacing_mm is not None else (1.0,) * len(shape)
    sides = [count * step for count, step in zip(shape, spacing, strict=True)]
    scale = max(max(sides) / _KNOTS, 2 * max(spacing)) if scale is None else scale
    if scale < 2 * max(spacing):
        raise DataError(
            f"a deformation cannot have bumps of {scale:g}, below two pixels",
            hint=f"Choose {2 * max(spacing):g} or more",
        )
    rng = np.random.default_rng(seed)
    bases = [_splines(count, step / scale) for count, step in zip(shape, spacing, strict=True)]
    field = rng.standard_normal((len(shape), *(basis.shape[1] for basis in bases)))
    for axis, basis in enumerate(bases, start=1):
        field = np.moveaxis(np.tensordot(field, basis, axes=(axis, 1)), -1, axis)
    field -= field.mean(axis=tuple(range(1, field.ndim)), keepdims=True)  # the map as a whole stays where it is
    return field * (strength / _steepest(field, spacing))


def _splines(count: int, step: float) -> NDArray[np.float64]:
    """Cubic B-splines (count, knots) at the centres of `count` pixels, which are `step` knots apart."""
    at = np.arange(count) * step
    knots = math.floor(at[-1]) + 4
    basis: NDArray[np.float64] = BSpline.design_matrix(at, np.arange(-3.0, knots + 1), 3).toarray()
    return basis


def _steepest(field: NDArray[np.float64], spacing: Sequence[float]) -> float:
    """The largest Frobenius norm of the gradient of a field (d, *shape)."""
    squares = np.zeros(field.shape[1:])
    for axis, step in enumerate(spacing):
        if field.shape[axis + 1] < 2:
            continue
        difference = np.square(np.diff(field, axis=axis + 1) / step).sum(axis=0)
        before, after = [[(0, 0)] * squares.ndim for _ in range(2)]
        before[axis], after[axis] = (1, 0), (0, 1)
        squares += np.maximum(np.pad(difference, before), np.pad(difference, after))
    return float(np.sqrt(squares.max())) or 1.0
