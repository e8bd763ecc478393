"""Overlap of label maps: how well images follow the maps they were generated from (Konz et al. 2024, Table 1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anatogen.metrics.confusion import confusion_counts


def dice_by_group(
    predicted: NDArray[np.integer],
    truth: NDArray[np.integer],
    groups: NDArray[np.generic],
    class_count: int,
    counted: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Dice coefficients (Dice 1945), the voxels of a group counted together as in a volume.

    A class that is rightly absent has no Dice, since one stray voxel would make it 0; `ConfusionCounts.invented_by`
    measures these.

    Args:
        predicted: Label maps (N, *spatial).
        truth: Label maps (N, *spatial).
        groups: (N,), for instance the patient of each image.
        class_count: C, the background included.
        counted: Bool (N, C-1), whether a class counts for an image (given and annotated); by default all do.

    Returns:
        (groups, C-1), in the order of `np.unique`; NaN where the true maps of a group lack a class.

    Raises:
        SettingsError: Shapes do not match.
    """
    return confusion_counts(predicted, truth, class_count, counted=counted, surfaces=False).dice_by(groups)


def class_means(scores: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """The mean of `scores` along `axis`, NaN left out; NaN where nothing is left."""
    there = ~np.isnan(scores)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(there, scores, 0).sum(axis=axis) / there.sum(axis=axis))


def worst(scores: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """The rows of the patients with the lowest mean score over their classes.

    Args:
        scores: (patients, classes); for distances and errors, give their negative.
        count: The most rows to return.

    Returns:
        At most `count` rows, the worst first; patients without a score are left out.
    """
    means = class_means(scores, axis=1)
    return np.argsort(means, kind="stable")[: min(count, int((~np.isnan(means)).sum()))]
