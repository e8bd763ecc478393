"""The levels of the hourglass: how an image becomes patches, and how each level is halved, axis by axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Factors = tuple[int, ...]
"""A factor for each spatial axis."""

MOST_RATIO = 2.0
"""An axis is halved while its voxels are less than so many times as long as the shortest side of a voxel."""
LEAST_SIDE = 3
"""No level has fewer positions than that along an axis that was halved."""


@dataclass(frozen=True)
class Levels:
    """The levels of an hourglass, the finest first.

    Attributes:
        patch: The stem turns so many voxels along each axis into one position.
        halvings: From each level to the next, 2 for the axes that are halved and 1 for the others.
        sides: The longest side of each level in positions, of the padded image.
    """

    patch: Factors
    halvings: tuple[Factors, ...]
    sides: tuple[int, ...]

    @property
    def multiples(self) -> Factors:
        """What each side of an image must be a multiple of."""
        return tuple(math.prod(factors) for factors in zip(self.patch, *self.halvings, strict=True))


def cubic_levels(size: Sequence[int], patch: Factors, smallest: int) -> Levels:
    """Levels with every axis halved together, until the longest has at most `smallest` positions."""
    sides = [max(-(-side // per) for side, per in zip(size, patch, strict=True))]  # once padded: see below
    while sides[-1] > smallest:
        sides.append(-(-sides[-1] // 2))
    padded = tuple(sides[-1] * 2**level for level in reversed(range(len(sides))))
    return Levels(patch, ((2,) * len(size),) * (len(sides) - 1), padded)


def levels_of(size: Sequence[int], patch: Factors, halvings: Sequence[Factors]) -> Levels:
    """Levels with these halvings."""
    multiples = [math.prod(factors) for factors in zip(patch, *halvings, strict=True)]
    positions = [-(-side // m) * m // p for side, m, p in zip(size, multiples, patch, strict=True)]
    sides = [max(positions)]
    for factors in halvings:
        positions = [side // factor for side, factor in zip(positions, factors, strict=True)]
        sides.append(max(positions))
    return Levels(patch, tuple(tuple(factors) for factors in halvings), tuple(sides))


def plan_levels(
    size: Sequence[int], spacing_mm: Sequence[float] | None, *, patch: int = 2, smallest: int = 8
) -> Levels:
    """Levels that fit thick slices: an axis is left alone while its voxels are long beside the others'.

    As in nnU-Net's planning of its pooling (Isensee et al. 2021), the voxels of every level become as nearly cubic as
    halvings can make them. On a grid of cubic voxels every axis is halved as long as it is long enough.

    Args:
        size: (H, W) or (D, H, W).
        spacing_mm: Along the same axes; None for cubic voxels.
        patch: Along the axes of short voxels; along long ones, 1.
        smallest: The longest axis is halved until it has at most so many positions.
    """
    spacing = list(spacing_mm or (1.0,) * len(size))
    per_axis = [patch if _is_short(mm, spacing) and side > patch else 1 for mm, side in zip(spacing, size, strict=True)]
    positions = [-(-side // per) for side, per in zip(size, per_axis, strict=True)]
    spacing = [mm * per for mm, per in zip(spacing, per_axis, strict=True)]
    halvings = []
    while max(positions) > smallest:
        open_axes = [axis for axis, side in enumerate(positions) if side >= 2 * LEAST_SIDE]
        lengths = [spacing[axis] for axis in open_axes]
        factors = tuple(
            2 if axis in open_axes and _is_short(spacing[axis], lengths) else 1 for axis in range(len(size))
        )
        halvings.append(factors)
        positions = [-(-side // factor) for side, factor in zip(positions, factors, strict=True)]
        spacing = [mm * factor for mm, factor in zip(spacing, factors, strict=True)]
    return levels_of(size, tuple(per_axis), halvings)


def _is_short(mm: float, beside: Sequence[float]) -> bool:
    return mm < MOST_RATIO * min(beside)


def level_channels(width: int, positions: int) -> int:
    """Channels of a level by its longest side: 1/2, 3/4, 1, 2, 3, 4 times `width` at 128, 64, 32, 16, 8, 4."""
    for limit, factor in ((4, 4.0), (8, 3.0), (16, 2.0), (32, 1.0), (64, 0.75)):
        if positions <= limit:
            return int(width * factor)
    return width // 2


def planned_channels(levels: Levels, width: int, image_channels: int) -> tuple[int, ...]:
    """`level_channels`, and on the finest level at least twice as many as a patch has values: fewer lose texture."""
    values = image_channels * math.prod(levels.patch)
    least = -(-2 * values // 8) * 8
    return tuple(max(least, level_channels(width, side)) for side in levels.sides)
