"""An orthonormal Haar wavelet in the place of the hourglass's space-to-depth, for `wavelet.py`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from anatogen.networks.hourglass import Hourglass


def haar_matrix(sides: Sequence[int]) -> Tensor:
    """The orthonormal Haar transform of a patch, (P, P) with P = prod(sides): a row for each band, the mean's first.

    Haar 1910. A side of 2 has the sum and the difference of its two values over sqrt(2), a side of 4 the same again of
    the two sums, and so on; the axes are transformed one after the other. Columns are in the order of `space_to_depth`.

    Args:
        sides: Powers of 2; along an axis of 1 nothing changes.
    """
    return reduce(torch.kron, map(_along_an_axis, sides))


def _along_an_axis(side: int) -> Tensor:
    if side < 1 or side & (side - 1):
        raise ValueError(f"a Haar wavelet wants patches of powers of 2, got {side}")
    if side == 1:
        return torch.ones(1, 1)
    sums = torch.kron(_along_an_axis(side // 2), torch.tensor([[1.0, 1.0]]))
    differences = torch.kron(torch.eye(side // 2), torch.tensor([[1.0, -1.0]]))
    return torch.cat([sums, differences]) / math.sqrt(2)


def analysed(x: Tensor, matrix: Tensor) -> Tensor:
    """The bands (B, C P, *spatial) of the patches (B, C P, *spatial) that `space_to_depth` makes."""
    patches = x.unflatten(1, (-1, len(matrix)))
    return torch.einsum("kp,bcp...->bck...", matrix.to(x), patches).flatten(1, 2)


def synthesised(bands: Tensor, matrix: Tensor) -> Tensor:
    """The inverse of `analysed`."""
    return analysed(bands, matrix.T)


def in_bands(network: nn.Module) -> None:
    """Let the stem of an hourglass see the bands of each patch and its head predict them; weights keep their names."""
    assert isinstance(network, Hourglass)
    matrix = haar_matrix(network.patch)
    network.stem.register_forward_pre_hook(lambda _, inputs: (analysed(inputs[0], matrix),))
    network.head.register_forward_hook(lambda _, __, bands: synthesised(bands, matrix))
