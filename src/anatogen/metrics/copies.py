"""Copies of training images: how close generated images come to them, compared with real images of unseen patients.

The distances are those of `neighbours`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from anatogen.errors import DataError
from anatogen.metrics.proportions import finite, proportion_interval, require_groups

Floats = NDArray[np.floating]

SIGNIFICANCE = 0.01
"""The level of the tests: a model is flagged below this p-value."""


@dataclass(frozen=True)
class CopyRate:
    """How many generated images are closer to a training image than real images of unseen patients are.

    Attributes:
        rate: Share of suspected copies among the generated images, in [0, 1].
        ci95: 95 % interval of `rate`, at this threshold.
        threshold: Distances below it count as copies.
        level: Share of held-out images at or below the threshold.
        expected: Rate by chance, of a model that copies nothing.
        p_value: One-sided probability of such a rate by chance, the uncertainty of the threshold included.
        detectable: Smallest rate that would have been significant at p < 0.01; NaN where none would.
        flagged: Bool (N,), the images that count as copies.
        n_generated: Number of generated images.
        n_heldout: Number of held-out images.
        grouped: Whether p-value and interval are by patient.
    """

    rate: float
    ci95: tuple[float, float]
    threshold: float
    level: float
    expected: float
    p_value: float
    detectable: float
    flagged: NDArray[np.bool_]
    n_generated: int
    n_heldout: int
    grouped: bool

    @property
    def above_chance(self) -> bool:
        """Whether the model is flagged: `p_value` is below `SIGNIFICANCE`."""
        return self.p_value < SIGNIFICANCE


def copy_threshold(
    heldout: Floats, groups: NDArray[np.generic] | None = None, *, level: float = 0.01
) -> tuple[float, float]:
    """The distance below which a copy is suspected, calibrated on real images of unseen patients.

    The threshold is the k-th smallest distance, k = level (K + 1) rounded down, at least 1. A further image of the same
    kind lies below it with probability k / (K + 1), exactly and for any distribution (as in conformal prediction: Vovk
    et al. 2005); with few held-out images this is more than `level`. With `groups` it is measured instead: each patient
    in turn against the threshold of the others, because the images of one patient are similar.

    Args:
        heldout: (K,), distances of real images of unseen patients.
        groups: (K,), the patient of each.
        level: Share of held-out images below the threshold, in (0, 1).

    Returns:
        (threshold, expected), the latter the share of images below the threshold by chance.

    Raises:
        DataError: There is no held-out distance, one is not finite, or `level` is out of range.
    """
    heldout = finite(heldout, "held-out")
    require_groups((heldout, groups))
    if not 0 < level < 1:
        raise DataError(f"the level must be in (0, 1), got {level}", hint="Choose for instance 0.01")
    threshold, expected = _threshold(heldout, level), _rank(len(heldout), level) / (len(heldout) + 1)
    if groups is not None and len(names := np.unique(groups)) > 1:
        below = [(heldout[groups == name] < _threshold(heldout[groups != name], level)).sum() for name in names]
        expected = max(expected, float(np.sum(below)) / len(heldout))
    return threshold, expected


def copy_rate(
    generated: Floats,
    heldout: Floats,
    generated_groups: NDArray[np.generic] | None = None,
    heldout_groups: NDArray[np.generic] | None = None,
    *,
    level: float = 0.01,
    draws: int = 1999,
    seed: int = 0,
) -> CopyRate:
    """The calibrated copy rate, from distances to the nearest training image (`Neighbours.relative`).

    Without groups, the count below the threshold is beta-binomial if no model copies, exactly (an order statistic as
    threshold: Wilks 1941), and the interval is that of Clopper and Pearson 1934. With groups, p is that of a
    permutation test that reassigns patients to the generated and the held-out side, and the interval is that of Korn
    and Graubard 1998 (Clopper-Pearson with the effective sample size), which unlike a bootstrap has a width where
    nothing was flagged. What the images of one patient have in common is then no evidence; with very few patients
    nothing is (`detectable` is NaN).

    Args:
        generated: (N,). Images from training label maps may be included; their own real image is not excluded, since it
            is the most likely one to be copied.
        heldout: (K,), real images of unseen patients (heldout, val and test together; the level of 1 % needs several
            hundred), prepared in the same way.
        generated_groups: (N,), the patient of each label map.
        heldout_groups: (K,), the patient of each image.
        level: See `copy_threshold`.
        draws: Permutations of patients.
        seed: Of the permutations.

    Returns:
        The rate with its interval and p-value.

    Raises:
        DataError: As in `copy_threshold`, or the numbers of values and groups differ.
    """
    generated, heldout = finite(generated, "generated"), finite(heldout, "held-out")
    require_groups((generated, generated_groups), (heldout, heldout_groups))
    threshold, expected = copy_threshold(heldout, heldout_groups, level=level)
    flagged = generated < threshold
    grouped = generated_groups is not None and heldout_groups is not None
    if generated_groups is not None and heldout_groups is not None:
        sides = (generated, heldout), (generated_groups, heldout_groups)
        p_value, detectable = _chance_by_patient(*sides, flagged, level, draws, seed)
    else:
        p_value, detectable = _chance_by_image(flagged, len(heldout), level)
    return CopyRate(
        rate=float(flagged.mean()),
        ci95=proportion_interval(flagged, generated_groups),
        threshold=threshold,
        level=_rank(len(heldout), level) / len(heldout),
        expected=expected,
        p_value=p_value,
        detectable=detectable,
        flagged=flagged,
        n_generated=len(generated),
        n_heldout=len(heldout),
        grouped=grouped,
    )


def _rank(count: int, level: float) -> int:
    """Which of `count` sorted held-out distances is the threshold, from 1."""
    return min(max(1, math.floor(level * (count + 1) + 1e-9)), count)


def _threshold(heldout: NDArray[np.float64], level: float) -> float:
    k = _rank(len(heldout), level)
    return float(np.partition(heldout, k - 1)[k - 1])


def _chance_by_image(flagged: NDArray[np.bool_], n_heldout: int, level: float) -> tuple[float, float]:
    """(p, smallest significant rate) where all images are independent."""
    k = _rank(n_heldout, level)
    by_chance = stats.betabinom(len(flagged), k, n_heldout + 1 - k)
    critical = (int(by_chance.isf(SIGNIFICANCE)) + 1) / len(flagged)
    return float(by_chance.sf(int(flagged.sum()) - 1)), critical if critical <= 1 else math.nan


def _chance_by_patient(
    distances: tuple[NDArray[np.float64], NDArray[np.float64]],
    groups: tuple[NDArray[np.generic], NDArray[np.generic]],
    flagged: NDArray[np.bool_],
    level: float,
    draws: int,
    seed: int,
) -> tuple[float, float]:
    """The same by permutation of patients, where the images of one patient are not independent."""
    pooled = np.concatenate(distances)
    order = np.argsort(pooled, kind="stable")
    first, second = (np.unique(names, return_inverse=True)[1] for names in groups)
    n_generated = int(first.max()) + 1
    patient = np.concatenate([first, second + n_generated])[order]
    pooled, sizes = pooled[order], np.bincount(patient)
    rng, chance = np.random.default_rng(seed), np.empty(draws)
    place = np.empty(len(pooled), np.int64)  # of each image in a random order of its patient's images
    place[np.lexsort((rng.random(len(pooled)), patient))] = np.concatenate([np.arange(size) for size in sizes])

    def excess(rate: float, heldout: int) -> float:
        return rate - _rank(heldout, level) / (heldout + 1)

    for draw in range(draws):
        role = rng.permutation(len(sizes))  # the patient whose side, and number of images at most, each patient takes
        used = (place + rng.integers(sizes)[patient]) % sizes[patient] < sizes[role][patient]
        is_generated = (role < n_generated)[patient]
        heldout = np.flatnonzero(used & ~is_generated)
        below = pooled.searchsorted(pooled[heldout[_rank(len(heldout), level) - 1]])  # strictly closer ones only
        is_generated &= used
        chance[draw] = excess(is_generated[:below].sum() / is_generated.sum(), len(heldout))
    by_chance = -excess(0.0, len(distances[1]))
    p_value = float((1 + (chance >= flagged.mean() - by_chance - 1e-12).sum()) / (draws + 1))
    critical = float(np.quantile(chance, 1 - SIGNIFICANCE)) + by_chance + 1 / len(flagged)
    possible = math.comb(len(sizes), n_generated) > 1 / SIGNIFICANCE and critical <= 1
    return p_value, critical if possible else math.nan
