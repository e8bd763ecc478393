"""The verdict on known generators of Gaussian features, whose images of one patient are alike, and of values of
images.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from anatogen.errors import DataError
from anatogen.metrics.copies import SIGNIFICANCE
from anatogen.metrics.distances import FeatureMoments, cubic_kernel, frechet_distance
from anatogen.metrics.halves import (
    Cohort,
    Excess,
    ToldApart,
    diversity_statistic,
    frechet_excess,
    kernel_excess,
    kid_excess,
    mmd_excess,
    noise_statistic,
    pairs_of_patients,
    precision_recall_excess,
    spectrum_statistic,
    told_apart,
    variety_statistic,
)
from anatogen.metrics.intervals import NO_SPREAD, TOO_FEW, Mean

FEATURES, EACH = 12, 6
Values = np.ndarray


def patients(count: int) -> Values:
    return np.repeat([f"p{i:02d}" for i in range(count)], EACH)


def world(count: int, rng: np.random.Generator) -> Callable[[], Values]:
    """Draws features of images of the same label maps: of the patient, of the slice, and of the image alone."""
    anatomy = np.repeat(0.8 * rng.normal(size=(count, FEATURES)), EACH, axis=0)
    anatomy += 0.6 * rng.normal(size=anatomy.shape)
    return lambda: anatomy + 0.3 * rng.normal(size=anatomy.shape)


GENERATORS: dict[str, tuple[bool, Callable[[Callable[[], Values], Values, np.random.Generator], Values]]] = {
    "the real images": (False, lambda draw, real, rng: real.copy()),
    "other images of the same maps": (False, lambda draw, real, rng: draw()),
    "as many other patients": (False, lambda draw, real, rng: world(len(real) // EACH, rng)()),
    "ten images": (True, lambda draw, real, rng: rng.permutation(real)[rng.integers(10, size=len(real))]),
    "one image": (True, lambda draw, real, rng: np.repeat(real[:1], len(real), axis=0)),
    "another mean": (True, lambda draw, real, rng: draw() + 0.4),
    "too little variety": (True, lambda draw, real, rng: 0.6 * draw()),
}


@pytest.mark.parametrize("paired", [True, False])
def test_the_interval_of_a_distance_is_the_jackknifes(paired: bool) -> None:
    """As leaving out one real patient after the other, and its generated images where there are such, has it."""
    rng = np.random.default_rng(0)
    draw, names = world(12, rng), patients(12)
    real, whose = draw(), names if paired else np.char.add("x", patients(9))
    made = (draw() if paired else world(9, rng)()) + 1.0

    def distance(left_out: str) -> Excess:
        kept, others = whose != left_out, names != left_out
        cohort = Cohort.of(whose[kept], names[others], paired=paired, splits=2, draws=1)
        return kernel_excess(cohort, made[kept], real[others], cubic_kernel, interval=True)

    found = distance("nobody")
    assert found.of_deals is not None and found.by_patient is not None and found.overall.ci95 is not None
    assert found.overall.value == pytest.approx(found.of_deals[0]) and found.overall.ci95[0] > 0
    without = np.array([distance(name).overall.value for name in np.unique(names)])
    expected = 11 * (without.mean() - without) * (1 if paired else 2)
    np.testing.assert_allclose(found.by_patient[-12:, -1] - found.overall.value, expected, atol=1e-9)


def test_no_interval_without_spread_nor_of_few_patients() -> None:
    real = world(12, np.random.default_rng(0))()

    def overall(made: Values, count: int, *, paired: bool = True) -> Mean:
        names = patients(len(made) // EACH)
        cohort = Cohort.of(names if paired else np.char.add("x", names), patients(count), paired=paired, draws=1)
        return mmd_excess(cohort, made, real[: count * EACH], interval=True).overall

    same = overall(real, 12)
    assert same.value == pytest.approx(0, abs=1e-12) and same.ci95 is None and same.reason == NO_SPREAD
    for count in (2, 3):
        few = overall(real[: count * EACH] + 1, count)
        assert np.isnan(few.value) and few.ci95 is None and few.reason == TOO_FEW
    two = overall(real[: 2 * EACH] + 1, 12, paired=False)
    assert np.isfinite(two.value) and two.ci95 is None and two.reason == TOO_FEW


def verdict(cohort: Cohort, made: Values, real: Values) -> ToldApart:
    statistics = {"mmd": mmd_excess(cohort, made, real).statistic, "variety": variety_statistic(cohort, made, real)[0]}
    return told_apart(cohort, statistics, {name: float(values[0]) for name, values in statistics.items()})


@pytest.mark.parametrize("name", GENERATORS)
def test_verdicts_on_known_generators(name: str) -> None:
    """Right in at least 95 % of 60 repetitions each with 10 patients: at most 3 wrong."""
    bad, generator = GENERATORS[name]
    wrong, names = 0, patients(10)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        draw = world(10, rng)
        real = draw()
        cohort = Cohort.of(names, names, seed=seed)
        wrong += bool(verdict(cohort, generator(draw, real, rng), real).by) != bad
    assert wrong <= 3


def test_chance_is_held_to_its_level() -> None:
    """p of a perfect generator is uniform: 15 % below 0.1 would come once in 30 by chance alone, 20 % once in 3,000."""
    names, p_values = patients(12), []
    for seed in range(100):
        rng = np.random.default_rng(1000 + seed)
        draw = world(12, rng)
        p_values.append(verdict(Cohort.of(names, names, draws=199, seed=seed), draw(), draw()).p_value)
    assert np.mean(np.array(p_values) < 0.1) < 0.2 and np.mean(np.array(p_values) < 0.5) > 0.2


def test_the_same_images_are_never_told_apart_and_lie_as_far_as_the_real_ones() -> None:
    rng, names = np.random.default_rng(0), patients(10)
    real = world(10, rng)()
    cohort = Cohort.of(names, names)
    for excess in (kid_excess, mmd_excess, frechet_excess):
        found = excess(cohort, real, real)
        assert found.value == pytest.approx(found.real) and found.value_spread == pytest.approx(found.real_spread)
    precision, recall = precision_recall_excess(cohort, real, real)
    assert (precision.value, recall.value) == (precision.real, recall.real)
    found = verdict(cohort, real, real)
    assert found.p_value == 1 and found.by == () and found.decided


def test_few_patients_decide_nothing() -> None:
    """With 8 patients the smallest p is 1/128, with 9 it is 1/256, and there are two measures."""
    for count, decided in ((2, False), (3, False), (8, False), (9, True)):
        real = world(count, np.random.default_rng(0))()
        cohort = Cohort.of(patients(count), patients(count))
        found = verdict(cohort, real + 50, real)
        assert found.decided is decided and found.least_p == pytest.approx(0.5 ** (count - 1))
        if decided:
            assert found.by == ("mmd",)
    with pytest.raises(DataError, match="at least two patients"):
        Cohort.of(patients(1), patients(1))
    with pytest.raises(DataError, match="not paired"):
        Cohort.of(patients(4), patients(4)[::-1])


def test_kernel_sums_by_hand() -> None:
    """Between generated A and real B, and between all of both, only images of different patients are compared."""
    rng = np.random.default_rng(0)
    names = np.array(["a"] * 2 + ["b"] * 3 + ["c"] * 1 + ["d"] * 2)
    real, made = rng.normal(size=(8, 3)), rng.normal(size=(8, 3)) + 1
    cohort = Cohort.of(names, names, splits=2)

    def mean(x: Values, of_x: Values, y: Values, of_y: Values) -> float:
        return float(cubic_kernel(x, y)[of_x[:, None] != of_y[None]].mean())

    found = kernel_excess(cohort, made, real, cubic_kernel)
    by_hand = mean(made, names, made, names) + mean(real, names, real, names) - 2 * mean(made, names, real, names)
    assert found.of_deals is not None and found.of_deals[0] == pytest.approx(by_hand)
    values = []
    for split in range(2):
        g, a, b = cohort.sides(split)
        assert np.array_equal(g, a) and not (a & b).any() and len(set(names[a])) == len(set(names[b])) == 2
        for side, where in ((made, g), (real, a)):
            x, of_x, y, of_y = side[where], names[where], real[b], names[b]
            values.append(mean(x, of_x, x, of_x) + mean(y, of_y, y, of_y) - 2 * mean(x, of_x, y, of_y))
    assert (found.value, found.real) == (pytest.approx(np.mean(values[::2])), pytest.approx(np.mean(values[1::2])))
    swapped = cohort.deals[5]  # some patients' generated and real images change places
    there, here = made.copy(), real.copy()
    change = np.isin(names, np.unique(names)[swapped[:4] >= 4])
    there[change], here[change] = real[change], made[change]
    assert found.of_deals[5] == pytest.approx(kernel_excess(cohort, there, here, cubic_kernel).of_deals[0])  # type: ignore[index]


def test_fid_is_that_of_the_halves() -> None:
    rng, names = np.random.default_rng(0), patients(6)
    real, made = rng.normal(size=(36, 4)), rng.normal(size=(36, 4)) + 2
    cohort = Cohort.of(names, names)
    g, a, b = cohort.sides(0)
    found = frechet_excess(cohort, made, real, splits=1)
    of_b = FeatureMoments.of(real[b])
    assert found.value == pytest.approx(frechet_distance(FeatureMoments.of(made[g]), of_b))
    assert found.real == pytest.approx(frechet_distance(FeatureMoments.of(real[a]), of_b)) and found.real < found.value


def test_maps_from_elsewhere_are_compared_without_pairs() -> None:
    wrong = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        of_made, of_real = np.array([f"x{n}" for n in patients(9)]), patients(12)
        cohort = Cohort.of(of_made, of_real, paired=False, draws=399, seed=seed)
        real, made = world(12, rng)(), world(9, rng)()
        wrong += bool(verdict(cohort, made, real).by)
        wrong += not verdict(cohort, made + 1, real).by
        g, a, b = cohort.sides(0)
        assert len(set(of_made[g])) == len(set(of_real[a])) == len(set(of_real[b])) == 6
    assert wrong <= 2


@pytest.mark.parametrize(("factor", "told"), [(1.0, False), (1.03, False), (1.3, True), (0.7, True)])
def test_noise(factor: float, told: bool) -> None:
    """A difference of 3 % is significant too, but too small to count; images without foreground are ignored."""
    rng, names = np.random.default_rng(0), patients(10)
    real = np.repeat(np.exp(0.5 * rng.normal(size=10)), EACH) * np.exp(0.1 * rng.normal(size=60))
    made = factor * real * np.exp(0.02 * rng.normal(size=60))
    made[:EACH], made[13], real[20] = np.nan, np.nan, np.nan
    cohort = Cohort.of(names, names)
    statistic = noise_statistic(cohort, made, real)
    assert np.exp(statistic[0]) == pytest.approx(max(factor, 1 / factor), abs=0.03)
    found = told_apart(cohort, {"noise": statistic}, {"noise": float(np.expm1(statistic[0]))})
    assert bool(found.by) is told and (factor == 1 or found.p_value < SIGNIFICANCE)


def test_spectrum() -> None:
    rng, names = np.random.default_rng(0), patients(10)
    real = np.exp(rng.normal(size=(60, 16)))
    right, wrong = real * np.exp(0.3 * rng.normal(size=(60, 16))), real * np.exp(0.1 * rng.normal(size=(60, 16)))
    wrong[:, 12] *= 0.6
    cohort = Cohort.of(names, names)
    for made, told in ((right, False), (wrong, True), (real, False)):
        statistic = spectrum_statistic(cohort, made, real)
        assert bool(told_apart(cohort, {"spectrum": statistic}, {"spectrum": 0.4}).by) is told


def test_diversity() -> None:
    """scores: of generated with generated, generated with real, and so on, of pairs of images of two patients."""
    rng, names = np.random.default_rng(0), patients(10)
    cohort = Cohort.of(names, names)
    first, second = pairs_of_patients(names, 200)
    assert (names[first] != names[second]).all() and len(set(zip(first, second, strict=True))) == 200
    noise = 0.1 * rng.normal(size=(200, 2, 2))
    for extra, told in ((0.0, False), (0.3, True)):
        scores = 0.5 + noise + extra * np.array([[1, 0], [0, 0]])  # generated images are alike
        statistic = diversity_statistic(cohort, cohort.generated[first], cohort.generated[second], scores)
        assert statistic[0] == pytest.approx(extra, abs=0.03)
        assert bool(told_apart(cohort, {"diversity": statistic}, {"diversity": float(statistic[0])}).by) is told


def test_variety_by_hand() -> None:
    """On a line: patients a at 0 and 1, b at 10 and 14; generated ones all lie at 5."""
    names = np.array(["a", "a", "b", "b"])
    real, made = np.array([[0.0], [1], [10], [14]]), np.full((4, 1), 5.0)
    cohort = Cohort.of(names, names)
    found, of_made, of_real = variety_statistic(cohort, made, real)
    assert (of_made, of_real) == (0, np.mean([10, 9, 9, 13])) and len(found) == len(cohort.deals) == 2
    assert found[0] > 0
    swapped = variety_statistic(cohort, np.concatenate([made[:2], real[2:]]), np.concatenate([real[:2], made[2:]]))[0]
    assert found[1] == pytest.approx(swapped[0])


def test_several_measures_do_not_raise_chance() -> None:
    """Ten measures of noise: the smallest uncorrected p would be below 0.05 in 40 % of cases."""
    cohort = Cohort.of(patients(9), patients(9), draws=255)
    low = 0
    for seed in range(200):
        table = np.abs(np.random.default_rng(seed).normal(size=(10, len(cohort.deals))))
        found = told_apart(cohort, {str(i): v for i, v in enumerate(table)}, dict.fromkeys(map(str, range(10)), 0.0))
        assert found.p_value == min(found.p_of.values())
        low += found.p_value < 0.05
    assert low <= 20
