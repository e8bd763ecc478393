"""Editing label maps: the anatomy that one does not have, made from the anatomy that one has."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anatogen.errors import DataError

LabelMap = NDArray[np.int64]


def innermost_component(labels: LabelMap, index: int, *, share: float = 0.4) -> NDArray[np.bool_]:
    """The parts of class `index` that lie deep inside the drawn anatomy: cavities such as the brain's ventricles.

    Connected parts (of at least 3 pixels, full connectivity) whose mean depth below the surface of the foreground is
    at least `share` of the largest depth. Raises DataError where there is none.
    """
    depth = ndimage.distance_transform_edt(ndimage.binary_fill_holes(labels > 0))
    parts, count = ndimage.label(labels == index, structure=np.ones((3,) * labels.ndim))
    numbers = np.arange(1, count + 1)
    if count:
        sizes = ndimage.sum_labels(np.ones_like(parts), parts, numbers)
        depths = ndimage.mean(depth, parts, numbers)
        inner = numbers[(depths >= share * depth.max()) & (sizes >= 3)]
        if inner.size:
            return np.isin(parts, inner)
    raise DataError(f"class {index} has no part deep inside the anatomy", hint="Choose another slice or class")


def enlarge(labels: LabelMap, region: NDArray[np.bool_], pixels: float) -> LabelMap:
    """Move the border of `region` outward by `pixels`; the other classes give way, the background does not."""
    if not region.any():
        raise DataError("the region to enlarge is empty")
    index = int(np.bincount(labels[region]).argmax())
    near = ndimage.distance_transform_edt(~region) <= pixels
    return np.where(near & (labels > 0), index, labels)


def shrink(labels: LabelMap, region: NDArray[np.bool_], pixels: float) -> LabelMap:
    """Move the border of `region` inward by `pixels`; the class nearest to each lost pixel takes it."""
    lost = region & (ndimage.distance_transform_edt(region) <= pixels)
    nearest_outside = ndimage.distance_transform_edt(region, return_distances=False, return_indices=True)
    return np.where(lost, labels[tuple(nearest_outside)], labels)


def erase(labels: LabelMap, classes: Collection[int]) -> LabelMap:
    """`labels` without `classes`: each of their connected parts takes the class that most of its border lies in.

    A tumour inside a liver becomes liver, an organ that stands free becomes background.
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
