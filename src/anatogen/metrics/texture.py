"""Texture and diversity: what Dice does not measure."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.errors import DataError, SettingsError

SMALLEST_SIDE = 11  # pixels, of SSIM's Gaussian window
_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli and Bovik 2003, finest first
_BLOCK = 64


class RadialPower:
    """The mean radial power spectrum of a stream of images, in `bands` equal rings up to the Nyquist frequency.

    The mean of each image is removed, and a Hann window suppresses the effect of its borders.
    """

    def __init__(self, bands: int = 16) -> None:
        self.bands, self.count = bands, 0
        self._size: tuple[int, ...] = ()
        self._sum = np.zeros(bands)

    def update(self, images: NDArray[np.float32]) -> NDArray[np.float64]:
        """Add images (N, C, *spatial); returns the spectrum of each, (N, bands).

        Raises:
            DataError: Their size differs from that of earlier images.
        """
        size = images.shape[2:]
        if self._size and self._size != size:
            now, was = (" x ".join(map(str, s)) for s in (size, self._size))
            raise DataError(f"images of {now} follow images of {was}", hint="Use images of one size")
        self._size = size
        spectra = ring_powers(images, self.bands)
        self._sum += spectra.sum(axis=0)
        self.count += len(spectra)
        return spectra

    @property
    def mean(self) -> NDArray[np.float64]:
        """(bands,); NaN before the first image."""
        return self._sum / self.count if self.count else np.full(self.bands, np.nan)


def ring_powers(images: NDArray[np.float32], bands: int = 16) -> NDArray[np.float64]:
    """The radial power spectrum of each image or volume, averaged over channels; see `RadialPower`.

    Args:
        images: (N, C, *spatial).
        bands: Number of rings; shells, of volumes. One between two frequencies of a short side is empty: 0.

    Returns:
        (N, bands).
    """
    size, axes = images.shape[2:], tuple(range(2, images.ndim))
    window = functools.reduce(np.multiply, np.ix_(*(np.hanning(side) for side in size)))
    radius = np.sqrt(sum(f**2 for f in np.ix_(*(np.fft.fftfreq(side) for side in size))))  # cycles per pixel
    return _in_bands(images, window, axes, np.minimum((radius / 0.5 * bands).astype(int), bands), bands)


def axis_powers(images: NDArray[np.float32], axis: int, bands: int = 16) -> NDArray[np.float64]:
    """The power spectrum of each image along one of its axes, averaged over all lines and channels.

    Args:
        images: (N, C, *spatial).
        axis: Of the spatial axes, 0 for the first.
        bands: Of equal width up to the Nyquist frequency.

    Returns:
        (N, bands).
    """
    lines = np.moveaxis(images, 2 + axis, -1)
    lines = lines.reshape(len(images), -1, lines.shape[-1])
    side = lines.shape[-1]
    band = np.minimum((np.abs(np.fft.fftfreq(side)) / 0.5 * bands).astype(int), bands)
    return _in_bands(lines, np.hanning(side), (2,), band, bands)


def _in_bands(
    images: NDArray[np.float32],
    window: NDArray[np.float64],
    axes: tuple[int, ...],
    band: NDArray[np.int64],
    bands: int,
) -> NDArray[np.float64]:
    """The power of images (N, C, *spatial) in each band of frequencies, the mean over the second axis; (N, bands)."""
    flat = band.ravel()
    order = np.argsort(flat, kind="stable")
    sizes = np.bincount(flat, minlength=bands + 1)[:bands]
    there, inside = np.flatnonzero(sizes), order[: sizes.sum()]
    starts = np.cumsum(sizes)[there] - sizes[there]
    found = [np.zeros((0, bands))]
    for start in range(0, len(images), _BLOCK):
        part = images[start : start + _BLOCK]
        centred = part - part.mean(axis=axes, keepdims=True)
        spectrum = np.fft.fftn(centred * window, axes=axes)
        power = (np.abs(spectrum) ** 2).mean(axis=1).reshape(len(part), -1)
        in_bands = np.zeros((len(part), bands))
        in_bands[:, there] = np.add.reduceat(power[:, inside], starts, axis=1) / sizes[there]
        found.append(in_bands)
    return np.concatenate(found)


def radial_power(images: NDArray[np.float32], bands: int = 16) -> NDArray[np.float64]:
    """The mean radial power spectrum (bands,) of images (N, C, *spatial) in memory; see `RadialPower`."""
    return np.asarray(ring_powers(images, bands).mean(axis=0))


def power_ratio(generated: NDArray[np.float32], real: NDArray[np.float32], bands: int = 16) -> NDArray[np.float64]:
    """Power of generated over real images in each band: 1 is right, less is too smooth, more is too noisy.

    1 in a band without frequencies, as the shells of a short side may be.
    """
    return ratio_of_powers(radial_power(generated, bands), radial_power(real, bands))


def axis_ratio(
    generated: NDArray[np.float32], real: NDArray[np.float32], axis: int, bands: int = 16
) -> NDArray[np.float64]:
    """`power_ratio` along one axis, as `axis_powers` has it: whether a volume is as continuous along its slices."""
    return ratio_of_powers(
        axis_powers(generated, axis, bands).mean(axis=0), axis_powers(real, axis, bands).mean(axis=0)
    )


def ratio_of_powers(made: NDArray[np.floating], true: NDArray[np.floating]) -> NDArray[np.float64]:
    """Of two spectra (bands,): generated over real; 1 in a band that is empty in both."""
    both_empty = (made == 0) & (true == 0)
    with np.errstate(divide="ignore"):
        return np.where(both_empty, 1.0, made / np.where(both_empty, 1.0, true)).astype(np.float64)


def ssim(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Structural similarity of each pair of images (Wang et al. 2004; MONAI's).

    Args:
        a: Images (N, C, *spatial) in [-1, 1].
        b: Images (N, C, *spatial) in [-1, 1].

    Returns:
        (N,), at most 1.

    Raises:
        DataError: Shapes differ, or a side is shorter than 11 pixels.
        SettingsError: The images have neither two nor three dimensions.
    """
    from monai.metrics.regression import SSIMMetric

    return _by_pair(lambda dim: SSIMMetric(dim, data_range=1.0, reduction="none"), a, b)


