"""Noise that belongs to a sample, not to its batch."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor


class SampleNoise:
    """Standard normal noise (B, *shape), each row from its own generator.

    The noise is drawn on the CPU, so that it is bit-identical on every device and in every batch.

    Args:
        seeds: The seed of each row.
        shape: The shape of a row.
        device: Where the noise is returned.
        ahead: Draw the next noise in threads while the device computes; by default on all devices but the CPU, which
            has no time to spare.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        shape: Sequence[int],
        device: torch.device | str = "cpu",
        *,
        ahead: bool | None = None,
    ) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._shape, self._device = tuple(shape), torch.device(device)
        self._ahead = self._device.type != "cpu" if ahead is None else ahead
        self._next = self._begun() if self._ahead else None

    def __call__(self) -> Tensor:
        """Draw the next noise (B, *shape)."""
        if self._next is None:
            return torch.stack([self._row(generator) for generator in self._generators]).to(self._device)
        rows = torch.stack([row.result() for row in self._next])
        self._next = self._begun()
        if self._device.type == "cuda":
            return rows.pin_memory().to(self._device, non_blocking=True)
        return rows.to(self._device)

    def _begun(self) -> list[Future[Tensor]]:
        return [_threads().submit(self._row, generator) for generator in self._generators]

    def _row(self, generator: torch.Generator) -> Tensor:
        return torch.randn(self._shape, generator=generator)


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), "noise")
