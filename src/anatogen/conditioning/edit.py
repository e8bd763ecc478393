"""Editing label maps: the anatomy that one does not have, made from the anatomy that one has."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anatogen.errors import DataError

LabelMap = NDArray[np.int64]


def enlarge(labels: LabelMap, region: NDArray[np.bool_], pixels: float, *, into_background: bool = False) -> LabelMap:
    """Move the border of `region` outward by `pixels`; the other classes give way.

    Args:
        labels: Class indices, of any number of dimensions.
        region: What grows, True in the label map's shape; what it gains takes the class that most of it has.
        pixels: The distance by which the border moves (Euclidean).
        into_background: Whether the background gives way too, as it does where an organ grows that stands free.

    Raises:
        DataError: The region is empty.
    """
    if not region.any():
        raise DataError("the region to enlarge is empty", hint="Choose a slice and a class that is there")
    index = int(np.bincount(labels[region]).argmax())
    near = ndimage.distance_transform_edt(~region) <= pixels
    return np.where(near & ((labels > 0) | into_background), index, labels)


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
