"""The kinds of data that users bring, from their files to the prepared set: read, or refused with the true reason."""

from __future__ import annotations

import re
from pathlib import Path

import blosc2
import nibabel
import numpy as np
import pytest

import kinds
from anatogen.check import check
from anatogen.data.augment import Augment, AugmentSettings
from anatogen.data.intensity import IntensityRule
from anatogen.data.placement import Placement
from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.relabel import relabelled
from anatogen.data.sources import open_source
from anatogen.data.sources.declared import schema_of
from anatogen.data.store import PreparedDataset
from anatogen.errors import DataError, SettingsError

SHARES = {"train": 3.0, "heldout": 1.0, "val": 1.0, "test": 1.0}


def made(raw: Path, out: Path, **settings: object) -> PreparedDataset:
    how = {"size": (32, 32), "shares": SHARES, "workers": 1, "keep_names": True, **settings}
    return prepare(open_source(str(raw)), out, PrepareSettings(**how))  # type: ignore[arg-type]


def codes(location: Path) -> dict[str, str]:
    """What `check` finds: {code: severity}."""
    return {finding.code: finding.severity for finding in check(str(location)).findings}


def errors(location: Path) -> list[str]:
    return [f"{f.code} {f.file}: {f.what}" for f in check(str(location)).findings if f.severity == "error"]


# ---- the Decathlon's layout


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_the_decathlon_is_read_with_its_channels_in_the_last_axis(tmp_path: Path, channels: int) -> None:
    raw = kinds.decathlon(tmp_path / "raw", channels=channels)
    source = open_source(str(raw))
    assert source.layout == "decathlon" and source.schema.names == ("a", "b")
    assert source.channels == tuple(f"M{c}" for c in range(channels))
    assert errors(raw) == []
    dataset = made(raw, tmp_path / "out")
    image, labels = kinds.blob(0)
    row = next(row for row in dataset.rows if row.case == "x_000" and row.slice == 3)
    stored = blosc2.open(str(tmp_path / "out" / "images.b2nd"))[row.row]
    assert stored.shape == (channels, 32, 32)
    for c in range(channels):  # the canonical axes run to left and posterior, the array's to right and anterior
        plane = (image[::-1, ::-1, ::-1] + 50 * c)[:, :, 3].T
        assert np.array_equal(stored[c][3:29, 4:28], plane)
    assert dataset.load([row]).labels.sum() == labels[:, :, 2].sum()


def test_a_list_of_the_decathlon_that_names_what_is_not_there(tmp_path: Path) -> None:
    raw = kinds.decathlon(tmp_path / "raw")
    (raw / "labelsTr" / "x_002.nii.gz").unlink()
    assert errors(raw) == ["unreadable labelsTr/x_002.nii.gz: does not exist"]
    kinds.save(raw / "imagesTr" / "x_003.nii.gz", np.zeros((*kinds.SHAPE, 3), np.int16))
    assert any("x_003.nii.gz: has shape (24, 26, 6, 3)" in line for line in errors(raw))


def test_files_that_the_list_does_not_name(tmp_path: Path) -> None:
    raw = kinds.decathlon(tmp_path / "raw")
    kinds.save(raw / "imagesTr" / "x_099.nii.gz", kinds.blob(0)[0])
    assert codes(raw)["file-not-listed"] == "warning" and errors(raw) == []


def test_a_single_channel_may_lie_in_a_fourth_axis(tmp_path: Path) -> None:
    raw = kinds.nnunet(tmp_path / "raw")
    kinds.save(raw / "imagesTr" / "c0_0000.nii.gz", kinds.blob(0)[0][..., None])
    assert errors(raw) == [] and len(made(raw, tmp_path / "out").info.cases) == 6


# ---- regions, gaps, and what is to be ignored


