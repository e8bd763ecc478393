"""Reading volumes of any supported format, chosen by suffix."""

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
    """The suffix of `name` that is in VOLUMES, ignoring case; None for other files."""
    return next((ending for ending in VOLUMES if name.lower().endswith(ending)), None)


def read_volume(path: Path, channels: int = 1) -> Volume:
    """The volume in `path` with `channels` channels.

    Raises:
        DataError: The file is missing, damaged or of another shape.
    """
    ending = volume_ending(path.name)
    if ending in NIFTI:
        return read_nifti(path, channels)
    if ending in NRRD:
        volume = read_nrrd(path)
    elif ending in METAIMAGE:
        volume = read_metaimage(path)
    else:
        raise DataError("is not a volume of a supported format", path=path, hint=f"Supported: {', '.join(VOLUMES)}")
    found = volume.array.shape[3] if volume.array.ndim == 4 else 1
    if found != channels:
        raise DataError(
            f"expected {channels} channels, got {found}", path=path, hint="Give every image the same channels"
        )
    return volume.remarked(*geometry_remarks(volume.affine))
