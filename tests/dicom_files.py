"""Small DICOM and NRRD files that the tests make themselves, with pydicom, highdicom and pynrrd and not with our
writers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import highdicom
import nrrd
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def turned_affine(seed: int = 0, spacing: tuple[float, float, float] = (0.7, 0.9, 2.5)) -> np.ndarray:
    """A right-handed affine (as DICOM stacks are) in a direction that is no axis of the patient."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q[:, 2] = np.cross(q[:, 0], q[:, 1])
    affine = np.eye(4)
    affine[:3, :3] = q * spacing
    affine[:3, 3] = [-100.125, 33.25, 7.5]
    return affine


def axial_affine(spacing: tuple[float, float, float] = (0.5, 0.75, 3.0)) -> np.ndarray:
    """An upright axial stack from feet to head: columns run to the left, rows to the back."""
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = [20, 30, -40]
    return affine


def noise(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 2000, shape).astype(np.int16)


def write_series(
    folder: Path,
    array: np.ndarray,
    affine: np.ndarray,
    *,
    modality: str = "CT",
    patient: str = "p1",
    description: str = "thorax",
    uid: str | None = None,
    study: str | None = None,
    slope: float = 1,
    intercept: float = 0,
    big_endian: bool = False,
    edit: Callable[[Dataset, int], None] = lambda data, k: None,
) -> list[Path]:
    """Stored values array (X, Y, Z) as slices; the files in the order of z, but called so that their names are not."""
    folder.mkdir(parents=True, exist_ok=True)
    uid, study, frame = uid or generate_uid(), study or generate_uid(), generate_uid()
    lps = LPS @ affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    files = []
    for k in range(array.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRBigEndian if big_endian else ExplicitVRLittleEndian
        file = folder / f"1-{(k * 7) % 97:03d}.dcm"
        data = FileDataset(
            file, {}, file_meta=meta, preamble=b"\0" * 128, is_implicit_VR=False, is_little_endian=not big_endian
        )
        data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = study, uid, frame
        data.PatientID, data.PatientName, data.PatientBirthDate, data.PatientSex = patient, "Doe^Jane", "", ""
        data.StudyID = data.StudyDate = data.StudyTime = data.AccessionNumber = data.ReferringPhysicianName = ""
        data.Modality, data.SeriesDescription, data.SeriesNumber, data.InstanceNumber = modality, description, 1, k + 1
        data.Manufacturer = "test"
        data.ImagePositionPatient = [f"{v:.8g}" for v in lps[:3, 3] + k * lps[:3, 2]]
        data.ImageOrientationPatient = [f"{v:.10f}" for v in (lps[:3, :2] / spacing[:2]).T.ravel()]
        data.PixelSpacing = [f"{spacing[1]:.8g}", f"{spacing[0]:.8g}"]
        data.SliceThickness = f"{spacing[2]:.8g}"
        data.RescaleSlope, data.RescaleIntercept = str(slope), str(intercept)
        data.Rows, data.Columns = array.shape[1], array.shape[0]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
        data.PixelRepresentation = int(array.dtype.kind == "i")
        stored = np.ascontiguousarray(array[:, :, k].T)
        data.PixelData = stored.astype(stored.dtype.newbyteorder(">" if big_endian else "<")).tobytes()
        edit(data, k)
        data.save_as(file, enforce_file_format=True)
        files.append(file)
    return files


def write_enhanced(path: Path, array: np.ndarray, affine: np.ndarray, *, places: list[int] | None = None) -> None:
    """One enhanced MR file; frame k lies at place places[k] of the stack."""
    lps = LPS @ affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = EnhancedMRImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.SeriesInstanceUID, data.Modality, data.PatientID = generate_uid(), "MR", "p1"
    data.NumberOfFrames = array.shape[2]
    data.Rows, data.Columns = array.shape[1], array.shape[0]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    shared, orientation, measures, units = Dataset(), Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = [f"{v:.10f}" for v in (lps[:3, :2] / spacing[:2]).T.ravel()]
    measures.PixelSpacing, measures.SliceThickness = [float(spacing[1]), float(spacing[0])], float(spacing[2])
    units.RescaleSlope, units.RescaleIntercept, units.RescaleType = "2", "-10", "US"
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    shared.PixelValueTransformationSequence = [units]
    data.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for k in places or range(array.shape[2]):
        groups, position = Dataset(), Dataset()
        position.ImagePositionPatient = [f"{v:.8g}" for v in lps[:3, 3] + k * lps[:3, 2]]
        groups.PlanePositionSequence = [position]
        frames.append(groups)
    data.PerFrameFunctionalGroupsSequence = frames
    data.PixelData = np.ascontiguousarray(array.transpose(2, 1, 0)).astype("<i2").tobytes()
    data.save_as(path, enforce_file_format=True)


def write_seg(path: Path, files: list[Path], masks: dict[str, np.ndarray], kind: str = "BINARY") -> None:
    """Boolean masks (X, Y, Z) by segment label, which may overlap; files[k] is the slice at k."""
    path.parent.mkdir(parents=True, exist_ok=True)
    described = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=codes.SCT.Tissue,
            algorithm_type="MANUAL",
        )
        for number, label in enumerate(masks, start=1)
    ]
    highdicom.seg.Segmentation(
        source_images=[pydicom.dcmread(file) for file in files],
        pixel_array=np.stack([mask.transpose(2, 1, 0) for mask in masks.values()], axis=-1).astype(np.uint8),
        segmentation_type=kind,
        segment_descriptions=described,
        series_instance_uid=generate_uid(),
        series_number=9,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="test",
        manufacturer_model_name="test",
        software_versions="1",
        device_serial_number="1",
    ).save_as(path)


def write_nrrd(
    path: Path, array: np.ndarray, affine: np.ndarray, space: str = "left-posterior-superior", **more
) -> None:
    """A NRRD of an array (X, Y, Z) or, with layers first as 3D Slicer writes them, (L, X, Y, Z)."""
    signs = {"left-posterior-superior": (-1, -1, 1), "LAS": (-1, 1, 1), "right-anterior-superior": (1, 1, 1)}[space]
    placed = np.diag([*signs, 1.0]) @ affine
    directions = placed[:3, :3].T
    if array.ndim == 4:
        directions = np.vstack([np.full(3, np.nan), directions])
    header = {"space": space, "space directions": directions, "space origin": placed[:3, 3], **more}
    path.parent.mkdir(parents=True, exist_ok=True)
    nrrd.write(str(path), array, header)


def segment_headers(
    names: list[str], values: list[int] | None = None, layers: list[int] | None = None
) -> dict[str, str]:
    """The keys that 3D Slicer adds to the header of a .seg.nrrd."""
    keys = {}
    for i, name in enumerate(names):
        keys[f"Segment{i}_Name"] = name
        keys[f"Segment{i}_LabelValue"] = str(values[i] if values else i + 1)
        keys[f"Segment{i}_Layer"] = str(layers[i] if layers else 0)
    return keys
