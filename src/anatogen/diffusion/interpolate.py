"""Adjustable similarity to a real image (Konz et al. 2024, section 3.2.2).

Sampling is paused at time t, mixed with the real image noised to t, and continued from there. The two noises are
independent, so the literal mixture x = (1 - l) x_t(real) + l x'_t(generated) has less noise than time t has:
sqrt((1 - l)^2 + l^2) of it. The variance-preserving mixture adds the missing part as fresh noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from anatogen.diffusion.path import DDPMPath, Path, match_dims

Mixing = Literal["literal", "variance_preserving"]
Walk = Callable[[Tensor, Tensor], Tensor]
"""(x (B, C, *spatial) at times[0], falling times) -> x at times[-1]."""


@dataclass(frozen=True)
class RealStart:
    """The real images that a batch of samples is to be similar to.

    Attributes:
        images: x0 (B, C, *spatial) in [-1, 1].
        similarity: 1 - lambda of the paper (B,), in [0, 1); larger is more similar.
        step: The timestep of 1000 at which sampling is paused; 240 in the paper. Other paths than `ddpm` pause at the
            same noise-to-image ratio.
        mixing: How the two latents are mixed; see `mix`.
        noise: Draws standard normal noise like `images`, a source of its own.
    """

    images: Tensor
    similarity: Tensor
    step: int
    mixing: Mixing
    noise: Callable[[], Tensor]


@dataclass(frozen=True)
class NoisedStart:
    """Images that a batch of samples starts from, noised (Meng et al. 2022, "SDEdit").

    Attributes:
        images: x0 (B, C, *spatial) in [-1, 1].
        step: The timestep of 1000 to which they are noised; see `RealStart`.
    """

    images: Tensor
    step: int


def from_noised(walk: Walk, noise: Tensor, times: Tensor, path: Path, start: NoisedStart) -> Tensor:
    """Walk from the images, noised with standard normal `noise`, to the images at times[-1]."""
    time = _time_of_step(start.step, path)
    noised = float(path.alpha(time)) * start.images + float(path.sigma(time)) * noise
    return walk(noised, torch.cat([time[None], times[times < time]]))


def interpolate(walk: Walk, noise: Tensor, times: Tensor, path: Path, start: RealStart) -> Tensor:
    """Walk from `noise` to where sampling is paused, mix in the real images, and walk on to the images at times[-1]."""
    pause = _time_of_step(start.step, path)
    before, after = times[times > pause], times[times < pause]
    generated = walk(noise, torch.cat([before, pause[None]]))
    mixed = mix(start.images, generated, float(pause), path, start.similarity, start.noise, start.mixing)
    return walk(mixed, torch.cat([pause[None], after]))


def mix(
    real: Tensor,
    generated: Tensor,
    t: float,
    path: Path,
    similarity: Tensor,
    noise: Callable[[], Tensor],
    mixing: Mixing = "variance_preserving",
) -> Tensor:
    """The mixed latent at time `t`, from which a solver continues to the image.

    Args:
        real: Images x0 (B, C, *spatial).
        generated: x'_t (B, C, *spatial), of sampling that was paused at t.
        similarity: 1 - lambda of the paper (B,), in [0, 1); larger is more similar.
        noise: Draws standard normal noise like `real`, twice whatever `mixing` says, so that both mixings see the same
            noise.
        mixing: `literal` is the paper's formula, `variance_preserving` keeps the noise of time t.
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


def _time_of_step(step: int, path: Path) -> Tensor:
    """The time on `path` of as much noise as timestep `step` of the paper's 1000 has."""
    paper, at = DDPMPath(), torch.tensor(step / 1000, dtype=torch.float64)
    return path.time_of(paper.sigma(at) / paper.alpha(at))
