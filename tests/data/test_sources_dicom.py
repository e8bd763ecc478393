from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import LAYOUTS, Source, duke_breast, open_source
from anatogen.errors import DataError
from anatogen.volume import Volume, canonical, same_grid
from dicom_files import axial_affine, noise, segment_headers, turned_affine, write_nrrd, write_seg, write_series

SHAPE = (12, 10, 6)


def drawn(seed: int = 0, count: int = 2, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, count + 1, shape).astype(np.uint8)


def masks(labels: np.ndarray, *names: str) -> dict[str, np.ndarray]:
    return {name: labels == value for value, name in enumerate(names, start=1)}


def loaded(source: Source, case: str) -> tuple[Volume, Volume]:
    [found] = [c for c in source.cases if c.id == case]
    image, labels = found.load()
    assert same_grid(image, labels, 1e-6)
    return image, labels


def cohort(root: Path) -> Path:
    """Three patients:

    SEG beside the slices, SEG in a folder of its own in another order, and a series without a mask.
    """
    a = write_series(root / "p1" / "study" / "ct", noise(SHAPE, 1), axial_affine(), patient="ID 1")
    write_seg(root / "p1" / "study" / "ct" / "seg.dcm", a, masks(drawn(1), "liver", "kidney"))
    b = write_series(root / "p2" / "ct", noise(SHAPE, 2), turned_affine(2), patient="")
    write_seg(root / "p2" / "seg" / "1.dcm", b, masks(drawn(2), "bone", "liver"))
    write_series(root / "p2" / "scout", noise((5, 5, 1), 3), axial_affine(), patient="")
    return root


def test_series_with_segmentations(tmp_path: Path) -> None:
    source = open_source(str(cohort(tmp_path)))
    assert source.layout == "dicom" and source.channels == ("CT",)
    assert source.schema.names == ("liver", "kidney", "bone")
    assert [(c.id, c.patient, c.annotated) for c in source.cases] == [
        ("p1_study_ct", "ID 1", ("liver", "kidney")),
        ("p2_ct", "p2", ("liver", "bone")),
    ]
    assert "1 DICOM series without a mask" in source.notice
    for case, seed, values in (("p1_study_ct", 1, [0, 1, 2]), ("p2_ct", 2, [0, 3, 1])):
        image, labels = loaded(source, case)
        assert np.array_equal(image.array, noise(SHAPE, seed))
        assert np.array_equal(labels.array, np.array(values)[drawn(seed)])
    assert source.cases[0].files[-1].name == "seg.dcm"


def test_segmentations_reach_a_prepared_data_set(tmp_path: Path) -> None:
    for number in range(4):
        files = write_series(tmp_path / "in" / f"p{number}", noise(SHAPE, number), axial_affine(), patient=f"p{number}")
        write_seg(tmp_path / "in" / f"p{number}" / "seg.dcm", files, masks(drawn(number), "a", "b"))
    dataset = prepare(
        open_source(str(tmp_path / "in")), tmp_path / "out", PrepareSettings((16, 16), fit="crop", keep_names=True)
    )
    assert dataset.schema.names == ("a", "b") and len(dataset.rows) == 24
    row = next(r for r in dataset.rows if (r.patient, r.slice) == ("p1", 0))
    top = drawn(1)[:, :, -1].T  # canonical slices run from head to feet, rows downwards
    assert np.array_equal(dataset.load([row]).labels[0].numpy()[3:13, 2:14], top)


def test_several_segmentations_of_one_series(tmp_path: Path) -> None:
    files = write_series(tmp_path / "s", noise(SHAPE), axial_affine())
    for value, name in ((1, "liver"), (2, "kidney")):
        write_seg(tmp_path / "s" / f"seg{value}.dcm", files, {name: drawn() == value})
    source = open_source(str(tmp_path))
    assert source.schema.names == ("liver", "kidney")
    assert np.array_equal(loaded(source, "s")[1].array, drawn())


def nifti(path: Path, labels: np.ndarray, affine: np.ndarray) -> None:
    """As dcm2niix would write it: the rows the other way round, at the same place."""
    flipped = nibabel.Nifti1Image(labels, affine).as_reoriented(np.array([[0, 1], [1, -1], [2, 1]]))
    nibabel.save(flipped, path)


