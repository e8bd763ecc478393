"""nnU-Net's raw data sets: imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz and dataset.json.

See nnU-Net's documentation of its data set format (version 2).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.files import safe_name
from anatogen.io.nifti import read_nifti, write_nifti
from anatogen.volume import Volume, skew, with_last_axis

_MOST_SKEW = 1e-5  # cosine between voxel axes; ITK rejects files with a little more


@dataclass(frozen=True)
class RawCase:
    """One case of a raw data set.

    Attributes:
        channels, labels: Volumes on one grid. Slices have one voxel along the last axis, along which nnU-Net's 2d
            configuration slices. A case without labels is for inference with nnU-Net and goes to imagesTs.
    """

    id: str
    channels: Sequence[Volume]
    labels: Volume | None


def raw_case(case: str, image: Volume, labels: Volume, sliced: int | None, labelled: bool = True) -> RawCase:
    """A case from an image (x, y, z[, C]) and its label map.

    Args:
        sliced: The axis of length one if it is a slice, None for a volume.
        labelled: Whether to write the label map.
    """
    if sliced is not None:
        image, labels = with_last_axis(image, sliced), with_last_axis(labels, sliced)
    array = image.array.reshape(*image.grid, -1)
    channels = [Volume(array[..., c], image.affine) for c in range(array.shape[-1])]
    return RawCase(case, channels, labels if labelled else None)


def write_raw(
    folder: Path, cases: Iterable[RawCase], channels: Sequence[str], classes: Sequence[str], **more: Any
) -> list[str]:
    """Write a raw data set to `folder`.

    Args:
        cases: Read one after the other; files are named after the case ids, see `safe_name`.
        channels: Channel names; any name of a CT becomes "CT", which tells nnU-Net that values are in HU.
        classes: The names of the classes 1..C-1.
        more: Further keys of dataset.json.

    Returns:
        The file names of the cases.
    """
    names: dict[str, str] = {}
    labelled = 0
    reader: dict[str, str] = {}
    for case in cases:
        name = safe_name(case.id, names)
        names[name.lower()] = name
        _write_case(folder, name, case)
        labelled += case.labels is not None
        reader |= reader_of(case.channels[0].affine)
    description = {
        "channel_names": {str(c): channel_name(name) for c, name in enumerate(channels)},
        "labels": {"background": 0, **{name: i for i, name in enumerate(classes, start=1)}},
        "numTraining": labelled,
        "file_ending": ".nii.gz",
        **reader,
        **more,
    }
    text = json.dumps(description, indent=1, ensure_ascii=False)
    (folder / "dataset.json").write_text(text, encoding="utf-8")
    return list(names.values())


def reader_of(affine: NDArray[np.float64]) -> dict[str, str]:
    """The key of dataset.json by which nnU-Net reads files with this `affine`, where it is needed.

    By default it reads with ITK, which rejects voxel axes that are not orthogonal (a tilted gantry).
    """
    return {"overwrite_image_reader_writer": "NibabelIO"} if skew(affine) > _MOST_SKEW else {}


def _write_case(folder: Path, name: str, case: RawCase) -> None:
    images = folder / ("imagesTs" if case.labels is None else "imagesTr")
    images.mkdir(parents=True, exist_ok=True)
    for c, channel in enumerate(case.channels):
        write_nifti(images / f"{name}_{c:04d}.nii.gz", channel)
    if case.labels is not None:
        (folder / "labelsTr").mkdir(exist_ok=True)
        write_nifti(folder / "labelsTr" / f"{name}.nii.gz", case.labels)


def channel_name(name: str) -> str:
    """A channel's name for nnU-Net: "CT" selects its CT normalisation, anything else normalises each image."""
    return "CT" if "ct" in re.split(r"[^a-z0-9]+", name.lower()) else name


def read_label_map(path: Path, dims: int) -> NDArray[np.int64]:
    """The label map (*spatial) in a file written as `RawCase` describes.

    Args:
        dims: 2 or 3.

    Raises:
        DataError: As `read_nifti`.
    """
    array = read_nifti(path).array.astype(np.int64)
    return np.ascontiguousarray(array.transpose(2, 1, 0) if dims == 3 else array[..., 0].T)
