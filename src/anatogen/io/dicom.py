"""DICOM image series, by pydicom: read in HU (or the units of the modality) with their geometry.

DICOM's patient coordinates run to left, posterior, superior; affines here are RAS.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder

from anatogen.errors import DataError
from anatogen.io.dicom_find import is_image, parsing, read_dataset, require_one_series, series_uid
from anatogen.volume import Volume

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

_EVEN = 0.01  # tolerated variation of the slice distance, relative ...
_ROUNDING_MM = 0.02  # ... plus this much for rounded positions


def read_series(files: Iterable[Path], folder: Path) -> Volume:
    """The volume (X, Y, Z) of the one series in `files`, which are in `folder`, with slices sorted by position.

    Axes are columns, rows and slices. Values are stored values times slope plus intercept: int16 or int32 if both are
    whole numbers, else float32. A file is one slice or an enhanced multi-frame image of one stack. Segmentations and
    files that are not DICOM are skipped.

    Raises:
        DataError: There is no such series, or it is damaged, incomplete or mixed; names the file or folder.
    """
    planes: list[_Plane] = []
    names: dict[str, str] = {}
    for path in sorted(files):
        with parsing(path):
            dataset = read_dataset(path, pixels=True)
            if dataset is None or not is_image(path, dataset):
                continue
            names.setdefault(series_uid(path, dataset), str(dataset.get("SeriesDescription") or path.name))
            require_one_series(folder, names)
            planes += _planes(path, dataset)
    if not planes:
        raise DataError(
            "contains no DICOM images", path=folder, hint="Choose a folder that contains the slices of a series"
        )
    planes, affine = _in_order(planes, folder)
    return Volume(_in_units(planes), affine)


@dataclass(frozen=True)
class _Plane:
    """One slice: pixels (rows, columns) as stored; the centre of its first pixel and its directions in LPS mm."""

    path: Path
    pixels: NDArray[np.generic]
    position: NDArray[np.float64]
    directions: NDArray[np.float64]  # (2, 3): along a row, along a column
    spacing: tuple[float, float]  # between columns, between rows
    thickness: float
    slope: float
    intercept: float


def _planes(path: Path, dataset: Dataset) -> list[_Plane]:
    """The slices in one file. Raises DataError if it has none that can be used."""
    pixels = _pixels(path, dataset)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if "PerFrameFunctionalGroupsSequence" not in dataset and frames > 1:
        raise DataError(
            f"{frames} frames without individual positions", path=path, hint="Export the series as single slices"
        )
    stored = pixels.reshape(-1, *pixels.shape[-2:])
    return [_plane(path, dataset, frame, stored[frame]) for frame in range(len(stored))]


def _pixels(path: Path, dataset: Dataset) -> NDArray[np.generic]:
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise DataError("has no pixel data", path=path, hint="Export the series with pixel data, or remove the file")
    if int(dataset.get("SamplesPerPixel", 1)) != 1 or "ModalityLUTSequence" in dataset:
        raise DataError("contains colours or a look-up table, not intensities", path=path, hint="Remove the file")
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decodable = not syntax.is_compressed or syntax.is_deflated or get_decoder(syntax).is_available
    except NotImplementedError:
        decodable = False
    if not decodable:
        raise DataError(
            f"pixel data is compressed ({syntax.name}) and no decoder is installed",
            path=path,
            hint="pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg, or decompress the files (gdcmconv --raw)",
        )
    return dataset.pixel_array


def _plane(path: Path, dataset: Dataset, frame: int, stored: NDArray[np.generic]) -> _Plane:
    orientation = _floats(path, _group(dataset, frame, "PlaneOrientationSequence"), "ImageOrientationPatient", 6)
    measures = _group(dataset, frame, "PixelMeasuresSequence")
    between_rows, between_columns = _floats(path, measures, "PixelSpacing", 2)
    directions = orientation.reshape(2, 3)
    if np.abs(directions @ directions.T - np.eye(2)).max() > 1e-2 or min(between_rows, between_columns) <= 0:
        raise DataError("orientation or pixel spacing is invalid", path=path, hint="Export the series again")
    units = _group(dataset, frame, "PixelValueTransformationSequence")
    slope, intercept = units.get("RescaleSlope"), units.get("RescaleIntercept")
    return _Plane(
        path=path,
        pixels=stored,
        position=_floats(path, _group(dataset, frame, "PlanePositionSequence"), "ImagePositionPatient", 3),
        directions=directions,
        spacing=(float(between_columns), float(between_rows)),
        thickness=abs(float(measures.get("SpacingBetweenSlices") or measures.get("SliceThickness") or 1.0)),
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
    )


def _group(dataset: Dataset, frame: int, name: str) -> Dataset:
    """The data set that has an attribute of one frame: its functional group, the shared one, or the file's."""
    if "PerFrameFunctionalGroupsSequence" in dataset:
        for groups in (dataset.PerFrameFunctionalGroupsSequence[frame], dataset.SharedFunctionalGroupsSequence[0]):
            if groups.get(name):
                return groups[name].value[0]
        return Dataset()
    return dataset


