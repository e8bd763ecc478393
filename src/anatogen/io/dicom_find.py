"""Find DICOM image series and segmentations in a folder tree by their headers, by pydicom."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, SegmentationStorage

from anatogen.errors import AnatogenError, DataError

_ENDINGS = (".dcm", ".dicom", ".ima")  # a file with one of these suffixes that is not DICOM is damaged
_SEGMENTATIONS = (SegmentationStorage, UID("1.2.840.10008.5.1.4.1.1.66.7"))  # the second: label maps, DICOM 2024c
_HEADER = (
    "SOPClassUID", "SeriesInstanceUID", "PatientID", "Modality", "SeriesDescription",
    "ReferencedSeriesSequence", "SegmentSequence",
)  # fmt: skip


@dataclass(frozen=True)
class Series:
    """The image files of one series, all in one folder. `patient` is PatientID, empty if it was removed."""

    uid: str
    folder: Path
    files: tuple[Path, ...]
    patient: str
    modality: str
    description: str


@dataclass(frozen=True)
class SegmentationFile:
    """A DICOM-SEG file: the series that it refers to, and its segment labels by segment number."""

    path: Path
    series: tuple[str, ...]
    labels: tuple[str, ...]


def is_dicom(path: Path) -> bool:
    """Whether the file `path` starts as DICOM files do."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def looks_like_dicom(path: Path) -> bool:
    """Whether `path` is DICOM by its name or, if the name (1.2.840.113, IM0001) does not tell, by its first bytes."""
    ending = path.suffix.lower()
    return ending in _ENDINGS or ((not ending or ending[1:].isdigit()) and is_dicom(path))


def scan(folder: Path) -> tuple[list[Series], list[SegmentationFile]]:
    """Every image series and segmentation below `folder`, by their headers, sorted by path. Other files are skipped.

    Raises:
        DataError: A folder contains several series, a series is in several folders, or a file named .dcm is not DICOM.
    """
    found: dict[Path, dict[str, list[Series]]] = {}
    segmentations = []
    for path in sorted(p for p in folder.rglob("*") if not p.name.startswith(".") and p.is_file()):
        with parsing(path):
            header = read_dataset(path, pixels=False)
            if header is None:
                continue
            if _storage(path, header) in _SEGMENTATIONS:
                segmentations.append(_segmentation_header(path, header))
            elif is_image(path, header):
                uid = series_uid(path, header)
                texts = (_line(header.get(k) or "") for k in ("PatientID", "Modality", "SeriesDescription"))
                found.setdefault(path.parent, {}).setdefault(uid, []).append(Series(uid, path.parent, (path,), *texts))
    series: dict[str, Series] = {}
    for place, by_uid in found.items():
        require_one_series(
            place, {uid: parts[0].description or parts[0].files[0].name for uid, parts in by_uid.items()}
        )
        [(uid, parts)] = by_uid.items()
        if uid in series:
            raise DataError(
                f"contains the same series as {series[uid].folder}", path=place, hint="Keep one of the two folders"
            )
        series[uid] = replace(parts[0], files=tuple(file for part in parts for file in part.files))
    return list(series.values()), segmentations


@contextmanager
def parsing(path: Path, kind: str = "DICOM") -> Iterator[None]:
    """Turn whatever the parser raises over `path` into a DataError.

    pydicom reads values lazily, and a damaged file can make it raise nearly any exception.
    """
    try:
        yield
    except AnatogenError:
        raise
    except Exception as error:
        reason = _line(error)[:200] or type(error).__name__
        raise DataError(
            f"cannot be read as {kind} ({reason})", path=path, hint="Export or copy the file again"
        ) from error


def read_dataset(path: Path, *, pixels: bool) -> Dataset | None:
    """The data set in `path`, or (pixels False) its header; None if it is neither DICOM nor named as DICOM.

    Raises:
        DataError: The file is damaged, missing, or only named as DICOM.
    """
    if not path.is_file():
        raise DataError("does not exist", path=path)
    if not is_dicom(path):
        if path.suffix.lower() in _ENDINGS:
            raise DataError("is not a DICOM file (the DICM prefix is missing)", path=path, hint="Copy it again")
        return None
    with parsing(path):
        if pixels:
            return pydicom.dcmread(path)
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_HEADER))


def _line(value: object) -> str:
    """`value` as one line."""
    return " ".join(str(value).split())


def _storage(path: Path, header: Dataset) -> UID:
    """The kind of object in a file."""
    found = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")
    if not found:
        raise DataError("has no SOPClassUID", path=path, hint="Export or copy the file again")
    return UID(str(found))


def is_image(path: Path, header: Dataset) -> bool:
    """Whether the file is an image (CT, MR, PET, ...), not a report, presentation state, structure set or directory."""
    return "Image Storage" in _storage(path, header).name


def series_uid(path: Path, header: Dataset) -> str:
    """SeriesInstanceUID. Raises DataError if it is missing, for instance in a truncated file."""
    if not header.get("SeriesInstanceUID"):
        raise DataError("has no SeriesInstanceUID", path=path, hint="Export or copy the file again")
    return str(header.SeriesInstanceUID)


def read_segmentation_header(path: Path) -> SegmentationFile:
    """What the DICOM-SEG in `path` refers to. Raises DataError if it is not a DICOM-SEG."""
    header = read_dataset(path, pixels=False)
    if header is None or _storage(path, header) not in _SEGMENTATIONS:
        raise DataError("is not a DICOM-SEG", path=path, hint="Export the segmentation again")
    with parsing(path):
        return _segmentation_header(path, header)


def _segmentation_header(path: Path, header: Dataset) -> SegmentationFile:
    series = tuple(str(item.SeriesInstanceUID) for item in header.get("ReferencedSeriesSequence", ()))
    return SegmentationFile(path, series, tuple(dict.fromkeys(segment_labels(header).values())))


def segment_labels(header: Dataset) -> dict[int, str]:
    """The label of each segment by its number, without number 0, the background of label-map segmentations."""
    segments = sorted(header.get("SegmentSequence", ()), key=lambda item: int(item.SegmentNumber))
    return {
        int(item.SegmentNumber): _line(item.get("SegmentLabel") or "") or f"segment {item.SegmentNumber}"
        for item in segments
        if int(item.SegmentNumber) > 0
    }


def require_one_series(folder: Path, names: dict[str, str]) -> None:
    """Raise DataError if there is more than one series. `names`: the name of each UID."""
    if len(names) > 1:
        listed = ", ".join(f"{_line(uid)} ({_line(name)})" for uid, name in list(names.items())[:3])
        raise DataError(
            f"contains several series: {listed}{', ...' if len(names) > 3 else ''}",
            path=folder,
            hint="Put the files of each series into a separate folder",
        )
