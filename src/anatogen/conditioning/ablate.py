"""Mask ablation: the choice of the classes that a training sample leaves free."""

from __future__ import annotations

from collections.abc import Sequence

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


def draw_regions(chance: Tensor, size: Sequence[int], *, regional_share: float) -> Tensor:
    """Where the drawn class states hold, for one training step: bool (B, *size).

    Everywhere, or with probability `regional_share` in a random box or ellipsoid only, so that a class can be free
    there and given elsewhere. A region's half axes are log-uniform between 1/12 and 1/2 of the image, its centre is
    anywhere.

    Args:
        chance: (B, 2 d + 2), uniform in [0, 1): the centre and the half axes, the shape, and whether there is one.
        size: Of the image, d sides.
        regional_share: 0 to 1.
    """
    dim = len(size)
    centre, axes = chance[:, :dim], (1 / 12) * 6 ** chance[:, dim : 2 * dim]
    shape = (-1, *(1,) * dim)
    largest = total = torch.zeros(len(chance), *(1,) * dim, device=chance.device)
    for axis, side in enumerate(size):
        along = (torch.arange(side, device=chance.device) + 0.5) / side
        along = along.reshape(side, *(1,) * (dim - 1 - axis))
        distance = ((along - centre[:, axis].reshape(shape)) / axes[:, axis].reshape(shape)).abs()
        largest, total = torch.maximum(largest, distance), total + distance.square()
    box, wanted = (chance[:, place].reshape(shape) for place in (-2, -1))
    inside = torch.where(box < 0.5, largest <= 1, total <= 1)
    return inside | (wanted >= regional_share)
