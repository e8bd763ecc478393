import numpy as np
import pytest
from scipy import ndimage

from anatogen.errors import DataError, SettingsError
from anatogen.metrics.texture import (
    RadialPower,
    axis_powers,
    axis_ratio,
    compare_noise,
    diversity,
    local_noise,
    ms_ssim,
    ms_ssim_scales,
    neighbour_steps,
    pair_similarities,
    power_ratio,
    radial_power,
    ring_powers,
    ssim,
)


def smooth_images(count: int, size: int = 64, seed: int = 0, channels: int = 1) -> np.ndarray:
    """Blurred noise in about [-0.8, 0.8]."""
    white = np.random.default_rng(seed).normal(size=(count, channels, size, size))
    smooth = ndimage.gaussian_filter(white, (0, 0, 5, 5), mode="wrap")
    return (smooth / np.abs(smooth).max() * 0.8).astype(np.float32)


def noisy(images: np.ndarray, sigma: float, seed: int = 1) -> np.ndarray:
    return images + np.random.default_rng(seed).normal(0, sigma, images.shape).astype(np.float32)


def test_power_in_pieces_is_that_of_the_whole_and_of_the_definition() -> None:
    images = noisy(smooth_images(150, 24, channels=2), 0.1)
    pieces = RadialPower(8)
    each = np.concatenate([pieces.update(part) for part in np.split(images, [1, 1, 70])])
    assert pieces.count == 150 and np.allclose(each.mean(axis=0), pieces.mean)
    assert np.allclose(each[3], radial_power(images[3:4], 8))
    assert np.allclose(pieces.mean, radial_power(images, 8), rtol=1e-10)
    assert np.allclose(power_ratio(2 * images, images), 4)
    window = np.hanning(24)[:, None] * np.hanning(24)
    total, many = np.zeros(8), np.zeros(8)
    mean = (np.abs(np.fft.fft2((images - images.mean((-2, -1), keepdims=True)) * window)) ** 2).mean((0, 1))
    for i, row in enumerate(np.fft.fftfreq(24)):
        for j, column in enumerate(np.fft.fftfreq(24)):
            if (ring := int(np.hypot(row, column) * 16)) < 8:
                total[ring] += mean[i, j]
                many[ring] += 1
    assert np.allclose(radial_power(images, 8), total / many)
    with pytest.raises(DataError, match="one size"):
        pieces.update(images[..., :20])
    assert np.isnan(RadialPower(8).mean).all()


@pytest.mark.parametrize("metric", [ssim, ms_ssim])
def test_similarity_is_1_for_equal_images_and_falls_with_noise(metric) -> None:  # type: ignore[no-untyped-def]
    images = smooth_images(70, 48)
    assert np.allclose(metric(images, images), 1, atol=1e-5)
    means = [metric(images, noisy(images, sigma)) for sigma in (0.02, 0.1, 0.4)]
    assert np.all(means[0] > means[1]) and np.all(means[1] > means[2])
    assert np.allclose(metric(images[60:], images[:10]), metric(images, np.roll(images, -10, 0))[60:], atol=1e-6)


def test_ssim_of_flat_images_by_hand() -> None:
    """Without structure SSIM is (2 xy + c) / (x^2 + y^2 + c) of the brightness, from black."""
    a, b = np.full((1, 1, 16, 16), -0.5, np.float32), np.full((1, 1, 16, 16), 0.5, np.float32)
    x, y, c = 0.25, 0.75, 0.01**2
    assert ssim(a, b)[0] == pytest.approx((2 * x * y + c) / (x**2 + y**2 + c), abs=1e-3)


def test_ssim_is_scikit_images() -> None:
    """Values of scikit-image 0.26: structural_similarity((a + 1) / 2, (b + 1) / 2, data_range=1, gaussian_weights=True,
    sigma=1.5, use_sample_covariance=False).
    """
    y, x = np.mgrid[0:48, 0:40] / 8
    a = np.sin(x) * np.cos(0.7 * y)
    others = np.stack([0.6 * a, np.sin(x + 0.5) * np.cos(0.7 * y), np.clip(a + 0.3, -1, 1)])[:, None]
    found = ssim(np.broadcast_to(a, others.shape).astype(np.float32), others.astype(np.float32))
    assert found == pytest.approx([0.8307327969, 0.7738992826, 0.8724619266], abs=2e-5)


