import dataclasses
import itertools

import numpy as np
import pytest
from scipy import stats
from scipy.ndimage import gaussian_filter

from anatogen.errors import DataError
from anatogen.metrics.copies import copy_rate, copy_threshold
from anatogen.metrics.neighbours import Neighbours, closest_pairs, nearest_features, nearest_neighbours
from anatogen.reporting.verdicts import certainty


def pictures(count: int, seed: int, size: tuple[int, ...] = (64, 64), channels: int = 1) -> np.ndarray:
    """Different smooth random images with the same bright disc, a shared anatomy."""
    noise = np.random.default_rng(seed).normal(size=(count, channels, *size))
    smooth = gaussian_filter(noise, (0, 0, *(2,) * len(size)), mode="wrap")
    middle = (np.array(size) - 1) / 2
    axes = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1)
    disc = np.linalg.norm((axes - middle) / middle, axis=-1) < 0.6
    return (0.5 * disc + 0.3 * smooth / smooth.std()).astype(np.float32)


REFERENCES = pictures(200, 0)
CHOSEN = np.random.default_rng(1).choice(200, 24, replace=False)
RNG = np.random.default_rng(2)
MOVES = RNG.integers(-2, 3, (24, 2))
COPIES = REFERENCES[CHOSEN]
MOVED = np.stack([np.roll(image, tuple(move), axis=(1, 2)) for image, move in zip(COPIES, MOVES, strict=True)])
DISGUISES = {
    "exact": (COPIES, 0 * MOVES, 1e-6),
    "moved": (MOVED, MOVES, 1e-6),
    "brighter, less contrast": (0.3 * COPIES + 0.6, 0 * MOVES, 1e-5),
    "noisy": (COPIES + RNG.normal(0, 0.1, COPIES.shape), 0 * MOVES, 0.1),
    "moved, darker, noisy": (0.7 * MOVED - 0.2 + RNG.normal(0, 0.05, MOVED.shape), MOVES, 0.1),
}


@pytest.mark.parametrize("candidates", [32, None])
@pytest.mark.parametrize("disguise", DISGUISES)
def test_copies_are_found_with_their_shift(disguise: str, candidates: int | None) -> None:
    images, moves, bound = DISGUISES[disguise]
    found = nearest_neighbours(images, REFERENCES, candidates=candidates)
    assert np.array_equal(found.index, CHOSEN) and np.array_equal(found.shift, moves)
    assert found.distance.max() < bound and found.relative.max() < 3 * bound


def test_distance_by_hand() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 12, 10))
    by_hand = {}
    for y, x in itertools.product((-1, 0, 1), repeat=2):
        inside = np.ones((12, 10), bool)  # where b lies after its move; nothing comes in at the other side
        inside[{1: slice(0, 1), -1: slice(-1, None), 0: slice(0, 0)}[y]] = False
        inside[:, {1: slice(0, 1), -1: slice(-1, None), 0: slice(0, 0)}[x]] = False
        by_hand[y, x] = 1 - np.corrcoef(a[inside], np.roll(b, (y, x), axis=(0, 1))[inside])[0, 1]
    found = nearest_neighbours(a[None, None], b[None, None], shifts=1)
    assert found.distance[0] == pytest.approx(min(by_hand.values()), abs=1e-6)
    assert tuple(found.shift[0]) == min(by_hand, key=lambda move: by_hand[move])
    two = nearest_neighbours(a[None, None], np.stack([b, -a])[:, None], shifts=0)  # of a and -a the distance is 2
    assert two.distance[0] == pytest.approx(by_hand[0, 0], abs=1e-6)
    assert two.typical[0] == pytest.approx((by_hand[0, 0] + 2) / 2, abs=1e-6)


def test_pruning_agrees_with_brute_force() -> None:
    queries = pictures(40, 5)
    quick, full = nearest_neighbours(queries, REFERENCES), nearest_neighbours(queries, REFERENCES, candidates=None)
    assert np.mean(quick.index == full.index) > 0.9  # what is no copy may miss its nearest by little
    assert np.all(quick.distance >= full.distance - 1e-6) and np.allclose(quick.distance, full.distance, atol=0.02)
    assert np.allclose(quick.relative, full.relative, atol=0.02)


def test_blocks_do_not_change_results() -> None:
    queries = np.concatenate([pictures(5, 6), MOVED[:5]])
    for candidates in (16, None):
        whole = nearest_neighbours(queries, REFERENCES, candidates=candidates)
        parts = nearest_neighbours(queries, REFERENCES, candidates=candidates, block=7)
        for field in dataclasses.fields(Neighbours):
            assert np.allclose(getattr(whole, field.name), getattr(parts, field.name), atol=1e-6), field.name
    features = queries.reshape(10, -1), REFERENCES.reshape(200, -1)
    assert np.allclose(nearest_features(*features).distance, nearest_features(*features, block=9).distance)


