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
from anatogen.labels import LabelSchema
from anatogen.seeds import derive_seed
from anatogen.volume import Volume, canonical, with_last_axis

Entry = dict[str, Any]


@dataclass(frozen=True)
class Maker:
    """What all images of a set have in common: the classes of their label maps, and the model that made them."""

    schema: LabelSchema
    model: str


@dataclass(frozen=True)
class Format:
    """write: (image path, labels path, request, image). read_image, read_labels: (path, manifest line) -> array.

    All are told the set's maker. ending: of the files' names, with its dot; "" where an image is a folder. write_real:
    (path, request) for the real image of a pair, where the format can hold one beside the generated one.
    """

    ending: str
    write: Callable[[Path, Path, Request, NDArray[np.float32], Maker], None]
    read_image: Callable[[Path, Entry, Maker], NDArray[Any]]
    read_labels: Callable[[Path, Entry, Maker], NDArray[Any]]
    write_real: Callable[[Path, Request], None] | None = None
    label_ending: str = ""

    @property
    def ending_of_labels(self) -> str:
        """The ending of the label maps' names."""
        return self.label_ending or self.ending


def _write_png(image_path: Path, labels_path: Path, request: Request, image: NDArray[np.float32], _: Maker) -> None:
    if image.ndim != 3:
        raise DataError("a volume cannot be a PNG", hint="Use --format nifti or npy")
    write_png(image_path, image)
    write_label_png(labels_path, request.labels)


def _write_npy(image_path: Path, labels_path: Path, request: Request, image: NDArray[np.float32], _: Maker) -> None:
    write_npy(image_path, image)
    write_npy(labels_path, request.labels)


def _write_nifti(image_path: Path, labels_path: Path, request: Request, image: NDArray[np.float32], _: Maker) -> None:
    place = placement_of(request, "nifti")
    write_nifti(image_path, place.image(image))
    write_nifti(labels_path, place.labels(request.labels))


def _read_nifti_image(path: Path, entry: Entry, _: Maker) -> NDArray[np.float32]:
    place = entry["place"]
    return to_model(item_of(read_nifti(path, channels=len(place["low"])), place["axis"]), place["low"], place["high"])


def _read_nifti_labels(path: Path, entry: Entry, _: Maker) -> NDArray[Any]:
    labels: NDArray[Any] = item_of(read_nifti(path), entry["place"]["axis"])[0]
    return labels


def _write_dicom(
    image_path: Path, labels_path: Path, request: Request, image: NDArray[np.float32], maker: Maker
) -> None:
    """A series with one slice across the axis that was sliced, and a DICOM-SEG of the given classes. Nothing of the
    scan that the label map is from comes along but its grid: the identity is made from model and seed.
    """
    from anatogen.io.dicom_seg import write_dicom_seg
    from anatogen.io.dicom_write import write_dicom_series

    place = placement_of(request, "dicom")
    axis = place.cut.sliced if place.cut.sliced is not None else 2
    files = write_dicom_series(
        image_path,
        with_last_axis(place.image(image), axis),
        modality=_dicom_modality(place.modality),
        sample_id=f"SYN-{derive_seed(maker.model, request.seed):016X}",
        model=maker.model,
    )
    labels = with_last_axis(place.labels(request.labels), axis)
    given = request.states.given_names(maker.schema)
    write_dicom_seg(labels_path, labels, maker.schema, files, model=maker.model, classes=given)


def _read_dicom_image(path: Path, entry: Entry, _: Maker) -> NDArray[np.float32]:
    place = entry["place"]
    return to_model(item_of(canonical(_series_in(path)), place["axis"]), place["low"], place["high"])


def _read_dicom_labels(path: Path, entry: Entry, maker: Maker) -> NDArray[Any]:
    from anatogen.io.dicom_find import read_segmentation_header
    from anatogen.io.dicom_seg import read_dicom_seg

    header = read_segmentation_header(path)
    image = _series_in(path.parents[1] / entry["file"])
    volume = read_dicom_seg([header], image, header.series[0] if header.series else "", maker.schema.names)
    labels: NDArray[Any] = item_of(canonical(volume), entry["place"]["axis"])[0]
    return labels


def _series_in(folder: Path) -> Volume:
    from anatogen.io.dicom import read_series

    return read_series(sorted(folder.glob("*.dcm")), folder)


def _dicom_modality(channel: str) -> str:
    """DICOM's word for what a channel is called: CT, MR, or OT for other."""
    words = channel.upper().replace("-", " ").replace("_", " ").split()
    if "CT" in words:
        return "CT"
    return "MR" if {"MR", "MRI", "T1", "T2", "T1W", "T2W", "FLAIR", "DWI", "ADC", "PD"} & set(words) else "OT"


def _partner(request: Request) -> NDArray[np.float32]:
    assert request.partner is not None
    return request.partner


def placement_of(request: Request, name: str) -> Placement:
    """The placement of `request`. Raises DataError where its label map has none."""
    if request.place is None:
        raise DataError(
            f"label map {request.id} has no place in a scan, which {name} needs",
            hint="Use --format png or npy, or label maps from a prepared data set",
        )
    return request.place


FORMATS = {
    "png": Format(
        ".png",
        _write_png,
        lambda p, *_: read_png(p),
        lambda p, *_: read_label_picture(p),
        lambda p, request: write_png(p, _partner(request)),
    ),
    "npy": Format(
        ".npy",
        _write_npy,
        lambda p, *_: read_npy(p),
        lambda p, *_: read_npy(p),
        lambda p, request: write_npy(p, _partner(request)),
    ),
    "nifti": Format(
        ".nii.gz",
        _write_nifti,
        _read_nifti_image,
        _read_nifti_labels,
        lambda p, request: write_nifti(p, placement_of(request, "nifti").image(_partner(request))),
    ),
    "dicom": Format("", _write_dicom, _read_dicom_image, _read_dicom_labels, label_ending=".dcm"),
}