def test_regions_become_classes_and_ignored_voxels_are_no_class(tmp_path: Path) -> None:
    raw = kinds.regions_ignore(tmp_path / "raw")
    assert errors(raw) == []
    dataset = made(raw, tmp_path / "out")
    assert dataset.schema.names == ("whole without core", "core")
    assert dataset.info.ignored == 255
    rows = [row for row in dataset.rows if row.case == "c5"]
    batch = dataset.load(rows)
    assert batch.ignored is not None and batch.ignored.shape == batch.labels.shape
    # 5 x 7 voxels of each slice, at the corner of the padded image that they came to
    assert batch.ignored.flatten(1).sum(1).tolist() == [35] * len(rows)
    assert not batch.labels[batch.ignored].any() and batch.labels.max() == 2
    stored = blosc2.open(str(tmp_path / "out" / "labels.b2nd"))[rows[0].row]
    assert (stored == 255).sum() == 35  # readable without this package
    assert dataset.load([row for row in dataset.rows if row.case == "c0"]).ignored.sum() == 0  # type: ignore[union-attr]


def test_a_data_set_without_an_ignore_label_has_no_mask(dataset: PreparedDataset) -> None:
    assert dataset.info.ignored is None and dataset.load(dataset.rows[:2]).ignored is None


def test_slices_with_nothing_but_unknown_voxels_are_left_out(tmp_path: Path) -> None:
    def change(number: int, labels: np.ndarray) -> np.ndarray:
        labels[:, :, :2] = 3
        return labels

    labels = {"background": 0, "a": 1, "b": 2, "ignore": 3}
    raw = kinds.nnunet(tmp_path / "raw", change=change, labels=labels)
    few, every = made(raw, tmp_path / "few"), made(raw, tmp_path / "all", keep_empty=True)
    assert {row.slice for row in few.rows} <= {0, 1, 2, 3} and len(every.rows) == 6 * 6
    empty = every.load([row for row in every.rows if row.slice >= 4])
    assert empty.ignored is not None and bool(empty.ignored.flatten(1).sum(1).eq(24 * 26).all())


def test_ignored_voxels_move_with_their_image(tmp_path: Path) -> None:
    dataset = made(kinds.regions_ignore(tmp_path / "raw"), tmp_path / "out")
    batch = dataset.load([row for row in dataset.rows if row.case == "c5"])
    turned = Augment(AugmentSettings(rotation_degrees=40, flip_left_right=True))(batch, seed=3)
    assert turned.ignored is not None and batch.ignored is not None
    assert not torch_equal(turned.ignored, batch.ignored)
    assert 20 <= int(turned.ignored[0].sum()) <= 50 and not turned.labels[turned.ignored].any()
    assert set(turned.labels.unique().tolist()) <= {0, 1, 2}


def torch_equal(a: object, b: object) -> bool:
    return bool((a == b).all())  # type: ignore[attr-defined]


def test_values_with_gaps_are_kept_for_the_way_back(tmp_path: Path) -> None:
    raw = kinds.brats(tmp_path / "raw")
    assert errors(raw) == []
    dataset = made(raw, tmp_path / "out")
    assert dataset.schema.names == ("core without enhancing", "whole without core", "enhancing")
    assert dataset.schema.values == (0, 1, 2, 4)
    assert dataset.info.source["labels"]["values"] == [0, 1, 2, 4]
    assert PreparedDataset.open(tmp_path / "out").schema == dataset.schema
    for row in dataset.rows:
        labels = np.asarray(nibabel.load(raw / "labelsTr" / f"{row.case}.nii.gz").dataobj)[::-1, ::-1, ::-1]
        ours = dataset.load([row]).labels[0].numpy()[3:29, 4:28]
        assert np.array_equal(np.array(dataset.schema.values)[ours], labels[:, :, row.slice].T)


