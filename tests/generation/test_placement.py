"""Out again: a sample in the place and the units of the scan that its label map is from."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from anatogen.data.placement import Placement, item_of, to_model
from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import open_source
from anatogen.data.store import PreparedDataset
from anatogen.errors import DataError, SettingsError
from anatogen.generation.engine import Generator
from anatogen.generation.plan import requests_from_dataset
from anatogen.generation.request import Request
from anatogen.generation.sample_set import SampleSet, write_sample_set
from anatogen.interop.nnunet_export import export_nnunet
from conftest import pseudonym


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal", "volume"])
def test_a_real_item_goes_back_onto_its_scan(nnunet: Path, tmp_path: Path, axis: str) -> None:
    """A prepared item, treated as if it had been generated, lies voxel for voxel on the scan, in HU."""
    size = (32, 32, 32) if axis == "volume" else (32, 32)
    settings = PrepareSettings(size, "axial" if axis == "volume" else axis, "crop", keep_empty=True)
    dataset = prepare(open_source(str(nnunet)), tmp_path / "data", settings)
    case = pseudonym(dataset, "ball_004")
    row = next(r for r in dataset.rows if r.case == case and r.slice == (0 if axis == "volume" else 7))
    batch = dataset.load([row])
    place = Placement.of(dataset, row)
    image, labels = place.image(batch.images[0].numpy()), place.labels(batch.labels[0].numpy())
    scan = nibabel.load(nnunet / "imagesTr" / "ball_004_0000.nii.gz")
    truth = np.asarray(nibabel.load(nnunet / "labelsTr" / "ball_004.nii.gz").dataobj)
    hounsfield = np.asarray(scan.dataobj)
    mapping = place.intensity[0]
    assert image.array.dtype == np.int16
    checked = 0
    for voxel in np.ndindex(*image.grid):
        world = image.affine @ [*voxel, 1]
        i, j, k = np.rint(np.linalg.solve(scan.affine, world)[:3]).astype(int)
        if 0 <= i < 20 and 0 <= j < 24 and 0 <= k < 12 and checked < 400:
            assert labels.array[voxel] == truth[i, j, k]
            assert abs(image.array[voxel] - np.clip(hounsfield[i, j, k], mapping.low, mapping.high)) <= 0.51
            checked += 1
    assert checked > 100
    again = to_model(item_of(image, axis), [mapping.low], [mapping.high])
    assert np.abs(again - batch.images[0].numpy()).max() < 1.1 / (mapping.high - mapping.low)


@pytest.fixture
def generator(run_folder: Path) -> Generator:
    return Generator.load(run_folder, device="cpu")


def test_nifti_samples(generator: Generator, dataset: PreparedDataset, tmp_path: Path) -> None:
    rows = dataset.split("test")[:3]
    requests = requests_from_dataset(dataset, rows, dataset.schema.states())
    made = write_sample_set(generator, requests, tmp_path / "out", image_format="nifti")
    direct = np.stack([image for _, image in generator.generate(requests)])
    steps = [m.high - m.low for m in dataset.info.cases[rows[0].case].intensity]
    assert np.abs(made.images() - direct).max() <= 1.1 / min(steps)
    assert np.array_equal(made.labels(), np.stack([r.labels for r in requests]))
    file = nibabel.load(tmp_path / "out" / made.entries[1].file)
    record = dataset.info.cases[rows[1].case]
    # The middle of the generated picture lies where the middle of the slice does.
    size, grid = np.array([32, 32, 1]), np.array(record.grid)
    middle = file.affine @ [*(size - 1) / 2, 1]
    expected = np.array(record.affine) @ [(grid[0] - 1) / 2, (grid[1] - 1) / 2, rows[1].slice, 1]
    assert np.allclose(middle, expected, atol=1e-4)
    assert np.allclose(file.header.get_zooms(), record.spacing_mm, atol=1e-4)


def test_nifti_needs_a_scan(generator: Generator, tmp_path: Path) -> None:
    request = Request(np.zeros((32, 32), np.int64), generator.schema.states(), 0, id="drawn")
    with pytest.raises(DataError, match="drawn has no place in a scan"):
        write_sample_set(generator, [request], tmp_path / "out", image_format="nifti")


@pytest.mark.parametrize("image_format", ["png", "nifti"])
def test_export_passes_the_integrity_check_of_nnunet(
    generator: Generator, dataset: PreparedDataset, tmp_path: Path, image_format: str
) -> None:
    """The points of nnunetv2's verify_dataset_integrity: counts, names, shapes, affines, labels, no NaN."""
    requests = requests_from_dataset(dataset, dataset.split("test")[:4], dataset.schema.states())
    samples = write_sample_set(generator, requests, tmp_path / "samples", image_format=image_format)
    out = export_nnunet(samples, tmp_path / "Dataset501_Synthetic").out
    description = json.loads((out / "dataset.json").read_text())
    assert {"channel_names", "labels", "numTraining", "file_ending"} <= description.keys()
    values = sorted(description["labels"].values())
    assert values == list(range(len(values))) and description["labels"]["background"] == 0
    images, labels = sorted((out / "imagesTr").iterdir()), sorted((out / "labelsTr").iterdir())
    assert len(images) == len(labels) == description["numTraining"] == 4
    for image_file, label_file in zip(images, labels, strict=True):
        assert image_file.name == label_file.name.replace(".nii.gz", "_0000.nii.gz")
        image, label = nibabel.load(image_file), nibabel.load(label_file)
        assert image.shape == label.shape and len(image.shape) == 3
        assert np.allclose(image.affine, label.affine) and np.allclose(
            image.header.get_zooms(), label.header.get_zooms()
        )
        assert np.isfinite(image.get_fdata()).all() and image.get_fdata().std() > 0
        assert set(np.unique(label.dataobj)) <= set(values)
    reopened = open_source(str(out))
    assert reopened.schema.names == dataset.schema.names and len(reopened.cases) == 4
    assert np.array_equal(
        reopened.cases[0].load()[1].array.squeeze().T,
        samples.label_map(sorted(samples.entries, key=lambda e: e.id)[0]),
    )


