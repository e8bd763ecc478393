"""Classifier-free guidance within a noise interval: pure functions of denoisers.

A denoiser is pushed away from what it would say with less of its condition:

D_w = D + (w - 1) (D - D_without)

(Ho and Salimans 2021, "Classifier-Free Diffusion Guidance", Eq. 6, whose weight is w - 1). w = 1 is off, w > 1 follows
the condition more closely than the data do, w = 0 ignores the part of it that D_without lacks. The push is only made
where the noise lies in an interval (Kynkäänniemi et al. 2024, "Applying Guidance in a Limited Interval Improves Sample
and Distribution Quality in Diffusion Models", Eq. 5); elsewhere the second call of the network is saved.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from anatogen.diffusion.path import Path, match_dims
from anatogen.diffusion.solvers import Denoise

Interval = tuple[float, float]
"""Low and high share of noise, each in [0, 1]; the low end is not in it, the high end is. See `noise_share`."""

EVERYWHERE: Interval = (0.0, 1.0)


def noise_share(path: Path, t: Tensor) -> Tensor:
    """sigma(t) / (alpha(t) + sigma(t)), of the shape of t: 0 is the image, 1 the noise.

    It means the same on every path, and is t on the path `flow`. The paper's noise level sigma / alpha = r is r / (1 +
    r) here: its (0.28, 2.9] is (0.22, 0.74].
    """
    alpha, sigma = path.alpha(t), path.sigma(t)
    return sigma / (alpha + sigma)


def guided(
    denoise: Denoise, without: Denoise, weight: float | Tensor, path: Path, interval: Interval = EVERYWHERE
) -> Denoise:
    """A denoiser guided away from `without`; `denoise` itself where every weight is 1.

    Args:
        denoise: (x_t (B, C, *spatial), t (B,)) -> x0, under the whole condition.
        without: The same under less of it: classes left free, or attributes unknown.
        weight: w, one number or one for each sample (B,).
        path: The path of the denoisers.
        interval: Where the push is made.
    """
    return guided_from(denoise, [(without, weight)], path, interval)


def guided_from(
    denoise: Denoise,
    pushes: Sequence[tuple[Denoise, float | Tensor]],
    path: Path,
    interval: Interval = EVERYWHERE,
) -> Denoise:
    """A denoiser guided away from several others at once: D + sum over them of (w - 1) (D - D_without).

    Args:
        denoise: (x_t (B, C, *spatial), t (B,)) -> x0, under the whole condition.
        pushes: (without, weight) of each; see `guided`.
        path: The path of the denoisers.
        interval: Where the pushes are made.
    """
    weights = [(without, torch.as_tensor(weight, dtype=torch.float32) - 1) for without, weight in pushes]
    weights = [(without, push) for without, push in weights if push.any()]
    if not weights:
        return denoise
    low, high = interval

    def push_away(x_t: Tensor, t: Tensor) -> Tensor:
        x0, share = denoise(x_t, t), noise_share(path, t)
        inside, pushed = (share > low) & (share <= high), x0
        for without, push in weights:
            here = torch.where(inside, push.to(t.device), 0.0)  # (B,)
            if here.any():
                pushed = pushed + match_dims(here.to(x0.dtype), x0) * (x0 - without(x_t, t))
        return pushed

    return push_away
