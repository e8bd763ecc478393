"""A tree of DICOM series, one folder each, with masks: DICOM-SEG anywhere in it, or NRRD or NIfTI files.

    LOCATION/PATIENT[/STUDY][/SERIES]/*.dcm
    a DICOM-SEG file anywhere below LOCATION: belongs to the series that it refers to; several may share one series
    or CASE/mask.nrrd, CASE/CASE.nii.gz, ...: one file in the folder of the series or in a parent (below LOCATION)
        without
    other series, whose name contains seg, mask or label, or equals that of the folder

PatientID is the patient; if it is empty, the first folder below LOCATION is. Classes are the segment labels in order of
first appearance (DICOM-SEG, and 3D Slicer's .seg.nrrd); a case is annotated with the classes in its own segmentation.
Plain masks have no names; `classes` gives them. Series without a mask are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from anatogen.data.label_values import whole_labels
from anatogen.data.sources.base import Source, SourceCase
from anatogen.errors import DataError, nearest
from anatogen.io.dicom import read_series
from anatogen.io.dicom_find import SegmentationFile, Series, looks_like_dicom, scan
from anatogen.io.dicom_seg import read_dicom_seg
from anatogen.io.nifti import read_nifti
from anatogen.io.nrrd import read_nrrd, read_seg_nrrd
from anatogen.io.regrid import on_grid
from anatogen.labels import LabelSchema
from anatogen.volume import Volume

_MASK_ENDINGS = (".seg.nrrd", ".nrrd", ".nhdr", ".nii.gz", ".nii")
_MASK_WORDS = ("seg", "mask", "label")


def detect(location: str) -> bool:
    """Whether there is a DICOM file anywhere below `location`."""
    return any(looks_like_dicom(p) for p in Path(location).rglob("*") if not p.name.startswith(".") and p.is_file())


def open_source(location: str, classes: Sequence[str] | None = None) -> Source:
    """A case for each series with a mask. Reads the headers of all DICOM files, and plain masks if `classes` is None.

    Raises:
        DataError: A folder mixes series, no series has a mask, a segmentation refers to a missing series, a case has
            several masks, or `classes` lacks the label of a segment.
    """
    root = Path(location)
    if not root.is_dir():
        raise DataError("does not exist", path=root, hint="Check the path")
    every, segmentations = scan(root)
    if not every:
        raise DataError("contains no DICOM images", path=root, hint="Choose the parent of the patients' folders")
    _refuse_strangers(segmentations, every)
    masks = [_find_mask(root, series, every, segmentations) for series in every]
    cases = [(series, mask) for series, mask in zip(every, masks, strict=True) if mask is not None]
    if not cases:
        raise DataError(
            f"{len(every)} series, none with a mask",
            path=root,
            hint="Add DICOM-SEG files, or an NRRD or NIfTI file named mask beside each series",
        )
    names = _class_names(root, [mask for _, mask in cases], classes)
    modalities = sorted({series.modality for series, _ in cases})
    if len(modalities) > 1:
        raise DataError(
            f"mixes the modalities {', '.join(modalities)}", path=root, hint="Prepare each modality separately"
        )
    left_out = len(every) - len(cases)
    return Source(
        "dicom",
        location,
        LabelSchema.from_names(names),
        (modalities[0] or "image",),
        tuple(_case(root, series, mask, names) for series, mask in cases),
        f"{left_out} DICOM series without a mask were left out." if left_out else "",
        patients_from="layout",
    )


@dataclass(frozen=True)
class _Mask:
    """The masks of one series: DICOM-SEG files, or one mask file. labels: of its segments, empty for plain masks."""

    segmentations: tuple[SegmentationFile, ...] = ()
    file: Path | None = None
    labels: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.file,) if self.file else tuple(s.path for s in self.segmentations)


def _refuse_strangers(segmentations: Iterable[SegmentationFile], every: Iterable[Series]) -> None:
    here = {series.uid for series in every}
    for segmentation in segmentations:
        if not here & set(segmentation.series):
            raise DataError(
                f"refers to series {', '.join(segmentation.series) or 'none'}, which is missing",
                path=segmentation.path,
                hint="Add the series that it refers to, or remove it",
            )


def _find_mask(
    root: Path, series: Series, every: Sequence[Series], segmentations: Sequence[SegmentationFile]
) -> _Mask | None:
    own = tuple(s for s in segmentations if series.uid in s.series)
    if own:
        return _Mask(segmentations=own, labels=tuple(dict.fromkeys(label for s in own for label in s.labels)))
    folder = series.folder
    while True:
        found = [p for p in sorted(folder.iterdir()) if _is_mask(p, folder)] if folder != root or _is_case(root) else []
        if len(found) > 1:
            raise DataError(
                f"has several masks: {', '.join(p.name for p in found)}",
                path=folder,
                hint="Keep one label map per case, with a value for each class",
            )
        if found and sum(other.folder.is_relative_to(folder) for other in every) > 1:
            raise DataError(
                "is in a parent folder of several series", path=found[0], hint="Move it to the folder of its series"
            )
        if found:
            labels = tuple(read_seg_nrrd(found[0])[1]) if found[0].name.endswith(".seg.nrrd") else ()
            return _Mask(file=found[0], labels=labels)
        if folder in (root, root.parent):
            return None
        folder = folder.parent


def _is_case(root: Path) -> bool:
    """Whether `root` is the folder of a series."""
    return any(looks_like_dicom(p) for p in root.iterdir() if p.is_file())


def _is_mask(path: Path, folder: Path) -> bool:
    name = path.name.lower()
    ending = next((e for e in _MASK_ENDINGS if name.endswith(e)), None)
    if ending is None or name.startswith(".") or not path.is_file():
        return False
    return ending == ".seg.nrrd" or any(w in name for w in _MASK_WORDS) or path.name[: -len(ending)] == folder.name


def _class_names(root: Path, masks: Sequence[_Mask], classes: Sequence[str] | None) -> tuple[str, ...]:
    labels = tuple(dict.fromkeys(label for mask in masks for label in mask.labels))
    plain = [mask.file for mask in masks if mask.file and not mask.labels]
    if classes is not None:
        for label in labels:
            if label not in classes:
                raise DataError(f"segment '{label}' is not one of the classes", path=root, hint=nearest(label, classes))
        return tuple(classes)
    if labels and plain:
        raise DataError(
            "does not name its classes, but other masks here do", path=plain[0], hint="Name all of them with --classes"
        )
    return labels or _numbered(plain)


def _numbered(files: Sequence[Path]) -> tuple[str, ...]:
    """Names for the values in plain masks: class 1, class 2, ... up to the largest."""
    largest = 0
    for file in files:
        values = np.unique(whole_labels(_read_plain(file), file).array)
        if values[-1] == 255 and set(values.tolist()) <= {0, 255}:
            raise DataError(
                "contains only 0 and 255, which are not class numbers",
                path=file,
                hint="Run anatogen check; --fix remaps 0/255",
            )
        if values[0] < 0:
            raise DataError(f"contains label {values[0]}", path=file, hint="Number the classes 1, 2, ...")
        largest = max(largest, int(values[-1]))
    return tuple(f"class {value}" for value in range(1, largest + 1))


def _read_plain(file: Path) -> Volume:
    read: Callable[[Path], Volume] = read_nifti if file.name.lower().endswith((".nii", ".nii.gz")) else read_nrrd
    return read(file)


def _case(root: Path, series: Series, mask: _Mask, names: tuple[str, ...]) -> SourceCase:
    place = series.folder.relative_to(root)
    return SourceCase(
        id="_".join(place.parts) or root.name,
        patient=series.patient or (place.parts[0] if place.parts else root.name),
        load=partial(_load, series, mask, names),
        files=(*series.files, *mask.files),
        annotated=tuple(name for name in names if name in mask.labels) if mask.labels else None,
    )


def _load(series: Series, mask: _Mask, names: tuple[str, ...]) -> tuple[Volume, Volume]:
    image = read_series(series.files, series.folder)
    if mask.file is None:
        return image, read_dicom_seg(mask.segmentations, image, series.uid, names)
    if mask.labels:
        return image, segments_on(image, mask.file, {label: names.index(label) + 1 for label in mask.labels})
    array, _ = on_grid(_read_plain(mask.file), image, mask.file, whole=True)
    return image, Volume(array, image.affine)


def segments_on(image: Volume, file: Path, values: dict[str, int]) -> Volume:
    """The label map on the grid of `image` of the segments in a .seg.nrrd `file`, which may cover a part of the image.

    Args:
        values: The label of each segment by its name.

    Raises:
        DataError: Segments overlap or are off the grid.
    """
    volume, segments = read_seg_nrrd(file)
    labels = np.zeros(image.grid, np.uint8 if max(values.values()) < 256 else np.uint16)
    for name, value in values.items():
        mask, place = on_grid(Volume(segments[name], volume.affine), image, file)
        mask = mask.astype(bool)
        if (mask & (labels[place] > 0)).any():
            raise DataError(f"segment '{name}' overlaps another", path=file, hint="Export the segments without overlap")
        labels[place][mask] = value
    return Volume(labels, image.affine)
