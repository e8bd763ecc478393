"""Formats of generated images and their label maps; one entry of FORMATS each.

A format writes image (C, *spatial) in [-1, 1] and label map (*spatial) of one request, and reads them again by the
line of the manifest. Formats that know geometry (NIfTI, DICOM) need the placement of the scan that the map is from.

PNG of one channel are 16-bit gray. Three channels of pictures are 8-bit RGB. Any others (two, four, three of a scanner)
are 16-bit
gray with one channel below the other: `numpy.asarray(file).reshape(channels, height, width)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.data.placement import Placement, item_of, to_model
from anatogen.errors import DataError, SettingsError, nearest
from anatogen.generation.manifest import Line
from anatogen.generation.request import Request
from anatogen.io.nifti import read_nifti, write_nifti
from anatogen.io.npy import read_npy, write_npy
from anatogen.io.pictures import read_label_picture, read_png, write_label_png, write_png
from anatogen.labels import LabelSchema
from anatogen.model import ModelSpec
from anatogen.seeds import derive_seed
from anatogen.volume import Volume, canonical, with_last_axis

AUTO = "auto"
"""The name of the format that fits; see `fitting_format`."""


@dataclass(frozen=True)
class Maker:
    """What all images of a set have in common: the classes of their label maps, the model that made them, its
    channels.
    """

    schema: LabelSchema
    model: str
    channels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scale:
    """What leads from a file in a scan's place and units to an item: the axis that it lies across ("volume": whole),
    and the values that are -1 and 1, for each channel.
    """

    axis: str
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class Item:
    """What a format is told of a file that it reads."""

    line: Line
    scale: Scale | None
    maker: Maker


@dataclass(frozen=True)
class Format:
    """write: (image path, labels path, request, image, maker). read_image, read_labels: (path, what is known of it) ->
    array.

    ending: of the files' names, with its dot; "" where an image is a folder. write_real:
    (path, request, maker) for the real image of a pair, where the format can hold one beside the generated one.
    most_channels: how many an image may have.
    """

    ending: str
    write: Callable[[Path, Path, Request, NDArray[np.float32], Maker], None]
    read_image: Callable[[Path, Item], NDArray[Any]]
    read_labels: Callable[[Path, Item], NDArray[Any]]
    write_real: Callable[[Path, Request, Maker], None] | None = None
    label_ending: str = ""
    most_channels: int | None = None

    @property
    def ending_of_labels(self) -> str:
        """The ending of the label maps' names."""
        return self.label_ending or self.ending


def _write_png(image_path: Path, labels_path: Path, request: Request, image: NDArray[np.float32], maker: Maker) -> None:
    if image.ndim != 3:
        raise DataError("a volume cannot be a PNG", hint="Use --format nifti or npy")
    write_png(image_path, image, colours=_are_colours(maker))
    write_label_png(labels_path, request.labels)


def _are_colours(maker: Maker) -> bool:
    """Whether three channels are those of a picture, which have no names of their own."""
    plain = ("red", "green", "blue", "r", "g", "b")
    return all(name.lower().startswith("channel ") or name.lower() in plain for name in maker.channels)


def _write_npy(image_path: Path, labels_path: Path, request: Request, image: NDArray[np.float32], _: Maker) -> None:
    write_npy(image_path, image)
    write_npy(labels_path, request.labels)


def _write_nifti(image_path: Path, labels_path: Path, request: Request, image: NDArray[np.float32], _: Maker) -> None:
    place = placement_of(request, "nifti")
    write_nifti(image_path, place.image(image))
    write_nifti(labels_path, place.labels(request.labels))


def _scale(path: Path, item: Item) -> Scale:
    if item.scale is None:
        raise DataError("has no place in a scan in its manifest line", path=path, hint="Sample again to a new folder")
    return item.scale


def _read_nifti_image(path: Path, item: Item) -> NDArray[np.float32]:
    scale = _scale(path, item)
    return to_model(item_of(read_nifti(path, channels=len(scale.low)), scale.axis), scale.low, scale.high)


def _read_nifti_labels(path: Path, item: Item) -> NDArray[Any]:
    labels: NDArray[Any] = item_of(read_nifti(path), _scale(path, item).axis)[0]
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


def _read_dicom_image(path: Path, item: Item) -> NDArray[np.float32]:
    scale = _scale(path, item)
    return to_model(item_of(canonical(_series_in(path)), scale.axis), scale.low, scale.high)


def _read_dicom_labels(path: Path, item: Item) -> NDArray[Any]:
    from anatogen.io.dicom_find import read_segmentation_header
    from anatogen.io.dicom_seg import read_dicom_seg

    header = read_segmentation_header(path)
    image = _series_in(path.parents[1] / item.line.file)
    volume = read_dicom_seg([header], image, header.series[0] if header.series else "", item.maker.schema.names)
    labels: NDArray[Any] = item_of(canonical(volume), _scale(path, item).axis)[0]
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


def fitting_format(spec: ModelSpec, requests: Sequence[Request]) -> str:
    """PNG for slices; for volumes NIfTI, or NPY where their place is not known or where they are real patients'."""
    if len(spec.size) == 2:
        return "png"
    placed = all(request.place is not None for request in requests)
    return "nifti" if placed and not spec.real_patients else "npy"


def placement_of(request: Request, name: str) -> Placement:
    """The placement of `request`. Raises DataError where its label map has none."""
    if request.place is None:
        raise DataError(
            f"label map {request.id} has no place in a scan, which {name} needs",
            hint="Use --format png or npy, or label maps from a prepared data set",
        )
    return request.place


def require_format(name: str, channels: int, *, paired: bool) -> Format:
    """The format called `name`. Raises SettingsError where there is none, or where it cannot hold such images."""
    if name not in FORMATS:
        raise SettingsError(f"there is no format '{name}'", hint=nearest(name, FORMATS))
    form = FORMATS[name]
    if form.most_channels is not None and channels > form.most_channels:
        raise SettingsError(
            f"images of {channels} channels cannot be written as {name}", hint="Choose --format npy, nifti or png"
        )
    if paired and form.write_real is None:
        raise SettingsError(
            f"pairs cannot be written as {name}, where a real image would pass for a synthetic one",
            hint="Choose --format png, npy or nifti",
        )
    return form


FORMATS = {
    "png": Format(
        ".png",
        _write_png,
        lambda p, item: read_png(p, len(item.maker.channels) or 1),
        lambda p, _: read_label_picture(p),
        lambda p, request, maker: write_png(p, _partner(request), colours=_are_colours(maker)),
    ),
    "npy": Format(
        ".npy",
        _write_npy,
        lambda p, _: read_npy(p),
        lambda p, _: read_npy(p),
        lambda p, request, _: write_npy(p, _partner(request)),
    ),
    "nifti": Format(
        ".nii.gz",
        _write_nifti,
        _read_nifti_image,
        _read_nifti_labels,
        lambda p, request, _: write_nifti(p, placement_of(request, "nifti").image(_partner(request))),
    ),
    "dicom": Format("", _write_dicom, _read_dicom_image, _read_dicom_labels, label_ending=".dcm", most_channels=1),
}
FORMATS_OF_SCANS = ("nifti", "dicom")
"""Formats whose files other programs take for scans."""
