"""Calibration of frequencies: of the pixels that a class takes in 7 of 10 samples, do 7 in 10 truly show it?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from anatogen.errors import DataError
from anatogen.metrics.intervals import Interval, Mean, mean_interval

BINS = 10
_DIGITS = 6  # of a frequency; makes equal ones of 7/8 in float32 and float64


@dataclass(frozen=True)
class FrequencyCounts:
    """Pixels by patient and level of predicted frequency, from which every measure of calibration follows.

    Attributes:
        patients: Their names, (G,), ascending.
        levels: The different frequencies in [0, 1], (L,), ascending.
        predicted: What is predicted at each level, (L,): the level itself, or what a map made of it.
        pixels: (G, L).
        hits: (G, L), the pixels that truly show the class.
    """

    patients: NDArray[np.str_]
    levels: NDArray[np.float64]
    predicted: NDArray[np.float64]
    pixels: NDArray[np.float64]
    hits: NDArray[np.float64]

    @classmethod
    def joined(cls, parts: Sequence[FrequencyCounts]) -> FrequencyCounts:
        """The counts of all `parts`, whose predictions are their levels."""
        if not parts:
            none = np.zeros((0, 0))
            return cls(np.zeros(0, np.str_), np.zeros(0), np.zeros(0), none, none)
        patients = np.unique(np.concatenate([part.patients for part in parts]))
        levels = np.unique(np.concatenate([part.levels for part in parts]))
        pixels, hits = np.zeros((2, len(patients), len(levels)))
        for part in parts:
            place = np.ix_(np.searchsorted(patients, part.patients), np.searchsorted(levels, part.levels))
            pixels[place] += part.pixels
            hits[place] += part.hits
        return cls(patients, levels, levels, pixels, hits)

    def uncertain(self) -> FrequencyCounts:
        """The pixels where samples disagree: level above 0 and below 1, whatever is predicted there."""
        kept = (self.levels > 0) & (self.levels < 1)
        return FrequencyCounts(
            self.patients, self.levels[kept], self.predicted[kept], self.pixels[:, kept], self.hits[:, kept]
        )

    def mapped(self, change: MonotoneMap) -> FrequencyCounts:
        """The same pixels with `change` of their level as prediction."""
        return replace(self, predicted=change(self.levels))


def count_frequencies(
    frequency: NDArray[np.floating],
    observed: NDArray[np.bool_],
    patients: NDArray[np.str_],
    known: NDArray[np.bool_] | None = None,
) -> FrequencyCounts:
    """Count pixels by patient and predicted frequency.

    Args:
        frequency: In how many of several samples a pixel shows the class, (N, *spatial) in [0, 1].
        observed: Whether it truly does, (N, *spatial).
        patients: (N,).
        known: Where the truth is known, (N, *spatial); by default everywhere.

    Raises:
        DataError: Shapes do not match, or a frequency is not in [0, 1].
    """
    if frequency.shape != observed.shape or len(patients) != len(frequency):
        raise DataError(
            f"frequencies of shape {frequency.shape}, truth of {observed.shape} and {len(patients)} patients differ",
            hint="Pass one of each for every image",
        )
    if not ((frequency >= 0) & (frequency <= 1)).all():
        raise DataError("a frequency is not in [0, 1]", hint="Pass shares of samples")
    everywhere = np.ones(frequency.shape, bool) if known is None else known
    levels, at = np.unique(np.round(np.asarray(frequency, np.float64), _DIGITS)[everywhere], return_inverse=True)
    names, which = np.unique(patients, return_inverse=True)
    of_pixel = np.broadcast_to(which.reshape(-1, *(1,) * (frequency.ndim - 1)), frequency.shape)[everywhere]
    place, shape = of_pixel * len(levels) + at, (len(names), len(levels))
    pixels = np.bincount(place, minlength=shape[0] * shape[1]).reshape(shape)
    hits = np.bincount(place, observed[everywhere], minlength=shape[0] * shape[1]).reshape(shape)
    as_floats = (np.asarray(each, dtype=np.float64) for each in (levels, levels, pixels, hits))
    return FrequencyCounts(names, *as_floats)


@dataclass(frozen=True)
class ReliabilityRow:
    """The pixels whose prediction is from low to high: how many, the mean prediction, and the share that shows the
    class with its 95 % interval by patient.
    """

    low: float
    high: float
    pixels: int
    predicted: float
    observed: Mean


@dataclass(frozen=True)
class Calibration:
    """How well frequencies are calibrated. Intervals are by patient.

    Attributes:
        error: Expected calibration error, in [0, 1].
        brier: Brier score (1950), the mean of (predicted - shown)^2, in [0, 1].
        rows: The reliability table; bins without pixels are left out.
        pixels: How many there were.
    """

    error: Mean
    brier: Mean
    rows: tuple[ReliabilityRow, ...]
    pixels: int


def calibration(counts: FrequencyCounts, bins: int = BINS) -> Calibration:
    """Reliability, expected calibration error and Brier score.

    The error is the mean over pixels of |share that shows the class - mean prediction| in their bin (Guo et al. 2017,
    equation 3). It is 0 only without noise: few patients raise it. Its interval takes the sign of each bin's difference
    as known, which leaves a ratio of sums over patients; see `mean_interval`.

    Args:
        counts: The pixels; where there are none, everything is NaN.
        bins: Of equal width; the last one includes 1.
    """
    bin_of = np.minimum((counts.predicted * bins + 1e-9).astype(np.intp), bins - 1)
    asked = counts.pixels * counts.predicted
    of_bin = np.arange(bins)[:, None] == bin_of  # (bins, L)
    pixels, hits, expected = (each @ of_bin.T.astype(np.float64) for each in (counts.pixels, counts.hits, asked))
    sign = np.sign((hits - expected).sum(axis=0))
    whole = counts.pixels.sum(axis=1)
    squares = (asked * counts.predicted - 2 * counts.predicted * counts.hits + counts.hits).sum(axis=1)
    rows = tuple(
        ReliabilityRow(
            b / bins,
            (b + 1) / bins,
            round(float(pixels[:, b].sum())),
            float(expected[:, b].sum() / pixels[:, b].sum()),
            _ratio(hits[:, b], pixels[:, b]),
        )
        for b in range(bins)
        if pixels[:, b].any()
    )
    return Calibration(_ratio((hits - expected) @ sign, whole), _ratio(squares, whole), rows, round(float(whole.sum())))


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64], within: Interval = (0, 1)) -> Mean:
    """The ratio of two sums over patients, with the interval of its linearisation."""
    there = whole > 0
    part, whole = part[there], whole[there]
    if not len(whole):
        return mean_interval(np.zeros((0, 1)), within)
    value = part.sum() / whole.sum()
    influence = len(whole) * (part - value * whole) / whole.sum()
    return mean_interval((value + influence)[:, None], within)


@dataclass(frozen=True)
class MonotoneMap:
    """A rising map of frequencies to [0, 1], linear between its levels (K,) and level beyond them."""

    levels: NDArray[np.float64]
    values: NDArray[np.float64]

    def __call__(self, frequency: NDArray[np.floating]) -> NDArray[np.float64]:
        """The calibrated frequency of each pixel."""
        return np.asarray(np.interp(frequency, self.levels, self.values))


def fit_monotone(counts: FrequencyCounts) -> MonotoneMap:
    """The rising map with the least Brier score on `counts`: isotonic regression (Zadrozny and Elkan 2002).

    Measure the result on patients that it was not fitted on. Without pixels it changes nothing.
    """
    pixels = counts.pixels.sum(axis=0)
    there = pixels > 0
    if not there.any():
        return MonotoneMap(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    share = counts.hits.sum(axis=0)[there] / pixels[there]
    fitted = isotonic_regression(share, weights=pixels[there]).x
    return MonotoneMap(counts.levels[there], np.clip(fitted, 0, 1))
