"""MetaImage (.mha, .mhd), by SimpleITK (extra `itk`)."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np

from anatogen.errors import DataError
from anatogen.volume import Volume


def read_metaimage(path: Path) -> Volume:
    """The volume in `path`, in its own type (float64 becomes float32), channels in the last axis.

    Raises:
        DataError: SimpleITK is not installed, or the file is missing, damaged or not 3D.
    """
    if not path.is_file():
        raise DataError("does not exist", path=path)
    try:
        sitk = import_module("SimpleITK")
    except ImportError as error:
        raise DataError(
            "SimpleITK, which reads MetaImage files, is not installed",
            path=path,
            hint="pip install 'anatogen[itk]', or convert the files to .nii.gz",
        ) from error
    try:
        image = sitk.ReadImage(str(path))
        array = sitk.GetArrayFromImage(image)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1][:200]
        raise DataError(f"cannot be read as MetaImage ({reason})", path=path, hint="Copy the file again") from error
    if image.GetDimension() != 3 or array.dtype.kind not in "iufb":
        raise DataError(f"expected three axes, got {image.GetDimension()}", path=path, hint="Split it into 3D volumes")
    array = np.moveaxis(array, (0, 1, 2), (2, 1, 0))
    affine = np.eye(4)
    directions = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, :3], affine[:3, 3] = directions, image.GetOrigin()
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # from left, posterior, superior
    return Volume(array.astype(np.float32) if array.dtype == np.float64 else array, affine)
