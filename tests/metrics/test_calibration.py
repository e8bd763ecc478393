"""Calibration of frequencies: perfect, overconfident, constant, empty and tiny predictions, whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from anatogen.errors import DataError
from anatogen.metrics.calibration import FrequencyCounts, MonotoneMap, calibration, count_frequencies, fit_monotone
from anatogen.metrics.intervals import TOO_FEW


def of_shares(predicted: list[float], shares: list[float], patients: int = 6, spread: float = 0.0) -> FrequencyCounts:
    """1000 pixels of each patient at each level, of which `shares` show the class, patients `spread` apart."""
    apart = spread * np.linspace(-1, 1, patients)[:, None]
    pixels = np.full((patients, len(predicted)), 1000.0)
    hits = pixels * np.clip(np.array(shares) + apart, 0, 1)
    levels = np.array(predicted)
    return FrequencyCounts(np.array([f"p{i}" for i in range(patients)]), levels, levels, pixels, hits)


def test_a_perfect_prediction() -> None:
    found = calibration(of_shares([0, 0.25, 0.5, 0.75, 1], [0, 0.25, 0.5, 0.75, 1]))
    assert found.error.value == pytest.approx(0)
    assert found.brier.value == pytest.approx(np.mean([0, 0.1875, 0.25, 0.1875, 0]))  # p (1 - p)
    assert [(row.predicted, row.observed.value) for row in found.rows] == [(p, p) for p in (0, 0.25, 0.5, 0.75, 1)]
    assert [row.pixels for row in found.rows] == [6000] * 5 and found.pixels == 30_000


def test_an_overconfident_prediction_and_its_repair() -> None:
    counts = of_shares([0, 1], [0.2, 0.7], spread=0.1)
    found = calibration(counts)
    assert found.error.value == pytest.approx(0.25) and found.brier.value == pytest.approx(0.25)
    one_sided = calibration(of_shares([0.95], [0.7], spread=0.1)).error
    assert one_sided.value == pytest.approx(0.25)
    assert one_sided.ci95 is not None and one_sided.ci95[0] < 0.25 < one_sided.ci95[1]
    repaired = calibration(counts.mapped(fit_monotone(counts)))
    assert repaired.error.value == pytest.approx(0) and repaired.brier.value == pytest.approx((0.16 + 0.21) / 2)
    assert fit_monotone(counts)(np.array([0, 0.5, 1])) == pytest.approx([0.2, 0.45, 0.7])


def test_a_constant_prediction() -> None:
    counts = of_shares([0.5], [0.2])
    assert calibration(counts).error.value == pytest.approx(0.3)
    assert calibration(counts).brier.value == pytest.approx(0.25)
    assert fit_monotone(counts)(np.array([0, 0.5, 1])) == pytest.approx([0.2] * 3)


def test_an_empty_prediction() -> None:
    none = count_frequencies(np.zeros((0, 4, 4)), np.zeros((0, 4, 4), bool), np.zeros(0, np.str_))
    for counts in (FrequencyCounts.joined([]), none, of_shares([0, 1], [0.1, 0.9]).uncertain()):
        found = calibration(counts)
        assert np.isnan(found.error.value) and np.isnan(found.brier.value)
        assert found.rows == () and found.pixels == 0 and found.error.reason == TOO_FEW
        assert fit_monotone(counts)(np.array([0, 0.3, 1])) == pytest.approx([0, 0.3, 1])


def test_a_single_pixel() -> None:
    counts = count_frequencies(np.full((1, 1, 1), 0.75), np.ones((1, 1, 1), bool), np.array(["p"]))
    found = calibration(counts)
    assert found.error.value == pytest.approx(0.25) and found.brier.value == pytest.approx(0.0625)
    assert found.error.ci95 is None and found.error.reason == TOO_FEW


def test_only_uncertain_pixels_and_only_known_ones() -> None:
    frequency = np.array([[0, 0.5, 0.5, 1.0]])
    observed = np.array([[False, True, False, True]])
    every = count_frequencies(frequency, observed, np.array(["p"]))
    assert every.levels.tolist() == [0, 0.5, 1] and every.hits.tolist() == [[0, 1, 1]]
    assert every.uncertain().pixels.tolist() == [[2]]
    known = count_frequencies(frequency, observed, np.array(["p"]), np.array([[True, True, False, True]]))
    assert known.pixels.tolist() == [[1, 1, 1]]
    moved = every.mapped(MonotoneMap(np.array([0.0, 1.0]), np.array([0.5, 0.5])))
    assert moved.uncertain().pixels.tolist() == [[2]]  # by level, whatever is predicted there


@given(
    arrays(np.int64, (6, 5), elements=st.integers(0, 4)),
    arrays(np.bool_, (6, 5)),
    arrays(np.int64, 6, elements=st.integers(0, 2)),
)
@settings(max_examples=50, deadline=None)
def test_against_naive_sums_and_in_parts(votes: np.ndarray, observed: np.ndarray, patient: np.ndarray) -> None:
    frequency, names = votes / 4, np.array([f"p{i}" for i in patient])
    counts = count_frequencies(frequency, observed, names)
    parts = [
        count_frequencies(frequency[i : i + 1].astype(np.float32), observed[i : i + 1], names[i : i + 1])
        for i in range(6)
    ]
    joined = FrequencyCounts.joined(parts)
    assert np.array_equal(joined.pixels, counts.pixels) and np.array_equal(joined.hits, counts.hits)
    error = sum(
        abs(observed[frequency == level].sum() - level * (frequency == level).sum()) for level in np.unique(frequency)
    )
    found = calibration(counts)
    assert found.error.value == pytest.approx(error / frequency.size)
    assert found.brier.value == pytest.approx(((frequency - observed) ** 2).mean())
    change = fit_monotone(counts)
    points = change(np.linspace(0, 1, 9))
    assert (np.diff(points) >= 0).all() and points.min() >= 0 and points.max() <= 1
    assert calibration(counts.mapped(change)).brier.value <= found.brier.value + 1e-12


def test_bad_input_says_what_is_wrong() -> None:
    with pytest.raises(DataError, match="not in"):
        count_frequencies(np.full((1, 2), 1.5), np.ones((1, 2), bool), np.array(["p"]))
    with pytest.raises(DataError, match="differ"):
        count_frequencies(np.ones((2, 2)), np.ones((2, 2), bool), np.array(["p"]))
