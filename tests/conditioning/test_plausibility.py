"""Plausibility: shown real held-out maps, absurd ones, an empty one, and sets too small to learn from."""

from __future__ import annotations

import numpy as np
import pytest

from anatogen.conditioning.edit import move
from anatogen.conditioning.plausibility import Limits, learn_limits, margin, measure
from anatogen.errors import DataError

NAMES = ("organ", "core", "gland")
SPACING = {2: (1.5, 1.0), 3: (3.0, 1.5, 1.0)}
SHAPE = {2: (48, 72), 3: (20, 40, 60)}


def patient(seed: int, dim: int) -> np.ndarray:
    """An organ with a core inside, and a gland that touches the organ; sizes and places vary."""
    random = np.random.default_rng(seed)
    centre, radius = random.uniform(-3, 3, dim), random.uniform(12, 16)
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(SHAPE[dim], SPACING[dim], strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1) - centre
    labels = np.zeros(SHAPE[dim], np.int64)
    labels[np.linalg.norm(grid, axis=-1) < radius] = 1
    labels[np.linalg.norm(grid, axis=-1) < radius * random.uniform(0.3, 0.5)] = 2
    beside = np.zeros(dim)
    beside[-1] = radius + 3
    labels[(np.linalg.norm(grid - beside, axis=-1) < random.uniform(4, 6)) & (labels == 0)] = 3
    return labels


def limits(dim: int, patients: int = 40) -> Limits:
    return learn_limits(((patient(i, dim), SPACING[dim], str(i)) for i in range(patients)), NAMES)


@pytest.mark.parametrize("dim", [2, 3])
def test_unseen_patients_pass_and_absurd_maps_do_not(dim: int) -> None:
    learned = limits(dim)
    unseen = [learned.faults(patient(i, dim), SPACING[dim]) for i in range(1000, 1060)]
    assert sum(map(bool, unseen)) <= 3, unseen
    labels = patient(1000, dim)

    far = [0.0] * dim
    far[-1] = -40.0
    other_end = learned.faults(move(labels, [3], far, spacing_mm=SPACING[dim]), SPACING[dim])
    assert any("gland lies" in fault for fault in other_end)

    organ = labels == 1
    large = np.where(labels == 0, 0, labels)
    large[organ] = 3  # the gland takes the organ's place, many times its size
    assert (large == 3).sum() > 10 * (labels == 3).sum() / 2
    assert any(
        ("volume of gland" if dim == 3 else "area of gland") in fault for fault in learned.faults(large, SPACING[dim])
    )

    inside = np.where(labels == 3, 0, labels)
    middle = tuple(slice(n // 2 - 2, n // 2 + 2) for n in labels.shape)
    inside[middle] = 3  # in the core, which it never touches
    assert any("border of gland touch core" in fault for fault in learned.faults(inside, SPACING[dim]))

    assert learned.faults(np.zeros_like(labels), SPACING[dim]) == ("the map is empty",)
    without = np.where(labels == 2, 1, labels)
    assert any("core is missing" in fault for fault in learned.faults(without, SPACING[dim]))
    assert not any("missing" in fault for fault in learned.faults(without, SPACING[dim], removed=[2]))


def test_measures_are_in_mm() -> None:
    labels = np.zeros((10, 20), np.int64)
    labels[2:4, 5:9], labels[4:6, 5:9] = 1, 2
    found = measure(labels, 4, (2.0, 0.5))
    assert found.volume[:2].tolist() == [8.0, 8.0] and np.isnan(found.volume[2])  # 8 pixels of 1 mm2
    assert found.position[0].tolist() == [(2.5 - 4.5) * 2, (6.5 - 9.5) * 0.5]
    assert found.relative[0, 1].tolist() == [-4.0, 0.0] and np.isnan(found.relative[0, 2]).all()
    # 4 faces of 0.5 mm towards class 2; 4 of 0.5 mm and twice 2 of 2 mm towards the background
    assert found.border[0].tolist() == pytest.approx([10 / 12, 0, 2 / 12, 0])
    assert np.isnan(found.border[2]).all() and found.shown.tolist() == [True, True, False]


def test_a_class_may_be_missing_where_training_maps_lack_it() -> None:
    maps = [patient(i, 2) for i in range(20)]
    maps[3] = np.where(maps[3] == 3, 0, maps[3])
    maps.append(np.zeros_like(maps[0]))
    learned = learn_limits(((m, None, str(i)) for i, m in enumerate(maps)), NAMES)
    assert learned.unit == "px" and learned.faults(np.zeros_like(maps[0])) == ()
    assert not any("gland" in fault for fault in learned.faults(maps[3]))


def test_few_patients_are_said_to_be_too_few() -> None:
    for count in (0, 1, 2, 4):
        with pytest.raises(DataError, match=f"cannot be learned from the maps of {count} training patients"):
            limits(2, count)
    slices = ((patient(i, 2), SPACING[2], "one") for i in range(50))  # many maps, all of one patient
    with pytest.raises(DataError, match="of 1 training patients"):
        learn_limits(slices, NAMES)
    assert margin(5) > 2 * margin(100) and margin(10_000) == pytest.approx(0.25, abs=1e-3)


def test_a_class_that_few_patients_show_is_not_judged() -> None:
    maps = [np.where((patient(i, 2) == 3) & (i > 3), 0, patient(i, 2)) for i in range(30)]
    learned = learn_limits(((m, SPACING[2], str(i)) for i, m in enumerate(maps)), NAMES)
    assert learned.learned.tolist() == [True, True, False]
    labels = patient(0, 2)
    far = move(labels, [3], (0, -40), spacing_mm=SPACING[2])
    assert not any(fault.startswith("gland") or "of gland" in fault for fault in learned.faults(far, SPACING[2]))


def test_pixels_and_mm_do_not_mix() -> None:
    maps = ((patient(i, 2), SPACING[2] if i else None, str(i)) for i in range(8))
    with pytest.raises(DataError, match="others have none"):
        learn_limits(maps, NAMES)
