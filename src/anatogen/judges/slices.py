"""Volumes seen as slices along each of their axes (2.5D): which slices are looked at, and cutting them out.

Slices along D are the images of H x W pixels that are stacked along D, and so on. They are cut as they are, neither
resampled nor padded: each axis has an encoder of its own, for the size of its slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

AXES = "DHW"
MOST = 16
"""Slices of a volume along an axis, at most."""


def axes_of(size: Sequence[int]) -> tuple[int, ...]:
    """The axes along which images of `size` are cut into slices: the three of a volume, none of a slice."""
    return tuple(range(len(AXES))) if len(size) == len(AXES) else ()


def choose_slices(
    labels: NDArray[np.integer], axis: int, most: int = MOST
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Evenly spaced slices through the labelled part of each volume, through all of it where nothing is labelled.

    Args:
        labels: Label maps (N, D, H, W); 0 and less is not labelled.
        axis: 0 for D, 1 for H, 2 for W.
        most: Slices of a volume, at most.

    Returns:
        The volume of each slice (M,), ascending, and its place along the axis (M,), ascending in each volume.
    """
    labelled = np.asarray((np.moveaxis(labels, 1 + axis, 1) > 0).any(axis=(2, 3)))  # (N, side)
    whose, which = [], []
    for volume, planes in enumerate(labelled):
        there = np.flatnonzero(planes) if planes.any() else np.arange(len(planes))
        count = min(most, len(there))
        which.append(there[(2 * np.arange(count) + 1) * len(there) // (2 * count)])  # the middles of equal parts
        whose.append(np.full(count, volume))
    return np.concatenate([*whose, np.zeros(0, np.int64)]), np.concatenate([*which, np.zeros(0, np.int64)])


def cut_slices(volumes: NDArray[Any], axis: int, whose: NDArray[np.int64], which: NDArray[np.int64]) -> NDArray[Any]:
    """Slices (M, ..., h, w) of volumes (N, ..., D, H, W): each of volume `whose`, at place `which` along `axis`."""
    return np.ascontiguousarray(np.moveaxis(volumes, axis - len(AXES), 0)[which, whose])
