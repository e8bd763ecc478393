"""NIfTI, by nibabel."""

from __future__ import annotations

import zlib
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError

from anatogen.errors import DataError
from anatogen.volume import Volume

_DAMAGED = (OSError, EOFError, ValueError, zlib.error, ImageFileError)


def read_nifti(path: Path, channels: int = 1) -> Volume:
    """The volume in `path`, in its own integer type unless its header scales it (then float32).

    Raises DataError where the file is missing, damaged, or does not hold a 3D volume of `channels` channels.
    """
    if not path.is_file():
        raise DataError("there is no such file", path=path)
    try:
        image = nibabel.load(path)
        array = np.asanyarray(image.dataobj)
        affine = np.asarray(image.affine, dtype=np.float64)
    except _DAMAGED as error:
        raise DataError(
            f"cannot be read as NIfTI ({error})", path=path, hint="Export or copy the file again"
        ) from error
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3 and not (array.ndim == 4 and array.shape[-1] == channels > 1):
        raise DataError(f"has shape {array.shape}, expected three axes", path=path, hint="Split it into 3D volumes")
    if array.dtype.kind not in "iufb":
        raise DataError(f"holds values of type {array.dtype}", path=path, hint="Store integers or real numbers")
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    return Volume(array, affine)


def write_nifti(path: Path, volume: Volume) -> None:
    """Write `volume` with its affine, in millimetres."""
    image = nibabel.Nifti1Image(volume.array, volume.affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
