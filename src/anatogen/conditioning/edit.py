"""Label-map editing: new anatomies from existing ones."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anatogen.errors import DataError

LabelMap = NDArray[np.int64]


def enlarge(labels: LabelMap, region: NDArray[np.bool_], pixels: float, *, into_background: bool = False) -> LabelMap:
    """Move the border of `region` outward by `pixels`, replacing the other classes.

    Args:
        labels: Class indices, of any number of dimensions.
        region: bool, the shape of `labels`: what grows. New pixels get the most frequent class of the region.
        pixels: The distance by which the border moves (Euclidean).
        into_background: Whether the region may grow into the background, as a free-standing organ does.

    Raises:
        DataError: The region is empty.
    """
    if not region.any():
        raise DataError("the region to enlarge is empty", hint="Choose a slice that contains the class")
    index = int(np.bincount(labels[region]).argmax())
    near = ndimage.distance_transform_edt(~region) <= pixels
    return np.where(near & ((labels > 0) | into_background), index, labels)


def shrink(labels: LabelMap, region: NDArray[np.bool_], pixels: float) -> LabelMap:
    """Move the border of `region` inward by `pixels`; each lost pixel gets the nearest class outside."""
    lost = region & (ndimage.distance_transform_edt(region) <= pixels)
    nearest_outside = ndimage.distance_transform_edt(region, return_distances=False, return_indices=True)
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
