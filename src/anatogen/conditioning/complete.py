"""Completing a label map: the given classes as they are, the free ones where they were found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def completed(labels: NDArray[np.integer], given: Sequence[bool], found: NDArray[np.integer]) -> NDArray[np.int64]:
    """The full label maps (n, *spatial) that follow from one map and what was found in its n images.

    Given classes always win: their pixels are those of `labels`, and none is added. A free class lies where it was
    found, but for those pixels; what `labels` shows of it is passed over.

    Args:
        labels: (*spatial) of class indices.
        given: Whether each class 1..C-1 is given.
        found: (n, *spatial), for instance a segmenter's.
    """
    fixed = [index for index, state in enumerate(given, start=1) if state]
    free = np.where(np.isin(found, fixed), 0, found)
    return np.where(np.isin(labels, fixed), labels, free).astype(np.int64)
