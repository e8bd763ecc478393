"""Intensities: stored as 16-bit integers, seen by the model in [-1, 1], and back again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.errors import DataError

_LOWEST, _HIGHEST = -32768, 32767


@dataclass(frozen=True)
class IntensityMapping:
    """One channel of one case. Stored integer q stands for slope q + intercept in the scanner's units (HU for CT).

    low and high, in those units, are -1 and 1 to the model; what lies outside is clipped on the way to the model only.
    """

    slope: float
    intercept: float
    low: float
    high: float

    def to_model(self) -> tuple[float, float]:
        """(gain, offset): a stored integer q is gain q + offset to the model."""
        scale = 2 / (self.high - self.low)
        return self.slope * scale, (self.intercept - self.low) * scale - 1

    def from_model(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Values in the scanner's units of `x` in [-1, 1]."""
        return (self.low + (np.asarray(x) + 1) / 2 * (self.high - self.low)).astype(np.float32)


@dataclass(frozen=True)
class IntensityRule:
    """Where -1 and 1 lie: a window in the scanner's units, the same for all cases, or percentiles of each case."""

    window: tuple[float, float] | None = None
    percentile: tuple[float, float] = (0.5, 99.5)

    def bounds(self, values: NDArray[Any]) -> tuple[float, float]:
        """(low, high) for one channel of one case, low < high."""
        low, high = self.window or (float(v) for v in np.percentile(values, self.percentile))
        if high <= low:
            low, high = float(values.min()), float(values.max())
        return (low, high) if high > low else (low - 0.5, low + 0.5)


def store(values: NDArray[Any], rule: IntensityRule) -> tuple[NDArray[np.int16], IntensityMapping]:
    """One channel of one case as int16, and the way back.

    Whole numbers that span at most 65,536 steps are kept exactly (slope 1); others within half a step of 1/65,535 of
    their range. Raises DataError for values that are not finite.
    """
    if not np.isfinite(values).all():
        raise DataError("the image holds NaN or infinite values", hint="Replace them by the background's value")
    low, high = rule.bounds(values)
    smallest, largest = float(values.min()), float(values.max())
    whole = values.dtype.kind in "iub" or bool((values == np.rint(values)).all())
    if whole and largest - smallest <= _HIGHEST - _LOWEST:
        slope = 1.0
        intercept = 0.0 if smallest >= _LOWEST and largest <= _HIGHEST else smallest - _LOWEST
    else:
        slope = (largest - smallest) / (_HIGHEST - _LOWEST) or 1.0
        intercept = smallest - slope * _LOWEST
    stored = np.rint((values.astype(np.float64) - intercept) / slope)
    return np.clip(stored, _LOWEST, _HIGHEST).astype(np.int16), IntensityMapping(slope, intercept, low, high)
