"""Intervals of means over few patients hold the true mean as often as they say, or are not given."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from anatogen.metrics.intervals import NO_SPREAD, TOO_FEW, mean_interval

NORMAL = (stats.norm.ppf, 0.0)
DICE = (stats.beta(5, 1).ppf, 5 / 6)  # skewed as the Dice of a good segmenter is
LOGNORMAL = (lambda u: np.exp(0.5 * stats.norm.ppf(u)), np.exp(0.125))
ONE, DEPENDENT, INCOMPLETE = (1, 0.0, 0.0), (2, 0.6, 0.0), (4, 0.3, 0.5)
"""Classes, their correlation within a patient, and how often the rarest of them is missing."""


def simulated(
    kind: tuple, shape: tuple[int, float, float], patients: int, simulations: int = 2000
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores (simulations, patients, classes), and the true mean of each over the classes that any patient has."""
    rng = np.random.default_rng(patients)
    (of_uniform, mean), (classes, correlation, missing) = kind, shape
    own, shared = rng.normal(size=(simulations, patients, classes)), rng.normal(size=(simulations, patients, 1))
    scores = of_uniform(stats.norm.cdf(np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own))
    offsets = np.linspace(0, 0.5, classes)
    there = rng.random(scores.shape) >= np.linspace(0, missing, classes)
    means = np.broadcast_to(mean + offsets, (simulations, classes)).mean(axis=1, where=there.any(axis=1))
    return np.where(there, scores + offsets, np.nan), means


@pytest.mark.parametrize(
    ("shape", "patients"),
    [
        *((ONE, patients) for patients in (3, 5, 8, 20)),
        *((DEPENDENT, patients) for patients in (3, 8)),
        *((INCOMPLETE, patients) for patients in (4, 6, 15)),
    ],
)
@pytest.mark.parametrize("kind", [NORMAL, DICE, LOGNORMAL], ids=["normal", "dice", "lognormal"])
def test_they_cover_the_mean(kind: tuple, shape: tuple[int, float, float], patients: int) -> None:
    """93 to 97 %, as 20,000 simulations of each find (benchmarks/intervals.py), and two standard errors of 2,000 for
    chance.
    """
    scores, means = simulated(kind, shape, patients)
    found = [(mean_interval(each).ci95, mean) for each, mean in zip(scores, means, strict=True)]
    given = [ends[0] <= mean <= ends[1] for ends, mean in found if ends is not None]
    assert len(given) > (0.5 if shape == INCOMPLETE else 0.999) * len(scores)  # else a class has too few patients
    assert 0.92 < np.mean(given) < 0.98


@pytest.mark.parametrize("patients", [3, 5, 8])
def test_the_percentile_bootstrap_would_fail(patients: int) -> None:
    """The test can fail: an earlier interval does."""
    scores, _ = simulated(NORMAL, ONE, patients, 300)
    rng = np.random.default_rng(0)
    held = []
    for each in scores[:, :, 0]:
        low, high = np.percentile(each[rng.integers(patients, size=(500, patients))].mean(axis=1), [2.5, 97.5])
        held.append(low <= 0 <= high)
    assert np.mean(held) < 0.92


def test_equal_to_students_t_without_skewness() -> None:
    scores = np.array([[-1.0], [0.0], [1.0], [2.0], [-2.0]])
    low, high = mean_interval(scores).ci95
    far = stats.t.ppf(0.975, 4 - 0.3) * scores.std(ddof=1) / np.sqrt(5)
    assert (low, high) == pytest.approx((-far, far))


def test_skewed_scores_reach_further_to_their_long_side() -> None:
    mean, (low, high), _ = mean_interval(np.array([[0.9], [0.91], [0.92], [0.93], [0.5]]))
    assert mean - low > 1.5 * (high - mean)
    mirrored = mean_interval(1 - np.array([[0.9], [0.91], [0.92], [0.93], [0.5]]))
    assert mirrored.ci95 == pytest.approx((1 - high, 1 - low))


def test_few_patients_have_none() -> None:
    for scores in (np.zeros((0, 2)), np.full((3, 2), np.nan), np.array([[0.8]]), np.array([[0.8], [0.9]])):
        assert mean_interval(scores).ci95 is None and mean_interval(scores).reason == TOO_FEW
    assert np.isnan(mean_interval(np.full((3, 2), np.nan)).value)
    rare = np.random.default_rng(0).uniform(0.7, 0.9, (20, 2))
    assert mean_interval(rare).ci95 is not None
    rare[2:, 1] = np.nan  # two patients decide on half of the mean
    found = mean_interval(rare)
    assert found.value == pytest.approx((rare[:, 0].mean() + rare[:2, 1].mean()) / 2)
    assert found.ci95 is None and found.reason == TOO_FEW
    rare[1:, 1] = np.nan
    assert mean_interval(rare).reason == TOO_FEW


def test_what_does_not_differ_has_none() -> None:
    found = mean_interval(np.tile([0.7, 0.9], (9, 1)))
    assert found == (pytest.approx(0.8), None, NO_SPREAD)


def test_cut_to_what_is_possible() -> None:
    scores = np.array([[0.99], [0.9], [0.3]])
    low, high = mean_interval(scores, within=(0, 1)).ci95
    assert (low, high) == (0.0, 1.0) and mean_interval(scores).ci95[1] > 1
    assert mean_interval(np.random.default_rng(0).normal(size=(50, 1))).ci95[0] < 0


def test_narrows_with_patients_and_leaves_an_empty_class_out() -> None:
    rng = np.random.default_rng(0)
    few, many = rng.normal(0.8, 0.1, (10, 2)), rng.normal(0.8, 0.1, (1000, 2))
    mean, (low, high), _ = mean_interval(few)
    assert mean == pytest.approx(few.mean()) and low < mean < high
    assert high - low == pytest.approx(2 * 1.96 * 0.1 / np.sqrt(20), rel=0.5)
    assert np.diff(mean_interval(many).ci95) < 0.2 * (high - low)
    few[:, 1] = np.nan
    assert mean_interval(few) == mean_interval(few[:, :1])
