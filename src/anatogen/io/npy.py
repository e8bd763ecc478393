"""NPY arrays of any number of channels and dimensions, by NumPy; pickled objects are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anatogen.errors import DataError


def write_npy(path: Path, array: NDArray[np.generic]) -> None:
    """Write `array` under exactly this name."""
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def read_npy(path: Path) -> NDArray[np.generic]:
    """The array in `path`. Raises DataError where it is missing, damaged or holds objects."""
    try:
        array: NDArray[np.generic] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"cannot be read as NPY ({error})", path=path) from error
    return array
