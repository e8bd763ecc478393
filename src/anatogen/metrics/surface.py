"""Surface distances and volumes of label maps in millimetres: how far the anatomy of an image is from its map."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anatogen.metrics.confusion import confusion_counts


def hd95_by_group(
    predicted: NDArray[np.integer],
    truth: NDArray[np.integer],
    groups: NDArray[np.generic],
    class_count: int,
    spacing_mm: ArrayLike,
    counted: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """95 % Hausdorff distances in mm: 0 is best (Huttenlocher et al. 1993; MONAI's, percentile 95).

    The larger of the 95th percentiles of the distances from each surface to the other, image by image, averaged over
    the images of a group in which both maps hold the class. `missed_by_group` and `ConfusionCounts.invented_by` say how
    many images are left out, so show them too. The surface of a class is its voxels that touch, by a face, another
    class or the image border.

    Args:
        predicted: Label maps (N, *spatial).
        truth: Label maps (N, *spatial).
        groups: (N,), for instance the patient of each image.
        class_count: C, the background included.
        spacing_mm: Size of a voxel along each spatial axis: a number or (axes,) for all images, or (N, axes).
        counted: Bool (N, C-1), whether a class counts for an image (given and annotated); by default all do.

    Returns:
        (groups, C-1), in the order of `np.unique`; NaN where no image of the group has the class in both maps.

    Raises:
        SettingsError: Shapes do not match, or a spacing is not above 0.
    """
    return confusion_counts(predicted, truth, class_count, spacing_mm, counted).hd95_by(groups)


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
    """Normalised surface Dice: the share of both surfaces within `tolerance_mm` of the other (Nikolov et al. 2021).

    As MONAI's without subvoxels (arXiv:1809.04430), which counts surface voxels and not their area. The surfaces of a
    group are counted together, as in `dice_by_group`; where only one map of an image has the class, its whole surface
    is wrong.

    Args:
        predicted: See `hd95_by_group`.
        truth: See `hd95_by_group`.
        groups: See `hd95_by_group`.
        class_count: See `hd95_by_group`.
        spacing_mm: See `hd95_by_group`.
        counted: See `hd95_by_group`.
        tolerance_mm: By default one pixel of each image, the larger of its last two axes. Set it to compare images of
            different pixel sizes.

    Returns:
        (groups, C-1) in [0, 1]; NaN where the true maps of a group lack a class.

    Raises:
        SettingsError: As in `hd95_by_group`, or the tolerance is negative.
    """
    of_images = confusion_counts(predicted, truth, class_count, spacing_mm, counted, tolerance_mm=tolerance_mm)
    return of_images.surface_dice_by(groups)


def volume_error_by_group(
    predicted: NDArray[np.integer],
    truth: NDArray[np.integer],
    groups: NDArray[np.generic],
    class_count: int,
    spacing_mm: ArrayLike,
    counted: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Relative volume errors (V_predicted - V_truth) / V_truth: -1 all lost, 0 right, 1 twice as much.

    The voxels of a group are counted together, each by its volume; the slices of one group count as equally thick. In a
    mean over groups, errors of opposite sign cancel, so average absolute values too. `ConfusionCounts.invented_by`
    measures what was found of absent classes.

    Args:
        predicted: See `hd95_by_group`.
        truth: See `hd95_by_group`.
        groups: See `hd95_by_group`.
        class_count: See `hd95_by_group`.
        spacing_mm: See `hd95_by_group`.
        counted: See `hd95_by_group`.

    Returns:
        (groups, C-1); NaN where the true maps of a group lack a class.

    Raises:
        SettingsError: As in `hd95_by_group`.
    """
    return confusion_counts(predicted, truth, class_count, spacing_mm, counted, surfaces=False).volume_error_by(groups)


def missed_by_group(
    predicted: NDArray[np.integer],
    truth: NDArray[np.integer],
    groups: NDArray[np.generic],
    class_count: int,
    counted: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Share of images in which a class is not found, among those whose true map has it: 0 is best.

    `hd95_by_group` leaves these images out.

    Args:
        predicted: See `hd95_by_group`.
        truth: See `hd95_by_group`.
        groups: See `hd95_by_group`.
        class_count: See `hd95_by_group`.
        counted: See `hd95_by_group`.

    Returns:
        (groups, C-1) in [0, 1]; NaN where no true map of a group has the class.

    Raises:
        SettingsError: Shapes do not match.
    """
    return confusion_counts(predicted, truth, class_count, 1.0, counted, surfaces=False).missed_by(groups)
