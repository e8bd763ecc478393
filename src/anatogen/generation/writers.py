"""Formats of generated images and their label maps; one entry of FORMATS each.

A format writes image (C, *spatial) in [-1, 1] and label map (*spatial) of one request, and reads them again by the
line of the manifest. Formats that know geometry (NIfTI, DICOM) need the placement of the scan that the map is from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.data.placement import Placement, item_of, to_model
from anatogen.errors import DataError
from anatogen.generation.request import Request
from anatogen.io.nifti import read_nifti, write_nifti
from anatogen.io.npy import read_npy, write_npy
from anatogen.io.pictures import read_label_picture, read_png, write_label_png, write_png

Entry = dict[str, Any]


@dataclass(frozen=True)
class Format:
    """write: (image path, labels path, request, image). read_image, read_labels: (path, manifest line) -> array.

    ending: of the files' names, with its dot; "" where an image is a folder.
    """

    ending: str
    write: Callable[[Path, Path, Request, NDArray[np.float32]], None]
    read_image: Callable[[Path, Entry], NDArray[Any]]
    read_labels: Callable[[Path, Entry], NDArray[Any]]
    label_ending: str = ""

    @property
    def ending_of_labels(self) -> str:
        """The ending of the label maps' names."""
        return self.label_ending or self.ending


def _write_png(image_path: Path, labels_path: Path, request: Request, image: NDArray[np.float32]) -> None:
    if image.ndim != 3:
        raise DataError("a volume cannot be a PNG", remedy="Use --format nifti or npy")
    write_png(image_path, image)
    write_label_png(labels_path, request.labels)


def _write_npy(image_path: Path, labels_path: Path, request: Request, image: NDArray[np.float32]) -> None:
    write_npy(image_path, image)
    write_npy(labels_path, request.labels)


def _write_nifti(image_path: Path, labels_path: Path, request: Request, image: NDArray[np.float32]) -> None:
    place = placement_of(request, "nifti")
    write_nifti(image_path, place.image(image))
    write_nifti(labels_path, place.labels(request.labels))


def _read_nifti_image(path: Path, entry: Entry) -> NDArray[np.float32]:
    place = entry["place"]
    return to_model(item_of(read_nifti(path, channels=len(place["low"])), place["axis"]), place["low"], place["high"])


def _write_dicom(image_path: Path, labels_path: Path, request: Request, image: NDArray[np.float32]) -> None:
    place = placement_of(request, "dicom")
    axis = place.cut.sliced if place.cut.sliced is not None else 2
    model = f"anatogen {request.origin.get('case', '')}".strip()
    files = write_dicom_series(
        image_path,
        with_last_axis(place.image(image), axis),
        modality=dicom_modality(place.modality),
        sample_id=request.id,
        model=model,
    )
    write_dicom_seg(
        labels_path,
        with_last_axis(place.labels(request.labels), axis),
        request.schema,
        files,
        model=model,
        classes=request.states.given_names(request.schema),
    )


def placement_of(request: Request, name: str) -> Placement:
    """The placement of `request`. Raises DataError where its label map has none."""
    if request.place is None:
        raise DataError(
            f"label map {request.id} has no place in a scan, which {name} needs",
            remedy="Use --format png or npy, or label maps from a prepared data set",
        )
    return request.place


FORMATS = {
    "png": Format(".png", _write_png, lambda p, _: read_png(p), lambda p, _: read_label_picture(p)),
    "npy": Format(".npy", _write_npy, lambda p, _: read_npy(p), lambda p, _: read_npy(p)),
    "nifti": Format(
        ".nii.gz",
        _write_nifti,
        _read_nifti_image,
        lambda p, entry: item_of(read_nifti(p), entry["place"]["axis"])[0],
    ),
}
