"""nnU-Net's raw data sets: imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz and dataset.json.

As in nnU-Net's documentation of its data set format (version 2).
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
from anatogen.volume import Volume, with_last_axis


@dataclass(frozen=True)
class RawCase:
    """One case. channels, labels: volumes on one grid, slices with one voxel along the last axis, where nnU-Net's 2d configuration
    takes its slices from. Without labels it is for nnU-Net to segment, and lies in imagesTs.
    """

    id: str
    channels: Sequence[Volume]
    labels: Volume | None


def raw_case(case: str, image: Volume, labels: Volume, sliced: int | None, labelled: bool = True) -> RawCase:
    """A case of an image (x, y, z[, C]) and its label map. sliced: the axis of one voxel where it is a slice, None for a volume."""
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
        cases: read one after the other; their files are named after their ids, see `safe_name`.
        channels: names; whatever names a CT becomes "CT", by which nnU-Net knows that values are in HU.
        classes: the names of 1..C-1.
        more: keys of dataset.json that nnU-Net does not read.

    Returns: the names of the cases' files.
    """
    names: dict[str, str] = {}
    labelled = 0
    for case in cases:
        name = safe_name(case.id, names)
        names[name.lower()] = name
        _write_case(folder, name, case)
        labelled += case.labels is not None
    description = {
        "channel_names": {str(c): channel_name(name) for c, name in enumerate(channels)},
        "labels": {"background": 0, **{name: i for i, name in enumerate(classes, start=1)}},
        "numTraining": labelled,
        "file_ending": ".nii.gz",
        **more,
    }
    text = json.dumps(description, indent=1, ensure_ascii=False)
    (folder / "dataset.json").write_text(text, encoding="utf-8")
    return list(names.values())


def _write_case(folder: Path, name: str, case: RawCase) -> None:
    images = folder / ("imagesTs" if case.labels is None else "imagesTr")
    images.mkdir(parents=True, exist_ok=True)
    for c, channel in enumerate(case.channels):
        write_nifti(images / f"{name}_{c:04d}.nii.gz", channel)
    if case.labels is not None:
        (folder / "labelsTr").mkdir(exist_ok=True)
        write_nifti(folder / "labelsTr" / f"{name}.nii.gz", case.labels)


def channel_name(name: str) -> str:
    """A channel's name as nnU-Net understands it: "CT" makes it normalise as CT, anything else by each image's own values."""
    return "CT" if "ct" in re.split(r"[^a-z0-9]+", name.lower()) else name


def read_label_map(path: Path, dims: int) -> NDArray[np.int64]:
    """The label map (*spatial) of a file that lies as `RawCase` says; dims: 2 or 3. Raises DataError as `read_nifti` does."""
    array = read_nifti(path).array.astype(np.int64)
    return np.ascontiguousarray(array.transpose(2, 1, 0) if dims == 3 else array[..., 0].T)
