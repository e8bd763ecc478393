"""nnU-Net's raw data sets: imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz and dataset.json.

As in nnU-Net's documentation of its data set format (version 2).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.io.nifti import read_nifti, write_nifti
from anatogen.volume import Volume


def volumes_of(image: NDArray[np.float32], labels: NDArray[np.int64], class_count: int) -> tuple[list[Volume], Volume]:
    """The channels of `image` (C, *spatial) and `labels` (*spatial) as volumes on one grid of 1 mm.

    Values from -1 to 1 become integers from 0 to 1000. A slice becomes a volume of one voxel across its last axis, where
    nnU-Net's 2d configuration takes its slices from.
    """
    units = np.rint((image + 1) * 500).astype(np.int16)
    kind = np.uint8 if class_count <= 256 else np.uint16
    return [_volume(channel) for channel in units], _volume(labels.astype(kind))


def read_label_map(path: Path, dims: int) -> NDArray[np.int64]:
    """The label map (*spatial) of a file on the grid of `volumes_of`; dims: 2 or 3. Raises DataError as `read_nifti` does."""
    array = read_nifti(path).array.astype(np.int64)
    return np.ascontiguousarray(array.transpose(2, 1, 0) if dims == 3 else array[..., 0].T)


def write_case(folder: Path, case: str, channels: Sequence[Volume], labels: Volume | None = None) -> None:
    """Add a case to the data set in `folder`; one without labels is for nnU-Net to segment, and lies in imagesTs."""
    images = folder / ("imagesTs" if labels is None else "imagesTr")
    images.mkdir(parents=True, exist_ok=True)
    for c, channel in enumerate(channels):
        write_nifti(images / f"{case}_{c:04d}.nii.gz", channel)
    if labels is not None:
        (folder / "labelsTr").mkdir(exist_ok=True)
        write_nifti(folder / "labelsTr" / f"{case}.nii.gz", labels)


def write_description(folder: Path, channels: Sequence[str], classes: Sequence[str], count: int, **more: Any) -> None:
    """Write dataset.json. classes: the names of 1..C-1. count: cases with labels. more: keys that nnU-Net does not read."""
    description = {
        "channel_names": {str(c): name for c, name in enumerate(channels)},
        "labels": {"background": 0, **{name: i for i, name in enumerate(classes, start=1)}},
        "numTraining": count,
        "file_ending": ".nii.gz",
        **more,
    }
    (folder / "dataset.json").write_text(json.dumps(description, indent=1, ensure_ascii=False), encoding="utf-8")


def _volume(array: NDArray[Any]) -> Volume:
    """(H, W) or (D, H, W), shown the radiological way, with columns to the patient's left and rows downwards."""
    array = array.T  # (W, H) or (W, H, D)
    return Volume(array if array.ndim == 3 else array[..., None], np.diag([-1.0, -1.0, -1.0, 1.0]))