@pytest.mark.parametrize(("side", "scales"), [(11, 1), (22, 2), (44, 3), (64, 3), (98, 3), (99, 4), (176, 5), (512, 5)])
def test_scales_fit_the_size(side: int, scales: int) -> None:
    assert ms_ssim_scales(side) == scales
    if side < 200:
        image = smooth_images(1, side)
        assert ms_ssim(image, image)[0] == pytest.approx(1, abs=1e-5)


def test_similarity_of_volumes_and_of_what_cannot_be_compared() -> None:
    volumes = np.random.default_rng(0).uniform(-1, 1, (2, 1, 12, 13, 14)).astype(np.float32)
    assert np.allclose(ssim(volumes, volumes), 1, atol=1e-5)
    with pytest.raises(DataError, match="cannot be paired"):
        ssim(volumes, volumes[:1])
    with pytest.raises(DataError, match="smaller than"):
        ms_ssim(volumes[..., :8], volumes[..., :8])
    with pytest.raises(SettingsError, match="axes"):
        ssim(volumes[0, 0], volumes[0, 0])


def test_diversity_sees_copies() -> None:
    varied = smooth_images(40, 32)
    alike = noisy(varied[:1].repeat(40, axis=0), 0.02)
    (many, error), (few, _) = diversity(varied, pairs=300), diversity(alike, pairs=300)
    assert few > 0.9 > many + 5 * error
    assert diversity(varied, pairs=300) == (many, error) != diversity(varied, pairs=300, seed=1)
    assert np.isnan(diversity(varied[:1])[0])
    exact = [ms_ssim(varied[i : i + 1], varied[j : j + 1])[0] for i in range(4) for j in range(i + 1, 4)]
    assert diversity(varied[:4])[0] == pytest.approx(np.mean(exact), abs=1e-6)


def test_the_error_of_diversity_is_no_less_than_that_of_repeated_draws() -> None:
    drawn = np.array([diversity(smooth_images(12, 22, seed), pairs=66) for seed in range(25)])
    spread = drawn[:, 0].std(ddof=1)
    assert 0.8 * spread < drawn[:, 1].mean() < 5 * spread


@pytest.mark.parametrize("sigma", [0.01, 0.05, 0.15])
def test_noise_of_known_sigma(sigma: float) -> None:
    found = local_noise(noisy(smooth_images(20, channels=2) * 0.6, sigma))
    assert found.shape == (20,)
    assert np.allclose(found, sigma, rtol=0.1)


def test_similarities_of_generated_and_real_in_all_four_ways() -> None:
    made, real = smooth_images(4, 32), smooth_images(4, 32, seed=9)
    first, second = np.array([0, 2]), np.array([3, 1])
    found = pair_similarities(made, real, first, second)
    assert found.shape == (2, 2, 2)
    for i, a in enumerate((made, real)):
        for j, b in enumerate((made, real)):
            assert np.allclose(found[:, i, j], ms_ssim(a[first], b[second]))


def test_noise_is_sought_in_the_foreground_and_edges_have_no_say() -> None:
    images = noisy(smooth_images(5) * 0.5, 0.05)
    inside = np.zeros((5, 64, 64), dtype=bool)
    inside[:, 16:48, 16:48] = True
    padded = np.where(inside[:, None], images, -1).astype(np.float32)
    assert np.allclose(local_noise(padded), 0.05, rtol=0.15)
    louder = np.where(inside[:, None], images, 5 * images)
    assert np.allclose(local_noise(louder, inside), 0.05, rtol=0.15)
    stepped = np.clip(images + 0.6 * (np.arange(64) % 16 > 7) - 0.3, -0.94, 0.94).astype(np.float32)
    assert np.allclose(local_noise(stepped), 0.05, rtol=0.4)
    empty = np.full((2, 1, 64, 64), -1, np.float32)
    assert np.isnan(local_noise(empty)).all()
    assert local_noise(np.zeros((1, 1, 4, 20, 20), np.float32)).shape == (1,)  # volumes, slice by slice


