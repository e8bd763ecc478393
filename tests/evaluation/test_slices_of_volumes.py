"""The verdict on volumes by their slices along three axes: known generators, from volumes to the sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
from scipy import ndimage

from anatogen.evaluation.sections.realism import Measured, Measuring, compare
from anatogen.evaluation.sections.slices import compare_slices
from anatogen.judges.encoder import Encoder
from anatogen.reporting.answers import realism as answers
from anatogen.reporting.results import RealismResult, Report

PATIENTS, SIZE = 11, (9, 20, 18)
Volumes = np.ndarray


def anatomies(seed: int, count: int = PATIENTS) -> Volumes:
    """Smooth volumes of `count` patients."""
    rng = np.random.default_rng(seed)
    made = ndimage.gaussian_filter(rng.normal(size=(count, 1, *SIZE)), (0, 0, 2.5, 2.5, 2.5), mode="wrap")
    return np.asarray(0.25 * made / made.std())


def seen(anatomy: Volumes, seed: int) -> Volumes:
    """The volumes of anatomies, in noise."""
    noise = np.random.default_rng(1000 + seed).normal(0, 0.05, anatomy.shape)
    return np.clip(anatomy + noise, -0.94, 0.94).astype(np.float32)


class PooledPixels:
    """Features of slices that need no training: the means of 9 cells, the deviation, and the roughness along both
    sides, each with mean 0 and deviation 1 over the slices of other patients.
    """

    digest = "pooled"

    def __init__(self, axis: int) -> None:
        self._shift, self._scale = 0.0, 1.0
        others = np.moveaxis(seen(anatomies(77), 77)[:, 0], 1 + axis, 1)
        features = self(others.reshape(-1, 1, *others.shape[2:]))
        self._shift, self._scale = features.mean(axis=0), features.std(axis=0)

    def __call__(self, slices: Volumes) -> Volumes:
        h, w = (side - side % 3 for side in slices.shape[2:])
        cells = slices[..., :h, :w].reshape(len(slices), 3, h // 3, 3, w // 3).mean(axis=(2, 4))
        rough = [np.diff(slices, axis=axis).std(axis=(1, 2, 3)) for axis in (-2, -1)]
        more = np.stack([slices.std(axis=(1, 2, 3)), *rough], axis=1)
        features = np.concatenate([cells.reshape(len(slices), -1), more], axis=1)
        return np.asarray((features - self._shift) / self._scale, dtype=np.float32)


class Means:
    """Stands for the encoder of volumes, and sees nothing but their mean."""

    digest = "mean"

    def __call__(self, volumes: Volumes) -> Volumes:
        return np.asarray(volumes.mean(axis=(2, 3, 4)))


ENCODERS = [cast(Encoder, PooledPixels(axis)) for axis in range(3)]


def blurred(volumes: Volumes, axis: int) -> Volumes:
    return np.asarray(ndimage.gaussian_filter1d(volumes, 0.8, axis=2 + axis))


GENERATORS: dict[str, tuple[str, Callable[[Volumes], Volumes]]] = {
    "the real volumes": ("", lambda a: seen(a, 0)),
    "the real volumes in 8 bits": ("", lambda a: np.round((seen(a, 0) + 1) * 127.5) / 127.5 - 1),
    "other volumes of the same maps": ("", lambda a: seen(a, 500)),
    "one volume": ("DHW", lambda a: np.repeat(seen(a, 0)[:1], len(a), axis=0)),
    "blurred along D": ("DHW", lambda a: blurred(seen(a, 0), 0)),
    "slices shuffled along D": ("HW", lambda a: seen(a, 0)[:, :, [4, 7, 0, 2, 8, 5, 1, 6, 3]]),
    "twice the noise": ("DHW", lambda a: seen(a, 0) + 1.73 * (seen(a, 500) - a)),
}


def measured(volumes: Volumes, letter: str) -> Measured:
    """letter: the first of the patients' names."""
    side, names = Measuring(cast(Encoder, Means()), ENCODERS), [f"{letter}{i:02d}" for i in range(len(volumes))]
    for start in range(0, len(volumes), 5):  # how the volumes are cut into pieces makes no difference
        part = volumes[start : start + 5].astype(np.float32)
        side.add(part, names[start : start + 5], np.ones((len(part), *SIZE), np.int64))
    side.add(volumes[:0], [])  # as of a block whose label maps were all seen before
    return side.result