def test_a_value_that_is_not_declared_is_named(tmp_path: Path) -> None:
    raw = kinds.brats(tmp_path / "raw")
    labels = np.asarray(nibabel.load(raw / "labelsTr" / "c3.nii.gz").dataobj).copy()
    labels[0, 0, 0] = 3
    kinds.save(raw / "labelsTr" / "c3.nii.gz", labels)
    assert errors(raw) == ["unreadable labelsTr/c3.nii.gz: contains label 3, but only 0, 1, 2, 4 are declared"]
    with pytest.raises(DataError, match="c3.nii.gz: contains label 3, but only 0, 1, 2, 4 are declared"):
        made(raw, tmp_path / "out")


@pytest.mark.parametrize(
    ("labels", "names", "values"),
    [
        ({"background": 0, "a": 7, "b": 3}, ("b", "a"), (0, 3, 7)),
        ({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "in": 3}, ("whole without core", "core without in", "in"), (0, 1, 2, 3)),
        ({"background": 0, "a": [1, 3], "b": [2, 3]}, ("a without b", "b without a", "a and b"), (0, 1, 2, 3)),
        ({"background": 0, "a": [1, 2], "b": 3}, ("a", "b"), (0, 1, 3)),  # what no region tells apart is one class
        ({"0": "background", "1": "a", "4": "b"}, ("a", "b"), (0, 1, 4)),
    ],
)  # fmt: skip
def test_classes_of_declared_labels(labels: dict[str, object], names: tuple[str, ...], values: tuple[int, ...]) -> None:
    schema = schema_of({"labels": labels}, Path("dataset.json"))
    assert schema.names == names and schema.values == values and schema.ignored is None


def test_more_classes_than_a_byte_holds(tmp_path: Path) -> None:
    many = {"background": 0, **{f"n{i}": i for i in range(1, 301)}, "ignore": 301}

    def change(number: int, labels: np.ndarray) -> np.ndarray:
        wide = labels.astype(np.uint16)
        wide[0, :, 3], wide[1, 0, 3], wide[labels == 2] = 301, 300, 255
        return wide

    dataset = made(kinds.nnunet(tmp_path / "raw", change=change, labels=many), tmp_path / "out")
    batch = dataset.load([row for row in dataset.rows if row.case == "c0"])
    assert dataset.info.ignored == 65535 and batch.ignored is not None
    assert {300, 255, 1} <= set(batch.labels.unique().tolist()) and int(batch.ignored.sum()) == 26


def test_renamed_and_dropped_classes_keep_their_values(tmp_path: Path) -> None:
    raw = kinds.regions_ignore(tmp_path / "raw")
    changed = relabelled(open_source(str(raw)), ["heart=core"], ["whole without core"])
    assert changed.schema.names == ("heart",) and changed.schema.values == (0, 2)
    labels = changed.cases[5].load()[1].array
    assert set(np.unique(labels)) == {0, 1, 255} and changed.schema.ignored == 255


# ---- labels that a scale factor or a resampling changed


def test_scaled_labels_are_rounded_with_a_note(tmp_path: Path) -> None:
    raw = kinds.scaled_labels(tmp_path / "raw")
    values = np.unique(np.asarray(nibabel.load(raw / "labelsTr" / "c0.nii.gz").dataobj))
    assert 0.9 < values[1] < 1
    assert errors(raw) == [] and codes(raw)["labels-rounded"] == "note"
    dataset = made(raw, tmp_path / "out")
    plain = made(kinds.nnunet(tmp_path / "plain"), tmp_path / "expected")
    assert torch_equal(dataset.load(dataset.rows).labels, plain.load(plain.rows).labels)
    assert "not exact integers (0.99" in dataset.info.cases["c0"].remarks[0]
    merged = relabelled(open_source(str(raw)), ["all=a+b"])
    assert set(np.unique(merged.cases[0].load()[1].array)) == {0, 1}


