"""NIfTI, by nibabel."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Header
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from anatogen.errors import DataError
from anatogen.volume import MOST_ROUNDING, Remark, Volume, skew

_DAMAGED = (OSError, EOFError, ValueError, zlib.error, ImageFileError, HeaderDataError)
_MOST_OVER_ONE = 1e-3  # excess of a quaternion's squared length: larger than any rounding
_LEAST_SKEW = 1e-5  # cosine of two axes that rounding in a 32-bit header can cause
_FORMS_APART = 0.1  # voxels by which a corner may differ between qform and sform
_AGAIN = "Export or copy the file again"


class _RoundedHeader(Nifti1Header):  # type: ignore[misc]
    """A header whose quaternion may be slightly longer than one, which nibabel rejects."""

    def get_qform_quaternion(self) -> NDArray[np.float64]:
        """The unit quaternion (w, x, y, z)."""
        b, c, d = (float(self[f"quatern_{axis}"]) for axis in "bcd")
        length = b * b + c * c + d * d
        if 1 < length <= 1 + _MOST_OVER_ONE:
            return np.array([0.0, b, c, d]) / np.sqrt(length)
        return np.asarray(super().get_qform_quaternion(), dtype=np.float64)


class _RoundedImage(nibabel.Nifti1Image):  # type: ignore[misc]
    header_class = _RoundedHeader


def read_nifti(path: Path, channels: int = 1) -> Volume:
    """The volume in `path`, in its own integer type unless its header scales it (then float32).

    Channels are in the last axis. Header errors within rounding are corrected with a remark. There is also a remark if
    qform and sform disagree (the sform is used), if neither is set, and if the voxel axes are not orthogonal.

    Raises:
        DataError: The file is missing, damaged, or does not contain a 3D volume of `channels` channels.
    """
    if not path.is_file():
        raise DataError("does not exist", path=path)
    try:
        image, remarks = _opened(path)
        array = np.asanyarray(image.dataobj)
        affine = np.asarray(image.affine, dtype=np.float64)
    except _DAMAGED as error:
        raise DataError(f"cannot be read as NIfTI ({error})", path=path, hint=_AGAIN) from error
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim == 5 and array.shape[3] == 1:  # vectors are in the fifth axis
        array = array[:, :, :, 0]
    if array.ndim == 4 and channels == 1:
        raise DataError(
            f"has shape {array.shape}: {array.shape[3]} volumes, expected one",
            path=path,
            hint="Split it into 3D volumes; if they are channels, declare them in dataset.json",
        )
    if array.ndim != (3 if channels == 1 else 4) or (channels > 1 and array.shape[-1] != channels):
        wanted = "three axes" if channels == 1 else f"{channels} channels in the last of four axes"
        hint = "Store it with a third axis, of one slice" if array.ndim == 2 else "Split it into 3D volumes"
        raise DataError(f"has shape {array.shape}, expected {wanted}", path=path, hint=hint)
    if array.dtype.kind not in "iufb":
        raise DataError(f"contains values of type {array.dtype}", path=path, hint="Store integers or real numbers")
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    return Volume(array, affine, (*remarks, *_forms(image.header, array.shape[:3]), *geometry_remarks(affine)))


def form_of(path: Path) -> str | None:
    """Which form gives the affine of a NIfTI file: "sform", "qform" or "" for neither; None if it cannot be read."""
    try:
        header = nibabel.load(path).header if path.is_file() else None
    except _DAMAGED:
        return None
    if not isinstance(header, Nifti1Header):
        return None
    return "sform" if int(header["sform_code"]) else "qform" if int(header["qform_code"]) else ""


def geometry_remarks(affine: NDArray[np.float64]) -> tuple[Remark, ...]:
    """Remarks on voxel axes that are not orthogonal."""
    cosine = skew(affine) if np.isfinite(affine).all() else 0.0
    if cosine <= _LEAST_SKEW:
        return ()
    if cosine <= MOST_ROUNDING:
        what = f"voxel axes deviate from right angles by {cosine:.1g} (rounding)"
        return (Remark("note", "affine-rounded", what, "Nothing to do"),)
    degrees = np.degrees(np.arcsin(min(cosine, 1)))
    what = f"voxel axes are {degrees:.2g} degrees off right angles: sheared, or a tilted gantry"
    hint = "Slices can be used as they are; for whole volumes resample to an orthogonal grid, which many programs need"
    return (Remark("warning", "sheared", what, hint),)


def write_nifti(path: Path, volume: Volume) -> None:
    """Write `volume` with its affine, in millimetres."""
    image = nibabel.Nifti1Image(volume.array, volume.affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


def _opened(path: Path) -> tuple[Any, tuple[Remark, ...]]:
    """The image, with a remark if its quaternion is longer than one."""
    try:
        image = nibabel.load(path)
        if not isinstance(image, nibabel.spatialimages.SpatialImage):
            raise ImageFileError("not a volume")
        np.asarray(image.affine)
        return image, ()
    except ValueError as error:
        if "w2 should be positive" not in str(error):
            raise
        try:
            image = _RoundedImage.from_filename(path)
        except ValueError as worse:
            raise DataError(
                "the quaternion is longer than one, so the orientation is unknown", path=path, hint=_AGAIN
            ) from worse
    what = "the quaternion is longer than one by rounding, and was normalised"
    return image, (Remark("note", "quaternion-rounded", what, "Nothing to do"),)


def _forms(header: Any, grid: tuple[int, ...]) -> tuple[Remark, ...]:
    """Remarks if the qform and sform of a header disagree."""
    if not isinstance(header, Nifti1Header):
        return ()
    sform, qform = int(header["sform_code"]), int(header["qform_code"])
    if not sform and not qform:
        what = "neither sform nor qform is set, so the orientation is a guess"
        return (Remark("warning", "form-missing", what, "Export it again with its orientation"),)
    if not (sform and qform):
        return ()
    try:
        apart = np.asarray(header.get_sform()) - np.asarray(header.get_qform())
    except (ValueError, HeaderDataError):
        what, hint = "the qform is damaged; the sform is used", "Write it again with the same geometry in both forms"
        return (Remark("warning", "forms-disagree", what, hint),)
    corners = np.array([[i, j, k, 1] for i in (0, grid[0]) for j in (0, grid[1]) for k in (0, grid[2])])
    distance = float(np.linalg.norm((corners @ apart.T)[:, :3], axis=1).max())
    smallest = float(min(header.get_zooms()[:3]))
    if distance <= max(_FORMS_APART * smallest, 1e-3):
        return ()
    what = (
        f"qform and sform disagree by up to {distance:.3g} mm; the sform is used, but other programs may use the qform"
    )
    hint = "Write it again with the same geometry in both forms"
    return (Remark("warning", "forms-disagree", what, hint),)
