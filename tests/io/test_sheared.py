"""Grids that are not at right angles: what was rounding is squared, a shear is kept or refused, never changed."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

import kinds
from anatogen.errors import DataError
from anatogen.io.dicom import read_series
from anatogen.io.dicom_find import read_segmentation_header
from anatogen.io.dicom_seg import read_dicom_seg, write_dicom_seg
from anatogen.io.dicom_write import write_dicom_series
from anatogen.io.nifti import read_nifti, write_nifti
from anatogen.labels import LabelSchema
from anatogen.volume import MOST_ROUNDING, Volume, is_flat, skew

SCHEMA = LabelSchema.from_names(["a", "b"])


def off_by(amount: float) -> np.ndarray:
    affine = kinds.AFFINE.copy()
    affine[0, 1] = amount
    return affine


def test_skew_is_the_sine_of_the_tilt() -> None:
    assert skew(kinds.tilted(20)) == pytest.approx(np.sin(np.radians(20))) and skew(kinds.AFFINE) == 0
    turned = np.eye(4)
    turned[:2, :2] = [[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]]
    assert skew(turned @ kinds.AFFINE) < 1e-9  # oblique is not sheared
    assert [is_flat(kinds.tilted(20), axis) for axis in range(3)] == [False, True, True]


def test_a_tilted_gantry_goes_through_dicom_and_back(tmp_path: Path) -> None:
    image, labels = (Volume(part, kinds.tilted(15)) for part in kinds.blob(0))
    files = write_dicom_series(tmp_path / "series", image, modality="CT", sample_id="s", model="m")
    write_dicom_seg(tmp_path / "seg.dcm", labels, SCHEMA, files, model="m")
    again = read_series(files, tmp_path / "series")
    assert np.array_equal(again.array, image.array) and np.allclose(again.affine, image.affine, atol=1e-4)
    header = pydicom.dcmread(files[0], stop_before_pixels=True)
    assert float(header.SpacingBetweenSlices) == pytest.approx(3.0)  # along the normal, not along the shift
    segmented = read_segmentation_header(tmp_path / "seg.dcm")
    found = read_dicom_seg([segmented], again, segmented.series[0], SCHEMA.names)
    assert np.array_equal(found.array, labels.array)


def test_what_was_rounding_is_squared_for_dicom(tmp_path: Path) -> None:
    volume = Volume(kinds.blob(0)[0], off_by(4e-4))
    assert 1e-4 < skew(volume.affine) < MOST_ROUNDING
    files = write_dicom_series(tmp_path / "series", volume, modality="CT", sample_id="s", model="m")
    orientation = np.array(pydicom.dcmread(files[0]).ImageOrientationPatient, float).reshape(2, 3)
    assert np.allclose(orientation @ orientation.T, np.eye(2), atol=1e-9)


@pytest.mark.parametrize("amount", [0.01, 0.1])
def test_a_shear_is_refused_by_dicom_and_kept_by_nifti(tmp_path: Path, amount: float) -> None:
    volume = Volume(kinds.blob(0)[0], off_by(amount))
    with pytest.raises(DataError, match="slices are sheared.*--format nifti"):
        write_dicom_series(tmp_path / "series", volume, modality="CT", sample_id="s", model="m")
    assert not (tmp_path / "series").exists()
    write_nifti(tmp_path / "a.nii.gz", volume)
    again = read_nifti(tmp_path / "a.nii.gz")
    assert np.allclose(again.affine, volume.affine) and [r.code for r in again.remarks] == ["sheared"]
    assert int(nibabel.load(tmp_path / "a.nii.gz").header["qform_code"]) == 0  # which could not hold it
