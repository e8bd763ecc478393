"""Placing a label map on the voxel grid of its image: axes may be permuted or flipped, and it may cover a part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.errors import DataError
from anatogen.volume import Volume

_TOLERANCE = 0.1  # voxels by which a corner may be off the grid, for rounded headers

Place = tuple[slice, slice, slice]


def on_grid(part: Volume, image: Volume, path: Path, *, whole: bool = False) -> tuple[NDArray[Any], Place]:
    """The array of `part` with the axis order of `image`, and the voxels of `image` that it covers. Never resamples.

    Args:
        path: The file of `part`, for messages.
        whole: Whether it has to cover every voxel.

    Raises:
        DataError: The voxels of the two do not coincide, or `part` extends outside.
    """
    hint = "Resample it to the image's grid by nearest neighbour"
    try:
        to_image = np.linalg.inv(image.affine) @ part.affine
    except np.linalg.LinAlgError as error:
        raise DataError("the image's affine is singular, so its position is unknown", path=path) from error
    if not np.isfinite(to_image).all():
        raise DataError("the affine is not finite", path=path, hint="Save it again with its geometry")
    turn = np.rint(to_image[:3, :3])
    start = np.rint(to_image[:3, 3])
    last = np.array(part.grid) - 1
    off = np.abs(to_image[:3, :3] - turn) @ last + np.abs(to_image[:3, 3] - start)
    axes = np.abs(turn)
    permuted = (axes.sum(axis=0) == 1).all() and (axes.sum(axis=1) == 1).all()
    if not permuted or np.abs(to_image[:3, :3] - turn).max() > _TOLERANCE:
        raise DataError("axes or voxel sizes differ from the image's", path=path, hint=hint)
    if (off > _TOLERANCE).any():
        raise DataError("voxels do not coincide with the image's", path=path, hint=hint)
    order = axes.argmax(axis=1)
    array: NDArray[Any] = part.array.transpose(*order, *range(3, part.array.ndim))
    backwards = [axis for axis in range(3) if turn[axis, order[axis]] < 0]
    array = np.flip(array, tuple(backwards))
    low = np.minimum(start, start + turn @ last).astype(int)
    high = low + np.array(array.shape[:3])
    if (low < 0).any() or (high > image.grid).any() or (whole and array.shape[:3] != image.grid):
        raise DataError(
            f"{_shape(part.grid)} voxels do not cover the image's {_shape(image.grid)}", path=path, hint=hint
        )
    x, y, z = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return array, (x, y, z)


def _shape(grid: tuple[int, int, int]) -> str:
    return " x ".join(map(str, grid))