@pytest.mark.parametrize("name", ["mask.nii.gz", "p1_Segmentation.nii", "labels.nrrd", "p1.nrrd", "../p1.nii.gz"])
def test_plain_masks_beside_the_series(tmp_path: Path, name: str) -> None:
    root = tmp_path / "in"
    place = root / "p1" / "p1" if name.startswith("..") else root / "p1"
    write_series(place, noise(SHAPE), turned_affine(5))
    if name.endswith(".nrrd"):
        write_nrrd(place / name, drawn(), turned_affine(5))
    else:
        nifti(place / name, drawn(), turned_affine(5))
    (root / "p1" / "notes.nrrd").write_text("not a mask by its name, so never read")
    for classes, names in ((None, ("class 1", "class 2")), (["a", "b", "c"], ("a", "b", "c"))):
        source = open_source(str(root), classes=classes)
        assert source.schema.names == names and source.cases[0].annotated is None
        assert np.array_equal(source.cases[0].load()[1].array, drawn())


def test_a_single_case_is_a_source(tmp_path: Path) -> None:
    write_series(tmp_path / "p1", noise(SHAPE), axial_affine())
    write_nrrd(tmp_path / "p1" / "mask.nrrd", drawn(), axial_affine())
    source = open_source(str(tmp_path / "p1"))
    assert [c.id for c in source.cases] == ["p1"] and np.array_equal(loaded(source, "p1")[1].array, drawn())


def test_slicer_segmentations_name_their_classes(tmp_path: Path) -> None:
    """Values that differ from case to case, and one that covers a part of the image only."""
    for case, values in (("p1", [1, 2]), ("p2", [2, 1])):
        write_series(tmp_path / case, noise(SHAPE), axial_affine(), patient=case)
        labels, affine = np.array([0, *values], np.uint8)[drawn()], axial_affine()
        if case == "p2":
            labels, affine[:3, 3] = labels[2:11, 3:, 1:5], (axial_affine() @ [2, 3, 1, 1])[:3]
        write_nrrd(tmp_path / case / "x.seg.nrrd", labels, affine, **segment_headers(["Core", "Rim"], values))
    source = open_source(str(tmp_path))
    assert source.schema.names == ("Core", "Rim") and source.cases[0].annotated == ("Core", "Rim")
    assert np.array_equal(loaded(source, "p1")[1].array, drawn())
    part = np.zeros_like(drawn())
    part[2:11, 3:, 1:5] = drawn()[2:11, 3:, 1:5]
    assert np.array_equal(loaded(source, "p2")[1].array, part)


# Broken trees: the case p1 and what is done to it; where the fault must show, and the message.


def _series(root: Path, name: str = "p1", **more) -> list[Path]:
    return write_series(root / name, noise(SHAPE), axial_affine(), **more)


def _no_masks(root: Path) -> None:
    _series(root)


def _other_series(root: Path) -> None:
    _series(root)
    files = write_series(root.parent / "elsewhere", noise(SHAPE), axial_affine(), uid="1.2.99")
    write_seg(root / "p1" / "seg.dcm", files, masks(drawn(), "a"))


def _overlap(root: Path) -> None:
    write_seg(root / "p1" / "seg.dcm", _series(root), {"a": drawn() >= 1, "b": drawn() == 2})


def _overlap_in_two_files(root: Path) -> None:
    files = _series(root)
    write_seg(root / "p1" / "a.dcm", files, {"a": drawn() >= 1})
    write_seg(root / "p1" / "b.dcm", files, {"b": drawn() == 2})


def _two_masks(root: Path) -> None:
    _series(root)
    for name in ("mask1.nrrd", "mask2.nrrd"):
        write_nrrd(root / "p1" / name, drawn(), axial_affine())


def _above_two(root: Path) -> None:
    _series(root, "p1/t1")
    _series(root, "p1/t2")
    write_nrrd(root / "p1" / "mask.nrrd", drawn(), axial_affine())


def _mask(array: np.ndarray, affine: np.ndarray) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        _series(root)
        write_nrrd(root / "p1" / "mask.nrrd", array, affine)

    return make


def _truncated_mask(root: Path) -> None:
    _mask(drawn(), axial_affine())(root)
    file = root / "p1" / "mask.nrrd"
    file.write_bytes(file.read_bytes()[:-30])


def _mixed(root: Path) -> None:
    _series(root)
    _series(root.parent, "other")[0].rename(root / "p1" / "zz.dcm")


def _modalities(root: Path) -> None:
    for name in ("CT", "MR"):
        write_seg(root / name / "seg.dcm", _series(root, name, modality=name), masks(drawn(), "a"))


