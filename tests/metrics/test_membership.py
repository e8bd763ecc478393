"""The attack by the loss: known areas, coverage of its interval, and difficulty accounted for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from anatogen.errors import DataError
from anatogen.metrics.membership import MembershipAttack, membership_inference
from anatogen.reporting.verdicts import membership_sentence


def patients(count: int, each: int, spread: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Losses, standard normal within and of standard deviation `spread` between patients, and the patients."""
    values = rng.normal(0, spread, (count, 1)) + rng.normal(size=(count, each))
    return values.ravel(), np.repeat(np.arange(count), each)


def test_known_areas() -> None:
    low, high = np.arange(20.0), np.arange(20.0) + 100
    assert membership_inference(low, high).auc == 1 and membership_inference(high, low).auc == 0
    assert membership_inference(low, high).ci95 == (pytest.approx(0.025 ** (1 / 20)), 1.0)
    assert membership_inference(low, low).auc == 0.5
    assert membership_inference(np.array([1.0, 3.0]), np.array([2.0, 3.0])).auc == (2 + 0.5) / 4
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=300), rng.normal(1, 1, size=200)
    attack = membership_inference(a, b, np.repeat(np.arange(30), 10), np.repeat(np.arange(20), 10))
    assert attack.auc == pytest.approx(1 - stats.mannwhitneyu(a, b).statistic / (300 * 200)) == attack.uncalibrated_auc
    assert attack.ci95[0] < stats.norm.cdf(1 / np.sqrt(2)) < attack.ci95[1] and attack.above_chance
    assert attack.tpr_at_1 == np.mean(a < np.sort(b)[2]) and attack.tpr_at_10 == np.mean(a < np.sort(b)[20])
    assert membership_inference(a, b, np.zeros(300)).ci95 == (0, 1)


@pytest.mark.parametrize(("ours", "theirs"), [(3, 5), (8, 8), (20, 12)])
@pytest.mark.parametrize("shift", [0.0, 1.5])
def test_intervals_cover(ours: int, theirs: int, shift: float) -> None:
    """95 % of 300, with similar images of a patient; rather more for few patients. By image it would be far less."""
    rng = np.random.default_rng(0)
    truth = stats.norm.cdf(shift / np.sqrt(2 * (1.5**2 + 1)))
    covered, by_image = [], []
    for _ in range(300):
        (a, of_a), (b, of_b) = patients(ours, 10, 1.5, rng), patients(theirs, 10, 1.5, rng)
        low, high = membership_inference(a, b + shift, of_a, of_b).ci95
        covered.append(low <= truth <= high)
        if len(by_image) < 20:
            low, high = membership_inference(a, b + shift).ci95
            by_image.append(low <= truth <= high)
    assert np.mean(covered) >= 0.92
    assert np.mean(by_image) < 0.9


def difficult(
    seed: int, apart: float, memory: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Losses that follow three difficulty measures; unseen images are harder by `apart`, members easier by `memory`."""
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(15), 8)
    hard = []
    for shift in (0.0, apart):
        base = rng.normal(shift, 0.5, 15)[of] + 0.5 * rng.normal(size=120)
        hard.append(np.stack([base + 0.2 * rng.normal(size=120) for _ in range(3)], axis=1))
    members, others = (np.exp(0.6 * z.mean(axis=1) + 0.1 * rng.normal(size=120)) for z in hard)
    return members * np.exp(-memory), others, of, (hard[0], hard[1])


def test_difficulty_is_accounted_for() -> None:
    flagged, found, alone = 0, [], []
    for seed in range(40):
        members, others, of, hard = difficult(seed, 0.5, 0.0)
        attack = membership_inference(members, others, of, of, difficulty=hard)
        flagged += attack.above_chance
        alone.append(membership_inference(members, others, of, of).auc)
        found.append(attack.auc)
        assert attack.uncalibrated_auc == alone[-1] and attack.difficulty_auc > 0.55
        remembered = membership_inference(
            *difficult(seed, 0.5, 0.3)[:2], of, of, difficulty=difficult(seed, 0.5, 0.3)[3]
        )
        assert remembered.above_chance and remembered.auc > 0.8
    assert np.mean(alone) > 0.65 and np.mean(found) == pytest.approx(0.5, abs=0.03) and flagged <= 4


def test_images_that_cannot_be_compared_decide_nothing() -> None:
    members, others, of, hard = difficult(0, 5.0, 0.5)
    attack = membership_inference(members, others, of, of, difficulty=hard)
    assert attack.difficulty_auc > 0.95 and not attack.comparable and not attack.above_chance
    assert membership_sentence(attack).startswith("Whether the model's loss reveals training images cannot be told")


def test_what_does_not_fit_is_refused() -> None:
    ones = np.ones(4)
    for hard in (
        (np.ones((4, 2)), np.ones((3, 2))),
        (np.ones((4, 2)), np.ones((4, 3))),
        (np.full((4, 1), np.nan), np.ones((4, 1))),
    ):
        with pytest.raises(DataError, match="difficulties"):
            membership_inference(ones, ones, difficulty=hard)
    with pytest.raises(DataError, match="finite"):
        membership_inference(ones[:0], ones)
    constant = membership_inference(ones, ones, difficulty=(np.ones((4, 2)), np.ones((4, 2))))
    assert constant.auc == 0.5 and not constant.above_chance


@pytest.mark.parametrize(
    ("attack", "sentence"),
    [
        (
            MembershipAttack(0.5, (0.41, 0.59), 0.012, 0.1, 90, 80, 0.6, 0.61),
            "The model does not reliably tell training images from unseen ones by its loss, their difficulty "
            "accounted for, with an AUC of 0.50 (95 % interval 0.41 to 0.59, 0.5 is chance; 1.2 % of them at 1 % "
            "false alarms) (by the loss alone the AUC is 0.60, but the images differ in difficulty: 0.61 would be "
            "expected of a model that saw neither).",
        ),
        (
            MembershipAttack(0.5, (0.41, 0.59), 0.012, 0.1, 90, 80, 0.5),
            "The model does not reliably tell training images from unseen ones by its loss with an AUC of 0.50 (95 % "
            "interval 0.41 to 0.59, 0.5 is chance; 1.2 % of them at 1 % false alarms).",
        ),
        (
            MembershipAttack(1.0, (0.83, 1.0), 1.0, 1.0, 90, 80, 1.0, 0.5),
            "The model tells training images from unseen ones by its loss, their difficulty accounted for, with an "
            "AUC of 1.00 (95 % interval 0.83 to 1.00, 0.5 is chance; 100 % of them at 1 % false alarms): it retains "
            "information about training patients.",
        ),
    ],
)
def test_sentences(attack: MembershipAttack, sentence: str) -> None:
    assert membership_sentence(attack) == sentence
