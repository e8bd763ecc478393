"""A denoiser that sees a large image in overlapping tiles, whose x0 are blended at every step of the solver.

The tiles share one noisy image, so that neighbours agree more with every step (Bar-Tal et al. 2023, MultiDiffusion).
The network needs the memory of one tile.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from anatogen.diffusion.solvers import Denoise

Origin = tuple[int, ...]
"""The first voxel of a tile along each axis."""

OVERLAP = 0.25
"""Of a tile, with each of its neighbours."""


def origins_of(size: Sequence[int], tile: Sequence[int], overlap: float = OVERLAP) -> list[Origin]:
    """The fewest tiles that cover an image with at least that overlap, evenly placed.

    Args:
        size: Of the image.
        tile: At most `size` along each axis.
        overlap: Share of a tile in [0, 1).
    """
    per_axis = []
    for side, part in zip(size, tile, strict=True):
        stride = max(1, part - round(overlap * part))
        count = 1 + math.ceil((side - part) / stride)
        per_axis.append([round(i * (side - part) / max(1, count - 1)) for i in range(count)])
    return list(itertools.product(*per_axis))


def tile_weights(size: Sequence[int], tile: Sequence[int], origin: Origin, overlap: float = OVERLAP) -> list[Tensor]:
    """The weight of a tile along each axis: 1 in its middle and at the image's border, falling towards neighbours."""
    found = []
    for side, part, start in zip(size, tile, origin, strict=True):
        weights, ramp = torch.ones(part), max(1, round(overlap * part))
        rising = (torch.arange(ramp) + 1) / (ramp + 1)
        if start > 0:
            weights[:ramp] = rising
        if start + part < side:
            weights[-ramp:] = torch.minimum(weights[-ramp:], rising.flip(0))
        found.append(weights)
    return found


def window_of(tensor: Tensor, origin: Origin, tile: Sequence[int]) -> Tensor:
    """The part of a tensor (..., *spatial) that a tile covers."""
    for axis, (start, part) in enumerate(zip(origin, tile, strict=True), tensor.ndim - len(tile)):
        tensor = tensor.narrow(axis, start, part)
    return tensor


def in_tiles(
    denoise_at: Callable[[Origin], Denoise], size: Sequence[int], tile: Sequence[int], overlap: float = OVERLAP
) -> Denoise:
    """A denoiser of whole images, made of one for tiles.

    Args:
        denoise_at: The denoiser of the tile at an origin, its condition bound: (x_t (B, C, *tile), t (B,)) -> x0.
        size: Of the images.
        tile: Of a tile.
        overlap: See `origins_of`.
    """
    origins = origins_of(size, tile, overlap)

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        total, weight = torch.zeros_like(x_t, dtype=torch.float32), torch.zeros(size, device=x_t.device)
        for origin in origins:
            along = [w.to(x_t.device) for w in tile_weights(size, tile, origin, overlap)]
            part = along[0]
            for other in along[1:]:
                part = part[..., None] * other
            x0 = denoise_at(origin)(window_of(x_t, origin, tile).contiguous(), t)
            window_of(total, origin, tile).add_(x0.float() * part)
            window_of(weight, origin, tile).add_(part)
        return total / weight

    return denoise
