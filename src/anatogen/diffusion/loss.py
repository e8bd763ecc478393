"""The training loss, seen from outside the denoiser, and the times at which it is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from anatogen.diffusion.path import Path, add_noise
from anatogen.diffusion.target import Weighting, loss_weight

TimeDistribution = Literal["uniform", "logit_normal"]


def training_times(
    distribution: TimeDistribution, drawn: Tensor, path: Path, *, mean: float = 0.0, spread: float = 1.0
) -> Tensor:
    """Training times (B,) in (0, 1] from random numbers `drawn` (B,).

    `uniform`, of numbers uniform in [0, 1): one of the 1000 steps 1/1000 ... 1, each equally likely (Ho et al. 2020,
    Algorithm 1).
    `logit_normal`, of standard normal numbers: on the flow path sigmoid(N(mean, spread^2)) (Esser et al. 2024, "Scaling
    Rectified Flow Transformers", section 3.1), on every path the times of the same noise: log(sigma / alpha) is normal
    (Karras et al. 2022, section 5).
    """
    if distribution == "uniform":
        return ((drawn * 1000).floor() + 1).clamp(max=1000) / 1000
    return path.time_of((mean + spread * drawn).exp())


def mean_over_known(error: Tensor, ignored: Tensor | None) -> Tensor:
    """The mean (B,) of `error` (B, C, *spatial) over the pixels of each image that are not `ignored`, bool (B, *spatial).

    0 for an image of which nothing is known.
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
    """w(t) |D(x_t, t) - x0|^2 of each image (B,), whose mean is Eq. 1 of Konz et al. 2024, in terms of the image.

    denoise: (x_t (B, C, *spatial), t (B,)) -> x0. weighting: the quantity whose squared error this is. ignored: bool
    (B, *spatial), pixels of unknown class, which the mean leaves out; an image that has no others counts as 0.
    """
    x_t = add_noise(path, x0, eps, t)
    error = mean_over_known((denoise(x_t, t).float() - x0).square(), ignored)
    return loss_weight(weighting, path, t, smallest_sigma) * error
