import numpy as np
import pytest
import torch

from anatogen.errors import DataError, SettingsError
from anatogen.metrics import distances
from anatogen.metrics.distances import (
    FeatureMoments,
    Reservoir,
    count_warning,
    frechet_distance,
    in_manifold,
    kernel_distance,
    median_distance,
    mmd,
    precision_recall,
    smallest_count,
)

RNG = np.random.default_rng


def moments_of(mean: np.ndarray, covariance: np.ndarray) -> FeatureMoments:
    """Features with exactly these moments."""
    size = len(mean)
    points = np.concatenate([np.eye(size), -np.eye(size)]) * np.sqrt((2 * size - 1) / 2)
    return FeatureMoments.of(points @ np.linalg.cholesky(covariance).T + mean)


def test_frechet_distance_of_gaussians() -> None:
    zero, unit = np.zeros(5), np.eye(5)
    assert frechet_distance(moments_of(zero, unit), moments_of(zero, unit)) == pytest.approx(0, abs=1e-10)
    assert frechet_distance(moments_of(zero, unit), moments_of(zero + 2, unit)) == pytest.approx(5 * 4)
    variances = np.array([0.1, 1, 4, 9, 100])  # where both are diagonal: the sum of (s_a - s_b)^2
    expected = ((np.sqrt(variances) - 1) ** 2).sum()
    assert frechet_distance(moments_of(zero, np.diag(variances)), moments_of(zero, unit)) == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
def test_frechet_distance_of_unequal_covariances_by_sqrtm_and_monai() -> None:
    from monai.metrics.fid import get_fid_score
    from scipy.linalg import sqrtm

    a, b = (RNG(i).normal(size=(60, 6)) @ RNG(i + 9).normal(size=(6, 6)) + i for i in (0, 1))
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    by_hand = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    ours = frechet_distance(FeatureMoments.of(a), FeatureMoments.of(b))
    assert ours == pytest.approx(by_hand, rel=1e-9)
    assert ours == pytest.approx(float(get_fid_score(torch.from_numpy(a), torch.from_numpy(b))), rel=1e-6)


def test_frechet_distance_of_singular_covariances() -> None:
    few = RNG(0).normal(size=(4, 20))  # rank 3 of 20
    assert frechet_distance(FeatureMoments.of(few), FeatureMoments.of(few)) == pytest.approx(0, abs=1e-8)
    assert frechet_distance(FeatureMoments.of(few), FeatureMoments.of(few + 1)) == pytest.approx(20)
    assert np.isnan(frechet_distance(FeatureMoments.of(few), FeatureMoments.of(few[:1])))


def test_the_bias_of_small_sets_is_as_documented() -> None:
    size, n, rng = 16, 400, RNG(0)
    drawn = [frechet_distance(*(FeatureMoments.of(rng.normal(size=(n, size))) for _ in "ab")) for _ in range(30)]
    assert np.mean(drawn) == pytest.approx(2 * size / n + size * (size + 1) / (2 * n), rel=0.1)


def test_moments_in_pieces_are_those_of_the_whole() -> None:
    features = RNG(0).normal(1000, 1, size=(500, 7))  # far from 0, where naive sums of squares would cancel
    pieces = FeatureMoments(7)
    for part in np.split(features, [1, 2, 100, 100, 333]):
        pieces.update(part)
    assert pieces.count == 500
    assert np.allclose(pieces.mean, features.mean(axis=0), rtol=0, atol=1e-8)
    assert np.allclose(pieces.covariance, np.cov(features, rowvar=False), rtol=0, atol=1e-8)


def test_merging_is_associative_and_changes_nothing() -> None:
    a, b, c = (FeatureMoments.of(RNG(i).normal(i, 1 + i, size=(10 + 30 * i, 4))) for i in range(3))
    before = a.mean.copy(), a.covariance
    left, right = a.merge(b).merge(c), a.merge(b.merge(c))
    assert left.count == right.count == 120
    assert np.allclose(left.mean, right.mean) and np.allclose(left.covariance, right.covariance)
    assert np.array_equal(a.mean, before[0]) and np.array_equal(a.covariance, before[1])
    assert np.allclose(a.merge(FeatureMoments(4)).covariance, a.covariance)


