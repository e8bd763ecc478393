"""Small numbers that stand for label maps: the same measures from pieces as from the whole, and what is made of
them.
"""

from __future__ import annotations

import numpy as np
import pytest

from anatogen.evaluation.sections.similarity import correlation
from anatogen.metrics.confusion import ConfusionCounts, confusion_counts
from anatogen.metrics.overlap import dice_by_group
from anatogen.metrics.surface import hd95_by_group, missed_by_group, surface_dice_by_group, volume_error_by_group
from anatogen.metrics.variation import seed_variation


def some_maps(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    maps = np.zeros((count, 16, 16), dtype=np.int64)
    for labels in maps:
        for c in (1, 2, 3):
            row, column = rng.integers(0, 11, 2)
            labels[row : row + 5, column : column + 5] = c
    return maps


def test_pieces_give_what_the_whole_gives() -> None:
    found, truth = some_maps(12, 0), some_maps(12, 1)
    patients = np.array(["a", "b", "c"] * 4)
    counted = np.random.default_rng(2).random((12, 3)) < 0.7
    spacing = np.random.default_rng(3).uniform(0.5, 2, (12, 2))
    parts = [confusion_counts(found[i : i + 5], truth[i : i + 5], 4, spacing[i : i + 5]) for i in (0, 5, 10)]
    joined = ConfusionCounts.joined(parts).where(counted)
    arguments = (found, truth, patients, 4)
    assert np.allclose(joined.dice_by(patients), dice_by_group(*arguments, counted), equal_nan=True)
    for measured, expected in (
        (joined.hd95_by(patients), hd95_by_group(*arguments, spacing, counted)),
        (joined.surface_dice_by(patients), surface_dice_by_group(*arguments, spacing, counted)),
        (joined.volume_error_by(patients), volume_error_by_group(*arguments, spacing, counted)),
        (joined.missed_by(patients), missed_by_group(*arguments, counted)),
    ):
        assert np.allclose(measured, expected, equal_nan=True)
    some = patients == "b"
    assert np.allclose(joined.of(some).dice_by(patients[some]), joined.dice_by(patients)[1:2], equal_nan=True)


def test_variation_between_seeds() -> None:
    """Four pixels wide, moved by 0, 2 and 4: Dice 1/2, 0 and 1/2 of the three pairs."""
    found = np.zeros((3, 3, 8, 8), dtype=np.int64)
    for seed in range(3):
        found[0, seed, 2 * seed : 2 * seed + 4] = 1
        found[1, seed, :4] = 1
    found[2, 0, :2] = 1  # in one seed of three: two pairs disagree, one agrees that it is not there
    found[:, :, 7] = 2
    apart = seed_variation(found, 4)
    # the last row belongs to class 2, so the third image of map 0 has rows 4 to 6
    dice = [2 * 2 / 8, 0, 2 * 2 / 7]
    assert apart[0, 0] == pytest.approx(1 - np.mean(dice))
    assert apart[1, 0] == 0 and apart[2, 0] == pytest.approx(2 / 3)
    assert (apart[:, 1] == 0).all() and np.isnan(apart[:, 2]).all()


def test_correlation_of_images() -> None:
    image = np.random.default_rng(0).normal(size=(3, 2, 8, 8)).astype(np.float32)
    assert np.allclose(correlation(image, 2 * image + 1), 1) and np.allclose(correlation(image, -image), -1)
    assert correlation(image, np.zeros_like(image)).tolist() == [0, 0, 0]
    noisy = image + np.random.default_rng(1).normal(size=image.shape)
    expected = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(image, noisy, strict=True)]
    assert np.allclose(correlation(image, noisy), expected)
