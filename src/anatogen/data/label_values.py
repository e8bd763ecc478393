"""The values in label maps: whole numbers, which are classes of the source, and the classes that they become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.errors import DataError
from anatogen.volume import Remark, Volume

# A scale factor in a header leaves whole numbers this near to one; a map that was resampled linearly does not.
MOST_OFF = 0.05


def whole_labels(volume: Volume, path: Path | str) -> Volume:
    """The label map `volume` as integers: labels that a scale factor turned into 0.996 are rounded, with a remark.

    Raises DataError, naming the value that is farthest from a whole number, where a label lies between two classes.
    """
    values: NDArray[Any] = volume.array
    if values.dtype.kind == "b":
        return replace(volume, array=values.astype(np.uint8))
    if values.dtype.kind != "f":
        return volume
    if not np.isfinite(values).all():
        raise DataError("holds labels that are NaN or infinite", path=path, hint="Replace them by the background's 0")
    nearest = np.rint(values)
    off = np.abs(values - nearest)
    worst = int(off.argmax())
    if off.flat[worst] > MOST_OFF:
        raise DataError(
            f"label {float(values.flat[worst]):.4g} is not a whole number, but between two classes",
            path=path,
            hint="Resample labels by nearest neighbour",
        )
    rounded = replace(volume, array=nearest.astype(np.int32 if np.abs(nearest).max() < 2**31 else np.int64))
    if off.flat[worst] < 1e-6:
        return rounded
    what = f"holds labels that are not quite whole ({float(values.flat[worst]):.6g}), and were rounded"
    hint = "A scale factor in the header does that; save label maps as integers without one"
    return rounded.remarked(Remark("note", "labels-rounded", what, hint))


def to_classes(volume: Volume, table: Mapping[int, int], path: Path | str) -> Volume:
    """The label map `volume` of whole numbers with every value as `table` has it: the source's value to ours.

    Raises DataError for a value that is not in `table`.
    """
    found, place = np.unique(volume.array, return_inverse=True)
    unknown = [int(value) for value in found if int(value) not in table]
    if unknown:
        listed = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        raise DataError(
            f"holds label {listed}, but {', '.join(map(str, sorted(table)))} are declared",
            path=path,
            hint="Declare the missing classes, or relabel the map",
        )
    ours = np.array([table[int(value)] for value in found], np.uint8 if max(table.values()) < 256 else np.uint16)
    return replace(volume, array=ours[place].reshape(volume.array.shape))
