"""Label-map editing: new anatomies from existing ones.

Pure functions of int64 label maps, 2D and 3D. Distances are in the unit of `spacing_mm`, millimetres along each axis of
the array; without a spacing they are pixels. On slices they are distances in the plane.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anatogen.errors import DataError

LabelMap = NDArray[np.int64]
Spacing = Sequence[float] | None


def enlarge(
    labels: LabelMap,
    region: NDArray[np.bool_],
    distance: float,
    *,
    into_background: bool = False,
    spacing_mm: Spacing = None,
) -> LabelMap:
    """Move the border of `region` outward by `distance`, replacing the other classes.

    Args:
        labels: Class indices, of any number of dimensions.
        region: bool, the shape of `labels`: what grows. New pixels get the most frequent class of the region.
        distance: By which the border moves (Euclidean).
        into_background: Whether the region may grow into the background, as a free-standing organ does.
        spacing_mm: Pixel size along each axis.

    Raises:
        DataError: The region is empty.
    """
    if not region.any():
        raise DataError("the region to enlarge is empty", hint="Choose a slice that contains the class")
    index = int(np.bincount(labels[region]).argmax())
    near = ndimage.distance_transform_edt(~region, sampling=spacing_mm) <= distance
    return np.where(near & ((labels > 0) | into_background), index, labels)


def grow(
    labels: LabelMap,
    index: int,
    distance: float,
    *,
    spacing_mm: Spacing = None,
    over: Collection[int] | None = None,
) -> LabelMap:
    """Move the border of a class outward by `distance`.

    Args:
        labels: Class indices, of any number of dimensions.
        index: The class. A map without it is returned as it is.
        distance: By which the border moves (Euclidean).
        spacing_mm: Pixel size along each axis.
        over: The classes that may be replaced, 0 for the background; None for every class and the background.
    """
    region = labels == index
    if not region.any():
        return labels.copy()
    near = ndimage.distance_transform_edt(~region, sampling=spacing_mm) <= distance
    return np.where(near if over is None else near & np.isin(labels, list(over)), index, labels)


def shrink(labels: LabelMap, region: NDArray[np.bool_], distance: float, *, spacing_mm: Spacing = None) -> LabelMap:
    """Move the border of `region` inward by `distance`; each lost pixel gets the nearest class outside.

    A region that is nowhere thicker than twice the distance disappears. One that fills the map has no border, and
    stays.
    """
    if region.all():
        return labels.copy()
    inside, nearest_outside = ndimage.distance_transform_edt(region, sampling=spacing_mm, return_indices=True)
    lost = region & (inside <= distance)
    return np.where(lost, labels[tuple(nearest_outside)], labels)


def erase(labels: LabelMap, classes: Collection[int]) -> LabelMap:
    """`labels` without `classes`: each connected component gets the most frequent class along its border.

    A tumour inside a liver becomes liver; a free-standing organ becomes background.
    """
    gone = np.isin(labels, list(classes))
    square = np.ones((3,) * labels.ndim)
    parts, _ = ndimage.label(gone, structure=square)
    result = labels.copy()
    for number, box in enumerate(ndimage.find_objects(parts), start=1):
        wider = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in box)
        part = parts[wider] == number
        border = ndimage.binary_dilation(part, structure=square) & ~part
        around = labels[wider][border]
        result[wider][part] = np.bincount(around).argmax() if around.size else 0
    return result


def move(labels: LabelMap, classes: Collection[int], by: Sequence[float], *, spacing_mm: Spacing = None) -> LabelMap:
    """Move `classes` together by a vector, to the nearest whole pixel, so that their shape stays as it is.

    What they leave gets the class that surrounds it (see `erase`); what they come to lie on is replaced; what leaves
    the map is lost.

    Args:
        labels: Class indices, of any number of dimensions.
        classes: What moves.
        by: Distance along each axis of the array, towards higher indices.
        spacing_mm: Pixel size along each axis.
    """
    spacing = (1.0,) * labels.ndim if spacing_mm is None else spacing_mm
    steps = [round(distance / side) for distance, side in zip(by, spacing, strict=True)]
    moved = shifted(np.where(np.isin(labels, list(classes)), labels, 0), steps)
    return np.where(moved > 0, moved, erase(labels, classes))


def shifted(labels: LabelMap, steps: Sequence[int]) -> LabelMap:
    """The map moved by whole pixels along each axis; background comes in, and what leaves the map is lost."""
    result = np.zeros_like(labels)
    if any(abs(step) >= side for step, side in zip(steps, labels.shape, strict=True)):
        return result
    to = tuple(slice(max(0, step), side + min(0, step)) for step, side in zip(steps, labels.shape, strict=True))
    of = tuple(slice(max(0, -step), side + min(0, -step)) for step, side in zip(steps, labels.shape, strict=True))
    result[to] = labels[of]
    return result


def mirror(labels: LabelMap, axis: int, swaps: Mapping[int, int] | None = None) -> LabelMap:
    """The map reflected along `axis`.

    Args:
        labels: Class indices, of any number of dimensions.
        axis: Of the array; left-right is the last one of axial and coronal slices and of volumes.
        swaps: Classes that change places, so that a left kidney on the right becomes the right one.
    """
    table = np.arange(int(labels.max(initial=0)) + 1)
    for one, other in (swaps or {}).items():
        for old, new in ((one, other), (other, one)):
            if old < len(table):
                table[old] = new
    result: LabelMap = table[np.flip(labels, axis)]
    return result


def paste(labels: LabelMap, donor: LabelMap, classes: Collection[int], *, replace: bool = True) -> LabelMap:
    """Put the structures `classes` of another map into this one, over everything that lies there.

    The donor is aligned by the centre of all that is labelled, to the nearest whole pixel; a map or donor without
    labels stays where it is. A donor without these classes changes nothing.

    Args:
        labels: Class indices, of any number of dimensions.
        donor: Another map of the same shape and pixel size.
        classes: What is taken.
        replace: Whether the same classes of `labels` are removed first (see `erase`), if the donor has any.
    """
    if labels.shape != donor.shape:
        raise DataError(f"a map of {donor.shape} pixels cannot be pasted into one of {labels.shape}")
    taken = np.where(np.isin(donor, list(classes)), donor, 0)
    if not taken.any():
        return labels.copy()
    if labels.any():
        to, of = ndimage.center_of_mass(labels > 0), ndimage.center_of_mass(donor > 0)
        taken = shifted(taken, [round(a - b) for a, b in zip(to, of, strict=True)])
    return np.where(taken > 0, taken, erase(labels, classes) if replace else labels)


def interpolate(first: LabelMap, second: LabelMap, share: float, *, spacing_mm: Spacing = None) -> LabelMap:
    """A map between two: each class has its signed distance to the border interpolated, and the innermost class wins.

    Shape-based interpolation (Raya and Udupa 1990, doi:10.1109/42.52980), for several classes. A class that one map
    lacks counts there as its own deepest point outside, so that it shrinks to nothing halfway.

    Args:
        first: The map at share 0, exactly.
        second: The map at share 1, exactly; of the same shape and pixel size.
        share: In [0, 1].
        spacing_mm: Pixel size along each axis.
    """
    if first.shape != second.shape:
        raise DataError(f"maps of {first.shape} and {second.shape} pixels cannot be interpolated")
    if not 0 <= share <= 1:
        raise DataError(f"{share:g} is no share between two maps", hint="Choose 0 to 1")
    result, deepest = np.zeros_like(first), np.full(first.shape, np.inf)
    for index in np.union1d(first, second):
        a, b = (_signed(labels == index, spacing_mm) for labels in (first, second))
        depth = -min(float(each.min()) for each in (a, b) if each is not None)
        between = (1 - share) * (depth if a is None else a) + share * (depth if b is None else b)
        between = np.broadcast_to(between, first.shape)
        inner = between < deepest
        result[inner], deepest[inner] = index, between[inner]
    return result


def _signed(region: NDArray[np.bool_], spacing_mm: Spacing) -> NDArray[np.float64] | None:
    """Distance to the border, negative inside; None if there is no region, and no border where it is everything."""
    if not region.any():
        return None
    if region.all():
        return np.full(region.shape, -float(max(region.shape)))
    outside = ndimage.distance_transform_edt(~region, sampling=spacing_mm)
    inside = ndimage.distance_transform_edt(region, sampling=spacing_mm)
    signed: NDArray[np.float64] = outside - inside
    return signed
