"""NRRD volumes and 3D Slicer's segmentations (.seg.nrrd), by pynrrd."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
from numpy.typing import NDArray

from anatogen.errors import DataError
from anatogen.volume import Volume

# The signs that convert patient spaces to RAS.
_SPACES = {
    "right-anterior-superior": (1, 1, 1), "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1), "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1), "lps": (-1, -1, 1),
}  # fmt: skip


def read_nrrd(path: Path) -> Volume:
    """The volume in `path`, in its own type (float64 becomes float32); an axis without a direction becomes channels.

    Raises:
        DataError: The file is missing, damaged, not 3D, or has no patient space.
    """
    return _read(path)[0]


def read_seg_nrrd(path: Path) -> tuple[Volume, dict[str, NDArray[np.bool_]]]:
    """The label volume and the mask (X, Y, Z) of each segment, by name in the order of the header.

    Segments may be in several layers (channels of the volume) and may overlap. Any other NRRD has no segments.

    Raises:
        DataError: As `read_nrrd`, and if two segments have the same name.
    """
    volume, header = _read(path)
    layers = volume.array.reshape(*volume.grid, -1)
    segments: dict[str, NDArray[np.bool_]] = {}
    for number in sorted(int(m[1]) for key in header if (m := re.fullmatch(r"Segment(\d+)_Name", key))):
        name = str(header[f"Segment{number}_Name"])
        try:
            value = int(header.get(f"Segment{number}_LabelValue", number + 1))
            layer = int(header.get(f"Segment{number}_Layer", 0))
            mask = layers[..., layer] == value
        except (ValueError, IndexError) as error:
            raise DataError(f"segment '{name}' has no valid label or layer ({error})", path=path) from error
        if name in segments:
            raise DataError(f"two segments have the name '{name}'", path=path, hint="Rename one of them")
        segments[name] = mask
    return volume, segments


def _read(path: Path) -> tuple[Volume, dict[str, Any]]:
    if not path.is_file():
        raise DataError("does not exist", path=path)
    try:
        array, header = nrrd.read(str(path))
    except Exception as error:  # parsers of damaged files raise nearly anything
        raise DataError(
            f"cannot be read as NRRD ({' '.join(str(error).split())[:200]})",
            path=path,
            hint="Export or copy the file again",
        ) from error
    if array.dtype.kind not in "iufb":
        raise DataError(f"contains values of type {array.dtype}", path=path, hint="Store integers or real numbers")
    array = array.astype(np.float32 if array.dtype == np.float64 else array.dtype.newbyteorder("="), copy=False)
    return _placed(array, header, path), header


def _placed(array: NDArray[np.generic], header: dict[str, Any], path: Path) -> Volume:
    space = str(header.get("space", "")).lower()
    if space not in _SPACES or "space directions" not in header:
        raise DataError(
            f"has no patient space (space {space or 'missing'})",
            path=path,
            hint="Save it with the space left-posterior-superior, its directions and its origin",
        )
    directions = np.array(
        [row if row is not None else [np.nan] * 3 for row in header["space directions"]], dtype=np.float64
    )
    origin = np.asarray(header.get("space origin", np.zeros(3)), dtype=np.float64)
    spatial = [axis for axis in range(array.ndim) if np.isfinite(directions[axis]).all()]
    if len(spatial) != 3 or array.ndim > 4 or directions.shape[1:] != (3,) or not np.isfinite(origin).all():
        raise DataError(f"has shape {array.shape}, expected three axes", path=path, hint="Split it into 3D volumes")
    if array.ndim == 4:
        array = np.moveaxis(array, ({0, 1, 2, 3} - set(spatial)).pop(), -1)
    affine = np.eye(4)
    affine[:3, :3] = directions[spatial].T
    affine[:3, 3] = origin
    return Volume(array, np.diag([*_SPACES[space], 1.0]) @ affine)
