"""Synthetic volumes as DICOM series that cannot be mistaken for a patient's.

The SOP class is CT or MR Image Storage for those modalities, so that viewers know units and geometry; attributes of the
acquisition are empty if the standard allows it, or say that it is synthetic (MR: ScanningSequence RM, research).
Anything else is Secondary Capture Image Storage with the image plane that its definition allows. The image is DERIVED
and SECONDARY, SyntheticData is YES (DICOM 2023), patient and derivation say that it is synthetic, and every UID is new
and random (2.25.UUID). No patient data is copied, because only the array is passed in.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)
from pydicom.valuerep import DSfloat

import anatogen
from anatogen.errors import DataError
from anatogen.files import writing
from anatogen.io.dicom import LPS_TO_RAS
from anatogen.volume import Volume, is_flat

MANUFACTURER = "anatogen"
PATIENT_NAME = "SYNTHETIC^ANATOGEN"

_SOP_CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage}


def new_uid() -> str:
    """A new UID: 2.25 and a random UUID from the operating system, independent of any seed."""
    return str(generate_uid(prefix=None))


def write_dicom_series(
    folder: Path,
    volume: Volume,
    *,
    modality: str,
    sample_id: str,
    model: str,
    series_description: str = "synthetic image",
    study_uid: str | None = None,
) -> tuple[Path, ...]:
    """Write `volume` (X, Y, Z), in HU or the units of `modality`, as slices along its third axis.

    Whole numbers that fit 16 bits are stored exactly; other values in 65,536 steps between minimum and maximum, so that
    they are read back to within half a step. The columns of a slice run along the first axis of the array, rows along
    the second. The folder is written atomically.

    Args:
        sample_id: Becomes PatientID.
        model: The name or hash of the model that generated the image.
        study_uid: Groups several series into one study; new by default.

    Returns:
        The files, in slice order.

    Raises:
        DataError: The volume has channels, values that are not finite, or slices that are not rectangles.
        OutputError: `folder` is not empty or cannot be written.
    """
    if volume.array.ndim != 3 or not np.isfinite(volume.array).all():
        raise DataError(
            "only finite intensities of one channel can be written as DICOM", path=folder, hint="Use --format nifti"
        )
    affine = LPS_TO_RAS @ volume.affine
    spacing = np.array(volume.spacing_mm)
    directions = affine[:3, :3] / spacing
    if not is_flat(volume.affine, 2):
        raise DataError(
            "slices are sheared; DICOM needs rectangular slices",
            path=folder,
            hint="Use --format nifti, which can store a shear",
        )
    directions[:, 1] -= (directions[:, 0] @ directions[:, 1]) * directions[:, 0]  # viewers reject rounding errors
    directions[:, 1] /= np.linalg.norm(directions[:, 1])
    normal = np.cross(directions[:, 0], directions[:, 1])
    stored, slope, intercept = _quantise(volume.array)
    common = _common(modality, sample_id, model, series_description, study_uid or new_uid(), slope, intercept)
    common.PixelSpacing = [_ds(spacing[1]), _ds(spacing[0])]
    # With a tilted gantry the slice distance is smaller than the distance of the corners, which give each position.
    common.SliceThickness = common.SpacingBetweenSlices = _ds(float(abs(normal @ affine[:3, 2])))
    common.ImageOrientationPatient = [_ds(v) for v in directions[:, :2].T.ravel()]

    names = [f"{k + 1:04d}.dcm" for k in range(volume.grid[2])]
    with writing(folder) as partial:
        partial.mkdir()
        for k, name in enumerate(names):
            position = affine[:3, 3] + k * affine[:3, 2]
            _write_slice(partial / name, common, np.ascontiguousarray(stored[:, :, k].T), k + 1, position)
    return tuple(folder / name for name in names)


def text(value: str) -> str:
    """`value` as one DICOM long string: at most 64 characters and no backslash, which would start a second value."""
    return value.replace("\\", "/")[:64]


def _quantise(values: NDArray[np.generic]) -> tuple[NDArray[np.int16], float, float]:
    """int16, slope and intercept with values = stored * slope + intercept to half a slope."""
    low, high = float(values.min()), float(values.max())
    if low >= -32768 and high <= 32767 and (values.dtype.kind in "iub" or bool((values == np.rint(values)).all())):
        return values.astype(np.int16), 1.0, 0.0
    slope = float(_ds((high - low) / 65534)) if high > low else 1.0
    intercept = float(_ds((high + low) / 2))
    stored = np.rint((values.astype(np.float64) - intercept) / slope)
    return np.clip(stored, -32768, 32767).astype(np.int16), slope, intercept


def _ds(value: float) -> DSfloat:
    """A decimal string of at most 16 characters."""
    return DSfloat(float(value), auto_format=True)


def _common(
    modality: str, sample_id: str, model: str, description: str, study_uid: str, slope: float, intercept: float
) -> Dataset:
    """The attributes that all slices of a series share."""
    now = datetime.datetime.now(tz=datetime.UTC)
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 192"
    data.SOPClassUID = _SOP_CLASSES.get(modality, SecondaryCaptureImageStorage)
    data.ImageType = ["DERIVED", "SECONDARY", *(["AXIAL"] if modality == "CT" else ["OTHER"])]
    data.PatientName, data.PatientID = PATIENT_NAME, text(sample_id)
    data.PatientBirthDate = data.PatientSex = ""
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = study_uid, new_uid(), new_uid()
    data.StudyID = data.AccessionNumber = data.ReferringPhysicianName = data.PositionReferenceIndicator = ""
    data.StudyDate = data.SeriesDate = data.ContentDate = now.strftime("%Y%m%d")
    data.StudyTime = data.SeriesTime = data.ContentTime = now.strftime("%H%M%S")
    data.StudyDescription, data.SeriesDescription = "SYNTHETIC, not a patient", text(description)
    data.Modality, data.SeriesNumber, data.PatientPosition = modality, 1, ""
    data.Laterality = ""  # type 2C: laterality is unknown
    data.Manufacturer, data.ManufacturerModelName = MANUFACTURER, text(model)
    data.SoftwareVersions = anatogen.__version__
    data.SyntheticData = "YES"
    data.DerivationDescription = (
        f"Synthetic image, generated by anatogen {anatogen.__version__} with the model {model}; not of a patient"
    )[:1024]
    data.BurnedInAnnotation, data.LossyImageCompression = "NO", "00"
    data.RescaleSlope, data.RescaleIntercept = _ds(slope), _ds(intercept)
    data.RescaleType = "HU" if modality == "CT" else "US"
    _ACQUISITION.get(modality, _secondary_capture)(data)
    return data


def _ct(data: Dataset) -> None:
    data.KVP = data.AcquisitionNumber = None


def _mr(data: Dataset) -> None:
    data.ScanningSequence, data.SequenceVariant = "RM", "NONE"
    data.ScanOptions = data.MRAcquisitionType = ""
    data.RepetitionTime = data.EchoTime = data.EchoTrainLength = None


def _secondary_capture(data: Dataset) -> None:
    data.ConversionType = "SYN"
    data.PatientOrientation = ""  # type 2C: this class has no orientation


_ACQUISITION: dict[str, Callable[[Dataset], None]] = {"CT": _ct, "MR": _mr}


def _write_slice(
    file: Path, common: Dataset, pixels: NDArray[np.int16], number: int, position: NDArray[np.float64]
) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = common.SOPClassUID, UID(new_uid())
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(file, common, file_meta=meta, preamble=b"\0" * 128)
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    data.InstanceNumber = number
    data.ImagePositionPatient = [_ds(v) for v in position]
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.PixelData = pixels.astype("<i2").tobytes()
    data.save_as(file, enforce_file_format=True)
