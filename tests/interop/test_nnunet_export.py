"""From a scan to nnU-Net's raw data: values in HU and places in millimetres are those of the scan, whatever lies
between.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from anatogen.data.intensity import IntensityRule
from anatogen.data.placement import Placement
from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import open_source
from anatogen.data.store import PreparedDataset
from anatogen.errors import DataError, SettingsError
from anatogen.generation.plan import FolderMaps, Plan, requests_from_dataset
from anatogen.generation.sample_set import SampleSet, write_sample_set
from anatogen.interop.nnunet_export import export_nnunet
from anatogen.model import ModelSpec
from cohorts import RealImages

OLD = Path(__file__).parents[1] / "fixtures" / "format1"
AFFINE = np.array([[0.0, -1.2, 0, 10], [-0.8, 0, 0, -20], [0, 0, 2.5, 30], [0, 0, 0, 1]])  # axes swapped and flipped
SHAPE = (20, 24, 12)


def scans(folder: Path, cases: int = 8, channels: tuple[str, ...] = ("CT",)) -> Path:
    """nnU-Net data of noise in HU, in which every voxel differs from its neighbours; a ball is labelled."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number in range(cases):
        rng = np.random.default_rng(number)
        distance = np.linalg.norm(np.indices(SHAPE) - np.array([9.5, 12, 6])[:, None, None, None], axis=0)
        labels = (distance < 5.5).astype(np.uint8) + (distance < 3)
        for c in range(len(channels)):
            image = rng.integers(-400, 900, SHAPE).astype(np.int16) + np.int16(1000 * c)
            nibabel.save(nibabel.Nifti1Image(image, AFFINE), folder / "imagesTr" / f"p{number}_{c:04d}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(labels.astype(np.uint8), AFFINE), folder / "labelsTr" / f"p{number}.nii.gz")
    description = {"channel_names": {str(c): name for c, name in enumerate(channels)}, "file_ending": ".nii.gz"}
    description |= {"labels": {"background": 0, "ball": 1, "core": 2}, "numTraining": cases}
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def prepared(tmp_path: Path, axis: str, size: tuple[int, ...] = (32, 32), **more: Any) -> PreparedDataset:
    raw = scans(tmp_path / "raw", **{k: more.pop(k) for k in ("channels",) if k in more})
    settings = PrepareSettings(
        size, axis, "crop", intensity=IntensityRule(window=(-200, 600)), workers=1, keep_names=True, **more
    )
    return prepare(open_source(str(raw)), tmp_path / "data", settings)


def sampled(dataset: PreparedDataset, out: Path, image_format: str, rows: Any = None) -> SampleSet:
    requests = requests_from_dataset(dataset, rows or dataset.split("test"), dataset.schema.states())
    return write_sample_set(RealImages(dataset), requests, out, image_format=image_format)  # type: ignore[arg-type]


def assert_on_its_scan(raw: Path, image_file: Path, labels_file: Path, case: str, channel: int = 0) -> int:
    """Every voxel holds the scan's own value, clipped to the window, where the scan has one at that place; how many
    do.
    """
    made, drawn = nibabel.load(image_file), nibabel.load(labels_file)
    scan = nibabel.load(raw / "imagesTr" / f"{case}_{channel:04d}.nii.gz")
    truth = np.asarray(nibabel.load(raw / "labelsTr" / f"{case}.nii.gz").dataobj)
    assert np.allclose(made.affine, drawn.affine, atol=1e-5) and made.shape == drawn.shape
    index = np.indices(made.shape).reshape(3, -1)
    world = made.affine @ np.vstack([index, np.ones(index.shape[1])])
    there = np.linalg.solve(scan.affine, world)[:3]
    assert np.abs(there - np.rint(there)).max() < 1e-3  # voxels lie on voxels
    there = np.rint(there).astype(int)
    inside = ((there >= 0) & (there < np.array(SHAPE)[:, None])).all(axis=0)
    units, labels = (
        np.asarray(made.dataobj)[tuple(index[:, inside])],
        np.asarray(drawn.dataobj)[tuple(index[:, inside])],
    )
    expected = np.asarray(scan.dataobj)[tuple(there[:, inside])]
    low, high = -200, 600
    assert np.array_equal(units, np.clip(expected, low, high)) and units.dtype == np.int16
    assert np.array_equal(labels, truth[tuple(there[:, inside])])
    return int(inside.sum())


@pytest.mark.parametrize("stack", [False, True], ids=["slices", "stacked"])
@pytest.mark.parametrize("axis", ["axial", "sagittal"])
@pytest.mark.parametrize("image_format", ["png", "npy", "nifti"])
def test_values_and_places_survive(tmp_path: Path, image_format: str, axis: str, stack: bool) -> None:
    dataset = prepared(tmp_path, axis)
    rows = dataset.split("test")
    samples = sampled(dataset, tmp_path / "samples", image_format)
    done = export_nnunet(samples, tmp_path / "out", stack=stack)
    description = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert description["channel_names"] == {"0": "CT"} and description["numTraining"] == done.cases
    cases = {f"{row.case}_00": row.case for row in rows} if stack else {f"{row.id}_00": row.case for row in rows}
    assert done.cases == len(cases) and done.images == len(rows) and not done.left_out
    for name, case in cases.items():
        files = tmp_path / "out" / "imagesTr" / f"{name}_0000.nii.gz", tmp_path / "out" / "labelsTr" / f"{name}.nii.gz"
        voxels = assert_on_its_scan(tmp_path / "raw", *files, case)
        slices = sum(row.case == case for row in rows) if stack else 1
        in_plane = {"axial": SHAPE[0] * SHAPE[1], "sagittal": SHAPE[0] * SHAPE[2]}[axis]
        assert voxels == slices * in_plane
        shape = nibabel.load(files[0]).shape
        assert sorted(shape) == sorted((32, 32, slices)) and (stack or shape[2] == 1)


def test_volumes_and_several_channels(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, "axial", (16, 32, 32), channels=("CT arterial", "T2"))
    done = export_nnunet(sampled(dataset, tmp_path / "samples", "npy"), tmp_path / "out")
    assert json.loads((done.out / "dataset.json").read_text())["channel_names"] == {"0": "CT", "1": "T2"}
    case = dataset.split("test")[0].case
    name = f"{dataset.split('test')[0].id}_00"
    for channel in (0, 1):
        image = done.out / "imagesTr" / f"{name}_{channel:04d}.nii.gz"
        voxels = assert_on_its_scan(tmp_path / "raw", image, done.out / "labelsTr" / f"{name}.nii.gz", case, channel)
        assert voxels == np.prod(SHAPE)
    with pytest.raises(SettingsError, match="already contains whole volumes. Omit --stack"):
        export_nnunet(SampleSet.open(tmp_path / "samples"), tmp_path / "more", stack=True)
    assert not (tmp_path / "more").exists()


def test_a_volume_with_a_gap_is_left_out(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, "axial", shares={"train": 40.0, "heldout": 20.0, "val": 10.0, "test": 30.0})
    rows = dataset.split("test")
    first, second = sorted({row.case for row in rows})[:2]
    some = [row for row in rows if row.case == second or (row.case == first and row.slice not in (4, 5))]
    samples = sampled(dataset, tmp_path / "samples", "png", some)
    done = export_nnunet(samples, tmp_path / "out", stack=True)
    assert done.cases == 1 and done.left_out == (f"{first}_00 lacks slices 4, 5",)
    assert [p.name for p in (tmp_path / "out" / "labelsTr").iterdir()] == [f"{second}_00.nii.gz"]
    alone = sampled(dataset, tmp_path / "alone", "png", [row for row in some if row.case == first])
    with pytest.raises(DataError, match=f"no volume without gaps between slices: {first}_00 lacks.*--count"):
        export_nnunet(alone, tmp_path / "none", stack=True)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", ["samples-png", "samples-paper"])
def test_sets_of_version_one_take_their_places_from_the_data_set(tmp_path: Path, name: str) -> None:
    samples, dataset = SampleSet.open(OLD / name), PreparedDataset.open(OLD / "dataset")
    with pytest.raises(DataError, match=r"does not record the position and units of its images.*--dataset DATASET"):
        export_nnunet(samples, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    export_nnunet(samples, tmp_path / "out", dataset=dataset)
    line = samples.entries[0]
    row = next(row for row in dataset.rows if (row.case, row.slice) == (line.case, line.slice))
    place = Placement.of(dataset, row)
    made = nibabel.load(tmp_path / "out" / "imagesTr" / f"{line.id}_0000.nii.gz")
    expected = place.image(samples.image(line))
    assert np.array_equal(np.asarray(made.dataobj), expected.array) and np.allclose(made.affine, expected.affine)
    assert made.header.get_zooms()[2] == 2.5
    other = prepared(tmp_path, "axial")
    with pytest.raises(DataError, match="is not the data set of the label maps of"):
        export_nnunet(samples, tmp_path / "wrong", dataset=other)


def test_drawn_maps_get_what_is_typical(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, "sagittal")
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps" / "a.npy", np.ones((32, 32), np.uint8))
    source = FolderMaps(tmp_path / "maps", ModelSpec(dataset.schema, dataset.size))
    requests = Plan(dataset.schema.states()).requests(source)
    samples = write_sample_set(RealImages(dataset), requests, tmp_path / "samples")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="--dataset DATASET"):
        export_nnunet(samples, tmp_path / "out")
    export_nnunet(samples, tmp_path / "out", dataset=dataset)
    made = nibabel.load(tmp_path / "out" / "imagesTr" / "a_00_0000.nii.gz")
    assert np.allclose(made.header.get_zooms(), (0.8, 2.5, 1.2)) and made.shape == (32, 32, 1)
    values = np.asarray(made.dataobj)
    assert values.dtype == np.int16 and -200 <= values.min() < -190 and 590 < values.max() <= 600


def test_from_the_command_line(cli: Any, tmp_path: Path) -> None:
    dataset = prepared(tmp_path, "axial")
    samples = sampled(dataset, tmp_path / "samples", "png")
    code, said, err = cli("export", samples.folder, tmp_path / "out", "--to", "nnunet", "--stack")
    assert code == 0, err
    cases = len({row.case for row in dataset.split("test")})
    assert f"{cases} cases of {len(samples.entries)} slices, classes ball, core" in said
    code, said, err = cli("export", OLD / "samples-png", tmp_path / "old", "--to", "nnunet")
    assert code == 2 and "--dataset DATASET" in err and len(err.strip().splitlines()) == 1
