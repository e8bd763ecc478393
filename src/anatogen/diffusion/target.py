"""What a network predicts, turned into the image that it implies.

`eps`, `x0`, `v`: the noise, the image, the direction between them. `edm`: what is missing from the best linear guess of the
image, scaled to unit variance (Karras et al. 2022, "Elucidating the Design Space", Eq. 7, with the images' own mean and
standard deviation). Near the image the guess is x_t itself, so that the finest texture passes the network by; near the noise
it is the images' mean, and the network predicts the image.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from anatogen.diffusion.path import Path, match_dims

TargetName = Literal["eps", "x0", "v", "edm"]
Weighting = Literal["eps", "x0", "v"]

# What `edm` assumes of images in [-1, 1] that nobody measured, as Karras et al. do.
ASSUMED_MEAN, ASSUMED_STD = 0.0, 0.5

# An eps-prediction says nothing of the image where x_t is pure noise (alpha = 0): bound the division there.
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
    """The image x0 (B, C, *spatial) that a network's `prediction` at x_t and t (B,) stands for.

    Args:
        mean, std: of the images, for `edm`: numbers, or a value per channel that broadcasts against x_t.
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
    """w(t) (B,) with w(t) |D - x0|^2 equal to the squared error in eps, x0 or v (Salimans and Ho 2022, section 4).

    `smallest_sigma` bounds sigma from below, so that nearly clean images do not take over the loss.
    """
    if weighting == "x0":
        return torch.ones_like(t)
    alpha, sigma = path.alpha(t), path.sigma(t).clamp(min=smallest_sigma)
    if weighting == "eps":
        return (alpha / sigma) ** 2
    of_x0, of_eps = path.velocity(t)
    return ((of_eps * alpha - of_x0 * path.sigma(t)) / sigma) ** 2
