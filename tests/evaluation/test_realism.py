"""The verdict on realism, from images to the sentence: known generators on patients whose images are alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
from scipy import ndimage

from anatogen.errors import DataError
from anatogen.evaluation.sections.realism import Measuring, compare
from anatogen.judges.encoder import Encoder
from anatogen.reporting.answers import realism as answers
from anatogen.reporting.results import RealismCount, RealismResult, Report

PATIENTS, EACH, SIZE = 10, 4, 24
Images = np.ndarray


class PooledPixels:
    """Features that need no training: the means of 16 cells, and the deviation and the roughness of the image."""

    digest = "pooled"

    def __call__(self, images: Images) -> Images:
        cells = images.reshape(len(images), 4, SIZE // 4, 4, SIZE // 4).mean(axis=(2, 4)).reshape(len(images), -1)
        rough = np.diff(images, axis=-1).std(axis=(1, 2, 3))
        return np.concatenate([cells, np.stack([images.std(axis=(1, 2, 3)), rough], axis=1)], axis=1).astype(np.float32)


def names(count: int) -> list[str]:
    return np.repeat([f"p{i:02d}" for i in range(count)], EACH).tolist()


def anatomies(seed: int, count: int = PATIENTS) -> Images:
    """Smooth images of `count` patients, those of one alike."""
    rng = np.random.default_rng(seed)

    def smooth(number: int) -> Images:
        made = ndimage.gaussian_filter(rng.normal(size=(number, 1, SIZE, SIZE)), (0, 0, 3, 3), mode="wrap")
        return np.asarray(made / made.std())

    return 0.2 * np.repeat(smooth(count), EACH, axis=0) + 0.12 * smooth(count * EACH)


def seen(anatomy: Images, seed: int) -> Images:
    """The images of anatomies, in noise."""
    noise = np.random.default_rng(1000 + seed).normal(0, 0.05, anatomy.shape)
    return np.clip(anatomy + noise, -0.94, 0.94).astype(np.float32)


GENERATORS: dict[str, tuple[bool, Callable[[Images, int], Images]]] = {
    "the real images": (False, lambda a, seed: seen(a, seed)),
    "the real images in 8 bits": (False, lambda a, seed: np.round((seen(a, seed) + 1) * 127.5) / 127.5 - 1),
    "other images of the same maps": (False, lambda a, seed: seen(a, seed + 500)),
    "real images of other patients": (False, lambda a, seed: seen(anatomies(seed + 900), seed + 900)),
    "one image": (True, lambda a, seed: np.repeat(seen(a, seed)[:1], len(a), axis=0)),
    "ten images": (True, lambda a, seed: seen(a, seed)[np.random.default_rng(seed).integers(10, size=len(a)) * 4]),
    "the mean image": (True, lambda a, seed: np.repeat(seen(a, seed).mean(axis=0, keepdims=True), len(a), axis=0)),
    "blurred": (True, lambda a, seed: ndimage.gaussian_filter(seen(a, seed), (0, 0, 0.6, 0.6))),
    "a third more noise": (True, lambda a, seed: seen(a, seed) + 0.88 * (seen(a, seed + 500) - a)),
    "twice the noise": (True, lambda a, seed: seen(a, seed) + 1.73 * (seen(a, seed + 500) - a)),
}


def report(made: Images, real: Images, patients: list[str]) -> RealismResult:
    sides = []
    for images in (made, real):
        side = Measuring(cast(Encoder, PooledPixels()))
        for start in range(0, len(images), 7):  # how the images are cut into pieces makes no difference
            side.add(images[start : start + 7].astype(np.float32), patients[start : start + 7])
        sides.append(side.result)
    return compare(*sides, paired=True)


@pytest.mark.parametrize("name", GENERATORS)
def test_verdicts_on_known_generators(name: str) -> None:
    bad, generator = GENERATORS[name]
    for seed in range(4):
        anatomy = anatomies(seed)
        found = report(generator(anatomy, seed), seen(anatomy, seed), names(PATIENTS))
        assert found.test is not None and bool(found.test.told_apart_by) is bad, (seed, found.test)
        sentence = answers.answer(Report(realism=found)).verdict
        assert sentence.startswith(f"They can{'' if bad else 'not'} be told from real images"), sentence


def test_a_perfect_generator_lies_as_far_as_real_images_do() -> None:
    anatomy = anatomies(0)
    found = report(seen(anatomy, 0), seen(anatomy, 0), names(PATIENTS))
    for measure in ("fid", "kid", "mmd", "precision", "recall", "diversity", "variety"):
        assert found.of(measure) == pytest.approx(found.of(measure, "_real"), abs=1e-9)
    assert (
        found.noise_ratio == 1
        and set(found.power_ratio) == {1.0}
        and found.test is not None
        and found.test.p_value == 1
    )
    assert found.n == RealismCount(generated=40, real=40, patients=10)
    assert any("with 20 images" in warning for warning in found.warnings)


def test_few_patients_and_none() -> None:
    for count, start in ((2, "Too few patients"), (1, "Too few patients"), (9, "Too few patients")):
        anatomy = anatomies(0, count)
        found = report(np.zeros_like(anatomy), seen(anatomy, 0), names(count))
        answer = answers.answer(Report(realism=found))
        assert answer.verdict.startswith(start) and f"({count} patient" in answer.verdict, answer.verdict
    with pytest.raises(DataError, match="no images to compare"):
        _ = Measuring(cast(Encoder, PooledPixels())).result


def test_maps_from_elsewhere() -> None:
    """Nobody is on both sides; what is tested is whether all images could be of one population."""
    real, made = seen(anatomies(0, 12), 0), seen(anatomies(1, 10), 1)
    sides = []
    for images, count, letter in ((made, 10, "x"), (real, 12, "y")):
        side = Measuring(cast(Encoder, PooledPixels()))
        side.add(images, [letter + name for name in names(count)])
        sides.append(side.result)
    found = compare(*sides, paired=False)
    assert found.test is not None and found.test.told_apart_by == () and found.test.decided and not found.test.same_maps
    noisier = Measuring(cast(Encoder, PooledPixels()))
    noisier.add(
        np.clip(made + 0.05 * np.random.default_rng(0).normal(size=made.shape), -1, 1).astype(np.float32),
        ["x" + n for n in names(10)],
    )
    test = compare(noisier.result, sides[1], paired=False).test
    assert test is not None and "noise" in test.told_apart_by