def test_blurred_labels_are_refused_with_a_value_that_shows_it(tmp_path: Path) -> None:
    raw = kinds.blurred_labels(tmp_path / "raw")
    found = [f for f in check(str(raw)).findings if f.code == "labels-fractional"]
    assert len(found) == 6 and all(re.match(r"label [01]\.(49|5)", f.what) for f in found)
    with pytest.raises(
        DataError, match=r"c\d.nii.gz: label [01]\.[45]\d* is not a whole number but between two classes"
    ):
        made(raw, tmp_path / "out")


def test_labels_that_are_no_numbers(tmp_path: Path) -> None:
    raw = kinds.nnunet(tmp_path / "raw", change=lambda n, labels: np.where((labels > 1) & (n == 1), np.nan, labels))
    assert codes(raw)["labels-not-finite"] == "error"
    with pytest.raises(DataError, match="c1.nii.gz: contains labels that are NaN"):
        made(raw, tmp_path / "out")


def test_labelled_slices_of_one_value_are_found(tmp_path: Path) -> None:
    raw = kinds.nnunet(tmp_path / "raw")
    image = kinds.blob(0)[0]
    image[:, :, 3] = 0
    kinds.save(raw / "imagesTr" / "c0_0000.nii.gz", image)
    [found] = [f for f in check(str(raw)).findings if f.code == "slices-constant"]
    assert found.file == "imagesTr/c0_0000.nii.gz" and "1 of 6 slices" in found.what


# ---- what headers say of the place


def test_forms_that_disagree_are_reported(tmp_path: Path) -> None:
    raw = kinds.two_forms(tmp_path / "raw")
    findings = {(f.code, f.file): f for f in check(str(raw)).findings}
    disagree = findings["forms-disagree", "imagesTr/c2_0000.nii.gz"]
    assert disagree.severity == "warning" and "mm" in disagree.what
    mixed = findings["forms-mixed", "labelsTr/c1.nii.gz"]
    assert "qform" in mixed.what and "sform" in mixed.what
    assert errors(raw) == [] and len(findings) == len({key for key in findings if key[0] != "few-patients"}) + 1
    record = made(raw, tmp_path / "out").info.cases
    assert np.allclose(record["c1"].affine, record["c0"].affine)
    assert "disagree" in record["c2"].remarks[0] and record["c1"].remarks == []


def test_a_header_without_any_form_is_reported(tmp_path: Path) -> None:
    raw = kinds.nnunet(tmp_path / "raw")
    for path in (raw / "imagesTr" / "c0_0000.nii.gz", raw / "labelsTr" / "c0.nii.gz"):
        image = nibabel.load(path)
        image.header["sform_code"] = image.header["qform_code"] = 0
        nibabel.save(nibabel.Nifti1Image(image.dataobj, None, image.header), path)
    assert codes(raw)["form-missing"] == "warning"


def test_a_quaternion_a_hair_too_long_is_read_with_a_note(tmp_path: Path) -> None:
    raw = kinds.nnunet(tmp_path / "raw")
    path = raw / "imagesTr" / "c3_0000.nii.gz"
    kinds.with_quaternion(path, b=np.sqrt(0.5), c=np.sqrt(0.5 + 1e-6))
    kinds.with_quaternion(raw / "labelsTr" / "c3.nii.gz", b=np.sqrt(0.5), c=np.sqrt(0.5 + 1e-6))
    with pytest.raises(ValueError, match="w2"):
        _ = nibabel.load(path).affine
    assert errors(raw) == [] and codes(raw)["quaternion-rounded"] == "note"
    affine = np.asarray(made(raw, tmp_path / "out").info.cases["c3"].affine)
    assert np.allclose(np.linalg.norm(affine[:3, :3], axis=0), (0.8, 0.8, 3))
    kinds.with_quaternion(path, b=0.9, c=0.6)
    assert any("the quaternion is longer than one" in line for line in errors(raw))