def test_volumes_and_channels() -> None:
    references = pictures(50, 7, (16, 20, 18), channels=2)
    moved = np.roll(references[[9, 30]], (1, -1, 2), axis=(2, 3, 4))
    found = nearest_neighbours(moved, references, candidates=8)
    assert found.index.tolist() == [9, 30] and found.shift.tolist() == [[1, -1, 2]] * 2 and found.distance.max() < 1e-6


def test_smooth_images_are_no_copies_by_relative_distance() -> None:
    """Smoother images are closer to everything: the plain distance flags them, the relative distance does not."""
    anatomy = pictures(1, 20, (32, 32))  # what all have in common, and noise of their own
    noisy = [anatomy + np.random.default_rng(seed).normal(0, 0.3, (120, 1, 32, 32)) for seed in (21, 22, 23)]
    train, heldout, healthy = noisy[0], noisy[1], 0.4 * noisy[2] + 0.6 * anatomy
    real, smooth = nearest_neighbours(heldout, train), nearest_neighbours(healthy, train)
    assert copy_rate(smooth.distance, real.distance).rate > 0.9
    assert not copy_rate(smooth.relative, real.relative).above_chance
    copied = nearest_neighbours(gaussian_filter(train[:30], (0, 0, 0.5, 0.5)), train)
    assert copy_rate(copied.relative, real.relative).rate == 1


def test_nearest_features() -> None:
    rng = np.random.default_rng(0)
    references = rng.normal(size=(300, 6)) * [1, 1, 1, 1, 1000, 0] + 5
    queries = references[:20] + rng.normal(0, 0.01, (20, 6))
    found = nearest_features(queries, references)
    assert found.index.tolist() == list(range(20)) and found.distance.max() < 0.02 and found.relative.max() < 0.1
    by_hand = (references[:, :5] - references[:, :5].mean(axis=0)) / references[:, :5].std(axis=0)
    other = rng.normal(size=(1, 6)) + 5
    ours = (other[:, :5] - references[:, :5].mean(axis=0)) / references[:, :5].std(axis=0)
    expected = np.sqrt(((ours - by_hand) ** 2).mean(axis=1)).min()
    assert nearest_features(other, references).distance[0] == pytest.approx(expected)


def test_closest_pairs() -> None:
    found = nearest_neighbours(np.concatenate([pictures(5, 8), COPIES[:3]]), REFERENCES)
    assert set(closest_pairs(found, 3)) == {(5 + i, int(CHOSEN[i])) for i in range(3)}
    assert len(closest_pairs(found)) == 8


def test_threshold_is_exact_for_few_images() -> None:
    assert copy_threshold(np.arange(1, 100) / 100) == (0.01, 0.01)  # the first of 99
    assert copy_threshold(np.arange(1, 11) / 10) == (0.1, 1 / 11)  # ten images cannot say 1 %
    # Patients whose images are all the same: the nearest of 20 patients, not the nearest 1 % of images.
    patients = np.repeat(np.arange(20), 50)
    assert copy_threshold(patients.astype(float), patients)[1] == pytest.approx(1 / 20)


@pytest.mark.parametrize("heldout", [30, 400])
def test_calibrated_on_independent_images(heldout: int) -> None:
    rng = np.random.default_rng(0)
    rates = [copy_rate(rng.normal(size=100), rng.normal(size=heldout)) for _ in range(400)]
    assert np.mean([r.rate for r in rates]) == pytest.approx(rates[0].expected, rel=0.35)
    p_values = np.array([r.p_value for r in rates])
    for level in (0.01, 0.05, 0.2, 0.5):  # discrete, so at most uniform
        assert (p_values <= level).mean() <= level + 3 * np.sqrt(level / 400)
    assert (p_values <= 0.5).mean() > 0.2


def test_p_value_counts_the_uncertainty_of_the_threshold() -> None:
    """The binomial tail, averaged over the share of images below the 5th smallest of 500 distances."""
    found = copy_rate(np.concatenate([np.zeros(6), np.ones(94)]), np.linspace(0.5, 1, 500))
    cut = np.linspace(0, 0.1, 20_001)
    tail = np.trapezoid(stats.beta(5, 496).pdf(cut) * stats.binom.sf(5, 100, cut), cut)
    assert found.p_value == pytest.approx(tail, rel=1e-3) and found.p_value > 2 * stats.binom.sf(5, 100, 5 / 501)


