"""How much anatomy varies between images of one label map that differ in their seed only."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from anatogen.metrics.confusion import confusion_counts
from anatogen.metrics.overlap import class_means


def seed_variation(found: NDArray[np.integer], class_count: int) -> NDArray[np.float64]:
    """1 - Dice between the anatomies of two seeds, averaged over all pairs of seeds.

    Args:
        found: Label maps (maps, seeds, *spatial), for instance a segmenter's.
        class_count: C, the background included.

    Returns:
        (maps, C-1): 0 the same, 1 disjoint. Two images that both lack a class agree on it; NaN where no seed of a map
        has it.
    """
    maps, seeds = found.shape[:2]
    pairs = []
    for a, b in combinations(range(seeds), 2):
        dice = confusion_counts(found[:, a], found[:, b], class_count, surfaces=False).overlap_by(np.arange(maps))
        pairs.append(np.where(np.isnan(dice), 0, 1 - dice))
    there = np.stack([(found == c).reshape(maps, -1).any(axis=1) for c in range(1, class_count)], axis=1)
    return np.where(there, class_means(np.stack(pairs), axis=0), np.nan)
