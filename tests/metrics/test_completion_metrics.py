"""Energy distance and coverage of completed label maps: known answers."""

from __future__ import annotations

import numpy as np
import pytest

from anatogen.metrics.completion import covered, energy_distance, nominal_coverage


def squares(*sides: int) -> np.ndarray:
    """Masks (n, 8, 8) with a square of that side in a corner each."""
    maps = np.zeros((len(sides), 8, 8), bool)
    for one, side in zip(maps, sides, strict=True):
        one[:side, :side] = True
    return maps


def test_energy_distance() -> None:
    truth = squares(4)[0]
    assert energy_distance(squares(4, 4, 4), truth) == pytest.approx(0)  # perfect
    assert energy_distance(squares(0, 0, 0), truth) == pytest.approx(2)  # all alike, and all wrong
    assert energy_distance(squares(2, 2), truth) == pytest.approx(2 * 0.75)  # a quarter of its size
    assert energy_distance(squares(4, 4, 0, 0), truth) == pytest.approx(2 * 0.5 - 8 / 12)
    assert energy_distance(squares(2), truth) == pytest.approx(1.5)  # a single sample
    assert energy_distance(squares(0, 0), squares(0)[0]) == pytest.approx(0)  # rightly absent
    assert np.isnan(energy_distance(squares(), truth))
    volumes = np.repeat(squares(4, 4, 0, 0)[:, None], 3, axis=1)
    assert energy_distance(volumes, volumes[0]) == pytest.approx(2 * 0.5 - 8 / 12)


def test_no_samples_score_better_on_average_than_those_that_vary_as_the_truth_does() -> None:
    rng = np.random.default_rng(0)
    sides = rng.integers(2, 8, (1000, 5))
    sure = {
        side: np.mean([energy_distance(squares(*[side] * 4), squares(row[0])[0]) for row in sides])
        for side in (4, 5, 6)
    }
    found = np.mean([energy_distance(squares(*row[1:]), squares(row[0])[0]) for row in sides])
    too_wide = np.mean([energy_distance(squares(1, 8, 1, 8), squares(row[0])[0]) for row in sides])
    apart = np.mean([1 - min(row[:2]) ** 2 / max(row[:2]) ** 2 for row in sides])
    assert found == pytest.approx(apart, abs=0.03)  # what two truths are apart
    assert found + 0.05 < min(*sure.values(), too_wide)


def test_coverage() -> None:
    assert covered(np.array([3, 5]), 3) and covered(np.array([3, 5]), 4) and not covered(np.array([3, 5]), 6)
    assert covered(np.array([0]), 0) and not covered(np.array([]), 0)
    rng = np.random.default_rng(0)
    share = np.mean([covered(row[1:], row[0]) for row in rng.normal(size=(2000, 9))])
    assert share == pytest.approx(nominal_coverage(8), abs=0.03)
