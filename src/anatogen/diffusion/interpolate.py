"""Adjustable similarity to a real image (Konz et al. 2024, section 3.2.2).

The generation is halted at time t, mixed with the real image noised to t, and denoised from there. The two noises are
independent, so that the literal mixture x = (1 - l) x_t(real) + l x'_t(generated) has less noise than time t has:
sqrt((1 - l)^2 + l^2) of it. The variance-preserving mixture makes up for the missing part with fresh noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from anatogen.diffusion.path import Path, match_dims

Mixing = Literal["literal", "variance_preserving"]


def mix(
    real: Tensor,
    generated: Tensor,
    t: float,
    path: Path,
    similarity: Tensor,
    noise: Callable[[], Tensor],
    mixing: Mixing = "variance_preserving",
) -> Tensor:
    """The mixed latent at time `t`, from which a solver goes on to the image.

    real: images x0 (B, C, *spatial). generated: x'_t (B, C, *spatial) of a generation that was halted at t. similarity:
    1 - lambda of the paper (B,), in [0, 1); more is more alike. noise: draws standard normal noise like `real`; it is
    drawn twice whatever `mixing` says, so that both mixings see the same noise.
    """
    time = torch.tensor(t, dtype=torch.float64)
    alpha, sigma = float(path.alpha(time)), float(path.sigma(time))
    first, second = noise(), noise()
    of_real = match_dims(similarity.to(real), real)
    of_generated = 1 - of_real
    mixed = of_real * (alpha * real + sigma * first) + of_generated * generated
    if mixing == "literal":
        return mixed
    missing = (1 - of_real.square() - of_generated.square()).clamp(min=0).sqrt()
    return mixed + sigma * missing * second
