"""Padding, so that networks which halve their images take any size."""

from __future__ import annotations

import torch
from torch import Tensor


class Padding:
    """Pads the spatial axes of a tensor to multiples, and crops the padding again; does nothing where none is needed.

    Image, label map and region are all mirrored at the border (without the border's own pixel), so that the padding is
    anatomy with its map and with noise of the same level. A blank border would be a large structure that the map does
    not name; a repeated edge would stretch the noise to stripes. Sides of one pixel are repeated.

    Args:
        size: Of the images, (H, W) or (D, H, W).
        multiples: What each side must be a multiple of.
    """

    def __init__(self, size: tuple[int, ...], multiples: tuple[int, ...]) -> None:
        self.size = tuple(size)
        self.padded = tuple(-(-side // multiple) * multiple for side, multiple in zip(size, multiples, strict=True))
        self._before = tuple((whole - side) // 2 for whole, side in zip(self.padded, size, strict=True))

    def pad(self, tensor: Tensor) -> Tensor:
        """(..., *size) -> (..., *padded), of any type."""
        for axis, (side, whole, before) in enumerate(
            zip(self.size, self.padded, self._before, strict=True), tensor.ndim - len(self.size)
        ):
            if whole != side:
                place = (torch.arange(whole, device=tensor.device) - before).abs()
                period = max(1, 2 * (side - 1))  # ... 2 1 | 0 1 2 3 | 2 1 ...
                place = place % period
                tensor = tensor.index_select(axis, torch.minimum(place, period - place) if side > 1 else place * 0)
        return tensor

    def crop(self, tensor: Tensor) -> Tensor:
        """(..., *padded) -> (..., *size)."""
        for axis, (side, before) in enumerate(zip(self.size, self._before, strict=True), tensor.ndim - len(self.size)):
            if tensor.shape[axis] != side:
                tensor = tensor.narrow(axis, before, side)
        return tensor