def test_features_that_are_no_numbers_or_of_another_encoder_are_refused() -> None:
    with pytest.raises(DataError, match="features of 1 images are not finite"):
        FeatureMoments(2).update(np.array([[0.0, 1.0], [np.nan, 1.0]]))
    with pytest.raises(DataError, match="same encoder"):
        FeatureMoments(2).update(np.zeros((3, 4)))
    with pytest.raises(DataError, match="same encoder"):
        kernel_distance(np.zeros((9, 3)), np.zeros((9, 4)))


def test_reservoir_is_fair_and_does_not_see_pieces() -> None:
    stream = np.arange(1000, dtype=np.float32)[:, None]
    whole = Reservoir(50, seed=3).update(stream)
    pieces = Reservoir(50, seed=3)
    for part in np.split(stream, [7, 49, 50, 51, 600]):
        pieces.update(part)
    assert np.array_equal(whole.sample, pieces.sample) and whole.count == 1000
    assert len(np.unique(whole.sample)) == 50
    assert not np.array_equal(whole.sample, Reservoir(50, seed=4).update(stream).sample)
    means = [Reservoir(50, seed).update(stream).sample.mean() for seed in range(200)]
    assert np.mean(means) == pytest.approx(499.5, abs=4 * 288.7 / np.sqrt(50 * 200))
    assert np.array_equal(Reservoir(50).update(stream[:20]).sample, stream[:20])


def test_kernel_distance_by_moments() -> None:
    """In one dimension E (xy + 1)^3 is a sum of products of moments: m, m^2 + 1, m^3 + 3m for N(m, 1)."""

    def product(m: float, n: float) -> float:
        return (m**3 + 3 * m) * (n**3 + 3 * n) + 3 * (m**2 + 1) * (n**2 + 1) + 3 * m * n + 1

    expected = product(0, 0) + product(0.5, 0.5) - 2 * product(0, 0.5)
    a, b = RNG(0).normal(0, 1, (4000, 1)), RNG(1).normal(0.5, 1, (4000, 1))
    value, error = kernel_distance(a, b, subset_size=500, subsets=50)
    assert error < 0.25 * expected
    assert abs(value - expected) < 3 * error


def test_mmd_by_closed_form() -> None:
    """For N(m, I) and the kernel of width h: E k = (h^2 / (h^2 + 2))^(F/2) exp(-|m|^2 / (2 (h^2 + 2)))."""
    size, shift, width = 4, 0.5, 2.0
    peak = (width**2 / (width**2 + 2)) ** (size / 2)
    expected = 2 * peak * (1 - np.exp(-size * shift**2 / (2 * (width**2 + 2))))
    a, b = RNG(0).normal(shift, 1, (2000, size)), RNG(1).normal(0, 1, (2000, size))
    value, error = mmd(a, b, bandwidth=width, subsets=50, subset_size=500)
    assert error < 0.2 * expected
    assert abs(value - expected) < 3 * error


@pytest.mark.parametrize("metric", [kernel_distance, mmd])
def test_equal_distributions_are_at_zero_within_the_error(metric) -> None:  # type: ignore[no-untyped-def]
    rng, scores = RNG(0), []
    for _ in range(20):
        value, error = metric(rng.normal(size=(200, 8)), rng.normal(size=(200, 8)), subsets=20)
        scores.append(value / error)
    assert abs(np.mean(scores)) < 0.8
    assert np.mean(np.abs(scores) < 2) >= 0.85
    assert min(scores) < 0  # unbiased
    shifted = metric(rng.normal(1, 1, size=(200, 8)), rng.normal(size=(200, 8)), subsets=20)
    assert shifted[0] > 5 * shifted[1]


