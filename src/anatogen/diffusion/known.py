"""A real image of which a part is kept while the rest is made anew.

Where the image is known, it is what the denoiser gives at every step, so that the solver walks there along the real
image's own path, and the rest is denoised beside it. Unlike in RePaint (Lugmayr et al. 2022), whose known part is
noised independently at each step, both parts share one noise, and any solver can be used.
"""

from __future__ import annotations

import torch
from torch import Tensor

from anatogen.diffusion.solvers import Denoise


def keeping(denoise: Denoise, images: Tensor, kept: Tensor) -> Denoise:
    """A denoiser that gives the real image where it is kept: kept x image + (1 - kept) x D(x_t, t).

    Args:
        denoise: (x_t (B, C, *spatial), t (B,)) -> x0.
        images: The real images (B, C, *spatial).
        kept: (B, *spatial) in [0, 1]; values between blend both.
    """
    share = kept.unsqueeze(1)

    def denoise_the_rest(x_t: Tensor, t: Tensor) -> Tensor:
        x0 = denoise(x_t, t)
        return torch.lerp(x0.float(), images, share)  # exact at both ends

    return denoise_the_rest
