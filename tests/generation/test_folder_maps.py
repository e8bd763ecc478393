"""Label maps in a folder: drawn on a scan in Slicer or ITK-SNAP, and of another size than the model was trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pytest
from PIL import Image

from anatogen.errors import AnatogenError, DataError
from anatogen.generation.plan import FolderMaps, Plan
from anatogen.generation.sample_set import SampleSet
from anatogen.labels import ClassStates, LabelSchema
from anatogen.model import ModelSpec

SCHEMA = LabelSchema.from_names(["ball", "core"])
MODEL = ModelSpec(SCHEMA, (32, 32), "axial", (1.0, 1.0))
ALL = ClassStates((True, True))


def drawn(grid: tuple[int, int, int], spacing: tuple[float, float, float]) -> np.ndarray:
    """A ball of 9 mm with a core of 4 mm, a little to the left of the middle."""
    at = (np.indices(grid) + 0.5) * np.reshape(spacing, (3, 1, 1, 1))
    middle = np.array(grid) * spacing / 2 + (2, 1, 0)
    distance = np.linalg.norm(at - middle[:, None, None, None], axis=0)
    return ((distance < 9).astype(np.uint8) + (distance < 4)).astype(np.uint8)


def write(
    path: Path, grid: tuple[int, int, int] = (60, 70, 12), spacing: tuple[float, float, float] = (0.5, 0.5, 3.0)
) -> np.ndarray:
    labels = drawn(grid, spacing)
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    if path.name.endswith(".seg.nrrd"):
        header = {"space": "left-posterior-superior", "space directions": np.diag(spacing), "space origin": [0, 0, 0]}
        names = {"Segment0_Name": "Core", "Segment0_LabelValue": 2, "Segment1_Name": "skin", "Segment1_LabelValue": 1}
        nrrd.write(str(path), labels, {**header, **names})
    elif path.suffix == ".nrrd":
        header = {"space": "left-posterior-superior", "space directions": np.diag(spacing), "space origin": [0, 0, 0]}
        nrrd.write(str(path), labels, header)
    else:
        nibabel.save(nibabel.Nifti1Image(labels, affine), path)
    return labels


@pytest.mark.parametrize("name", ["a.nii.gz", "b.nii", "c.nrrd"])
def test_slices_of_a_drawn_volume_come_to_the_pixels_of_the_model(tmp_path: Path, name: str) -> None:
    labels = write(tmp_path / name)
    made = Plan(ALL).requests(FolderMaps(tmp_path, MODEL))
    shown = [k for k in range(12) if labels[:, :, k].any()]
    stem = name.split(".")[0]
    order = shown if name == "c.nrrd" else [11 - k for k in shown]  # the canonical axis runs to inferior
    assert [r.id for r in made] == [
        f"{stem}_{11 - k if name == 'c.nrrd' else k:04d}_00" for k in sorted(order, reverse=name == "c.nrrd")
    ]
    for request in made:
        k = 11 - request.origin.slice_of_map
        for value in (1, 2):  # a quarter of the pixels, of twice the size
            assert (request.labels == value).sum() == pytest.approx(
                (labels[:, :, k] == value).sum() / 4, rel=0.2, abs=4
            )
        assert request.labels.shape == (32, 32) and request.states == ALL and request.place is None


def test_whole_volumes_for_a_model_of_volumes(tmp_path: Path) -> None:
    labels = write(tmp_path / "a.nii.gz")
    [request] = Plan(ALL).requests(FolderMaps(tmp_path, ModelSpec(SCHEMA, (16, 32, 32), "volume", (3.0, 1.0, 1.0))))
    assert request.id == "a_00" and request.labels.shape == (16, 32, 32)
    assert (request.labels > 0).sum() == pytest.approx((labels > 0).sum() / 4, rel=0.1)


@pytest.mark.parametrize(("axis", "size"), [("coronal", (32, 40)), ("sagittal", (32, 40))])
def test_the_axis_is_the_models(tmp_path: Path, axis: str, size: tuple[int, int]) -> None:
    labels = write(tmp_path / "a.nii.gz")
    made = Plan(ALL).requests(FolderMaps(tmp_path, ModelSpec(SCHEMA, size, axis, (3.0, 0.5))))
    across = {"coronal": 1, "sagittal": 0}[axis]
    assert len(made) == sum(plane.any() for plane in np.moveaxis(labels, across, 0))
    assert sum(int((r.labels == 2).sum()) for r in made) == (labels == 2).sum()


def test_segments_of_slicer_are_matched_by_name(tmp_path: Path) -> None:
    labels = write(tmp_path / "scan.seg.nrrd")
    made = Plan(ALL).requests(FolderMaps(tmp_path, MODEL))
    assert made[0].id.startswith("scan_0") and all(r.states.given == (False, True) for r in made)
    assert len(made) == sum((plane == 2).any() for plane in np.moveaxis(labels, 2, 0))
    both = Plan(ALL).requests(FolderMaps(tmp_path, MODEL, renames={"ball": "skin"}))
    assert all(r.states.given == (True, True) for r in both) and len(both) > len(made)
    with pytest.raises(DataError, match="scan.seg.nrrd: no class of the label maps .* --rename"):
        Plan(ALL).requests(FolderMaps(tmp_path, replace(MODEL, schema=LabelSchema.from_names(["x", "y"]))))


def test_values_are_those_of_the_files_that_were_trained_on(tmp_path: Path) -> None:
    labels = write(tmp_path / "a.nii.gz")
    four = np.where(labels == 2, 4, labels).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(four, np.diag([-0.5, -0.5, 3.0, 1])), tmp_path / "a.nii.gz")
    made = Plan(ALL).requests(FolderMaps(tmp_path, replace(MODEL, values=(0, 1, 4))))
    assert any((r.labels == 2).any() for r in made) and all(r.labels.max() <= 2 for r in made)
    with pytest.raises(DataError, match="a.nii.gz: holds label 4, the model knows 0 to 2"):
        Plan(ALL).requests(FolderMaps(tmp_path, MODEL))


def test_pictures_of_another_size_are_shrunk_or_filled_up(tmp_path: Path) -> None:
    labels = np.zeros((64, 48), np.uint8)
    labels[16:48, 12:36] = 1
    Image.fromarray(labels).save(tmp_path / "a.png")
    np.save(tmp_path / "b.npy", np.full((10, 12), 2))
    large, small = Plan(ALL).requests(FolderMaps(tmp_path, MODEL))
    assert large.labels.shape == (32, 32) and (large.labels == 1).sum() == labels.sum() / 4
    assert large.labels[8:24, 10:22].all()  # 64 x 48 becomes 32 x 24, in the middle
    assert (small.labels == 2).sum() == 120 and small.labels[11:21, 10:22].all()


def test_anatomy_that_does_not_fit(tmp_path: Path) -> None:
    write(tmp_path / "a.nii.gz")
    small = replace(MODEL, size=(16, 16))
    with pytest.raises(DataError, match=r"a.nii.gz: the labelled anatomy measures .* --fit pad"):
        Plan(ALL).requests(FolderMaps(tmp_path, small))
    shrunk = Plan(ALL).requests(FolderMaps(tmp_path, small, fit="pad"))
    assert max(np.ptp(np.argwhere(r.labels), axis=0).max() for r in shrunk) == 15


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda f: None, "holds no label maps"),
        (lambda f: nibabel.save(nibabel.Nifti1Image(np.zeros((8, 8, 4), np.uint8), np.eye(4)), f / "a.nii.gz"), "none of the label maps shows ball or core"),
        (lambda f: nibabel.save(nibabel.Nifti1Image(np.full((8, 8, 4), 0.5, np.float32), np.eye(4)), f / "a.nii.gz"), "a.nii.gz: label 0.5 is not a whole number"),
        (lambda f: (f / "a.nii.gz").write_bytes(b"no"), "a.nii.gz: cannot be read as NIfTI"),
        (lambda f: (write(f / "a.nii.gz"), write(f / "a.nii")), "two label maps are called a_"),
    ],
)  # fmt: skip
def test_bad_folders(tmp_path: Path, prepare: Callable[[Path], object], message: str) -> None:
    prepare(tmp_path)
    with pytest.raises(AnatogenError, match=message):
        Plan(ALL).requests(FolderMaps(tmp_path, MODEL))


def test_from_the_command_line(  # type: ignore[no-untyped-def]
    cli, run_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "maps").mkdir()
    write(tmp_path / "maps" / "drawn.nii.gz")
    code, _, err = cli(
        "sample", run_folder, "--masks", tmp_path / "maps", "--count", 2, "--out", tmp_path / "out", "--device", "cpu"
    )
    assert code == 0, err
    samples = SampleSet.open(tmp_path / "out")
    assert len(samples.entries) == 2 and samples.image(samples.entries[0]).shape == (1, 32, 32)
