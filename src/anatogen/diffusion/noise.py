"""Noise that belongs to a sample and not to its batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class SampleNoise:
    """Standard normal noise of shape (B, *shape), row i drawn from a generator of its own, seeded with seeds[i].

    Drawn on the CPU, so that it is the same bit for bit on every device and in every batch.
    """

    def __init__(self, seeds: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu") -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._shape, self._device = tuple(shape), device

    def __call__(self) -> Tensor:
        """The next draw."""
        return torch.stack([torch.randn(self._shape, generator=g) for g in self._generators]).to(self._device)