def _floats(path: Path, dataset: Dataset, name: str, count: int) -> NDArray[np.float64]:
    value: Any = dataset.get(name)
    numbers = np.array([float(v) for v in value], dtype=np.float64) if value else np.empty(0)
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise DataError(
            f"has no valid {name}",
            path=path,
            hint="Use slices with a position in the patient (CT, MR, PET), or convert them to NIfTI",
        )
    return numbers


def _in_order(planes: list[_Plane], folder: Path) -> tuple[list[_Plane], NDArray[np.float64]]:
    """The planes sorted along their normal, and their RAS affine. Raises DataError if the stack is not regular."""
    first = planes[0]
    for plane in planes[1:]:
        if plane.pixels.shape != first.pixels.shape:
            raise _differs(plane, first, "shape", plane.pixels.shape, first.pixels.shape)
        if np.abs(plane.directions - first.directions).max() > 1e-3:
            raise _differs(plane, first, "orientation", plane.directions.tolist(), first.directions.tolist())
        if not np.allclose(plane.spacing, first.spacing, rtol=1e-3):
            raise _differs(plane, first, "pixel spacing", plane.spacing, first.spacing)
    normal = np.cross(*first.directions)
    planes = sorted(planes, key=lambda plane: float(plane.position @ normal))
    positions = np.array([plane.position for plane in planes])
    step = (positions[-1] - positions[0]) / (len(planes) - 1) if len(planes) > 1 else normal * first.thickness
    _check_even(planes, positions, positions @ normal, step, folder)
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([*(first.directions * np.array(first.spacing)[:, None]), step])
    affine[:3, 3] = positions[0]
    return planes, LPS_TO_RAS @ affine


def _differs(plane: _Plane, first: _Plane, what: str, this: object, that: object) -> DataError:
    return DataError(
        f"{what} {this} differs from {that} of {first.path.name}",
        path=plane.path,
        hint="Put slices of different series or scouts into separate folders",
    )


def _check_even(
    planes: list[_Plane],
    positions: NDArray[np.float64],
    along: NDArray[np.float64],
    step: NDArray[np.float64],
    folder: Path,
) -> None:
    if len(planes) < 2:
        return
    gaps = np.diff(along)
    usual = float(np.percentile(gaps, 50, method="lower"))
    tolerance = _EVEN * usual + _ROUNDING_MM

    def between(k: int) -> str:
        return f"{planes[k].path.name} and {planes[k + 1].path.name} (at {along[k]:.2f} and {along[k + 1]:.2f} mm)"

    if gaps.min() < 1e-3:
        raise DataError(
            f"two slices have the same position: {between(int(gaps.argmin()))}",
            path=folder,
            hint="Keep one of them; put phases or echoes into separate folders",
        )
    if gaps.max() > 1.5 * usual:
        raise DataError(
            f"a slice is missing between {between(int(gaps.argmax()))}; the others are {usual:.2f} mm apart",
            path=folder,
            hint="Export the whole series again",
        )
    worst = int(np.abs(gaps - usual).argmax())
    if abs(gaps[worst] - usual) > tolerance:
        raise DataError(
            f"slices are not evenly spaced: {between(worst)}; the others are {usual:.2f} mm apart",
            path=folder,
            hint="Resample the series to evenly spaced slices and convert it to NIfTI",
        )
    straight = positions[0] + np.arange(len(planes))[:, None] * step
    astray = np.linalg.norm(positions - straight, axis=1)
    if astray.max() > max(tolerance, 2 * _ROUNDING_MM):
        raise DataError(
            "slices are not stacked along their normal",
            path=planes[int(astray.argmax())].path,
            hint="Put slices of different stacks into separate folders",
        )


def _in_units(planes: list[_Plane]) -> NDArray[np.generic]:
    """(X, Y, Z): stored values times slope plus intercept, as integers where that loses nothing."""
    stored = np.stack([plane.pixels.T for plane in planes], axis=-1)
    slope, intercept = planes[0].slope, planes[0].intercept
    same = all((plane.slope, plane.intercept) == (slope, intercept) for plane in planes)
    if stored.dtype.kind in "iu" and same and slope.is_integer() and intercept.is_integer():
        ends = [int(end) * int(slope) + int(intercept) for end in (stored.min(), stored.max())]
        for kind in (np.int16, np.int32):
            limits = np.iinfo(kind)
            if limits.min <= min(ends) and max(ends) <= limits.max:
                values = np.empty(stored.shape, kind)
                for k in range(stored.shape[-1]):  # slice by slice: wide integers need much memory
                    values[..., k] = stored[..., k].astype(np.int64) * int(slope) + int(intercept)
                return values
    slopes, intercepts = (np.array([getattr(p, name) for p in planes]) for name in ("slope", "intercept"))
    return (stored * slopes + intercepts).astype(np.float32)
