"""Surfaces and volumes of label maps in millimetres: how far an image's anatomy lies from what was asked for."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anatogen.metrics.confusion import tally


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
    that is not there has no value. `missed_by_group` and `Tally.invented_by` say how many images were left out for that, so show them too.

    predicted, truth: label maps (N, *spatial). groups: (N,), for instance the patient of each.
    spacing_mm: the size of a pixel along each spatial axis, a number or (axes,) for all images, or (N, axes). counted: (N, C-1), where
    a class of an image counts: given, and annotated. Groups come in the order of np.unique.
    A surface is the voxels of a class that touch, by a face, another class or the image's edge.
    Raises SettingsError where shapes do not match, or a spacing is not above 0.
    """
    return tally(predicted, truth, class_count, spacing_mm, counted).hd95_by(groups)


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

    NaN where the true maps of a group lack a class (Nikolov et al. 2021, arXiv:1809.04430; as MONAI's without subvoxels, which counts
    the voxels of a surface and not their area). The surfaces of a group are counted together, as in `dice_by_group`; in
    an image in which only one map holds the class, all of its surface is wrong.

    tolerance_mm: by default the size of one pixel of each image, the greater one of its last two axes. Name one where
    images of different pixel sizes are compared. The others, and what is raised: see `hd95_by_group`.
    """
    of_images = tally(predicted, truth, class_count, spacing_mm, counted, tolerance_mm=tolerance_mm)
    return of_images.surface_dice_by(groups)


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
    the truth does not hold the class; what was invented there is counted by `Tally.invented_by`.
    Means over groups cancel too much with too little: take those of the absolute values too.
    The arguments, and what is raised: see `hd95_by_group`.
    """
    return tally(predicted, truth, class_count, spacing_mm, counted, surfaces=False).volume_error_by(groups)


def missed_by_group(
    predicted: NDArray[np.integer],
    truth: NDArray[np.integer],
    groups: NDArray[np.generic],
    class_count: int,
    counted: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """The share (groups, C-1) of images in which a class is not found, of those whose true map holds it: 0 is best.

    NaN where there is none. What was invented, `Tally.invented_by` counts; neither can be judged by `hd95_by_group`.
    The arguments, and what is raised: see `hd95_by_group`.
    """
    return tally(predicted, truth, class_count, 1.0, counted, surfaces=False).missed_by(groups)
