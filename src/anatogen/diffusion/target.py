"""Prediction targets: from what a network predicts to the image x0.

`eps`, `x0` and `v` are the noise, the image and the direction between them. `edm` is the residual of the best linear
estimate of the image, scaled to unit variance (Karras et al. 2022, "Elucidating the Design Space", Eq. 7, with the
mean and standard deviation of the images). Near the image the estimate is x_t itself, so that the finest texture
bypasses the network; near the noise it is the mean image, and the network predicts the image.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from anatogen.diffusion.path import Path, match_dims

TargetName = Literal["eps", "x0", "v", "edm"]
Weighting = Literal["eps", "x0", "v"]

# What `edm` assumes of images in [-1, 1] without measured statistics, as Karras et al. do.
ASSUMED_MEAN, ASSUMED_STD = 0.0, 0.5

# An eps-prediction does not determine the image where x_t is pure noise (alpha = 0): bound the division there.
_SMALLEST_ALPHA = 1e-3


def to_x0(
    target: TargetName,
    path: Path,
    x_t: Tensor,
    prediction: Tensor,
    t: Tensor,
    *,
    mean: Tensor | float = ASSUMED_MEAN,
    std: Tensor | float = ASSUMED_STD,
) -> Tensor:
    """Convert a network's prediction to the image x0.

    Args:
        target: What the network predicts.
        path: The path of x_t.
        x_t: Noisy images (B, C, *spatial).
        prediction: (B, C, *spatial).
        t: (B,), in [0, 1].
        mean, std: Of the images, for `edm`: numbers, or a value per channel that broadcasts against x_t.

    Returns:
        x0 (B, C, *spatial).
    """
    if target == "x0":
        return prediction
    alpha, sigma = match_dims(path.alpha(t), x_t), match_dims(path.sigma(t), x_t)
    if target == "edm":
        variance = (alpha * std) ** 2 + sigma**2
        guess = mean + alpha * std**2 / variance * (x_t - alpha * mean)
        return guess + std * sigma * variance.rsqrt() * prediction
    if target == "eps":
        return (x_t - sigma * prediction) / alpha.clamp(min=_SMALLEST_ALPHA)
    of_x0, of_eps = (match_dims(part, x_t) for part in path.velocity(t))
    return (of_eps * x_t - sigma * prediction) / (of_eps * alpha - of_x0 * sigma)


def loss_weight(weighting: Weighting, path: Path, t: Tensor, smallest_sigma: float) -> Tensor:
    """The weight w(t) that turns |D - x0|^2 into the squared error in eps, x0 or v (Salimans and Ho 2022, section 4).

    Args:
        weighting: The quantity whose squared error is meant.
        path: The path of t.
        t: (B,), in [0, 1].
        smallest_sigma: Lower bound of sigma, so that nearly clean images do not dominate the loss.

    Returns:
        w(t) (B,).
    """
    if weighting == "x0":
        return torch.ones_like(t)
    alpha, sigma = path.alpha(t), path.sigma(t).clamp(min=smallest_sigma)
    if weighting == "eps":
        return (alpha / sigma) ** 2
    of_x0, of_eps = path.velocity(t)
    return ((of_eps * alpha - of_x0 * path.sigma(t)) / sigma) ** 2