def test_sagittal_slices_are_slices_for_nnunet_too(nnunet: Path, tmp_path: Path) -> None:
    """Its 2D configuration cuts along the last axis of a file: a sagittal slice must lie there whole, in its place."""
    from anatogen.training.config import build_settings
    from anatogen.training.train import train
    from conftest import SMALL

    dataset = prepare(open_source(str(nnunet)), tmp_path / "data", PrepareSettings((32, 32), "sagittal"))
    generator = Generator.load(train(dataset, tmp_path / "run", build_settings(values=SMALL), device="cpu"))
    requests = requests_from_dataset(dataset, dataset.split("test")[:1], dataset.schema.states())
    samples = write_sample_set(generator, requests, tmp_path / "samples", image_format="nifti")
    out = export_nnunet(samples, tmp_path / "raw").out
    name = samples.entries[0].id
    before = nibabel.load(samples.folder / samples.entries[0].labels)
    image, after = (nibabel.load(out / f) for f in (f"imagesTr/{name}_0000.nii.gz", f"labelsTr/{name}.nii.gz"))
    assert before.shape[0] == 1 and image.shape == after.shape == (32, 32, 1)
    drawn = np.argwhere(np.asarray(before.dataobj) == 1)
    there = [np.linalg.solve(after.affine, before.affine @ [*voxel, 1])[:3] for voxel in drawn]
    assert len(drawn) and all(after.dataobj[tuple(np.rint(place).astype(int))] == 1 for place in there)


def test_free_classes_are_not_exported_as_truth(generator: Generator, dataset: PreparedDataset, tmp_path: Path) -> None:
    requests = requests_from_dataset(dataset, dataset.split("test")[:1], dataset.schema.states(free=["core"]))
    samples = write_sample_set(generator, requests, tmp_path / "samples")
    with pytest.raises(DataError, match="core left free"):
        export_nnunet(samples, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    whole = SampleSet(samples.folder, samples.header, [samples.entries[0].model_copy(update={"free": ()})])
    unconditional = SampleSet(samples.folder, samples.header.model_copy(update={"sees_labels": False}), whole.entries)
    with pytest.raises(DataError, match="made by an unconditional model"):
        export_nnunet(unconditional, tmp_path / "out")
    export_nnunet(whole, tmp_path / "out")
    with pytest.raises(SettingsError, match="already exists"):
        export_nnunet(whole, tmp_path / "out")


@pytest.mark.parametrize("axis", ["axial", "sagittal"])
def test_dicom_samples_are_whole_and_clearly_synthetic(nnunet: Path, tmp_path: Path, axis: str) -> None:
    """The identity is new; nothing of the scan comes along but its grid; image and label map read back as they were."""
    import pydicom

    dataset = prepare(open_source(str(nnunet)), tmp_path / "data", PrepareSettings((32, 32), axis, "crop"))
    from anatogen.training.config import build_settings
    from anatogen.training.train import train

    values = ["network.width=8", "training.steps=2", "training.batch_size=2", "sampling.steps=2"]
    generator = Generator.load(
        train(dataset, tmp_path / "run", build_settings(values=values), device="cpu"), device="cpu"
    )
    rows = dataset.split("test")[:2]
    requests = requests_from_dataset(dataset, rows, dataset.schema.states(free=["core"]))
    made = write_sample_set(generator, requests, tmp_path / "out", image_format="dicom")
    direct = np.stack([image for _, image in generator.generate(requests)])
    mapping = dataset.info.cases[rows[0].case].intensity[0]
    assert np.abs(made.images() - direct).max() <= 1.1 / (mapping.high - mapping.low)
    asked = np.stack([r.labels for r in requests])
    assert np.array_equal(made.labels(), np.where(asked == 2, 0, asked))  # the free class is not claimed
    [file] = (tmp_path / "out" / made.entries[0].file).glob("*.dcm")
    header = pydicom.dcmread(file)
    assert header.Modality == "CT" and header.PatientName == "SYNTHETIC^ANATOGEN"
    assert header.PatientID.startswith("SYN-") and header.ImageType[0] == "DERIVED"
    assert rows[0].case not in header.to_json()
    uids = {pydicom.dcmread(f).StudyInstanceUID for f in (tmp_path / "out" / "images").rglob("*.dcm")}
    assert len(uids) == 2
