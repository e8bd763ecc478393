from __future__ import annotations

import json
from pathlib import Path

import blosc2
import nibabel
import numpy as np
import pytest

from anatogen.data.intensity import IntensityRule
from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import open_source
from anatogen.data.sources.base import Source, SourceCase
from anatogen.data.store import PreparedDataset
from anatogen.errors import AnatogenError, DataError, OutputError, SettingsError
from anatogen.labels import LabelSchema
from anatogen.volume import Volume
from conftest import pseudonym, write_nnunet


def test_slices_show_the_patient_the_right_way_up(tmp_path: Path) -> None:
    """A cube marked at its right, its front and its top, in RAS: rows run downwards, columns to the patient's left."""
    labels = np.ones((8, 8, 8), dtype=np.uint8)
    image = np.zeros((8, 8, 8), dtype=np.int16)
    image[-1], image[:, -1], image[:, :, -1] = 100, 200, 300  # right, anterior, superior
    load = lambda: (Volume(image, np.eye(4)), Volume(labels, np.eye(4)))  # noqa: E731
    source = Source(
        "test", "cube", LabelSchema.from_names(["cube"]), ("T1",), (SourceCase("cube", "cube", load, split="train"),)
    )
    shown = {}
    for axis in ("axial", "coronal", "sagittal"):
        settings = PrepareSettings((8, 8), axis, "crop", IntensityRule(window=(0, 300)))
        dataset = prepare(source, tmp_path / axis, settings)
        shown[axis] = ((dataset.load([dataset.rows[4]]).images[0, 0] + 1) * 150).round().int().numpy()
    assert (shown["axial"][0, 1:] == 200).all() and (shown["axial"][1:, 0] == 100).all()
    assert (shown["coronal"][0] == 300).all() and (shown["coronal"][1:, 0] == 100).all()
    assert (shown["sagittal"][0] == 300).all() and (shown["sagittal"][1:, 0] == 200).all()


