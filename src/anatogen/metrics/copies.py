"""Copies of training patients: how near generated images come to the training images, measured against real images of
patients whom the model never saw.

The distances are those of `neighbours`. `certainty` says in words what came out, that of `membership` counted in.
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
"""A model is flagged where chance alone would do what it did less often than this."""


@dataclass(frozen=True)
class CopyRate:
    """How many generated images are nearer to a training image than real images of unseen patients are.

    rate: the share of them, in [0, 1]. ci95: its interval, at this threshold. threshold: distances below it count as
    copies. level: the share of held-out images that lie no further. expected: the rate by chance, of a model that
    copies nothing. p_value: how often chance alone does as much (one-sided, the threshold's own uncertainty counted
    in). detectable: the smallest rate that would have been told from chance at p < 0.01; NaN where none would. flagged:
    bool (N,), the images that count as copies. grouped: whether p_value and intervals are by patient.
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
        """Whether the model is flagged: chance alone does as much less often than `SIGNIFICANCE`."""
        return self.p_value < SIGNIFICANCE


def copy_threshold(
    heldout: Floats, groups: NDArray[np.generic] | None = None, *, level: float = 0.01
) -> tuple[float, float]:
    """(threshold, expected): the distance below which a copy is suspected, and the share of images there by chance.

    heldout: (K,), distances of real images of unseen patients. The threshold is the k-th smallest, k = level (K + 1)
    rounded down and at least 1. A further image of the same kind lies below it with probability k / (K + 1), exactly
    and whatever the distribution (as in conformal prediction: Vovk et al. 2005); with few held-out images that is more
    than `level`, and says so. With `groups` (K,), the patients, whose images are alike, it is measured instead: each
    patient in turn against the threshold of the others. Raises DataError where there is nothing to calibrate on.
    """
    heldout = finite(heldout, "held-out")
    require_groups((heldout, groups))
    if not 0 < level < 1:
        raise DataError(f"a level of {level} is no share", hint="Choose one between 0 and 1, for instance 0.01")
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
    """The calibrated copy rate from distances to the nearest training image; `Neighbours.relative` is what to give.

    generated: (N,). heldout: (K,), real images of patients whom the model never saw (heldout, val and test together;
    several hundred make the level of 1 % meaningful), prepared in the same way. generated_groups, heldout_groups: the
    patient of each, that of the label map for a generated image. Images from training label maps may be among the
    generated ones, and nothing is excluded for them: their own real image is the very one to be suspicious of.

    Without groups the count below the threshold is beta-binomial, exactly, if no model copies (an order statistic as
    threshold: Wilks 1941), and the interval that of Clopper and Pearson 1934. With them, p is that of a permutation
    test that deals out the patients anew, generated and held-out, and the interval that of Korn and Graubard 1998
    (Clopper-Pearson with the effective sample size), which unlike a bootstrap has a width where nothing was flagged.
    What one patient's images have in common is then no evidence; with very few patients nothing is (`detectable` is
    NaN).
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
    """(p, smallest rate that chance alone would not explain) where all images are independent."""
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
    """The same where a patient's images are not independent: patients are dealt anew into generated and held-out."""
    pooled = np.concatenate(distances)
    order = np.argsort(pooled, kind="stable")
    first, second = (np.unique(names, return_inverse=True)[1] for names in groups)
    n_generated = int(first.max()) + 1
    patient = np.concatenate([first, second + n_generated])[order]
    pooled, sizes = pooled[order], np.bincount(patient)
    rng, chance = np.random.default_rng(seed), np.empty(draws)
    place = np.empty(len(pooled), np.int64)  # of each image in a random order of its patient's
    place[np.lexsort((rng.random(len(pooled)), patient))] = np.concatenate([np.arange(size) for size in sizes])

    def excess(rate: float, heldout: int) -> float:
        return rate - _rank(heldout, level) / (heldout + 1)

    for draw in range(draws):
        role = rng.permutation(len(sizes))  # whose side each patient takes, and with as many images, if it has them
        used = (place + rng.integers(sizes)[patient]) % sizes[patient] < sizes[role][patient]
        is_generated = (role < n_generated)[patient]
        heldout = np.flatnonzero(used & ~is_generated)
        below = pooled.searchsorted(pooled[heldout[_rank(len(heldout), level) - 1]])  # strictly nearer ones only
        is_generated &= used
        chance[draw] = excess(is_generated[:below].sum() / is_generated.sum(), len(heldout))
    by_chance = -excess(0.0, len(distances[1]))
    p_value = float((1 + (chance >= flagged.mean() - by_chance - 1e-12).sum()) / (draws + 1))
    critical = float(np.quantile(chance, 1 - SIGNIFICANCE)) + by_chance + 1 / len(flagged)
    possible = math.comb(len(sizes), n_generated) > 1 / SIGNIFICANCE and critical <= 1
    return p_value, critical if possible else math.nan
