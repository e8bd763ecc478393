"""What is no volume, or not like the others, is refused in one line that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from conftest import write_nnunet

Cli = Callable[..., tuple[int, str, str]]


def rewritten(raw: Path, case: str, *, slices: int | None = None, labels_too: bool = True, thick: float = 2.5) -> None:
    """One case with other slices."""
    names = [f"imagesTr/{case}_0000.nii.gz", *([f"labelsTr/{case}.nii.gz"] if labels_too else [])]
    for name in names:
        file = raw / name
        image = nibabel.load(file)
        array = np.asarray(image.dataobj)[:, :, slice(slices and 4, slices and 4 + slices)]
        nibabel.save(nibabel.Nifti1Image(array, np.diag([-1.0, -1.0, thick, 1.0])), file)


def prepared(cli: Cli, raw: Path, *more: object) -> str:
    code, _, err = cli("prepare", raw, raw.parent / "out", "--dim", 3, "--size", "12x24x20", "--workers", 1, *more)
    assert code == 2 and "Traceback" not in err and not (raw.parent / "out" / "dataset.json").exists(), err
    return next(line for line in err.splitlines() if line.startswith("error:"))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_nnunet(tmp_path / "raw", cases=6)


def test_one_slice(cli: Cli, raw: Path) -> None:
    rewritten(raw, "ball_003", slices=1)
    said = prepared(cli, raw)
    assert "ball_003_0000.nii.gz: is a single slice (20 x 24 x 1 voxels)" in said and "--dim 2" in said
    code, out, err = cli("prepare", raw, raw.parent / "out", "--dim", 3, "--size", "12x24x20", "--skip-faulty")
    assert code == 0 and "5 volumes" in out, err


def test_voxels_of_other_size(cli: Cli, raw: Path) -> None:
    rewritten(raw, "ball_002", thick=6.0)
    said = prepared(cli, raw)
    assert "ball_002 (1 x 1 x 6 mm)" in said and "(1 x 1 x 2.5 mm)" in said and "--spacing 1,1,2.5" in said
    code, _, err = cli("prepare", raw, raw.parent / "out", "--dim", 3, "--size", "12x24x20", "--spacing", "1,1,2.5")
    assert code == 0, err


def test_a_label_map_without_depth(cli: Cli, raw: Path) -> None:
    file = raw / "labelsTr" / "ball_001.nii.gz"
    image = nibabel.load(file)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj)[:, :, 6], image.affine), file)
    said = prepared(cli, raw)
    assert "ball_001.nii.gz: has shape (20, 24), expected three axes. Store it with a third axis" in said
