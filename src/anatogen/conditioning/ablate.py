"""Mask ablation: the choice of the classes that a training sample leaves free."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_given(annotated: Tensor, chance: Tensor, *, ablated_share: float = 1.0) -> Tensor:
    """Class states (B, C-1) for one training step with mask ablation (Konz et al. 2024, Algorithm 1).

    Each sample keeps its full map with probability 1 - ablated_share; otherwise each of its classes is left free with
    probability 1/2, so that all 2^(C-1) subsets are equally likely (ablated_share = 1 is the paper's).

    Args:
        annotated: bool (B, C-1), the classes annotated in each case; the others are always free.
        chance: (B, C), uniform in [0, 1): a random number for each class and one for the sample.
        ablated_share: Share of the samples that are ablated, 0 to 1.
    """
    kept, whole = chance[:, :-1] < 0.5, chance[:, -1:] >= ablated_share
    return annotated & (kept | whole)


def draw_regions(chance: Tensor, freed: Tensor, *, regional_share: float) -> Tensor:
    """Where the drawn class states hold, for one training step: bool (B, *size).

    Everywhere, or with probability `regional_share` in a random box or ellipsoid only, so that a class can be free
    there and given elsewhere. A region's half axes are log-uniform between 1/12 and 1/2 of the image. Three of four
    regions hold a random pixel of a freed class, at a random place within them, so that many cut through a class; the
    centre of the others, and of images without such a pixel, is anywhere.

    Args:
        chance: (B, 2 d + 4), uniform in [0, 1): the centre, the half axes, the pixel, whether the region holds it, the
            shape, and whether there is a region.
        freed: bool (B, *size), the pixels of the classes that are drawn free.
        regional_share: 0 to 1.
    """
    size = freed.shape[1:]
    dim = len(size)
    place, axes = chance[:, :dim], (1 / 12) * 6 ** chance[:, dim : 2 * dim]
    pick, holds, shape, wanted = chance[:, 2 * dim :, None].unbind(dim=1)
    box = shape < 0.5
    pixel, found = _pick_pixel(freed, pick)
    holding = pixel - (2 * place - 1) * axes * torch.where(box, 1.0, dim**-0.5)
    centre = torch.where((holds < 0.75) & found, holding, place)

    largest = total = torch.zeros(len(chance), *(1,) * dim, device=chance.device)
    for axis, side in enumerate(size):
        along = _middles(side, chance.device).reshape(side, *(1,) * (dim - 1 - axis))
        distance = ((along - _per_item(centre[:, axis], dim)) / _per_item(axes[:, axis], dim)).abs()
        largest, total = torch.maximum(largest, distance), total + distance.square()
    inside = torch.where(_per_item(box, dim), largest <= 1, total <= 1)
    return inside | _per_item(wanted >= regional_share, dim)


def _pick_pixel(mask: Tensor, chance: Tensor) -> tuple[Tensor, Tensor]:
    """The place (B, d) of a pixel of `mask` (B, *size) in parts of each side, and whether there is one (B, 1).

    All its pixels are equally likely; chance (B, 1), uniform in [0, 1).
    """
    counted = mask.flatten(1).cumsum(dim=1, dtype=torch.int32)
    total = counted[:, -1:]
    index = torch.searchsorted(counted, (chance * total).to(torch.int32), right=True).clamp(max=counted.shape[1] - 1)
    places = torch.unravel_index(index, mask.shape[1:])
    along = [(place + 0.5) / side for place, side in zip(places, mask.shape[1:], strict=True)]
    return torch.cat(along, dim=1), total > 0


def _middles(side: int, device: torch.device) -> Tensor:
    """The middle of each pixel along an axis, in parts of the side."""
    return (torch.arange(side, device=device) + 0.5) / side


def _per_item(values: Tensor, dim: int) -> Tensor:
    """One value for each item, to be broadcast over its d axes."""
    return values.reshape(-1, *(1,) * dim)