def report(made: Volumes, real: Volumes, *, others: bool = False) -> RealismResult:
    """others: the generated volumes are of other patients."""
    return compare(measured(made, "x" if others else "y"), measured(real, "y"), paired=not others)


@pytest.mark.parametrize("name", GENERATORS)
def test_verdicts_on_known_generators(name: str) -> None:
    axes, generator = GENERATORS[name]
    anatomy = anatomies(0)
    found = report(generator(anatomy), seen(anatomy, 0))
    assert found.test is not None and found.test.decided
    assert [by for by in found.test.told_apart_by if by.startswith("slices")] == [f"slices_{axis}" for axis in axes]
    told = [f"slices along {axis}" for axis in "DHW" if axis in axes]
    sentence = answers.answer(Report(realism=found)).verdict
    assert sentence.startswith(f"They can{'' if axes else 'not'} be told") and all(each in sentence for each in told)
    for axis, each in found.slices.items():
        assert each.mmd is not None and each.mmd_real is not None and each.excess is not None
        if axis not in axes:
            assert each.excess == pytest.approx(0, abs=2e-3)
            assert each.mmd == pytest.approx(each.mmd_real, abs=2e-3)
        elif not name.startswith("one"):  # of a single volume the interval is wide
            assert each.ci95 is not None and each.ci95[0] is not None and each.ci95[0] > 0


@pytest.mark.parametrize("axis", [0, 2])
def test_blur_along_one_axis_is_seen_most_along_the_others(axis: int) -> None:
    """Of one direction there; along its own axis it mixes neighbouring slices, which lose noise. These features are the
    same along every axis; learned ones are not.
    """
    real = seen(anatomies(1), 1)
    distances = [each.excess or 0.0 for each in report(blurred(real, axis), real).slices.values()]
    assert distances.pop(axis) < 0.8 * min(distances)


def test_no_verdict_on_two_volumes_nor_on_ten() -> None:
    for count in (1, 2, 3, 10):
        real = seen(anatomies(0, count), 0)
        found = report(np.zeros_like(real), real)
        assert found.test is None or not found.test.decided
        answer = answers.answer(Report(realism=found))
        assert answer.verdict.startswith("Too few patients") and f"({count} patient" in answer.verdict
        assert "of at least 11" in answer.verdict
        for each in found.slices.values():
            assert (each.mmd is None) == (each.excess is None) == (each.ci95 is None) == (count < 4)
            assert each.no_interval == (None if count == 10 else "too few patients for an interval")


def test_label_maps_from_elsewhere() -> None:
    real, made = seen(anatomies(0, 10), 0), seen(anatomies(1, 8), 1)
    found = report(made, real, others=True)
    assert found.test is not None and found.test.told_apart_by == ()
    for each in found.slices.values():
        assert each.ci95 is not None and each.ci95[0] is not None and each.ci95[1] is not None
        assert each.ci95[0] < 0 < each.ci95[1]
    worse = compare_slices(measured(3 * made, "x").slices, measured(real, "y").slices, paired=False)
    assert all((statistic >= statistic[0]).mean() < 0.005 for statistic in worse.statistics.values())


def test_the_report_says_it_beside_real_volumes() -> None:
    real = seen(anatomies(2), 2)
    found = RealismResult.model_validate(report(blurred(real, 0), real).model_dump(mode="json"))  # as a file holds it
    _, table = answers.answer(Report(realism=found)).tables
    assert [row.label for row in table.rows] == ["MMD along D", "MMD along H", "MMD along W"]
    assert table.columns == ("", "generated A to real B", "real A to real B", "farther than real", "chance of as much")
    for row, each in zip(table.rows, found.slices.values(), strict=True):
        assert each.encoder == "pooled" and "±" in row.cells[1] and row.cells[2].endswith("]") and "p" in row.cells[3]
    assert found.slices["D"].n == PATIENTS * 9 and found.slices["H"].n == PATIENTS * 16
    few = answers.answer(Report(realism=report(real[:3], real[:3])))
    assert any("too few patients for an interval" in note for note in few.notes)
    assert len(few.tables) == 2 and few.tables[1].rows[0].cells[:3] == ("–", "–", "–")
