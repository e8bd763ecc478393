"""Seeds derived from their purpose, and random numbers that belong to an item, not to its batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def derive_seed(*parts: object) -> int:
    """A seed in [0, 2^63) that depends on every part and is the same on every machine."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


_GOLDEN = (5**0.5 - 1) / 2


def evenly_spread(number: int, seed: int) -> float:
    """Point `number` of a Kronecker sequence in [0, 1): any run of its points fills the interval evenly.

    The fractional part of number times the golden ratio, shifted by `seed`.
    """
    return (number * _GOLDEN + (seed % 2**32) / 2**32) % 1.0


class Draws:
    """Random numbers for B items, each from its own generator, so that they do not depend on the rest of the batch.

    Args:
        seeds: One seed for each item.
        device: Where the numbers are generated. CPU and GPU generate different numbers from one seed.
        even: A number in [0, 1) for each item, for `even`; by default spread over the batch alone.
    """

    def __init__(
        self, seeds: Sequence[int], device: torch.device | str = "cpu", *, even: Sequence[float] | None = None
    ) -> None:
        import torch

        self._device = torch.device(device)
        self._even = even if even is not None else [evenly_spread(place, 0) for place in range(len(seeds))]
        self._generators = [torch.Generator(self._device).manual_seed(seed) for seed in seeds]

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, float32 (B, *shape)."""
        numbers = self._empty(shape)
        for item, generator in zip(numbers, self._generators, strict=True):
            item.normal_(generator=generator)
        return numbers

    def uniform(self, *shape: int) -> Tensor:
        """Numbers uniform in [0, 1), float32 (B, *shape)."""
        numbers = self._empty(shape)
        for item, generator in zip(numbers, self._generators, strict=True):
            item.uniform_(generator=generator)
        return numbers

    def even(self) -> Tensor:
        """Numbers in [0, 1), float32 (B,), that fill the interval evenly over the items of all steps."""
        import torch

        return torch.tensor(self._even, dtype=torch.float32, device=self._device)

    def _empty(self, shape: tuple[int, ...]) -> Tensor:
        import torch

        return torch.empty(len(self._generators), *shape, device=self._device)
