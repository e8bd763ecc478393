"""The patients that ship with the package."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import pytest

from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import hippocampus, open_source
from anatogen.errors import DataError
from conftest import SHARED, write_nnunet

DECATHLON = SHARED / "Dataset004_Hippocampus"


def test_eighty_patients_in_four_splits() -> None:
    source = open_source("hippocampus")
    assert Counter(case.split for case in source.cases) == {"train": 44, "heldout": 16, "val": 4, "test": 16}
    assert len({case.patient for case in source.cases}) == 80  # one hippocampus each: no patient can be in two splits
    assert source.schema.names == ("anterior", "posterior")
    assert "CC-BY-SA" in source.terms["licence"] and "CC-BY-SA" in source.notice


def test_each_case_is_whole() -> None:
    volumes = {}
    for case in open_source("hippocampus").cases:
        image, labels = case.load()
        assert image.grid == labels.grid and np.array_equal(image.affine, labels.affine)
        assert np.allclose(image.spacing_mm, 1) and np.isfinite(image.array).all()
        assert set(np.unique(labels.array)) == {0, 1, 2}
        volumes.setdefault(case.split, []).append(int((labels.array > 0).sum()))
    means = [np.mean(v) for v in volumes.values()]
    assert max(means) < 1.1 * min(means)  # every split spans the sizes


@pytest.mark.skipif(not DECATHLON.is_dir(), reason="the shared data sets are not here")
def test_nothing_is_lost_of_the_decathlons_files() -> None:
    for case in open_source("hippocampus").cases:
        image, labels = case.load()
        original = nibabel.load(DECATHLON / "imagesTr" / f"{case.id}_0000.nii.gz")
        assert image.array.dtype == original.get_data_dtype().newbyteorder("=")
        assert np.array_equal(image.array, np.asarray(original.dataobj))
        assert np.array_equal(image.affine, original.affine)
        assert np.array_equal(
            labels.array, np.asarray(nibabel.load(DECATHLON / "labelsTr" / f"{case.id}.nii.gz").dataobj)
        )


def test_the_licence_lies_beside_the_file() -> None:
    folder = hippocampus.BUNDLE.parent
    assert hippocampus.BUNDLE.stat().st_size <= 7_000_000
    assert "ShareAlike 4.0 International Public\nLicense" in (folder / "LICENSE-CC-BY-SA-4.0.txt").read_text("utf-8")
    attribution = (folder / "ATTRIBUTION.md").read_text("utf-8")
    for needed in ("Simpson", "Vanderbilt", "creativecommons.org/licenses/by-sa/4.0", "**Changes**", "warranties"):
        assert needed in attribution


def test_a_damaged_file_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "hippocampus.npz"
    broken.write_bytes(hippocampus.BUNDLE.read_bytes()[:1000])
    monkeypatch.setattr(hippocampus, "BUNDLE", broken)
    with pytest.raises(DataError, match="cannot be read"):
        open_source("hippocampus")


def test_a_folder_of_that_name_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_nnunet(tmp_path / "hippocampus", cases=2)
    monkeypatch.chdir(tmp_path)
    assert open_source("hippocampus").layout == "nnunet"
    assert len(open_source("hippocampus", layout="hippocampus").cases) == 80


def test_it_prepares(tmp_path: Path) -> None:
    source = open_source("hippocampus")
    few = [next(case for case in source.cases if case.split == split) for split in ("train", "heldout", "val", "test")]
    from dataclasses import replace

    made = prepare(replace(source, cases=tuple(few)), tmp_path / "data", PrepareSettings((64, 64), axis="sagittal"))
    batch = made.load(made.rows)
    assert made.size == (64, 64) and {row.split for row in made.rows} == {"train", "heldout", "val", "test"}
    assert set(np.unique(batch.labels.numpy())) == {0, 1, 2}
    assert made.info.source["licence"] == "CC-BY-SA 4.0"
