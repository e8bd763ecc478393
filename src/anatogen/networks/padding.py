"""Images of any size for networks that halve them."""

from __future__ import annotations

import torch
from torch import Tensor


class Padding:
    """Pads the spatial axes of a tensor to multiples, and cuts the padding off again. Where nothing is missing both do nothing.

    Image, label map and region are all mirrored at the border (without the border's own pixel), so that what is padded on is
    an anatomy with its map and with noise of the same level. A blank border would be a large structure that the map does not
    name, a repeated edge would stretch the noise to stripes. Sides of one pixel are repeated.

    Args:
        size: of the images, (H, W) or (D, H, W).
        multiples: what each side has to be a multiple of.
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
