"""Intensities: stored as 16-bit integers, scaled to [-1, 1] for the model, and the inverse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.errors import DataError

_LOWEST, _HIGHEST = -32768, 32767


@dataclass(frozen=True)
class IntensityMapping:
    """The intensity mapping of one channel of one case.

    A stored integer q is slope q + intercept in the scanner's units (HU for CT). low and high, in those units, are -1
    and 1 for the model; values outside are clipped for the model only.
    """

    slope: float
    intercept: float
    low: float
    high: float

    def to_model(self) -> tuple[float, float]:
        """(gain, offset): a stored integer q is gain q + offset for the model."""
        scale = 2 / (self.high - self.low)
        return self.slope * scale, (self.intercept - self.low) * scale - 1

    def from_model(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """`x` in [-1, 1] as values in the scanner's units."""
        return (self.low + (np.asarray(x) + 1) / 2 * (self.high - self.low)).astype(np.float32)


@dataclass(frozen=True)
class IntensityRule:
    """The values mapped to -1 and 1: a window in the scanner's units for all cases, or percentiles of each case."""

    window: tuple[float, float] | None = None
    percentile: tuple[float, float] = (0.5, 99.5)

    def bounds(self, values: NDArray[Any]) -> tuple[float, float]:
        """(low, high) for one channel of one case, low < high."""
        low, high = self.window or (float(v) for v in np.percentile(values, self.percentile))
        if high <= low:
            low, high = float(values.min()), float(values.max())
        return (low, high) if high > low else (low - 0.5, low + 0.5)


def store(values: NDArray[Any], rule: IntensityRule) -> tuple[NDArray[np.int16], IntensityMapping]:
    """One channel of one case as int16, and the inverse mapping.

    Whole numbers with a range of at most 65,536 steps are stored exactly (slope 1); others to within half a step of
    1/65,535 of their range.

    Raises:
        DataError: A value is not finite.
    """
    if not np.isfinite(values).all():
        raise DataError("the image contains NaN or infinite values", hint="Replace them with the background value")
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