def test_columns_off_by_rounding_are_read_with_a_note(tmp_path: Path) -> None:
    affine = kinds.AFFINE.copy()
    affine[0, 1] = 1e-4
    raw = kinds.sheared(tmp_path / "raw", affine)
    assert errors(raw) == [] and codes(raw)["affine-rounded"] == "note"
    assert len(made(raw, tmp_path / "out").info.cases) == 6


@pytest.mark.parametrize("what", ["shear", "gantry"])
def test_a_shear_is_reported_and_kept(tmp_path: Path, what: str) -> None:
    affine = kinds.tilted(15)
    if what == "shear":
        affine = kinds.AFFINE.copy()
        affine[0, 1] = 0.02
    raw = kinds.sheared(tmp_path / "raw", affine)
    assert errors(raw) == [] and codes(raw)["sheared"] == "warning"
    dataset = made(raw, tmp_path / "out")
    place = Placement.of(dataset, dataset.rows[0])
    columns = place.labels(np.zeros((32, 32), np.uint8)).affine[:3, :3]
    assert np.allclose(np.abs(columns), np.abs(affine[:3, :3]))  # never straightened
    assert "off right angles" in dataset.info.cases["c0"].remarks[0]


# ---- several channels


@pytest.mark.parametrize("count", [2, 3, 5])
def test_any_number_of_channels_is_kept_in_16_bits(tmp_path: Path, count: int) -> None:
    raw = kinds.channels(tmp_path / "raw", count)
    assert errors(raw) == []
    dataset = made(raw, tmp_path / "out", intensity=IntensityRule(window=(0, 900)))
    stored = blosc2.open(str(tmp_path / "out" / "images.b2nd"))
    row = next(row for row in dataset.rows if row.case == "c1")
    for c in range(count):
        image = np.asarray(nibabel.load(raw / "imagesTr" / f"c1_{c:04d}.nii.gz").dataobj)[::-1, ::-1, ::-1]
        assert np.array_equal(stored[row.row][c][3:29, 4:28], image[:, :, row.slice].T)
    assert dataset.load([row]).images.shape == (1, count, 32, 32)


# ---- one field of view, centred on the labels


def test_a_field_of_view_shows_every_label_with_its_margin(tmp_path: Path) -> None:
    raw = kinds.nnunet(tmp_path / "raw")
    dataset = made(raw, tmp_path / "out", size=(24, 24), crop_margin_mm=1.6, fit="crop")
    view = dataset.info.field_of_view
    boxes = []
    for case in open_source(str(raw)).cases:
        drawn = np.argwhere(case.load()[1].array)
        boxes.append(np.ptp(drawn, axis=0) + 1)
    largest = np.max(boxes, axis=0)
    assert view is not None and view[:2] == (largest[:2] + 4).tolist() and view[2] == largest[2] + 2
    for name, record in dataset.info.cases.items():
        assert record.grid == view and record.crop is not None
        rows = [row for row in dataset.rows if row.case == name]
        labels = dataset.load(rows).labels
        assert int(labels.sum()) == open_source(str(raw)).cases[int(name[1:])].load()[1].array.sum()  # nothing is cut
        filled = labels.amax(dim=0).nonzero().float()
        middle = (filled.amin(dim=0) + filled.amax(dim=0) + 1) / 2
        assert bool((middle - 12).abs().le(1).all())


def test_a_sample_lands_in_the_place_of_the_scan(tmp_path: Path) -> None:
    raw = kinds.sheared(tmp_path / "raw", kinds.tilted(10))
    dataset = made(raw, tmp_path / "out", size=(20, 24), crop_margin_mm=3, fit="crop")
    for row in dataset.rows[::5]:
        place = Placement.of(dataset, row)
        found = place.labels(dataset.load([row]).labels[0].numpy())
        scan = nibabel.load(raw / "labelsTr" / f"{row.case}.nii.gz")
        truth = np.asarray(scan.dataobj)
        there = np.argwhere(found.array)
        assert len(there)
        at = np.linalg.inv(scan.affine) @ found.affine @ np.c_[there, np.ones(len(there))].T
        voxels = np.rint(at[:3]).astype(int)
        assert np.allclose(at[:3], voxels, atol=1e-4)
        assert np.array_equal(truth[tuple(voxels)], found.array[tuple(there.T)])


