"""The training loss, seen from outside the denoiser, and the times at which it is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from anatogen.diffusion.path import Path, add_noise
from anatogen.diffusion.target import Weighting, loss_weight

TimeDistribution = Literal["uniform", "logit_normal"]


def draw_times(
    distribution: TimeDistribution,
    count: int,
    generator: torch.Generator,
    path: Path,
    *,
    mean: float = 0.0,
    spread: float = 1.0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """`count` training times in (0, 1].

    `uniform`: one of the 1000 steps 1/1000 ... 1, each equally likely (Ho et al. 2020, Algorithm 1).
    `logit_normal`: on the flow path sigmoid(N(mean, spread^2)) (Esser et al. 2024, "Scaling Rectified Flow Transformers",
    section 3.1), on every path the times of the same noise: log(sigma / alpha) is normal (Karras et al. 2022, section 5).
    """
    if distribution == "uniform":
        steps = torch.randint(1, 1001, (count,), generator=generator, device=device)
        return steps.float() / 1000
    normal = torch.randn(count, generator=generator, device=device)
    return path.time_of((mean + spread * normal).exp())


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
    """E[w(t) |D(x_t, t) - x0|^2] (Konz et al. 2024, Eq. 1, in terms of the image), a scalar.

    denoise: (x_t (B, C, *spatial), t (B,)) -> x0. weighting: the quantity whose squared error this is. ignored: bool
    (B, *spatial), pixels whose class is unknown, which are left out.
    """
    x_t = add_noise(path, x0, eps, t)
    error = mean_over_known((denoise(x_t, t).float() - x0).square(), ignored)
    return (loss_weight(weighting, path, t, smallest_sigma) * error).mean()
