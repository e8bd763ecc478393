"""Completed label maps against an annotation: how near each is, how far they differ among themselves, and whether the
truth lies among them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def energy_distance(samples: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Generalised energy distance of samples to one annotation (Kohl et al. 2018, section 4).

    2 E d(S, Y) - E d(S, S') with d = 1 - intersection over union, 0 where both are empty. Pairs S, S' are of two
    different samples, so that their number makes no difference on average; of a single one the second term is 0. On
    average over label maps, no samples score lower than those that vary as the truth does; they score what two truths
    would be apart, and not 0, since of every truth one is known.

    Args:
        samples: The pixels of one class, bool (n, *spatial).
        truth: The annotated ones, bool (*spatial).

    Returns:
        0 where all samples are the truth, up to 2 where they agree on what is disjoint; NaN without samples.
    """
    count = len(samples)
    if not count:
        return float("nan")
    maps = np.concatenate([samples.reshape(count, -1), truth.reshape(1, -1)]).astype(np.float64)
    both = maps @ maps.T
    either = both.diagonal()[:, None] + both.diagonal() - both
    distance = 1 - np.divide(both, either, out=np.ones_like(both), where=either > 0)
    among = distance[:count, :count].sum() / (count * (count - 1)) if count > 1 else 0.0
    return float(2 * distance[:count, count].mean() - among)


def covered(sizes: NDArray[np.floating], truth: float) -> bool:
    """Whether the true size lies within the smallest and the largest of the samples' sizes (n,).

    It does for a share (n - 1) / (n + 1) of the label maps if samples vary as the truth does (`nominal_coverage`).
    """
    return bool(len(sizes) and sizes.min() <= truth <= sizes.max())


def nominal_coverage(count: int) -> float:
    """The share of label maps whose true size lies within the range of `count` samples that vary as the truth does."""
    return (count - 1) / (count + 1)
