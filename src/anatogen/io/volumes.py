"""Volumes of whatever format their ending names."""

from __future__ import annotations

from pathlib import Path

from anatogen.errors import DataError
from anatogen.io.metaimage import read_metaimage
from anatogen.io.nifti import geometry_remarks, read_nifti
from anatogen.io.nrrd import read_nrrd
from anatogen.volume import Volume

NIFTI = (".nii.gz", ".nii")
NRRD = (".nrrd", ".nhdr")
METAIMAGE = (".mha", ".mhd")
VOLUMES = (*NIFTI, *NRRD, *METAIMAGE)


def volume_ending(name: str) -> str | None:
    """Which of VOLUMES ends `name`, in whatever case of letters; None for another kind of file."""
    return next((ending for ending in VOLUMES if name.lower().endswith(ending)), None)


def read_volume(path: Path, channels: int = 1) -> Volume:
    """The volume in `path` with `channels` channels. Raises DataError where it is missing, damaged or of another shape."""
    ending = volume_ending(path.name)
    if ending in NIFTI:
        return read_nifti(path, channels)
    if ending in NRRD:
        volume = read_nrrd(path)
    elif ending in METAIMAGE:
        volume = read_metaimage(path)
    else:
        raise DataError("is no volume of a known kind", path=path, hint=f"Known are {', '.join(VOLUMES)}")
    found = volume.array.shape[3] if volume.array.ndim == 4 else 1
    if found != channels:
        raise DataError(
            f"has {found} channels where {channels} are declared", path=path, hint="Give every image the same channels"
        )
    return volume.remarked(*geometry_remarks(volume.affine))
