"""The training loss of a denoiser, and the distribution of training times."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from anatogen.diffusion.path import Path, add_noise
from anatogen.diffusion.target import Weighting, loss_weight
from anatogen.seeds import Draws

TimeDistribution = Literal["uniform", "logit_normal"]


MOST_LOW_RATIO = math.exp(-1)
"""The largest noise-to-image ratio of the share of the training times that is for texture."""


def training_times(
    distribution: TimeDistribution,
    drawn: Tensor,
    path: Path,
    *,
    mean: float = 0.0,
    spread: float = 1.0,
    low_noise_share: float = 0.0,
    least_noise: float = 0.05,
) -> Tensor:
    """Training times from random numbers.

    `uniform`: one of the 1000 steps 1/1000 ... 1 with equal probability (Ho et al. 2020, Algorithm 1). `logit_normal`:
    on the flow path sigmoid(N(mean, spread^2)) (Esser et al. 2024, "Scaling Rectified Flow Transformers", section 3.1);
    on every path the times of equal noise, so that log(sigma / alpha) is normal (Karras et al. 2022, section 5).

    Args:
        distribution: The distribution of times.
        drawn: (B,), uniform in [0, 1) for `uniform`, standard normal for `logit_normal`.
        path: The path of the times.
        mean: Of log(sigma / alpha), for `logit_normal`.
        spread: Its standard deviation.
        low_noise_share: With `logit_normal`, the share of times with little noise, from which fine texture is learned:
            log(sigma / alpha) is uniform from `least_noise` to 0.37.
        least_noise: The smallest sigma / alpha of that share.

    Returns:
        Times (B,) in (0, 1].
    """
    if distribution == "uniform":
        return ((drawn * 1000).floor() + 1).clamp(max=1000) / 1000
    if low_noise_share == 0:
        return path.time_of((mean + spread * drawn).exp())
    # Uniform in [0, 1): the lowest are of that share, the others of the normal distribution. Apple GPUs have erf.
    place = (1 + torch.erf(drawn / math.sqrt(2))) / 2
    low, high = math.log(least_noise), math.log(MOST_LOW_RATIO)
    rest = ((place - low_noise_share) / (1 - low_noise_share)).clamp(1e-6, 1 - 1e-6)
    of_share = low + (high - low) * place / low_noise_share
    others = mean + spread * math.sqrt(2) * torch.erfinv(2 * rest - 1)
    return path.time_of(torch.where(place < low_noise_share, of_share, others).exp())


def numbers_for_times(distribution: TimeDistribution, random: Draws, *, stratified: bool) -> Tensor:
    """The random numbers (B,) that `training_times` takes.

    Args:
        distribution: The distribution of times.
        random: Draws of the batch's items.
        stratified: Spread the times evenly over their distribution, in each batch and from step to step, instead of
            drawing them independently: the gradients of a small batch vary less.
    """
    if distribution == "uniform":
        return random.even() if stratified else random.uniform()
    return torch.special.ndtri(random.even().clamp(1e-6, 1 - 1e-6)) if stratified else random.normal()


def mean_over_known(error: Tensor, ignored: Tensor | None) -> Tensor:
    """The mean error of each image over its known pixels.

    Args:
        error: (B, C, *spatial).
        ignored: Bool (B, *spatial), pixels to leave out; None: none.

    Returns:
        (B,); 0 for an image without known pixels.
    """
    if ignored is None:
        return error.flatten(1).mean(dim=1)
    known = (~ignored).unsqueeze(1).to(error.dtype)
    return (error * known).flatten(1).sum(dim=1) / (known.flatten(1).sum(dim=1) * error.shape[1]).clamp(min=1)


def denoising_loss(
    denoise: Callable[[Tensor, Tensor], Tensor],
    path: Path,
    x0: Tensor,
    eps: Tensor,
    t: Tensor,
    *,
    weighting: Weighting,
    smallest_sigma: float = 0.0,
    ignored: Tensor | None = None,
) -> Tensor:
    """The loss w(t) |D(x_t, t) - x0|^2 of each image; its mean is Eq. 1 of Konz et al. 2024, in terms of the image.

    Args:
        denoise: (x_t (B, C, *spatial), t (B,)) -> x0.
        path: The path of x_t.
        x0: Images (B, C, *spatial).
        eps: Standard normal noise (B, C, *spatial).
        t: Times (B,) in (0, 1].
        weighting: The quantity whose squared error is the loss.
        smallest_sigma: See `loss_weight`.
        ignored: Bool (B, *spatial), pixels of unknown class, which the mean leaves out.

    Returns:
        (B,); 0 for an image without known pixels.
    """
    x_t = add_noise(path, x0, eps, t)
    error = mean_over_known((denoise(x_t, t).float() - x0).square(), ignored)
    return loss_weight(weighting, path, t, smallest_sigma) * error
