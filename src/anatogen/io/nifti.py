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
_MOST_OVER_ONE = 1e-3  # of the squared length of a quaternion: more than any rounding
_LEAST_SKEW = 1e-5  # the cosine of two axes that 32-bit headers reach by themselves
_FORMS_APART = 0.1  # voxels by which qform and sform may place a corner apart
_AGAIN = "Export or copy the file again"


class _RoundedHeader(Nifti1Header):  # type: ignore[misc]
    """A header whose quaternion may be a hair longer than one: nibabel calls such files unreadable."""

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

    A header's faults of the size of rounding are passed over, with a remark; there is one too where qform and sform
    disagree (the sform counts), where there is neither, and where the voxel axes are not at right angles.
    Raises DataError where the file is missing, damaged, or does not hold a 3D volume of `channels` channels (in the last
    axis).
    """
    if not path.is_file():
        raise DataError("there is no such file", path=path)
    try:
        image, remarks = _opened(path)
        array = np.asanyarray(image.dataobj)
        affine = np.asarray(image.affine, dtype=np.float64)
    except _DAMAGED as error:
        raise DataError(f"cannot be read as NIfTI ({error})", path=path, hint=_AGAIN) from error
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim == 5 and array.shape[3] == 1:  # vectors lie in the fifth axis
        array = array[:, :, :, 0]
    if array.ndim == 4 and channels == 1:
        raise DataError(
            f"has shape {array.shape}: {array.shape[3]} volumes, expected one",
            path=path,
            hint="Split it into 3D volumes; where they are channels, declare them in dataset.json",
        )
    if array.ndim != (3 if channels == 1 else 4) or (channels > 1 and array.shape[-1] != channels):
        wanted = "three axes" if channels == 1 else f"{channels} channels in the last of four axes"
        raise DataError(f"has shape {array.shape}, expected {wanted}", path=path, hint="Split it into 3D volumes")
    if array.dtype.kind not in "iufb":
        raise DataError(f"holds values of type {array.dtype}", path=path, hint="Store integers or real numbers")
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    return Volume(array, affine, (*remarks, *_forms(image.header, array.shape[:3]), *geometry_remarks(affine)))


def form_of(path: Path) -> str | None:
    """Which of its forms says where a NIfTI file lies: "sform", "qform" or "" for neither; None where it cannot be read."""
    try:
        header = nibabel.load(path).header if path.is_file() else None
    except _DAMAGED:
        return None
    if not isinstance(header, Nifti1Header):
        return None
    return "sform" if int(header["sform_code"]) else "qform" if int(header["qform_code"]) else ""


def geometry_remarks(affine: NDArray[np.float64]) -> tuple[Remark, ...]:
    """What is to be said of voxel axes that are not at right angles."""
    cosine = skew(affine) if np.isfinite(affine).all() else 0.0
    if cosine <= _LEAST_SKEW:
        return ()
    if cosine <= MOST_ROUNDING:
        what = f"its voxel axes are off right angles by {cosine:.1g} (rounding)"
        return (Remark("note", "affine-rounded", what, "Nothing to do"),)
    what = f"its voxel axes are {np.degrees(np.arcsin(min(cosine, 1))):.2g} degrees off right angles: sheared, or a tilted gantry"
    hint = "Slices work as they are; for whole volumes resample it to a straight grid, which many programs need"
    return (Remark("warning", "sheared", what, hint),)


def write_nifti(path: Path, volume: Volume) -> None:
    """Write `volume` with its affine, in millimetres."""
    image = nibabel.Nifti1Image(volume.array, volume.affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


def _opened(path: Path) -> tuple[Any, tuple[Remark, ...]]:
    """The image, with a remark where its quaternion is longer than one."""
    try:
        image = nibabel.load(path)
        if not isinstance(image, nibabel.spatialimages.SpatialImage):
            raise ImageFileError("no volume")
        np.asarray(image.affine)
        return image, ()
    except ValueError as error:
        if "w2 should be positive" not in str(error):
            raise
        try:
            image = _RoundedImage.from_filename(path)
        except ValueError as worse:
            raise DataError(
                "its quaternion is longer than one, so that where the image lies is unknown", path=path, hint=_AGAIN
            ) from worse
    what = "its quaternion is longer than one by rounding, and was shortened"
    return image, (Remark("note", "quaternion-rounded", what, "Nothing to do"),)


def _forms(header: Any, grid: tuple[int, ...]) -> tuple[Remark, ...]:
    """Whether the two ways in which a header says where the image lies agree."""
    if not isinstance(header, Nifti1Header):
        return ()
    sform, qform = int(header["sform_code"]), int(header["qform_code"])
    if not sform and not qform:
        what = "neither sform nor qform is set, so that where the image lies is a guess"
        return (Remark("warning", "form-missing", what, "Export it again with its orientation"),)
    if not (sform and qform):
        return ()
    try:
        apart = np.asarray(header.get_sform()) - np.asarray(header.get_qform())
    except (ValueError, HeaderDataError):
        what, hint = "its qform is damaged; the sform was taken", "Write it again with one geometry in both forms"
        return (Remark("warning", "forms-disagree", what, hint),)
    corners = np.array([[i, j, k, 1] for i in (0, grid[0]) for j in (0, grid[1]) for k in (0, grid[2])])
    distance = float(np.linalg.norm((corners @ apart.T)[:, :3], axis=1).max())
    smallest = float(min(header.get_zooms()[:3]))
    if distance <= max(_FORMS_APART * smallest, 1e-3):
        return ()
    what = f"its qform and sform disagree by up to {distance:.3g} mm; the sform was taken, other programs may take the qform"
    hint = "Write it again with one geometry in both forms"
    return (Remark("warning", "forms-disagree", what, hint),)
