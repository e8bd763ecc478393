"""NPY arrays of any number of channels and dimensions, by NumPy; pickled objects are rejected."""

from __future__ import annotations

from pathlib import Path
from tokenize import TokenError

import numpy as np
from numpy.typing import NDArray

from anatogen.errors import DataError

# NumPy raises these for damaged files.
_DAMAGED = (OSError, ValueError, TypeError, KeyError, EOFError, SyntaxError, TokenError, ArithmeticError, MemoryError)


def write_npy(path: Path, array: NDArray[np.generic]) -> None:
    """Write `array` to exactly this path (no suffix is added)."""
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def read_npy(path: Path) -> NDArray[np.generic]:
    """The array in `path`.

    Raises:
        DataError: The file is missing, damaged or contains Python objects.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except _DAMAGED as error:
        raise DataError(f"cannot be read as NPY ({_reason(error)})", path=path, hint="Write it again") from error
    if not isinstance(array, np.ndarray):
        raise DataError("is an archive of arrays (NPZ), not one array", path=path, hint="Save one NPY a case")
    return array


def read_npy_picture(path: Path) -> NDArray[np.generic]:
    """The image (H, W) or (H, W, channels) in `path`, as integers or float32.

    Raises:
        DataError: `read_npy` rejects the file, the shape or type is another one, or the first axis is the shortest,
            which suggests that channels come first.
    """
    array = read_npy(path)
    if array.dtype.kind not in "iufb":
        raise DataError(f"contains values of type {array.dtype}", path=path, hint="Store integers or real numbers")
    if array.ndim not in (2, 3) or not array.size:
        raise DataError(
            f"has shape {array.shape}, expected (H, W) or (H, W, channels)", path=path, hint="Save one slice per file"
        )
    if array.ndim == 3 and array.shape[0] < min(array.shape[1:]):
        raise DataError(
            f"has shape {array.shape}, which looks like channels first",
            path=path,
            hint="Save it channels last: np.moveaxis(array, 0, -1)",
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def read_label_npy(path: Path) -> NDArray[np.integer]:
    """The label values (H, W) in `path`.

    Raises:
        DataError: The values are not integers, or the array has another shape.
    """
    array = read_npy(path)
    if array.dtype.kind not in "iub":
        raise DataError(f"contains values of type {array.dtype}", path=path, hint="Store label maps as integers")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2 or not array.size:
        raise DataError(f"has shape {array.shape}, expected (H, W)", path=path, hint="Save one integer per pixel")
    values: NDArray[np.integer] = np.asarray(array, dtype=np.uint8 if array.dtype.kind == "b" else array.dtype)
    return values


def _reason(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