def test_cases_of_different_spacing_are_cropped_to_one_scale(tmp_path: Path) -> None:
    raw = kinds.nnunet(tmp_path / "raw")
    for folder, name in (("imagesTr", "c2_0000.nii.gz"), ("labelsTr", "c2.nii.gz")):
        path = raw / folder / name
        array = np.asarray(nibabel.load(path).dataobj)
        kinds.save(path, np.repeat(np.repeat(array, 2, 0), 2, 1), np.diag([0.4, 0.4, 3, 1.0]))
    dataset = made(raw, tmp_path / "out", crop_margin_mm=2, fit="crop")
    assert dataset.info.spacing_mm == [0.8, 0.8, 3.0]
    sizes = {
        name: np.abs(np.asarray(r.affine)[:3, :3]).max(axis=0).round(3).tolist()
        for name, r in dataset.info.cases.items()
    }
    assert set(map(tuple, sizes.values())) == {(0.8, 0.8, 3.0)}
    own, double = (
        sum(int((dataset.load([row]).labels > 0).sum()) for row in dataset.rows if row.case == case)
        for case in ("c2", "c2")
    )
    assert own == double == int((kinds.blob(2)[1] > 0).sum())


@pytest.mark.parametrize("margin", [-1, 5000])
def test_a_margin_out_of_range(tmp_path: Path, margin: float) -> None:
    with pytest.raises(SettingsError, match="--crop-to-labels"):
        made(kinds.nnunet(tmp_path / "raw"), tmp_path / "out", crop_margin_mm=margin)
    assert not (tmp_path / "out").exists()


def test_nothing_to_crop_to(tmp_path: Path) -> None:
    raw = kinds.nnunet(tmp_path / "raw", change=lambda _, labels: np.zeros_like(labels))
    with pytest.raises(DataError, match="no case has a label to crop to"):
        made(raw, tmp_path / "out", crop_margin_mm=5)


def test_check_suggests_a_field_of_view_where_little_is_labelled(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    kinds.nnunet(raw)
    assert "labels-small" not in codes(raw)
    for number in range(6):
        image, labels = np.full((96, 104, 24), 100, np.int16), np.zeros((96, 104, 24), np.uint8)
        image[30:54, 40:66, 8:14], labels[30:54, 40:66, 8:14] = kinds.blob(number)
        image[0, 0, 0] = number
        kinds.save(raw / "imagesTr" / f"c{number}_0000.nii.gz", image)
        kinds.save(raw / "labelsTr" / f"c{number}.nii.gz", labels)
    [small] = [f for f in check(str(raw)).findings if f.code == "labels-small"]
    assert small.severity == "note" and "--crop-to-labels 5" in small.hint and "%" in small.what


def test_crop_to_labels_on_the_command_line(  # type: ignore[no-untyped-def]
    cli, tmp_path: Path
) -> None:
    raw = kinds.scaled_labels(tmp_path / "raw")
    words = ("prepare", raw, tmp_path / "out", "--size", 24, "--split", "train=1", "--workers", 1, "--keep-names")
    code, out, err = cli(*words, "--crop-to-labels", 2)
    assert code == 0, err
    assert "Field of view of every case, centred on its labels: " in out and " voxels)" in out
    assert re.search(r"c\d( and \d more)?: contains labels that are not exact integers \(0.99", out)
    code, _, err = cli("prepare", raw, tmp_path / "bad", "--split", "train=1", "--crop-to-labels", 2000)
    assert code == 2 and "--crop-to-labels must be 0 to 1000 mm, got 2000" in err and not (tmp_path / "bad").exists()
