"""The loss of a denoiser on images, by which training images can be told from others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anatogen.diffusion.loss import mean_over_known
from anatogen.diffusion.path import Path, add_noise
from anatogen.diffusion.target import loss_weight
from anatogen.seeds import derive_seed


@torch.inference_mode()
def denoising_losses(
    denoise: Callable[[Tensor, Tensor], Tensor],
    path: Path,
    images: Tensor,
    *,
    ratios: Sequence[float] = (0.25, 0.5, 1.0, 2.0),
    draws: int = 2,
    seed: int = 0,
    ignored: Tensor | None = None,
) -> NDArray[np.float64]:
    """The denoiser's loss on each of `images` (B, C, *spatial), float64 (B,), by which to tell training images.

    denoise: (x_t (B, C, *spatial), t (B,)) -> x0, under the images' own condition (`Denoiser.under`). The squared error
    of x0 is averaged over `draws` noises at each of the noise-to-image ratios sigma / alpha, with the weight of a
    v-prediction, so that each level counts about alike. `ratios`: with much less noise any model sees the image, with
    much more none does (on the flow path t = 0.2 to 0.67). The noises depend on `seed` alone: every image, member
    or not, in whatever batch, gets the same. ignored: bool (B, *spatial), pixels that are left out, as they were in training.
    """
    total = torch.zeros(len(images), dtype=torch.float64)
    for level, ratio in enumerate(ratios):
        t = path.time_of(torch.full((len(images),), ratio, device=images.device))
        weight = loss_weight("v", path, t, 0.0)
        for draw in range(draws):
            generator = torch.Generator().manual_seed(derive_seed("membership", seed, level, draw))
            eps = torch.randn(images.shape[1:], generator=generator).to(images.device).expand_as(images)
            error = (denoise(add_noise(path, images, eps, t), t).float() - images).square()
            total += (weight * mean_over_known(error, ignored)).cpu().double()
    return (total / (len(ratios) * draws)).numpy()