def patients(count: int, each: int, spread: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Distances, standard normal within and of standard deviation `spread` between patients, and the patients."""
    values = rng.normal(0, spread, (count, 1)) + rng.normal(size=(count, each))
    return values.ravel(), np.repeat(np.arange(count), each)


def test_calibrated_on_patients_whose_images_are_alike() -> None:
    rng = np.random.default_rng(0)
    by_patient, by_image = [], []
    for _ in range(100):
        (ours, of_ours), (theirs, of_theirs) = patients(20, 10, 1.5, rng), patients(40, 20, 1.5, rng)
        by_patient.append(copy_rate(ours, theirs, of_ours, of_theirs, draws=199))
        by_image.append(copy_rate(ours, theirs))
    assert np.mean([r.p_value < 0.05 for r in by_patient]) <= 0.11
    assert np.mean([r.p_value < 0.05 for r in by_image]) > 0.11  # what taking images for independent would do
    measured = np.mean([r.rate for r in by_patient])
    assert np.mean([r.expected for r in by_patient]) == pytest.approx(measured, rel=0.4)


def test_intervals_cover() -> None:
    rng = np.random.default_rng(0)
    share = 0.1
    far = np.full(200, stats.norm.ppf(share))  # everything below is a copy
    images, clusters = [], []
    for _ in range(200):
        images.append(copy_rate(rng.normal(size=80), far).ci95)
        ours, who = patients(25, 8, 1.0, rng)
        clusters.append(copy_rate(ours / np.sqrt(2), far, who).ci95)
    for intervals in (images, clusters):
        assert 0.91 <= np.mean([low <= share <= high for low, high in intervals]) <= 1
    assert np.mean(np.diff(clusters)) > 0
    none = copy_rate(np.ones(100), np.zeros(100))
    assert none.ci95 == (0.0, pytest.approx(1 - 0.025 ** (1 / 100)))  # Clopper-Pearson, nothing found
    grouped = copy_rate(np.ones(100), np.zeros(100), np.repeat(np.arange(5), 20))
    assert grouped.ci95[0] == 0 and grouped.ci95[1] > none.ci95[1]
    assert copy_rate(np.ones(9), np.zeros(9), np.zeros(9)).ci95 == (0, 1)


def test_the_memorising_are_flagged_and_the_healthy_are_not() -> None:
    flagged, healthy_flagged, few_flagged = [], [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        shared = gaussian_filter(rng.normal(size=(20, 16, 16)), (0, 2, 2)) * 5  # 20 anatomies; a patient has one
        train, heldout, healthy = (
            (shared[np.arange(count) % 20, None] + 0.5 * rng.normal(size=(count, 1, 16, 16)))
            for count in (100, 100, 60)
        )
        copies = train[rng.permutation(100)[:60]] + 0.1 * rng.normal(size=(60, 1, 16, 16))
        some = np.concatenate([healthy[:48], copies[:12]])
        sets = heldout, copies, healthy, some
        real, *found = (nearest_neighbours(x, train, shifts=1, candidates=None).relative for x in sets)
        results = [copy_rate(relative, real) for relative in found]
        flagged.append(results[0].above_chance and results[0].rate > 0.9)
        healthy_flagged.append(results[1].above_chance)
        few_flagged.append(results[2].above_chance and results[2].flagged[48:].all())
    assert all(flagged) and all(few_flagged) and sum(healthy_flagged) <= 1


def test_verdicts() -> None:
    rng = np.random.default_rng(0)
    real = rng.uniform(0.5, 1, 500)
    caught = copy_rate(np.concatenate([np.zeros(12), rng.uniform(0.6, 1, 88)]), real)
    text = certainty(caught)
    assert text.startswith("Flagged for copying: 12 of 100 images lie nearer") and "99 % of 500 real images" in text
    assert "(1 expected by chance; p < 1e-6; 95 % interval 6.4 to 20.0 %)" in text  # Clopper-Pearson for 12 of 100
    healthy = copy_rate(rng.uniform(0.5, 1, 100), real)
    assert certainty(healthy).startswith("No copying found") and "5 % or more would have been told" in certainty(
        healthy
    )
    # The smallest rate that is told from chance is told, and one image less is not.
    for count, told in ((round(100 * healthy.detectable), True), (round(100 * healthy.detectable) - 1, False)):
        assert copy_rate(np.concatenate([np.zeros(count), np.ones(100 - count)]), real).above_chance is told
    undecided = copy_rate(np.ones(3), np.ones(3), np.arange(3), np.arange(3))
    assert np.isnan(undecided.detectable) and certainty(undecided).startswith("Undecided")


def test_what_does_not_fit_is_refused() -> None:
    images = np.zeros((2, 1, 8, 8), np.float32)
    with pytest.raises(DataError, match="cannot be compared"):
        nearest_neighbours(images, images[:, :, :6])
    with pytest.raises(DataError, match="no images to compare"):
        nearest_neighbours(images, images[:0])
    with pytest.raises(DataError, match="too small"):
        nearest_neighbours(images, images, shifts=4)
    with pytest.raises(DataError, match="finite"):
        copy_rate(np.array([np.nan]), np.ones(4))
    with pytest.raises(DataError, match="2 patients do not match 3"):
        copy_rate(np.ones(3), np.ones(4), np.arange(2), np.arange(4))
    with pytest.raises(DataError, match="must be in .0, 1."):
        copy_threshold(np.ones(3), level=1.5)
    assert nearest_neighbours(images, images).distance.tolist() == [1, 1]  # flat images are like nothing


def test_a_copy_of_an_image_that_is_there_many_times_is_one() -> None:
    same = Neighbours(np.zeros(1), np.zeros(1, np.int64), np.zeros(1), np.zeros((1, 2), np.int64))
    assert same.relative[0] == 0
