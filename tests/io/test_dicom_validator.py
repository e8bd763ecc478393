"""Written series and segmentations have no error by David Clunie's validator (Debian: dicom3tools), where it is
installed.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest

from anatogen.io.dicom_seg import write_dicom_seg
from anatogen.io.dicom_write import write_dicom_series
from anatogen.labels import LabelSchema
from anatogen.volume import Volume

STANDARD_SINCE_2023 = "(0008,001c)"  # Synthetic Data, which the validator does not know yet


def written(folder: Path, modality: str) -> tuple[Path, Path]:
    """A slice of a series of `modality`, and its segmentation."""
    values = np.random.default_rng(0).integers(0, 500, (16, 16, 3)).astype(np.int16)
    volume = Volume(values, np.diag([-1.0, -1.0, 2.5, 1.0]))
    files = write_dicom_series(folder / "series", volume, modality=modality, sample_id="SYN-1", model="abc")
    labels = Volume((values > 300).astype(np.uint8), volume.affine)
    write_dicom_seg(folder / "seg.dcm", labels, LabelSchema.from_names(["a"]), files, model="abc", classes=["a"])
    return files[0], folder / "seg.dcm"


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
@pytest.mark.parametrize("modality", ["MR", "CT", "OT"])
def test_the_validator_finds_no_error(tmp_path: Path, modality: str) -> None:
    for file in written(tmp_path, modality):
        done = subprocess.run(["dciodvfy", "-new", str(file)], capture_output=True, text=True, check=False)
        said = (done.stdout + done.stderr).splitlines()
        errors = [line for line in said if "Error" in line]
        assert said, "the validator says at least what kind of object it is"
        assert [line for line in errors if STANDARD_SINCE_2023 not in line] == []


@pytest.mark.parametrize("modality", ["MR", "CT", "OT"])
def test_laterality_is_there_and_unknown(tmp_path: Path, modality: str) -> None:
    image = pydicom.dcmread(written(tmp_path, modality)[0])
    assert "Laterality" in image and not image.Laterality
    assert ("PatientOrientation" in image) is (modality == "OT")