def test_a_case_keeps_intensities_labels_and_place(nnunet: Path, tmp_path: Path) -> None:
    dataset = prepare(open_source(str(nnunet)), tmp_path / "out", PrepareSettings((32, 32), "axial", keep_empty=True))
    stored = blosc2.open(str(tmp_path / "out" / "images.b2nd"))
    labels = blosc2.open(str(tmp_path / "out" / "labels.b2nd"))
    raw = nibabel.load(nnunet / "imagesTr" / "ball_003_0000.nii.gz")
    truth = nibabel.load(nnunet / "labelsTr" / "ball_003.nii.gz")
    record = dataset.info.cases[pseudonym(dataset, "ball_003")]
    assert record.intensity[0].slope == 1
    rows = [row for row in dataset.rows if row.case == pseudonym(dataset, "ball_003")]
    assert len(rows) == 12
    for row in rows:
        world = np.array(record.affine) @ [5, 7, row.slice, 1]
        i, j, k = np.rint(np.linalg.solve(raw.affine, world)[:3]).astype(int)
        place = (7 + (32 - 24) // 2, 5 + (32 - 20) // 2)
        assert stored[row.row][0][place] == np.asarray(raw.dataobj)[i, j, k]
        assert labels[row.row][place] == np.asarray(truth.dataobj)[i, j, k]


def test_patients_never_cross_splits(dataset: PreparedDataset) -> None:
    by_patient: dict[str, set[str]] = {}
    for row in dataset.rows:
        by_patient.setdefault(row.patient, set()).add(row.split)
    assert len(by_patient) == 8
    assert all(len(splits) == 1 for splits in by_patient.values())


def test_empty_slices_are_left_out_unless_asked_for(nnunet: Path, tmp_path: Path) -> None:
    source = open_source(str(nnunet))
    few = prepare(source, tmp_path / "few", PrepareSettings((32, 32), "sagittal"))
    all_ = prepare(source, tmp_path / "all", PrepareSettings((32, 32), "sagittal", keep_empty=True))
    assert len(all_.rows) == 8 * 20 > len(few.rows)
    assert all(few.load([row]).labels.any() for row in few.rows)


def test_partial_annotation_reaches_the_batch(tmp_path: Path) -> None:
    folder = write_nnunet(tmp_path / "raw", annotated_classes={"ball_000": ["ball"]})
    dataset = prepare(open_source(str(folder)), tmp_path / "out", PrepareSettings((32, 32)))
    for row in dataset.rows[:20]:
        wanted = [True, False] if row.case == pseudonym(dataset, "ball_000") else [True, True]
        assert dataset.load([row]).annotated[0].tolist() == wanted


def _damage(folder: Path, how: str) -> str:
    """Break the data set in `folder`; returns what the message must name."""
    label, image = folder / "labelsTr" / "ball_002.nii.gz", folder / "imagesTr" / "ball_002_0000.nii.gz"
    affine = nibabel.load(label).affine
    labels = np.asarray(nibabel.load(label).dataobj).copy()

    def put(array: np.ndarray, to: Path = label, with_affine: np.ndarray = affine) -> None:
        nibabel.save(nibabel.Nifti1Image(array, with_affine), to)

    if how == "label past the classes":
        labels[3, 3, 3] = 7
        put(labels)
        return "ball_002.nii.gz: contains label 7, but only classes 0 to 2 are declared"
    if how == "0/255 mask":
        put(np.where(labels > 0, 255, 0).astype(np.uint8))
        return "ball_002.nii.gz: contains label 255"
    if how == "other shape":
        put(labels[:-1])
        return "ball_002.nii.gz: label map of 19 x 24 x 12 voxels for an image of 20 x 24 x 12"
    if how == "other location":
        shifted = affine.copy()
        shifted[0, 3] = 40
        put(labels, with_affine=shifted)
        return "ball_002.nii.gz: image and label map have different positions"
    if how == "fractional labels":
        put(labels.astype(np.float32) * 0.5)
        return "ball_002.nii.gz: label 0.5 is not a whole number"
    if how == "truncated":
        image.write_bytes(image.read_bytes()[:2000])
        return "ball_002_0000.nii.gz: cannot be read as NIfTI"
    if how == "not NIfTI":
        image.write_bytes(b"hello" * 100)
        return "ball_002_0000.nii.gz: cannot be read as NIfTI"
    if how == "image missing":
        image.unlink()
        return "ball_002_0000.nii.gz: does not exist"
    if how == "NaN":
        bad = np.asarray(nibabel.load(image).dataobj).astype(np.float32)
        bad[0, 0, 0] = np.nan
        put(bad, image)
        return "ball_002_0000.nii.gz: the image contains NaN"
    if how == "4D":
        put(np.zeros((4, 4, 4, 3), np.int16), image)
        return "ball_002_0000.nii.gz: has shape"
    raise AssertionError(how)


@pytest.mark.parametrize(
    "how",
    ["label past the classes", "0/255 mask", "other shape", "other location", "fractional labels",
     "truncated", "not NIfTI", "image missing", "NaN", "4D"],
)  # fmt: skip
def test_bad_cases_are_named_and_leave_nothing_behind(nnunet: Path, tmp_path: Path, how: str) -> None:
    message = _damage(nnunet, how)
    with pytest.raises(AnatogenError) as caught:
        prepare(open_source(str(nnunet)), tmp_path / "out", PrepareSettings((32, 32)))
    assert message in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["Dataset001_Balls"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", 'has no "labels"'),
        ('{"labels": {"ball": 1, "core": 2}}', "no background"),
        ('{"labels": {"background": 0, "ball": 1, "core": 1}}', "two classes have the same value"),
        ('{"labels": {"background": 0, "ball": 1, "core": "2"}}', "label 'core' must be a whole number, got 2"),
        ('{"labels": {"background": 0, "ball": [1, 2.5]}}', "must be a whole number"),
        ('{"labels": {"background": 0, "ball": 1, "ignore": [2]}}', '"ignore" must be'),
        ('{"labels": {"background": 0, "ball": 1, "core": 2, "ignore": 2}}', 'both a class and "ignore"'),
        ('{"labels": {"background": 0, "ball": 1, "core": 2}, "file_ending": ".png"}', "'.png' is not supported"),
    ],
)
def test_bad_descriptions(nnunet: Path, text: str, message: str) -> None:
    (nnunet / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=message):
        open_source(str(nnunet))


def test_unknown_annotated_class(nnunet: Path) -> None:
    description = json.loads((nnunet / "dataset.json").read_text())
    (nnunet / "dataset.json").write_text(json.dumps({**description, "annotated_classes": {"ball_000": ["bal"]}}))
    with pytest.raises(SettingsError, match="'bal'.*'ball'"):
        open_source(str(nnunet))


def test_what_is_there_is_never_overwritten(dataset_folder: Path, nnunet: Path) -> None:
    before = (dataset_folder / "dataset.json").read_text()
    with pytest.raises(SettingsError, match="already exists"):
        prepare(open_source(str(nnunet)), dataset_folder, PrepareSettings((32, 32)))
    assert (dataset_folder / "dataset.json").read_text() == before


def test_damaged_store(nnunet: Path, tmp_path: Path) -> None:
    prepare(open_source(str(nnunet)), tmp_path / "out", PrepareSettings((32, 32)))
    (tmp_path / "out" / "index.csv").write_text("row,case\n")
    with pytest.raises(DataError, match="do not match"):
        PreparedDataset.open(tmp_path / "out")
    (tmp_path / "out" / "dataset.json").write_text("{}")
    with pytest.raises(DataError, match=r"is damaged \(classes: Field required\)"):
        PreparedDataset.open(tmp_path / "out")
    with pytest.raises(DataError, match="does not exist"):
        PreparedDataset.open(tmp_path / "nowhere")


