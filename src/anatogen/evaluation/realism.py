"""Texture: what Dice does not see."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def radial_power(images: NDArray[np.float32], bands: int = 16) -> NDArray[np.float64]:
    """The mean power spectrum of images (N, C, H, W) in `bands` rings of equal width up to the Nyquist frequency.

    The mean of each image is removed and a Hann window is laid over it, so that its borders do not count.
    """
    height, width = images.shape[-2:]
    window = np.hanning(height)[:, None] * np.hanning(width)[None, :]
    centred = images - images.mean(axis=(-2, -1), keepdims=True)
    power = (np.abs(np.fft.fft2(centred * window)) ** 2).mean(axis=(0, 1))
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])  # cycles per pixel
    ring = np.minimum((radius / 0.5 * bands).astype(int), bands)
    sums = np.bincount(ring.ravel(), power.ravel(), bands + 1)[:bands]
    return np.asarray(sums / np.bincount(ring.ravel(), minlength=bands + 1)[:bands])


def power_ratio(generated: NDArray[np.float32], real: NDArray[np.float32], bands: int = 16) -> NDArray[np.float64]:
    """Power of generated over real images in each band: 1 is right, less is too smooth, more too noisy."""
    return radial_power(generated, bands) / radial_power(real, bands)
