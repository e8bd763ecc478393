"""Noise that belongs to a sample, not to its batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class SampleNoise:
    """Standard normal noise (B, *shape), each row from its own generator.

    The noise is drawn on the CPU, so that it is bit-identical on every device and in every batch.

    Args:
        seeds: The seed of each row.
        shape: The shape of a row.
        device: Where the noise is returned.
    """

    def __init__(self, seeds: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu") -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._shape, self._device = tuple(shape), device

    def __call__(self) -> Tensor:
        """Draw the next noise (B, *shape)."""
        return torch.stack([torch.randn(self._shape, generator=g) for g in self._generators]).to(self._device)