def test_memory_and_disk_agree(dataset_folder: Path) -> None:
    disk, memory = PreparedDataset.open(dataset_folder), PreparedDataset.open(dataset_folder)
    assert memory.hold() and not disk.hold(limit_bytes=10)
    rows = disk.rows[::7]
    a, b = disk.load(rows), memory.load(rows)
    assert (a.images == b.images).all() and (a.labels == b.labels).all()
    assert a.images.min() >= -1 and a.images.max() <= 1


def test_brain_template_holds_out_a_slab() -> None:
    pytest.importorskip("nilearn")
    source = open_source("brain-template")
    assert source.schema.names == ("cerebrospinal fluid", "grey matter", "white matter")
    spans: dict[str, list[tuple[float, float]]] = {"outside": [], "slab": []}
    for case in [source.cases[0], source.cases[1], source.cases[-1]]:
        image, labels = case.load()
        low, high = image.affine[2, 3], image.affine[2, 3] + 2.0 * image.grid[2]
        spans["slab" if case.split in ("val", "test") else "outside"].append((low, high))
        assert set(np.unique(labels.array)) == {0, 1, 2, 3}
        assert (
            image.array[labels.array == 3].mean()
            > image.array[labels.array == 2].mean()
            > image.array[labels.array == 1].mean()
        )
    [(low, high)] = spans["slab"]
    assert all(b < low or a > high for a, b in spans["outside"])
    again = source.cases[0].load()[0].array
    assert np.array_equal(again, open_source("brain-template").cases[0].load()[0].array)


def test_volumes(nnunet: Path, tmp_path: Path) -> None:
    dataset = prepare(open_source(str(nnunet)), tmp_path / "out", PrepareSettings((16, 32, 32)))
    batch = dataset.load(dataset.rows[:3])
    assert batch.images.shape == (3, 1, 16, 32, 32) and batch.labels.shape == (3, 16, 32, 32)
    assert len(dataset.rows) == 8 and dataset.info.axis == "volume"


def test_workers_change_nothing(tmp_path: Path) -> None:
    source = open_source(str(write_nnunet(tmp_path / "raw", cases=14)))
    made = [prepare(source, tmp_path / f"w{n}", PrepareSettings((32, 32), workers=n)) for n in (1, 2)]
    assert made[0].rows == made[1].rows and made[0].info == made[1].info
    a, b = (d.load(d.rows) for d in made)
    assert (a.images == b.images).all() and (a.labels == b.labels).all()


def test_an_interrupted_preparation_is_gone_on_with(nnunet: Path, tmp_path: Path) -> None:
    source = open_source(str(nnunet))
    whole = prepare(source, tmp_path / "whole", PrepareSettings((32, 32)))

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(source, tmp_path / "out", PrepareSettings((32, 32)), progress=stop)
    assert not (tmp_path / "out").exists()
    with (tmp_path / ".out.partial" / "journal.jsonl").open("a") as file:
        file.write('{"case": "half a li')
    done: list[int] = []
    again = prepare(source, tmp_path / "out", PrepareSettings((32, 32)), progress=lambda i, n: done.append(i))
    assert done == [6, 7, 8] and again.rows == whole.rows and again.info == whole.info
    assert (again.load(again.rows).images == whole.load(whole.rows).images).all()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "dataset.json",
        "images.b2nd",
        "index.csv",
        "labels.b2nd",
        "names.csv",
    ]


def test_other_settings_begin_anew(nnunet: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    source = open_source(str(nnunet))
    with pytest.raises(KeyboardInterrupt):
        prepare(source, tmp_path / "out", PrepareSettings((32, 32)), progress=stop)
    done: list[int] = []
    prepare(source, tmp_path / "out", PrepareSettings((24, 24)), progress=lambda i, n: done.append(i))
    assert done[0] == 1


def test_a_target_that_cannot_be_written(nnunet: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        prepare(open_source(str(nnunet)), tmp_path / "file" / "out", PrepareSettings((32, 32)))


def test_licence_and_reference_come_along(tmp_path: Path) -> None:
    raw = write_nnunet(tmp_path / "raw", cases=3, licence="CC-BY-SA 4.0", reference="Simpson et al. 2019")
    shares = {"train": 1, "heldout": 1, "test": 1}
    source = prepare(open_source(str(raw)), tmp_path / "data", PrepareSettings((32, 32), shares=shares)).info.source
    assert source["licence"] == "CC-BY-SA 4.0" and source["reference"] == "Simpson et al. 2019"
