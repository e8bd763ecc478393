"""Read, check and cut one case into the items of a prepared data set. Imports nothing heavy, for workers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.data.cropping import Extent, Window, labelled_box
from anatogen.data.intensity import IntensityMapping, IntensityRule, store
from anatogen.data.label_values import whole_labels
from anatogen.data.sources.base import SourceCase
from anatogen.errors import DataError, SettingsError, nearest
from anatogen.labels import LabelSchema
from anatogen.volume import SLICE_AXES, Fit, Fitting, Volume, axis_codes, canonical, resample, same_grid


@dataclass(frozen=True)
class SliceSettings:
    """How a case is cut into items.

    Attributes:
        size: (H, W) of slices across `axis`, or (D, H, W) of whole volumes.
        fit: See `Fitting`.
        spacing_mm: (x, y, z) in canonical orientation, to which the case is resampled first.
        keep_empty: Whether to keep items without a label.
        field_of_view: The voxels along (x, y, z) to crop from every case, centred on its labels.
    """

    size: tuple[int, ...] = (256, 256)
    axis: str = "axial"
    fit: Fit = "pad"
    intensity: IntensityRule = IntensityRule()
    spacing_mm: tuple[float, float, float] | None = None
    keep_empty: bool = False
    field_of_view: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        if self.axis not in SLICE_AXES:
            raise SettingsError(f"unknown axis '{self.axis}'", hint=nearest(self.axis, SLICE_AXES))
        if len(self.size) not in (2, 3) or min(self.size) < 8 or max(self.size) > 4096:
            shape = " x ".join(map(str, self.size))
            raise SettingsError(f"--size {shape} is out of range", hint="Choose 8 to 4096 for each side")
        if self.spacing_mm is not None and not all(0.01 <= s <= 100 for s in self.spacing_mm):
            raise SettingsError("--spacing is out of range", hint="Choose 0.01 to 100 mm")
        low, high = self.intensity.window or self.intensity.percentile
        if not low < high:
            raise SettingsError(
                f"intensities from {low} to {high} are an empty range", hint="Put the lower value first"
            )

    @property
    def sliced(self) -> int | None:
        """The canonical voxel axis (0 x, 1 y, 2 z) perpendicular to the slices; None for whole volumes."""
        return SLICE_AXES[self.axis] if len(self.size) == 2 else None


@dataclass(frozen=True)
class CaseItems:
    """The items of one case, with its canonical geometry.

    Attributes:
        images: int16 (N, C, *size).
        labels: (N, *size).
        positions: The position of each item along the slice axis.
        affine, grid: Of the volume that was cut, with axes to left, posterior, inferior.
        source_axes: The orientation of the file.
        crop: The volume's first voxel in the whole scan, if it was cropped.
        remarks: Of the readers of its files.
    """

    images: NDArray[np.int16]
    labels: NDArray[Any]
    positions: list[int]
    affine: NDArray[np.float64]
    grid: tuple[int, int, int]
    intensity: list[IntensityMapping]
    source_axes: str
    crop: tuple[int, int, int] | None = None
    remarks: tuple[str, ...] = ()


def cut_case(case: SourceCase, schema: LabelSchema, channels: int, settings: SliceSettings) -> CaseItems:
    """Read and check one case, and cut it into slices or keep the whole volume.

    On a display, rows of a slice run downwards, columns to the patient's left (axial, coronal) or back (sagittal).

    Raises:
        DataError: The case cannot be used; names the file.
    """
    image, labels = checked(case, schema, channels)
    if settings.sliced is None and min(image.grid) == 1:
        shape = " x ".join(map(str, image.grid))
        raise DataError(
            f"is a single slice ({shape} voxels), not a volume", path=_image_file(case), hint="Prepare slices: --dim 2"
        )
    remarks = tuple(dict.fromkeys(remark.what for remark in (*image.remarks, *labels.remarks)))
    source_axes = axis_codes(image.affine)
    image, labels = canonical(image), canonical(labels)
    if settings.spacing_mm is not None:
        image, labels = resample(image, settings.spacing_mm), resample(labels, settings.spacing_mm, labels=True)
    window = None
    if settings.field_of_view is not None:
        window = Window.around(labelled_box(labels, schema.ignored), labels.grid, settings.field_of_view)
        image, labels = window.cut(image), window.cut(labels, labels=True)

    planes = image.array.reshape(*image.grid, -1).transpose(3, 2, 1, 0)  # (channel, z, y, x)
    classes: NDArray[Any] = labels.array.transpose(2, 1, 0)
    stored, mappings = [], []
    for channel in planes:
        try:
            quantised, mapping = store(channel, settings.intensity)
        except DataError as error:
            raise DataError(error.problem, path=_image_file(case), hint=error.hint) from error
        stored.append(quantised)
        mappings.append(mapping)
    fill = [int(channel.min()) for channel in stored]
    if settings.sliced is None:
        image_items, label_items = np.stack(stored)[None], classes[None]
    else:
        image_items = np.moveaxis(np.stack(stored), 1 + 2 - settings.sliced, 0)  # (N, C, h, w)
        label_items = np.moveaxis(classes, 2 - settings.sliced, 0)
    labelled = (label_items > 0) if schema.ignored is None else (label_items > 0) & (label_items != schema.ignored)
    kept = [k for k in range(len(label_items)) if settings.keep_empty or labelled[k].any()]
    fitting = Fitting.plan(label_items.shape[1:], settings.size, settings.fit)
    images = np.zeros((len(kept), len(stored), *settings.size), np.int16)
    maps = np.zeros((len(kept), *settings.size), np.uint8 if schema.largest <= 255 else np.uint16)
    for i, k in enumerate(kept):
        maps[i] = fitting.apply(label_items[k], fill=0, labels=True)
        for c, value in enumerate(fill):
            images[i, c] = fitting.apply(image_items[k, c], fill=value)
    start = None if window is None else window.start
    return CaseItems(images, maps, kept, image.affine, image.grid, mappings, source_axes, start, remarks)


def checked(case: SourceCase, schema: LabelSchema, channels: int) -> tuple[Volume, Volume]:
    """The image and the label map of one case, with integer labels. Raises DataError with the file."""
    image, labels = case.load()
    if labels.array.ndim == 3:
        labels = whole_labels(labels, case.files[-1] if case.files else case.id)
    _check(image, labels, schema, channels, case)
    return image, labels


def extent_of_case(case: SourceCase, schema: LabelSchema, channels: int) -> Extent:
    """The extent of one case for the common field of view. Raises DataError as `cut_case` does."""
    _, labels = checked(case, schema, channels)
    return Extent.of(canonical(labels), schema)


def item_volume(
    item: NDArray[Any], affine: NDArray[np.float64], grid: tuple[int, int, int], settings: SliceSettings, position: int
) -> Volume:
    """An item (*size) or (C, *size) of a case as a volume at its position in the patient: the inverse of `cut_case`.

    A slice becomes a volume of one voxel along its axis.
    """
    sliced = settings.sliced
    kept_axes = [axis for axis in (2, 1, 0) if axis != sliced]  # the item's spatial axes, as voxel axes
    channels = item.reshape(-1, *settings.size)
    array = channels if sliced is None else np.expand_dims(channels, 1 + 2 - sliced)
    array = array.transpose(3, 2, 1, 0)  # (x, y, z, channel)
    fitting = Fitting.plan(tuple(grid[axis] for axis in kept_axes), settings.size, settings.fit)
    change = np.eye(4)
    for axis, (scale, offset) in zip(kept_axes, fitting.to_original(), strict=True):
        change[axis, axis], change[axis, 3] = scale, offset
    if sliced is not None:
        change[sliced, 3] = position
    return Volume(array[..., 0] if item.ndim == len(settings.size) else array, affine @ change)


def _image_file(case: SourceCase) -> Path | str:
    return case.files[0] if case.files else case.id


def _check(image: Volume, labels: Volume, schema: LabelSchema, channels: int, case: SourceCase) -> None:
    place = case.files[-1] if case.files else case.id
    if image.grid != labels.grid:
        raise DataError(
            f"label map of {_shape(labels)} voxels for an image of {_shape(image)}",
            path=place,
            hint="Resample the label map to the image's grid",
        )
    if labels.array.ndim != 3:
        raise DataError("the label map has several channels", path=place, hint="Store one class index per voxel")
    if not same_grid(image, labels, tolerance_mm=0.5):
        raise DataError("image and label map have different positions", path=place, hint="Give both the same affine")
    found = image.array.reshape(*image.grid, -1).shape[-1]
    if found != channels:
        problem = f"expected {channels} channels, got {found}"
        raise DataError(problem, path=_image_file(case), hint="Give every case the same channels")
    values = np.unique(labels.array)
    wrong = values[((values < 0) | (values >= schema.count)) & (values != (schema.ignored or 0))]
    if wrong.size:
        listed = ", ".join(f"{v:g}" for v in wrong[:5]) + (", ..." if wrong.size > 5 else "")
        raise DataError(
            f"contains label {listed}, but only classes 0 to {schema.count - 1} are declared",
            path=place,
            hint="Declare the missing classes, or relabel the map (see anatogen check)",
        )


def _shape(volume: Volume) -> str:
    return " x ".join(map(str, volume.grid))