def _some_named(root: Path) -> None:
    write_seg(root / "p1" / "seg.dcm", _series(root), masks(drawn(), "a"))
    _series(root, "p2")
    write_nrrd(root / "p2" / "mask.nrrd", drawn(), axial_affine())


def _slicer_overlap(root: Path) -> None:
    _series(root)
    layers = np.stack([drawn() > 0, drawn() == 2]).astype(np.uint8)
    write_nrrd(root / "p1" / "x.seg.nrrd", layers, axial_affine(), **segment_headers(["a", "b"], [1, 1], layers=[0, 1]))


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty folder": (lambda root: root.mkdir(), "in: contains no DICOM images"),
    "no masks": (_no_masks, "in: 1 series, none with a mask"),
    "SEG of another series": (_other_series, r"seg.dcm: refers to series 1\.2\.99, which is missing"),
    "overlapping segments": (_overlap, "seg.dcm: segments 'a' and 'b' overlap"),
    "overlapping files": (_overlap_in_two_files, "b.dcm: segments 'a' and 'b' overlap"),
    "overlapping Slicer segments": (_slicer_overlap, "x.seg.nrrd: segment 'b' overlaps another"),
    "two masks": (_two_masks, "p1: has several masks: mask1.nrrd, mask2.nrrd"),
    "mask above two series": (_above_two, "mask.nrrd: is in a parent folder of several series"),
    "mask of another shape": (_mask(drawn()[:-1], axial_affine()), "mask.nrrd: 11 x 10 x 6 voxels do not cover"),
    "mask elsewhere": (_mask(drawn(), turned_affine()), "mask.nrrd: axes or voxel sizes differ from the image's"),
    "truncated mask": (_truncated_mask, "mask.nrrd: cannot be read as NRRD"),
    "0/255 mask": (
        _mask((drawn() > 0) * np.uint8(255), axial_affine()),
        "mask.nrrd: contains only 0 and 255.*--fix",
    ),
    "fractional mask": (_mask(drawn() * np.float32(0.5), axial_affine()), "mask.nrrd: label 0.5 is not a whole number"),
    "mixed series": (_mixed, "p1: contains several series"),
    "mixed modalities": (_modalities, "in: mixes the modalities CT, MR"),
    "names for some": (_some_named, "mask.nrrd: does not name its classes"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_broken_trees_are_named(tmp_path: Path, how: str) -> None:
    make, message = BROKEN[how]
    make(tmp_path / "in")
    with pytest.raises(DataError, match=message) as caught:
        for case in open_source(str(tmp_path / "in"), layout="dicom").cases:
            case.load()
    assert "\n" not in str(caught.value) and caught.value.hint


def test_a_damaged_tree_is_still_known_as_dicom(tmp_path: Path) -> None:
    (tmp_path / "p1").mkdir()
    (tmp_path / "p1" / "1-001.dcm").write_bytes(b"GIF89a" * 100)
    with pytest.raises(DataError, match="1-001.dcm: is not a DICOM file"):
        open_source(str(tmp_path))


def test_classes_must_have_the_segments(tmp_path: Path) -> None:
    cohort(tmp_path)
    with pytest.raises(DataError, match="'kidney' is not one of the classes.*'kidneys'"):
        open_source(str(tmp_path), classes=["bone", "liver", "kidneys"])
    assert open_source(str(tmp_path), classes=["kidney", "bone", "liver"]).schema.index_of("liver") == 3


# Duke Breast Cancer MRI

BREAST = np.zeros(SHAPE, np.uint8)
BREAST[2:10, 2:8, 1:5] = 1
VESSELS, DENSE = np.zeros_like(BREAST), np.zeros_like(BREAST)
VESSELS[3:5, 3:6, 2:4] = 1
DENSE[4:7, 3:6, 2:4] = 1  # overlaps the vessels at 4
WANTED = np.where(DENSE, 3, np.where(VESSELS, 2, BREAST))


def duke_patient(
    root: Path, patient: str, series: str = "26.000000-ax dyn pre-93877", *, layers: bool = False, swapped: bool = False
) -> Path:
    """The folders of one patient as TCIA gives them; the folder of its images."""
    study = root / "Duke-Breast-Cancer-MRI" / patient / "01-01-1990-NA-MRI BREAST BILATERAL WWO-97538"
    more = {"modality": "MR", "patient": patient, "description": series.split("-")[1]}
    write_series(study / series, noise(SHAPE), axial_affine(), **more)
    write_series(study / "3.000000-ax t1 tse c-58583", noise(SHAPE, 1), axial_affine(), **more | {"description": "t1"})
    folder = root / "Segmentation_Masks_NRRD" / patient
    start = f"Segmentation_{patient}_"
    write_nrrd(folder / f"{start}Breast.seg.nrrd", BREAST, axial_affine(), **segment_headers(["Breast"]))
    if layers:
        both, keys = np.stack([DENSE, VESSELS]), segment_headers(["Vessels", "Dense"], [1, 1], [1, 0])
    elif swapped:
        both, keys = np.where(DENSE, 1, VESSELS * 2).astype(np.uint8), segment_headers(["Dense", "Vessels"], [1, 2])
    else:
        both, keys = np.where(DENSE, 2, VESSELS).astype(np.uint8), segment_headers(["Vessels", "Dense"], [1, 2])
    write_nrrd(folder / f"{start}Dense_and_Vessels.seg.nrrd", both, axial_affine(), **keys)
    return study.parent


def test_duke_breast(tmp_path: Path) -> None:
    duke_patient(tmp_path, "Breast_MRI_006")
    duke_patient(tmp_path, "Breast_MRI_900", "600.000000-ax 3d dyn PRE-12345", swapped=True)
    duke_patient(tmp_path, "Breast_MRI_921", layers=True)
    images_only = tmp_path / "Duke-Breast-Cancer-MRI" / "Breast_MRI_001" / "study" / "pre"
    write_series(images_only, noise(SHAPE), axial_affine(), modality="MR")
    source = open_source(str(tmp_path))
    assert source.layout == "duke-breast" and source.channels == ("MR",)
    assert source.schema.names == ("breast", "blood vessels", "fibroglandular tissue")
    assert [(c.id, c.patient, c.split, c.annotated) for c in source.cases] == [
        (p, p, None, None) for p in ("Breast_MRI_006", "Breast_MRI_900", "Breast_MRI_921")
    ]
    for case in source.cases:
        image, labels = loaded(source, case.id)
        assert np.array_equal(image.array, noise(SHAPE))
        assert np.array_equal(labels.array, WANTED)


def test_duke_masks_that_run_another_way(tmp_path: Path) -> None:
    """3D Slicer stores a volume in its own order of axes; the header tells, and it is obeyed."""
    duke_patient(tmp_path, "Breast_MRI_006")
    masks = tmp_path / "Segmentation_Masks_NRRD" / "Breast_MRI_006"
    turned = canonical(Volume(BREAST, axial_affine()))
    assert not np.array_equal(turned.affine, axial_affine())
    write_nrrd(masks / "Segmentation_Breast_MRI_006_Breast.seg.nrrd", turned.array, turned.affine)
    assert np.array_equal(loaded(open_source(str(tmp_path)), "Breast_MRI_006")[1].array, WANTED)


def test_duke_series_by_the_table_and_by_description(tmp_path: Path) -> None:
    images = duke_patient(tmp_path, "Breast_MRI_006", "5.000000-Ax Vibrant-1")
    with pytest.raises(DataError, match="Breast_MRI_006: no series has the word pre.*filepath_filename-mapping"):
        open_source(str(tmp_path))
    table = tmp_path / "Breast-Cancer-MRI-filepath_filename-mapping.csv"
    row = "DICOM_Images/Breast_MRI_006/{0}/x.dcm,Duke-Breast-Cancer-MRI/Breast_MRI_006/study//{1}/1-001.dcm\n"
    table.write_text(
        "original_path_and_filename,descriptive_path\n"
        + row.format("post_1", "3.000000-ax t1 tse c-58583")
        + row.format("pre", "5.000000-Ax Vibrant-1")
    )
    assert open_source(str(tmp_path)).cases[0].files[0].parent.name == "5.000000-Ax Vibrant-1"
    table.unlink()
    [study] = images.iterdir()
    write_series(study / "7", noise(SHAPE), axial_affine(), modality="MR", description="ax 3d T1 pre")
    assert open_source(str(tmp_path)).cases[0].files[0].parent.name == "7"


def test_the_split_is_the_papers_where_its_patients_are_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(duke_breast.PAPER_TRAIN) == len(set(duke_breast.PAPER_TRAIN)) == duke_breast.PAPER_PATIENTS["train"]
    monkeypatch.setattr(duke_breast, "PAPER_TRAIN", ("Breast_MRI_006", "Breast_MRI_018"))
    for number in (6, 18, 900, 901, 902):
        duke_patient(tmp_path, f"Breast_MRI_{number:03d}")
    splits = {case.patient: case.split for case in open_source(str(tmp_path)).cases}
    assert splits["Breast_MRI_006"] == splits["Breast_MRI_018"] == "train"
    assert sorted(str(s) for p, s in splits.items() if p > "Breast_MRI_1") == ["heldout", "test", "val"]


def _remove(name: str) -> Callable[[Path, Path], None]:
    return lambda root, images: next(root.rglob(name)).unlink()


def _two_pre(root: Path, images: Path) -> None:
    write_series(next(images.iterdir()) / "9-dyn pre again", noise(SHAPE), axial_affine(), modality="MR")


def _no_images(root: Path, images: Path) -> None:
    images.rename(root / "somewhere")


def _other_shape(root: Path, images: Path) -> None:
    file = next(root.rglob("*_Breast.seg.nrrd"))
    write_nrrd(file, np.ones((12, 10, 7), np.uint8), axial_affine())


def _other_segments(root: Path, images: Path) -> None:
    file = next(root.rglob("*_Dense_and_Vessels.seg.nrrd"))
    write_nrrd(file, VESSELS, axial_affine(), **segment_headers(["Tumour"]))


def _bad_table(root: Path, images: Path) -> None:
    (root / "Breast-Cancer-MRI-filepath_filename-mapping.csv").write_text("a,b\n1,2\n")


DUKE_BROKEN: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "no breast mask": (_remove("*_Breast.seg.nrrd"), "Breast_MRI_006_Breast.seg.nrrd: does not exist"),
    "no vessel mask": (_remove("*_Vessels.seg.nrrd"), "Dense_and_Vessels.seg.nrrd: does not exist"),
    "no images": (_no_images, "0 patients with images and 1 with masks, none with both.*TCIA"),
    "two series": (_two_pre, "Breast_MRI_006: the pre-contrast series is one of: .*dyn pre-93877, 9-dyn pre again"),
    "other shape": (_other_shape, "_Breast.seg.nrrd: 12 x 10 x 7 voxels do not cover the image's 12 x 10 x 6"),
    "other segments": (_other_segments, "Vessels.seg.nrrd: has no segment 'vessels', but Tumour"),
    "missing slice": (_remove("1-021.dcm"), "pre-93877: a slice is missing"),
    "bad table": (_bad_table, "mapping.csv: is not the collection's table"),
}


