"""Surfaces and volumes of label maps in millimetres: how far an image's anatomy lies from what was asked for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from anatogen.errors import SettingsError

Distances = NDArray[np.floating]
Box = tuple[slice, ...]


def hd95_by_group(
    predicted: NDArray[np.integer],
    truth: NDArray[np.integer],
    groups: NDArray[np.generic],
    class_count: int,
    spacing_mm: ArrayLike,
    counted: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """95 % Hausdorff distances in mm (groups, C-1): 0 is best (Huttenlocher 1993; as MONAI's, percentile 95).

    The greater of the 95th percentiles of the distances from each surface to the other, image by image, then the mean
    over those images of the group in which both maps hold the class. NaN where no image does: a distance to a surface
    that is not there has no value. `missed_by_group` says how many images were left out for that, so show both.

    predicted, truth: label maps (N, *spatial). groups: (N,), for instance the patient of each.
    spacing_mm: the size of a pixel along each spatial axis, (axes,) for all images or (N, axes). counted: (N, C-1), where
    a class of an image counts: given, and annotated. Groups come in the order of np.unique.
    A surface is the voxels of a class that touch, by a face, another class or the image's edge.
    Raises SettingsError where shapes do not match, or a spacing is not above 0.
    """
    names, which = np.unique(groups, return_inverse=True)
    total, images = np.zeros((2, len(names), class_count - 1))
    spacing = _spacing_of_each(spacing_mm, predicted, truth)
    for i, c, to_truth, to_predicted in _surface_distances(predicted, truth, class_count, spacing, counted):
        if to_truth.size and to_predicted.size:
            total[which[i], c - 1] += max(np.percentile(to_truth, 95), np.percentile(to_predicted, 95))
            images[which[i], c - 1] += 1
    return _share(total, images)


def surface_dice_by_group(
    predicted: NDArray[np.integer],
    truth: NDArray[np.integer],
    groups: NDArray[np.generic],
    class_count: int,
    spacing_mm: ArrayLike,
    counted: NDArray[np.bool_] | None = None,
    *,
    tolerance_mm: float | None = None,
) -> NDArray[np.float64]:
    """Normalised surface Dice (groups, C-1), 0 to 1: the share of both surfaces within `tolerance_mm` of the other.

    NaN where a class is in neither map (Nikolov et al. 2021, arXiv:1809.04430; as MONAI's without subvoxels, which counts
    the voxels of a surface and not their area). The surfaces of a group are counted together, as in `dice_by_group`; in
    an image in which only one map holds the class, all of its surface is wrong.

    tolerance_mm: by default the size of one pixel of each image, the greater one of its last two axes. Name one where
    images of different pixel sizes are compared. The others, and what is raised: see `hd95_by_group`.
    """
    if tolerance_mm is not None and not 0 <= tolerance_mm < np.inf:
        raise SettingsError(f"a tolerance of {tolerance_mm:g} mm makes no sense", remedy="Choose 0 mm or more")
    names, which = np.unique(groups, return_inverse=True)
    near, surface = np.zeros((2, len(names), class_count - 1))
    spacing = _spacing_of_each(spacing_mm, predicted, truth)
    tolerances = spacing[:, -2:].max(axis=1) if tolerance_mm is None else np.full(len(truth), tolerance_mm)
    tolerances = tolerances * (1 + 1e-6)  # distances are float32: what lies at the tolerance is to stay within it
    for i, c, *both in _surface_distances(predicted, truth, class_count, spacing, counted):
        for distances in both:
            near[which[i], c - 1] += (distances <= tolerances[i]).sum()
            surface[which[i], c - 1] += distances.size
    return _share(near, surface)


def volume_error_by_group(
    predicted: NDArray[np.integer],
    truth: NDArray[np.integer],
    groups: NDArray[np.generic],
    class_count: int,
    spacing_mm: ArrayLike,
    counted: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Relative volume errors (groups, C-1), (V_predicted - V_truth) / V_truth: -1 is all lost, 0 right, 1 twice as much.

    The voxels of a group are counted together, each by its size; slices (of one group) count as equally thick. NaN where
    the truth does not hold the class; what was invented there is counted by `missed_by_group`.
    Means over groups cancel too much with too little: take those of the absolute values too.
    The arguments, and what is raised: see `hd95_by_group`.
    """
    names, which = np.unique(groups, return_inverse=True)
    voxel = _spacing_of_each(spacing_mm, predicted, truth).prod(axis=1)[:, None]
    volumes = []
    for maps in (predicted, truth):
        each = _voxel_counts(maps, class_count, counted) * voxel
        volumes.append(_sum_by_group(each, which, len(names)))
    return _share(volumes[0] - volumes[1], volumes[1])


def missed_by_group(
    predicted: NDArray[np.integer],
    truth: NDArray[np.integer],
    groups: NDArray[np.generic],
    class_count: int,
    counted: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """The share (groups, C-1) of images with a class in just one of their maps, missed or invented: 0 is best.

    Of the images of the group in which at least one map holds the class; NaN where there is none. These are the images
    that `hd95_by_group` cannot judge. The arguments, and what is raised: see `hd95_by_group`.
    """
    names, which = np.unique(groups, return_inverse=True)
    _require_one_shape(predicted, truth)
    found, asked = (_voxel_counts(maps, class_count, counted) > 0 for maps in (predicted, truth))
    one, any_ = (_sum_by_group(there, which, len(names)) for there in (found ^ asked, found | asked))
    return _share(one, any_)


def _surface_distances(
    predicted: NDArray[np.integer],
    truth: NDArray[np.integer],
    class_count: int,
    spacing: NDArray[np.float64],
    counted: NDArray[np.bool_] | None,
) -> Iterator[tuple[int, int, Distances, Distances]]:
    """(image, class, mm from each voxel of the predicted surface to the true one, and back), where a class occurs.

    Distances to a surface that is not there are infinite; from one that is not there, none.
    """
    for i in range(len(truth)):
        boxes = zip(_boxes(predicted[i], class_count), _boxes(truth[i], class_count), strict=True)
        for c, (a, b) in enumerate(boxes, start=1):
            box = _around(a, b)
            if box is not None and (counted is None or counted[i, c - 1]):
                yield i, c, *_distances(predicted[i][box] == c, truth[i][box] == c, spacing[i])


def _distances(a: NDArray[np.bool_], b: NDArray[np.bool_], spacing: NDArray[np.float64]) -> tuple[Distances, Distances]:
    """From each voxel of the surface of `a` to that of `b`, and back."""
    from monai.metrics.utils import get_mask_edges, get_surface_distance

    of_a, of_b = get_mask_edges(a, b, crop=False)
    if not (of_a.any() and of_b.any()):  # MONAI would count the one surface twice
        return np.full(of_a.sum(), np.inf), np.full(of_b.sum(), np.inf)
    to_b = get_surface_distance(of_a, of_b, spacing=spacing)
    return to_b, get_surface_distance(of_b, of_a, spacing=spacing)


def _boxes(labels: NDArray[np.integer], class_count: int) -> list[Box | None]:
    """The bounding box of each class 1..C-1, None where it is absent."""
    return list(ndimage.find_objects(labels.astype(np.int32), max_label=class_count - 1))


def _around(a: Box | None, b: Box | None) -> Box | None:
    if a is None or b is None:
        return a or b
    return tuple(slice(min(p.start, q.start), max(p.stop, q.stop)) for p, q in zip(a, b, strict=True))


def _voxel_counts(
    maps: NDArray[np.integer], class_count: int, counted: NDArray[np.bool_] | None
) -> NDArray[np.integer]:
    """Voxels of each class (N, C-1), 0 where a class does not count."""
    counts = np.zeros((len(maps), class_count - 1), np.int64)
    for i, labels in enumerate(maps):
        counts[i] = np.bincount(labels.astype(np.intp).ravel(), minlength=class_count)[1:class_count]
    return counts if counted is None else np.where(counted, counts, 0)


def _sum_by_group(each: NDArray[np.generic], which: NDArray[np.intp], count: int) -> NDArray[np.float64]:
    result = np.zeros((count, each.shape[1]))
    np.add.at(result, which, each)
    return result


def _share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """part / whole, NaN where the whole is nothing."""
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def _spacing_of_each(
    spacing_mm: ArrayLike, predicted: NDArray[np.integer], truth: NDArray[np.integer]
) -> NDArray[np.float64]:
    """The spacing of each image (N, axes)."""
    _require_one_shape(predicted, truth)
    count, axes = len(truth), truth.ndim - 1
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    if spacing.shape not in ((axes,), (count, axes)):
        problem = f"spacings of shape {spacing.shape} for {count} label maps of {axes} axes"
        raise SettingsError(problem, remedy=f"Give ({axes},), or ({count}, {axes}) for one each")
    if not (np.isfinite(spacing) & (spacing > 0)).all():
        raise SettingsError("a spacing is not above 0 mm", remedy="Give the size of a pixel along each axis")
    return np.broadcast_to(spacing, (count, axes))


def _require_one_shape(predicted: NDArray[np.integer], truth: NDArray[np.integer]) -> None:
    if predicted.shape != truth.shape:
        raise SettingsError(
            f"label maps of shapes {predicted.shape} and {truth.shape} cannot be compared",
            remedy="Give one predicted map for each true one, of its size",
        )
