"""Multi-page TIFF files as volumes, by tifffile: plain stacks and ImageJ hyperstacks, with their voxel size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tifffile import TiffFile, TiffFileError

from anatogen.errors import DataError
from anatogen.volume import Remark, Volume

_DAMAGED = (
    TiffFileError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
)
_MM = {
    "mm": 1.0, "millimeter": 1.0, "cm": 10.0, "inch": 25.4, "um": 1e-3, "µm": 1e-3, "micron": 1e-3, "microns": 1e-3,
    "\\u00b5m": 1e-3, "nm": 1e-6, "m": 1e3,
}  # fmt: skip


def pages(path: Path) -> int:
    """The number of pages of a TIFF file; 1 for any other file and for one that cannot be read."""
    if path.suffix.lower() not in (".tif", ".tiff") or not path.is_file():
        return 1
    try:
        with TiffFile(path) as tiff:
            axes, shape = tiff.series[0].axes, tiff.series[0].shape
            stack = _stack_axis("".join(a for a, n in zip(axes, shape, strict=True) if n > 1 or a in "YX"))
            return len(tiff.pages) if stack is None or len(tiff.series) > 1 else int(shape[axes.index(stack)])
    except _DAMAGED:
        return 1


def read_stack(path: Path) -> Volume:
    """The volume (X, Y, Z[, channels]) in the pages of `path`: rows to posterior, columns to left, pages downwards.

    The voxel size is from ImageJ's metadata; without it, it is 1 mm, with a remark.

    Raises:
        DataError: The file is damaged or contains more than one series or time point.
    """
    try:
        with TiffFile(path) as tiff:
            if len(tiff.series) != 1:
                raise DataError(
                    f"contains {len(tiff.series)} series of pages", path=path, hint="Save each as a separate file"
                )
            series = tiff.series[0]
            axes, array = series.axes, np.asarray(series.asarray())
            spacing = _spacing_mm(tiff)
    except _DAMAGED as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"cannot be read as TIFF ({reason})", path=path, hint="Save it again, uncompressed") from error
    for axis in [a for a, n in zip(axes, array.shape, strict=True) if n == 1 and a not in "YX"]:
        array, axes = array.squeeze(axes.index(axis)), axes.replace(axis, "", 1)
    stack = _stack_axis(axes)
    if stack is None:
        raise DataError(
            f"expected pages of one volume, got axes {axes} of shape {array.shape}",
            path=path,
            hint="Save each time point as a separate file",
        )
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    array = np.moveaxis(array, [axes.index(a) for a in ("X", "Y", stack)], [0, 1, 2])
    affine = np.diag([*(-s for s in spacing or (1.0, 1.0, 1.0)), 1.0])
    if spacing is not None:
        return Volume(array, affine)
    hint = "Save it with its voxel size (ImageJ: Image > Properties), or ignore values in millimetres"
    return Volume(array, affine, (Remark("note", "spacing-unknown", "has no voxel size; 1 mm is assumed", hint),))


def _stack_axis(axes: str) -> str | None:
    """The axis of the pages of one volume, by tifffile's letters; None if there is none, or more than one."""
    others = axes.replace("Y", "").replace("X", "")
    if len(others) == 2 and others[0] != others[1] and set(others) & set("CS"):
        others = others.replace("S", "") if "S" in others else others.replace("C", "")
    return others if len(others) == 1 and others != "S" and "Y" in axes and "X" in axes else None


def _spacing_mm(tiff: TiffFile) -> tuple[float, float, float] | None:
    """ImageJ's voxel size (x, y, z) in mm; None if it is missing."""
    about: dict[str, Any] = tiff.imagej_metadata or {}
    unit = _MM.get(str(about.get("unit", "")).strip().lower())
    if not tiff.is_imagej or unit is None or "spacing" not in about:
        return None
    tags = tiff.pages.first.tags
    sides = []
    for name in ("XResolution", "YResolution"):
        above, below = tags[name].value if name in tags else (0, 1)
        if not above:
            return None
        sides.append(below / above * unit)
    depth = abs(float(about["spacing"])) * unit
    return (sides[0], sides[1], depth) if depth > 0 else None