@pytest.mark.parametrize("how", DUKE_BROKEN)
def test_broken_duke_folders_are_named(tmp_path: Path, how: str) -> None:
    damage, message = DUKE_BROKEN[how]
    images = duke_patient(tmp_path, "Breast_MRI_006")
    if how == "missing slice":
        other = next(images.rglob("*tse*"))
        other.rename(tmp_path / "gone")
        damage(images, images)
    else:
        damage(tmp_path, images)
    with pytest.raises(DataError, match=message) as caught:
        open_source(str(tmp_path)).cases[0].load()
    assert "\n" not in str(caught.value)


def test_layouts_are_listed_with_the_special_one_first() -> None:
    names = list(LAYOUTS)
    assert names.index("duke-breast") < names.index("dicom")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["1-007.dcm", "seg.dcm", "x.seg.nrrd"])
def test_damaged_bytes_never_give_a_traceback(tmp_path: Path, name: str) -> None:
    """A file with a run of bytes overwritten, or cut off, is read or refused with a DataError."""
    if name == "x.seg.nrrd":
        write_series(tmp_path / "p1", noise(SHAPE), axial_affine())
        write_nrrd(tmp_path / "p1" / name, drawn(), axial_affine(), **segment_headers(["a", "b"]))
    else:
        write_seg(tmp_path / "p1" / "seg.dcm", write_series(tmp_path / "p1", noise(SHAPE), axial_affine()),
                  masks(drawn(), "a", "b"))  # fmt: skip
    file = tmp_path / "p1" / name
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for number in range(60):
        at = int(rng.integers(132 if name.endswith("dcm") else 0, len(whole) - 8))
        file.write_bytes(whole[:at] if number % 4 == 0 else whole[:at] + rng.bytes(8) + whole[at + 8 :])
        try:
            open_source(str(tmp_path)).cases[0].load()
        except DataError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 15
