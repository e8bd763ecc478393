"""Which part of a real image stays as it is when its label map is edited."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

DEFAULT_MARGIN = 6.0
"""Pixels; a choice that was not compared with others."""


def kept_outside(
    before: NDArray[np.int64],
    after: NDArray[np.int64],
    margin: float,
    spacing_mm: Sequence[float] | None = None,
) -> NDArray[np.float32]:
    """How much of the real image of map `before` is kept in that of map `after`.

    Args:
        before: Label map (*spatial).
        after: The edited map (*spatial).
        margin: The image is kept at this distance from the pixels whose class differs, and farther away: in mm, or in
            pixels where `spacing_mm` is None.
        spacing_mm: Of the pixels.

    Returns:
        float32 (*spatial): 1 where the image is kept, 0 within half the margin of a changed pixel, rising smoothly
        between. 1 everywhere if nothing differs.
    """
    changed = before != after
    if not changed.any():
        return np.ones(before.shape, dtype=np.float32)
    distance = ndimage.distance_transform_edt(~changed, sampling=spacing_mm)
    if margin < 1e-6:  # of any unit: none
        return (distance > 0).astype(np.float32)
    rise = np.clip(2 * distance / margin - 1, 0, 1)
    return (rise * rise * (3 - 2 * rise)).astype(np.float32)
