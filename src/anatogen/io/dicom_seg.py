"""DICOM-SEG, by highdicom: segmentations of an image series."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

import anatogen
from anatogen.errors import DataError
from anatogen.files import writing
from anatogen.io.dicom import LPS_TO_RAS
from anatogen.io.dicom_find import SegmentationFile, parsing, segment_labels
from anatogen.io.dicom_write import MANUFACTURER, new_uid, text
from anatogen.io.regrid import on_grid
from anatogen.labels import LabelClass, LabelSchema
from anatogen.volume import Volume


def read_dicom_seg(files: Sequence[SegmentationFile], image: Volume, series_uid: str, names: Sequence[str]) -> Volume:
    """The label map of `files` on the grid of `image`: 1, 2, ... for the segments labelled names[0], names[1], ...

    Frames are placed by their position. Segments with the same label are one class.

    Raises:
        DataError: A file is damaged, does not refer to the series `series_uid`, is off the image's grid, has a
            fractional segment or one that is not in `names`, or segments overlap (a label map has one class for each
            voxel).
    """
    labels = np.zeros(image.grid, np.uint8 if len(names) < 256 else np.uint16)
    for file in files:
        if series_uid not in file.series:
            raise DataError(
                f"refers to series {', '.join(file.series) or 'none'}, not to {series_uid}",
                path=file.path,
                hint="Put the segmentation beside the series that it refers to",
            )
        with parsing(file.path, "DICOM-SEG"):
            _add(file.path, image, list(names), labels)
    return Volume(labels, image.affine)


def _add(path: Path, image: Volume, names: list[str], labels: NDArray[np.unsignedinteger[Any]]) -> None:
    """Add the segments of the file to `labels`."""
    import highdicom

    segmentation = highdicom.seg.segread(path)
    kind = str(segmentation.SegmentationType)
    if kind == "FRACTIONAL":
        raise DataError("contains fractional segments", path=path, hint="Export it as a binary segmentation")
    class_of = {}
    for number, name in segment_labels(segmentation).items():
        if name not in names:
            raise DataError(f"has a segment '{name}' that is not a class", path=path, hint="Name it with --classes")
        class_of[number] = names.index(name) + 1
    lookup = np.zeros(max(class_of, default=0) + 1, labels.dtype)
    for number, value in class_of.items():
        lookup[number] = value

    for frame in range(int(segmentation.NumberOfFrames)):
        stored = segmentation.get_stored_frame(frame, as_index=True)
        if kind == "LABELMAP":
            frame_labels = lookup[stored]
        else:
            frame_labels = np.where(stored > 0, class_of[_segment_number(segmentation, frame)], 0).astype(labels.dtype)
        plane, place = on_grid(
            Volume(frame_labels.T[..., None], _frame_affine(segmentation, frame, image)), image, path
        )
        there = labels[place]
        clash = (plane > 0) & (there > 0) & (plane != there)
        if clash.any():
            a, b = (names[int(values[clash][0]) - 1] for values in (there, plane))
            raise DataError(
                f"segments '{a}' and '{b}' overlap",
                path=path,
                hint="Export them without overlap: a voxel has one class",
            )
        labels[place] = np.where(plane > 0, plane, there)


def _macro(segmentation: Any, frame: int, name: str) -> Any:
    for groups in (
        segmentation.PerFrameFunctionalGroupsSequence[frame],
        segmentation.SharedFunctionalGroupsSequence[0],
    ):
        if groups.get(name):
            return groups[name].value[0]
    raise ValueError(f"frame {frame + 1} has no {name}")


def _segment_number(segmentation: Any, frame: int) -> int:
    return int(_macro(segmentation, frame, "SegmentIdentificationSequence").ReferencedSegmentNumber)


def _frame_affine(segmentation: Any, frame: int, image: Volume) -> NDArray[np.float64]:
    """RAS affine of one frame as a volume (columns, rows, 1), whose third axis is the image's."""
    directions = np.array(
        _macro(segmentation, frame, "PlaneOrientationSequence").ImageOrientationPatient, np.float64
    ).reshape(2, 3)
    between_rows, between_columns = map(float, _macro(segmentation, frame, "PixelMeasuresSequence").PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0] = directions[0] * between_columns
    affine[:3, 1] = directions[1] * between_rows
    affine[:3, 3] = [float(v) for v in _macro(segmentation, frame, "PlanePositionSequence").ImagePositionPatient]
    affine = LPS_TO_RAS @ affine
    affine[:3, 2] = image.affine[:3, 2]
    return affine


def write_dicom_seg(
    path: Path,
    labels: Volume,
    schema: LabelSchema,
    series: Sequence[Path],
    *,
    model: str,
    classes: Iterable[str] | None = None,
) -> None:
    """Write `labels` (X, Y, Z) as a binary DICOM-SEG of an image series.

    Segments have the names and colours of `schema`. A class without voxels is kept as a segment without frames.

    Args:
        series: series[k] is the file of the slice labels[:, :, k].
        model: The model that generated the image.
        classes: The classes to write, by default all; allows leaving out free classes.

    Raises:
        DataError: The label map does not have the shape of the series.
        OutputError: The file cannot be written.
    """
    import highdicom as hd

    sources = [pydicom.dcmread(file, stop_before_pixels=True) for file in series]
    expected = (int(sources[0].Columns), int(sources[0].Rows), len(sources)) if sources else None
    if labels.array.shape != expected:
        raise DataError(f"expected a label map of shape {expected}, got {labels.array.shape}", path=path)
    wanted = [schema.classes[schema.index_of(name) - 1] for name in (schema.names if classes is None else classes)]
    numbers = np.zeros(schema.count, np.uint16)
    numbers[[item.index for item in wanted]] = np.arange(1, len(wanted) + 1)
    segmentation = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=numbers[labels.array].transpose(2, 1, 0),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(number, item) for number, item in enumerate(wanted, start=1)],
        series_instance_uid=new_uid(),
        series_number=int(sources[0].get("SeriesNumber") or 1) + 1,
        sop_instance_uid=new_uid(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=text(model),
        software_versions=anatogen.__version__,
        device_serial_number="none",
        content_label="SYNTHETIC",
        content_description="Label map that a synthetic image follows",
        series_description=text(f"Labels of {sources[0].get('SeriesDescription', 'synthetic image')}"),
    )
    segmentation.SyntheticData = "YES"
    with writing(path) as partial:
        segmentation.save_as(partial, enforce_file_format=True)


def _description(number: int, item: LabelClass) -> Any:
    """Segment `number`, of one class. User-defined classes have no codes, so the category is always tissue."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=text(item.name),
        segmented_property_category=codes.SCT.Tissue,
        segmented_property_type=codes.SCT.Tissue,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=MANUFACTURER, version=anatogen.__version__, family=codes.DCM.ArtificialIntelligence
        ),
        display_color=hd.color.CIELabColor.from_string(item.colour),
    )
