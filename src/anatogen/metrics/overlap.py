"""Overlap of label maps: how well images follow the anatomy they were made from (Konz et al. 2024, Table 1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anatogen.metrics.confusion import tally


def dice_by_group(
    predicted: NDArray[np.integer],
    truth: NDArray[np.integer],
    groups: NDArray[np.generic],
    class_count: int,
    counted: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Dice coefficients (groups, C-1), NaN where the true maps of a group lack a class (Dice 1945).

    A Dice of a class that is rightly absent would be 0 at one stray voxel; what was invented is counted by
    `Tally.invented_by`.

    predicted, truth: label maps (N, *spatial). groups: (N,), for instance the patient of each; the voxels of a group
    are counted together, as in a volume. counted: (N, C-1), where a class of an image counts: given, and annotated.
    Groups come in the order of np.unique. Raises SettingsError where shapes do not match.
    """
    return tally(predicted, truth, class_count, counted=counted, surfaces=False).dice_by(groups)


def class_means(scores: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """The mean along `axis` of what is not NaN; NaN where nothing is."""
    there = ~np.isnan(scores)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(there, scores, 0).sum(axis=axis) / there.sum(axis=axis))


def worst(scores: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """The rows of at most `count` patients with the lowest mean over their classes in `scores` (patients, classes).

    The worst comes first; patients without any score are left out. For distances and errors, give their negative.
    """
    means = class_means(scores, axis=1)
    return np.argsort(means, kind="stable")[: min(count, int((~np.isnan(means)).sum()))]
