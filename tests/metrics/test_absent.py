"""Absent classes are counted apart, by one rule for the gate, the report and the segmenter's validation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anatogen.generation.gates import given_dice
from anatogen.judges.segmenter import SegmenterSettings, train_segmenter
from anatogen.metrics.confusion import ConfusionCounts, confusion_counts
from anatogen.metrics.overlap import dice_by_group

pytestmark = pytest.mark.usefixtures("small_judges")

NAN = np.nan


def maps(*voxels: tuple[int, int]) -> np.ndarray:
    """Label maps (N, 20, 20) with these numbers of voxels of class 1 and class 2."""
    flat = np.zeros((len(voxels), 400), np.int64)
    for labels, (one, two) in zip(flat, voxels, strict=True):
        labels[:one], labels[200 : 200 + two] = 1, 2
    return flat.reshape(-1, 20, 20)


def counts_of(found: np.ndarray, asked: np.ndarray, spacing: float = 1.0) -> ConfusionCounts:
    return confusion_counts(found, asked, 3, spacing, surfaces=False)


ASKED = maps((50, 20), (50, 0), (50, 0), (50, 0))  # class 2 is in patient a, and in one of its two images
PATIENTS = np.array(["a", "a", "b", "b"])


def test_a_perfect_set() -> None:
    counts = counts_of(ASKED, ASKED)
    assert np.array_equal(counts.dice_by(PATIENTS), [[1, 1], [1, NAN]], equal_nan=True)
    assert not counts.invented.any() and counts.absent.sum() == 3
    _, absent = counts.absences(PATIENTS)
    assert (absent.images, absent.groups, absent.invented) == (3, 2, 0) and np.isnan(absent.volume)


def test_one_stray_voxel_does_not_make_a_dice_of_zero() -> None:
    found = maps((50, 20), (50, 0), (50, 1), (50, 0))
    counts = counts_of(found, ASKED)
    assert np.array_equal(counts.dice_by(PATIENTS), [[1, 1], [1, NAN]], equal_nan=True)
    assert np.array_equal(dice_by_group(found, ASKED, PATIENTS, 3), counts.dice_by(PATIENTS), equal_nan=True)
    assert np.array_equal(counts.obeyed_by(PATIENTS), counts.dice_by(PATIENTS), equal_nan=True)
    assert counts.absences(PATIENTS)[1].invented == 0


def test_half_invented() -> None:
    found = maps((50, 20), (50, 0), (50, 30), (50, 0))
    counts = counts_of(found, ASKED, 0.5)
    assert np.array_equal(counts.dice_by(PATIENTS), [[1, 1], [1, NAN]], equal_nan=True)  # reported apart
    assert np.array_equal(counts.obeyed_by(PATIENTS), [[1, 1], [1, 0]])  # the gate and the validation count it as 0
    absent = counts.absences(PATIENTS)[1]
    assert absent.invented == pytest.approx(1 / 3) and absent.volume == pytest.approx(30 * 0.25)
    assert np.array_equal(counts.invented_by(PATIENTS), [[NAN, 0], [NAN, 0.5]], equal_nan=True)


def test_all_absent_and_nothing_at_all() -> None:
    asked = maps((0, 0), (0, 0))
    for found, invented in ((asked, 0), (maps((60, 0), (0, 0)), 0.5)):
        counts = counts_of(found, asked)
        assert np.isnan(counts.dice_by(np.zeros(2))).all()
        assert [a.invented for a in counts.absences(np.zeros(2))] == [invented, 0]
    nobody = counts_of(maps(), maps())
    assert nobody.dice_by(np.zeros(0)).shape == (0, 2)
    assert [(a.images, a.groups) for a in nobody.absences(np.zeros(0))] == [(0, 0)] * 2
    assert all(np.isnan(a.invented) for a in nobody.absences(np.zeros(0)))


def test_what_is_free_is_not_absent() -> None:
    counts = counts_of(maps((50, 30)), maps((50, 0))).where(np.array([[True, False]]))
    assert not counts.absent.any() and not counts.invented.any()


@pytest.mark.parametrize("voxels", [0, 1, 4, 5, 200])
def test_gate_and_report_agree(voxels: int) -> None:
    found, asked = maps((50, voxels)), maps((50, 0))
    invented = counts_of(found, asked).absences(np.zeros(1))[1].invented
    assert given_dice(found, asked, np.ones((1, 2), bool), 3) == pytest.approx([1 - invented / 2])
    assert invented == (voxels > 4)


def part(labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    drawn = torch.from_numpy(labels)
    return drawn[:, None].float() - 1, drawn, torch.ones(len(labels), 2, dtype=torch.bool)


def words(validation: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> list[str]:
    said: list[str] = []
    settings = SegmenterSettings(steps=4, batch_size=2, validations=2)
    train_segmenter(part(ASKED), validation, 3, settings, progress=lambda done, total, text: said.append(text))
    return said


def test_the_segmenter_says_what_it_was_validated_on() -> None:
    nothing = words(part(maps((0, 0), (0, 0))))
    assert nothing == ["no class to validate"] * 4
    unknown = (*part(ASKED)[:2], torch.zeros(4, 2, dtype=torch.bool))
    assert words(unknown) == ["no class to validate"] * 4
    said = words(part(ASKED))
    assert said[0] == "not validated yet" and said[-1].startswith("validation Dice 0.")
    assert not any("nan" in text for text in said + nothing)


def test_validation_leaves_a_stray_voxel_out_and_counts_an_invention(monkeypatch: pytest.MonkeyPatch) -> None:
    """Class 2 is in no validation map: one stray voxel leaves a perfect score, thirty halve it."""
    import anatogen.judges.segmenter as module

    class Fixed(module.Segmenter):
        found: np.ndarray

        def __call__(self, images: torch.Tensor, batch_size: int = 64) -> np.ndarray:
            return self.found

    monkeypatch.setattr(module, "Segmenter", Fixed)
    settings = SegmenterSettings(steps=1, batch_size=2)
    training = module._Training.begin(part(ASKED)[0], 3, settings, torch.device("cpu"))
    validation = part(maps((50, 0), (50, 0)))
    for stray, score in ((0, 1.0), (1, 1.0), (30, 0.5)):
        monkeypatch.setattr(Fixed, "found", maps((50, stray), (50, 0)), raising=False)
        training.validate(validation, 3)
        assert training.score == pytest.approx(score)