@pytest.mark.parametrize("metric", [kernel_distance, mmd])
def test_pairs_are_no_closer_than_strangers(metric) -> None:  # type: ignore[no-untyped-def]
    """A generated image resembles the real one of its map; this must not look like equal distributions."""
    rng, scores = RNG(0), []
    for _ in range(20):
        maps = rng.normal(size=(60, 8))
        value, error = metric(maps + 0.1 * rng.normal(size=maps.shape), maps, subsets=40)
        scores.append(value / error)
    assert abs(np.mean(scores)) < 0.8


def test_the_error_is_that_of_repeated_draws() -> None:
    rng = RNG(0)
    drawn = [mmd(rng.normal(1, 1, (200, 2)), rng.normal(0, 1, (200, 2)), bandwidth=1.5) for _ in range(40)]
    values, errors = np.array(drawn).T
    assert errors.mean() == pytest.approx(values.std(ddof=1), rel=0.3)


def test_unbiased_mmd_agrees_with_monai_where_its_kernel_is_taken() -> None:
    from monai.metrics.mmd import compute_mmd

    a, b = RNG(0).normal(size=(30, 5)), RNG(1).normal(1, 1, size=(30, 5))
    theirs = float(compute_mmd(torch.from_numpy(a), torch.from_numpy(b), None))
    assert distances._unbiased_mmd(lambda x, y: x @ y.T, a, b) == pytest.approx(theirs)


def test_distances_are_seeded_and_need_a_few_images() -> None:
    a, b = RNG(0).normal(size=(40, 3)), RNG(1).normal(size=(40, 3))
    assert kernel_distance(a, b, seed=1) == kernel_distance(a, b, seed=1) != kernel_distance(a, b, seed=2)
    assert np.isnan(kernel_distance(a, b[:3])).all() and np.isnan(precision_recall(a, b[:3])).all()
    assert np.isnan(median_distance(a[:1]))
    with pytest.raises(SettingsError, match="bandwidth"):
        mmd(a, b, bandwidth=0)
    with pytest.raises(SettingsError, match="neighbours"):
        in_manifold(a, b[:3], neighbours=3)


def test_median_distance_by_hand() -> None:
    assert median_distance(np.array([[0.0, 0], [3, 4], [0, 1]])) == pytest.approx(np.sqrt(18))


def test_precision_and_recall() -> None:
    cluster = RNG(0).normal(size=(100, 3))
    far = RNG(1).normal(size=(100, 3)) + 50
    assert precision_recall(cluster, cluster) == (1, 1)
    assert precision_recall(far, cluster) == (0, 0)
    both = np.concatenate([cluster, far])
    assert precision_recall(both, cluster) == (0.5, 1)  # half of the images is like nothing real
    assert precision_recall(cluster, both) == (1, 0.5)  # half of the real kinds is never made


def test_manifolds_by_hand_and_in_blocks() -> None:
    line = np.array([[0.0], [1], [3], [10]])  # second neighbours at 3, 2, 3, 9
    points = np.array([[-3.0], [-3.1], [6], [1.5], [19], [19.1], [6.1]])
    assert in_manifold(points, line, neighbours=2).tolist() == [True, False, True, True, True, False, True]
    assert in_manifold(points[:2], line[:3], neighbours=1).tolist() == [False, False]
    a, b = RNG(0).normal(size=(53, 2)), RNG(1).normal(size=(41, 2))
    assert np.array_equal(in_manifold(a, b, block=7), in_manifold(a, b))
    assert in_manifold(a[:0], b).shape == (0,)


def test_too_few_images_are_said_so() -> None:
    assert smallest_count("fid", 128) == 640
    assert count_warning("fid", 640, 128) is None
    warning = count_warning("fid", 500, 128)
    assert warning is not None and "500" in warning and "640" in warning
    assert count_warning("kid", 10) and not count_warning("kid", 5000)
    with pytest.raises(SettingsError, match="Did you mean 'kid'"):
        smallest_count("kidd")