def test_comparing_noise() -> None:
    real = local_noise(noisy(smooth_images(30), 0.05))
    assert compare_noise(real, real) == (1, 0)
    twice = compare_noise(2 * real, real)
    assert twice[0] == pytest.approx(2) and twice[1] == pytest.approx(real.mean() / np.median(real))
    softer = ndimage.uniform_filter(noisy(smooth_images(30), 0.05), (0, 0, 3, 3))
    ratio, distance = compare_noise(local_noise(softer), real)
    assert ratio < 0.5 and distance > 0.5
    spread = np.concatenate([real[:15] - 0.02, real[15:] + 0.02])  # the same median, other images
    assert compare_noise(np.append(spread, np.nan), real)[1] > 0.3
    assert np.isnan(compare_noise(np.full(3, np.nan), real)).all()


def wave(size: tuple[int, ...], axis: int, cycles: int) -> np.ndarray:
    """One volume (1, 1, *size) that varies along one axis only."""
    shape = [size[axis] if a == axis else 1 for a in range(len(size))]
    along = np.cos(2 * np.pi * cycles * np.arange(size[axis]) / size[axis]).reshape(shape)
    return np.broadcast_to(along, size).astype(np.float32)[None, None]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_wave_of_a_volume_is_found_in_its_band_along_its_axis(axis: int) -> None:
    size = (32, 24, 16)
    volume = wave(size, axis, size[axis] // 4)  # half of the Nyquist frequency
    assert ring_powers(volume)[0].argmax() == 8
    assert axis_powers(volume, axis)[0].argmax() == 8
    for other in {0, 1, 2} - {axis}:
        assert axis_powers(volume, other)[0].max() < 1e-6  # constant along it


def test_every_plane_of_a_volume_counts() -> None:
    """The spectrum was that of the first plane alone."""
    rng = np.random.default_rng(0)
    volume = rng.normal(0, 0.1, (3, 1, 12, 16, 16)).astype(np.float32)
    changed = volume.copy()
    changed[:, :, 6:] *= 3
    found = power_ratio(changed, volume)
    assert found[1] == 1 and np.delete(found, 1).min() > 2  # of 16 voxels a side, no frequency lies in the second band
    smooth = ndimage.gaussian_filter1d(volume, 1.5, axis=2)
    assert axis_ratio(smooth, volume, 0)[10] < 0.1 and axis_ratio(smooth, volume, 1)[12] == pytest.approx(
        axis_ratio(smooth, volume, 1)[4], rel=0.5
    )


def test_noise_of_volumes_is_its_standard_deviation() -> None:
    rng = np.random.default_rng(0)
    ramp = np.linspace(-0.5, 0.5, 20)[None, None, None, None, :]
    noise = rng.normal(0, 0.05, (2, 1, 16, 18, 20))
    assert local_noise((noise + ramp).astype(np.float32)) == pytest.approx([0.05, 0.05], rel=0.05)
    assert local_noise(np.broadcast_to(ramp, (1, 1, 16, 18, 20)).astype(np.float32)) == pytest.approx([0], abs=1e-6)


def test_short_sides_have_empty_shells() -> None:
    """Of three slices: bands without any frequency say nothing, and are no reason to be infinite."""
    rng = np.random.default_rng(0)
    volume = rng.normal(size=(2, 1, 3, 16, 16)).astype(np.float32)
    assert np.isfinite(power_ratio(volume, volume)).all() and np.isfinite(axis_ratio(volume, volume, 0)).all()
    assert axis_ratio(volume, volume, 0) == pytest.approx(np.ones(16))


def test_steps_between_neighbours_along_each_axis() -> None:
    ramp = np.broadcast_to(0.01 * np.arange(5.0)[:, None, None] + 0.03 * np.arange(7.0), (2, 1, 5, 6, 7))
    assert np.allclose(neighbour_steps(ramp.astype(np.float32)), [[0.01, 0, 0.03]] * 2, atol=1e-6)
    assert np.isnan(neighbour_steps(np.zeros((1, 2, 1, 4), np.float32))[0]).tolist() == [True, False]
    rng = np.random.default_rng(0)
    smooth = np.repeat(rng.normal(size=(3, 1, 2, 8, 8)), 4, axis=2).astype(np.float32)
    streaked = rng.normal(size=(3, 1, 8, 8, 8)).astype(np.float32)
    along, across = (neighbour_steps(streaked) / neighbour_steps(smooth))[:, [0, 1]].mean(axis=0)
    assert along > 3 and 0.8 < across < 1.2