def ms_ssim(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Multi-scale structural similarity of each pair of images (Wang et al. 2003; MONAI's).

    MONAI needs 176 pixels for the paper's five scales. Smaller images use fewer, the finest ones, with weights scaled
    to sum to 1: 4 from 99 pixels, 3 from 44, 2 from 22, 1 below. So only values of one image size can be compared.

    Args:
        a: Images (N, C, *spatial) in [-1, 1].
        b: Images (N, C, *spatial) in [-1, 1].

    Returns:
        (N,) in [0, 1].

    Raises:
        DataError, SettingsError: As in `ssim`.
    """
    from monai.metrics.regression import MultiScaleSSIMMetric

    weights = np.array(_SCALES[: ms_ssim_scales(min(a.shape[2:], default=0))])
    weights = (weights / weights.sum()).tolist()
    return _by_pair(lambda dim: MultiScaleSSIMMetric(dim, data_range=1.0, weights=weights, reduction="none"), a, b)


def ms_ssim_scales(side: int) -> int:
    """The number of scales of `ms_ssim` for images whose shortest side is `side` pixels."""
    scales = 1
    # MONAI requires side // (scales - 1)^2 >= window; the window must also fit into the coarsest scale.
    while scales < len(_SCALES) and side // max(scales**2, 2**scales) >= SMALLEST_SIDE:
        scales += 1
    return scales


def diversity(images: NDArray[np.float32], *, pairs: int = 1000, seed: int = 0) -> tuple[float, float]:
    """The mean MS-SSIM of random pairs of different images (Pinaya et al. 2022): lower is more diverse.

    Compare it with the value of as many real images: the same seed draws the same pairs of places in both sets.

    Args:
        images: (N, C, *spatial) in [-1, 1]; may be memory-mapped.
        pairs: Number of pairs; all pairs are used where there are no more.
        seed: Of the draw.

    Returns:
        The mean, NaN for fewer than two images, and its standard error, NaN for fewer than four. The error treats
        images as independent and is conservative.
    """
    count = len(images)
    if count < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    if count * (count - 1) // 2 <= pairs:
        first, second = np.triu_indices(count, 1)
    else:
        first = rng.integers(count, size=pairs)
        second = (first + rng.integers(1, count, size=pairs)) % count
    scores = np.concatenate(
        [ms_ssim(images[first[i : i + _BLOCK]], images[second[i : i + _BLOCK]]) for i in range(0, len(first), _BLOCK)]
    )
    # Pairs share images. A mean over n / 2 disjoint pairs has a larger error than one over all pairs (Hoeffding 1948).
    independent = min(len(scores), count // 2)
    error = scores.std(ddof=1) / np.sqrt(independent) if count >= 4 else float("nan")
    return float(scores.mean()), float(error)


def pair_similarities(
    generated: NDArray[np.float32], real: NDArray[np.float32], first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.float64]:
    """MS-SSIM of pairs of images, each taken from the generated or from the real set.

    Args:
        generated: (N, C, *spatial) in [-1, 1].
        real: (N, C, *spatial) in [-1, 1].
        first: Places (K,) of the first image of each pair.
        second: Places (K,) of the second image.

    Returns:
        (K, 2, 2), indexed by the set of the first and of the second image: 0 generated, 1 real.
    """
    sides = generated, real
    return np.stack([np.stack([ms_ssim(a[first], b[second]) for b in sides], axis=1) for a in sides], axis=1)


def local_noise(images: NDArray[np.float32], foreground: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """The standard deviation of the finest, pixel-to-pixel variation of each image, in the image's units.

    Immerkaer's (1996) operator, a second difference along every axis, responds little to smooth anatomy; the
    median absolute deviation in place of the mean makes it robust to edges. For white noise the result is the standard
    deviation of the noise. Correlated noise, as in most scanner images, counts for less, so compare with real images.
    Much lower values mean lost texture.

    Args:
        images: (N, C, *spatial) in [-1, 1].
        foreground: Bool (N, *spatial), the pixels to measure; by default those where no channel is within 2.5 % of the
            ends of the range, as air, padding and clipped pixels are.

    Returns:
        (N,), the mean over channels; NaN for an image with fewer than 64 pixels to measure.
    """
    values = np.full(len(images), np.nan)
    for i, image in enumerate(images):
        looked_at = (np.abs(image) < 0.95).all(axis=0) if foreground is None else foreground[i]
        dim = looked_at.ndim
        inside, response = looked_at, image.astype(np.float64)
        for axis in range(-dim, 0):
            inside = np.lib.stride_tricks.sliding_window_view(inside, 3, axis=axis).all(axis=-1)
            response = np.diff(response, 2, axis=axis)
        if inside.sum() < 64:
            continue
        values[i] = _deviation(response[:, inside]).mean() / math.sqrt(6) ** dim  # the operator's norm
    return values


def neighbour_steps(images: NDArray[np.float32]) -> NDArray[np.float64]:
    """The mean absolute difference of neighbouring pixels along each axis: how continuous a volume is across slices.

    Args:
        images: (N, C, *spatial).

    Returns:
        (N, d); NaN along an axis of one pixel.
    """
    found = np.full((len(images), images.ndim - 2), np.nan)
    for axis in range(images.ndim - 2):
        if images.shape[2 + axis] > 1:
            steps = np.abs(np.diff(images, axis=2 + axis))
            found[:, axis] = steps.reshape(len(images), -1).mean(axis=1, dtype=np.float64)
    return found


def compare_noise(generated: NDArray[np.float64], real: NDArray[np.float64]) -> tuple[float, float]:
    """Compare two sets of `local_noise`: the ratio of their medians, and the distance between their distributions.

    Args:
        generated: (N,); NaN values are left out.
        real: (M,); NaN values are left out.

    Returns:
        The ratio of medians (1 is right, below is too smooth, above is too noisy) and the Wasserstein-1 distance in
        units of the real median (0 is right; it also sees a wrong spread). NaN where no value is left.
    """
    from scipy.stats import wasserstein_distance

    made, true = (values[np.isfinite(values)] for values in (generated, real))
    if not len(made) or not len(true) or not (middle := float(np.median(true))):
        return float("nan"), float("nan")
    return float(np.median(made) / middle), float(wasserstein_distance(made, true) / middle)


def _deviation(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The standard deviation of normal values (C, pixels) with mean 0, from the median of their absolute values."""
    return np.asarray(np.median(np.abs(values), axis=-1) / 0.674490)


def _by_pair(metric: Callable[[int], Any], a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Apply MONAI's metric, built for a number of dimensions, to pairs of images in blocks."""
    import torch

    if a.shape != b.shape:
        raise DataError(f"images of shapes {a.shape} and {b.shape} cannot be paired", hint="Pass equal shapes")
    if a.ndim not in (4, 5):
        raise SettingsError(f"images have {a.ndim} axes, not 4 or 5", hint="Pass (N, C, H, W) or (N, C, D, H, W)")
    if min(a.shape[2:]) < SMALLEST_SIDE:
        raise DataError(
            f"images of {a.shape[2:]} are smaller than SSIM's window",
            hint=f"Use at least {SMALLEST_SIDE} pixels a side",
        )
    measure = metric(a.ndim - 2)
    found = []
    for start in range(0, len(a), _BLOCK):
        # SSIM compares brightness by ratios, so black must be 0: [-1, 1] becomes [0, 1].
        x, y = (torch.as_tensor(part[start : start + _BLOCK]).float().add(1).div(2) for part in (a, b))
        found.append(measure(x, y).reshape(len(x)).double().numpy())
    return np.concatenate([*found, np.zeros(0)])
