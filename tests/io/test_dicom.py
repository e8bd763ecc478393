from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydicom.uid import HTJ2K

from anatogen.errors import DataError, OutputError
from anatogen.io.dicom import read_series
from anatogen.io.dicom_find import SegmentationFile, looks_like_dicom, scan
from anatogen.io.dicom_seg import read_dicom_seg, write_dicom_seg
from anatogen.io.dicom_write import write_dicom_series
from anatogen.io.nrrd import read_nrrd, read_seg_nrrd
from anatogen.io.regrid import on_grid
from anatogen.labels import LabelSchema
from anatogen.volume import Volume, canonical
from dicom_files import (
    axial_affine,
    noise,
    segment_headers,
    turned_affine,
    write_enhanced,
    write_nrrd,
    write_seg,
    write_series,
)

SHAPE = (12, 10, 6)


def read(folder: Path) -> Volume:
    return read_series(sorted(folder.iterdir()), folder)


def check_same(volume: Volume, array: np.ndarray, affine: np.ndarray) -> None:
    assert np.array_equal(volume.array, array)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-4)


@pytest.mark.parametrize(
    "affine", [axial_affine(), turned_affine(1), turned_affine(2)], ids=["axial", "oblique", "other"]
)
@pytest.mark.parametrize("big_endian", [False, True])
def test_values_and_geometry(tmp_path: Path, affine: np.ndarray, big_endian: bool) -> None:
    array = noise(SHAPE)
    write_series(tmp_path, array, affine, big_endian=big_endian)
    volume = read(tmp_path)
    check_same(volume, array, affine)
    assert volume.array.dtype == np.int16


def test_axial_picture_is_the_right_way_up(tmp_path: Path) -> None:
    """A voxel at the patient's left front near the head is found there after `canonical` (left, posterior,
    inferior).
    """
    array = np.zeros(SHAPE, np.int16)
    array[10, 1, 5] = 100  # last columns: left; first rows: front; last slice: head
    write_series(tmp_path, array, axial_affine())
    assert canonical(read(tmp_path)).array[10, 1, 0] == 100


@pytest.mark.parametrize(
    ("slope", "intercept", "kind"),
    [(1, -1024, np.int16), (30, 0, np.int32), (0.5, 3, np.float32), (1, 0.25, np.float32)],
)
def test_rescaling_keeps_whole_numbers(tmp_path: Path, slope: float, intercept: float, kind: type) -> None:
    array = noise(SHAPE).clip(0).astype(np.uint16)
    array[0, 0, 0] = 65535 if kind is np.int32 else 3000
    write_series(tmp_path, array, axial_affine(), slope=slope, intercept=intercept)
    volume = read(tmp_path)
    assert volume.array.dtype == kind
    np.testing.assert_array_equal(volume.array, array.astype(np.float64) * slope + intercept)


def test_a_slope_for_each_slice_as_in_pet(tmp_path: Path) -> None:
    def own_slope(data: pydicom.Dataset, k: int) -> None:
        data.RescaleSlope = str(k + 1)

    array = noise(SHAPE)
    write_series(tmp_path, array, axial_affine(), edit=own_slope)
    np.testing.assert_array_equal(read(tmp_path).array, array * np.arange(1.0, 7.0))


def test_bystanders_are_passed_over(tmp_path: Path) -> None:
    array = noise(SHAPE)
    write_series(tmp_path / "p" / "s", array, axial_affine())
    (tmp_path / "p" / "s" / ".DS_Store").write_bytes(b"x" * 500)
    (tmp_path / "p" / "s" / "LICENSE").write_text("words " * 100)
    (tmp_path / "p" / "loop").symlink_to(tmp_path / "p")
    series, segmentations = scan(tmp_path)
    assert [(s.patient, s.modality, s.description, len(s.files)) for s in series] == [("p1", "CT", "thorax", 6)]
    assert segmentations == []
    check_same(read(tmp_path / "p" / "s"), array, axial_affine())


def test_files_without_an_ending_are_known_by_their_start(tmp_path: Path) -> None:
    file = write_series(tmp_path, noise((4, 4, 1)), axial_affine())[0]
    assert looks_like_dicom(file.rename(tmp_path / "IM0001")) and read(tmp_path).grid == (4, 4, 1)
    (tmp_path / "README").write_text("words " * 100)
    assert not looks_like_dicom(tmp_path / "README")


def test_one_slice_takes_its_thickness(tmp_path: Path) -> None:
    write_series(tmp_path, noise((4, 5, 1)), turned_affine(3))
    np.testing.assert_allclose(read(tmp_path).affine, turned_affine(3), atol=1e-4)


def test_enhanced_multi_frame(tmp_path: Path) -> None:
    array = noise(SHAPE)
    write_enhanced(tmp_path / "a.dcm", array[:, :, [2, 0, 1, 3, 5, 4]], turned_affine(4), places=[2, 0, 1, 3, 5, 4])
    check_same(read(tmp_path), array * 2 - 10, turned_affine(4))


# Broken series: what is done to them, and what the message must say. All names are in it.
def _edit(change: Callable[[pydicom.Dataset], None], at: int = 2) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        write_series(
            folder, noise(SHAPE), axial_affine(), uid="1.2.3", edit=lambda data, k: change(data) if k == at else None
        )

    return edit


def _drop(name: str) -> Callable[[pydicom.Dataset], None]:
    return lambda data: delattr(data, name)


def _set(name: str, value: object) -> Callable[[pydicom.Dataset], None]:
    return lambda data: setattr(data, name, value)


def _compressed(data: pydicom.Dataset) -> None:
    data.file_meta.TransferSyntaxUID = HTJ2K
    data.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51" + bytes(60)])


def _small(data: pydicom.Dataset) -> None:
    data.Rows, data.PixelData = 9, data.PixelData[: 12 * 9 * 2]


def _two_frames(data: pydicom.Dataset) -> None:
    data.NumberOfFrames, data.PixelData = 2, data.PixelData * 2


def _without(folder: Path) -> None:
    write_series(folder, noise(SHAPE), axial_affine())[3].unlink()


def _twice(folder: Path) -> None:
    files = write_series(folder, noise(SHAPE), axial_affine())
    (folder / "copy.dcm").write_bytes(files[3].read_bytes())


def _mixed(folder: Path) -> None:
    write_series(folder, noise(SHAPE), axial_affine(), uid="1.2.3", description="arterial")
    scout = write_series(folder.parent / "x", noise((4, 4, 1)), axial_affine(), uid="1.2.4", description="venous")[0]
    scout.rename(folder / "z.dcm")


def _truncated(folder: Path) -> None:
    file = write_series(folder, noise(SHAPE), axial_affine())[1]
    file.write_bytes(file.read_bytes()[:-50])


def _cut_in_the_header(folder: Path) -> None:
    file = write_series(folder, noise(SHAPE), axial_affine())[1]
    file.write_bytes(file.read_bytes()[:400])


def _wrong_magic(folder: Path) -> None:
    write_series(folder, noise(SHAPE), axial_affine())
    (folder / "1-007.dcm").write_bytes(b"GIF89a" * 100)


def _only_text(folder: Path) -> None:
    folder.mkdir()
    (folder / "readme.txt").write_text("nothing here")


def _garbage_behind_the_mark(folder: Path) -> None:
    write_series(folder, noise(SHAPE), axial_affine())
    (folder / "1-007.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff\x13garbage" * 40)


def _phases_in_one_file(folder: Path) -> None:
    folder.mkdir()
    write_enhanced(folder / "a.dcm", noise(SHAPE), axial_affine(), places=[0, 1, 2, 0, 1, 2])


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "no pixel data": (_edit(_drop("PixelData")), "1-014.dcm: has no pixel data"),
    "mixed series": (_mixed, r"series: contains several series: 1\.2\.3 \(arterial\), 1\.2\.4 \(venous\)"),
    "missing slice": (_without, r"series: a slice is missing between 1-014.dcm and 1-028.dcm \(at .*3.00 mm apart"),
    "duplicate slice": (_twice, "series: two slices have the same position: .*1-021.dcm.*copy.dcm"),
    "phases in one file": (_phases_in_one_file, "series: two slices have the same position"),
    "uneven": (_edit(_set("ImagePositionPatient", [-20, -30, -33.6])), "series: slices are not evenly spaced"),
    "astray": (_edit(_set("ImagePositionPatient", [-10, -30, -34])), "1-014.dcm: slices are not stacked"),
    "truncated": (_truncated, "1-007.dcm: cannot be read as DICOM"),
    "cut in the header": (_cut_in_the_header, "1-007.dcm: (has no SeriesInstanceUID|cannot be read as DICOM)"),
    "wrong magic": (_wrong_magic, "1-007.dcm: is not a DICOM file"),
    "garbage": (_garbage_behind_the_mark, "1-007.dcm: (has no SOPClassUID|cannot be read as DICOM)"),
    "mixed shapes": (_edit(_small), r"1-014.dcm: shape \(9, 12\) differs from \(10, 12\) of 1-000.dcm"),
    "mixed orientation": (_edit(_set("ImageOrientationPatient", [1, 0, 0, 0, 0, -1])), "1-014.dcm: orientation"),
    "mixed spacing": (_edit(_set("PixelSpacing", [2, 2])), "1-014.dcm: pixel spacing"),
    "no orientation": (_edit(_drop("ImageOrientationPatient")), "1-014.dcm: has no valid ImageOrientationPatient"),
    "no position": (_edit(_drop("ImagePositionPatient")), "1-014.dcm: has no valid ImagePositionPatient"),
    "skewed": (_edit(_set("ImageOrientationPatient", [1, 0, 0, 1, 1, 0])), "1-014.dcm: orientation or pixel"),
    "colours": (_edit(_set("SamplesPerPixel", 3)), "1-014.dcm: contains colours"),
    "compressed": (_edit(_compressed), "1-014.dcm: (pixel data is compressed .*no decoder|cannot be read)"),
    "frames without places": (_edit(_two_frames), "1-014.dcm: 2 frames without individual positions"),
    "other files only": (_only_text, "series: contains no DICOM images"),
    "empty folder": (Path.mkdir, "series: contains no DICOM images"),
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_broken_series_are_named(tmp_path: Path, how: str) -> None:
    make, message = BROKEN[how]
    make(tmp_path / "series")
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path / "series")
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value) and caught.value.hint


def test_a_series_in_two_folders_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_series(tmp_path / name, noise((4, 4, 2)), axial_affine(), uid="1.2.3")
    with pytest.raises(DataError, match="b: contains the same series as .*a"):
        scan(tmp_path)


# Writing


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.one_of(
        hnp.arrays(np.int16, (5, 4, 3)),
        hnp.arrays(np.float32, (5, 4, 3), elements=st.floats(-5e4, 5e4, width=32)),
        hnp.arrays(np.int32, (5, 4, 3), elements=st.integers(-200_000, 200_000)),
    ),
    seed=st.integers(0, 100),
    modality=st.sampled_from(["CT", "MR", "OT"]),
)
def test_what_is_written_comes_back(
    tmp_path_factory: pytest.TempPathFactory, values: np.ndarray, seed: int, modality: str
) -> None:
    folder = tmp_path_factory.mktemp("written") / "series"
    affine = turned_affine(seed)
    files = write_dicom_series(folder, Volume(values, affine), modality=modality, sample_id="s", model="m")
    volume = read_series(files, folder)
    if values.dtype == np.int16:
        assert np.array_equal(volume.array, values) and volume.array.dtype == np.int16
    else:
        step = float(pydicom.dcmread(files[0]).RescaleSlope)
        rounding = 2e-7 * np.abs(values).max() if volume.array.dtype == np.float32 else 0.0
        assert np.abs(volume.array - values.astype(np.float64)).max() <= 0.5 * step * (1 + 1e-9) + rounding
    np.testing.assert_allclose(volume.affine, affine, atol=1e-4)


def test_canonical_volumes_come_back_where_they_were(tmp_path: Path) -> None:
    """Canonical axes (left, posterior, inferior) run against the order in which a series is read: same voxels, same
    place.
    """
    volume = canonical(Volume(noise(SHAPE), axial_affine()))
    files = write_dicom_series(tmp_path / "s", volume, modality="CT", sample_id="s", model="m")
    back = canonical(read_series(files, tmp_path / "s"))
    check_same(back, volume.array, volume.affine)


@pytest.mark.parametrize(
    ("modality", "storage"), [("CT", "CT Image Storage"), ("MR", "MR Image Storage"), ("OT", "Secondary Capture")]
)
def test_the_identity_is_new_and_synthetic(tmp_path: Path, modality: str, storage: str) -> None:
    volume = Volume(noise((4, 4, 2)), axial_affine())
    headers = [
        pydicom.dcmread(file)
        for name in ("a", "b")
        for file in write_dicom_series(
            tmp_path / name, volume, modality=modality, sample_id="sample-7", model="model 12ab", study_uid="2.25.9"
        )
    ]
    for data in headers:
        assert data.SOPClassUID.name.startswith(storage)
        assert list(data.ImageType)[:2] == ["DERIVED", "SECONDARY"] and data.SyntheticData == "YES"
        assert (str(data.PatientName), data.PatientID) == ("SYNTHETIC^ANATOGEN", "sample-7")
        assert not data.PatientBirthDate and not data.PatientSex and data.StudyInstanceUID == "2.25.9"
        assert "ynthetic" in data.DerivationDescription and "model 12ab" in data.DerivationDescription
        assert data.file_meta.MediaStorageSOPInstanceUID == data.SOPInstanceUID
    assert len({data.SOPInstanceUID for data in headers}) == 4
    assert len({data.SeriesInstanceUID for data in headers}) == len({d.FrameOfReferenceUID for d in headers}) == 2


STANDARD = Path(highdicom.__file__).parent / "_standard"  # the standard's tables, as highdicom carries them


@pytest.mark.skipif(not STANDARD.is_dir(), reason="this highdicom keeps the standard's tables elsewhere")
@pytest.mark.parametrize("modality", ["CT", "MR", "OT"])
def test_what_the_standard_asks_for_is_there(tmp_path: Path, modality: str) -> None:
    """Every attribute of type 1 (with a value) and 2 (maybe empty) of the mandatory modules of the object's
    definition.
    """
    definitions, modules, attributes = (
        json.loads((STANDARD / f"{name}.json").read_text())
        for name in ("sop_class_iod_map", "iod_module_map", "module_attribute_map")
    )
    volume = Volume(noise((4, 4, 1)), axial_affine())
    [file] = write_dicom_series(tmp_path / "s", volume, modality=modality, sample_id="s", model="m")
    data = pydicom.dcmread(file)
    mandatory = [m["key"] for m in modules[definitions[data.SOPClassUID]] if m["usage"] == "M"]
    wanted = {a["keyword"]: a["type"] for m in mandatory for a in attributes[m] if not a["path"]}
    assert len(wanted) > 40
    assert [k for k, kind in wanted.items() if kind in ("1", "2") and k not in data] == []
    assert [k for k, kind in wanted.items() if kind == "1" and data[k].value in (None, "")] == []


def test_nothing_is_overwritten_and_no_part_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = Volume(noise((4, 4, 3)), axial_affine())
    write_dicom_series(tmp_path / "a", volume, modality="CT", sample_id=r"back\slash", model="m")
    assert pydicom.dcmread(tmp_path / "a" / "0001.dcm").PatientID == "back/slash"
    before = (tmp_path / "a" / "0001.dcm").read_bytes()
    with pytest.raises(OutputError, match="a: cannot be written"):
        write_dicom_series(tmp_path / "a", volume, modality="CT", sample_id="s", model="m")

    def full(self: pydicom.Dataset, file: Path, **more: object) -> None:
        if file.name == "0002.dcm":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(pydicom.Dataset, "save_as", full)
    with pytest.raises(OutputError, match="b: cannot be written .No space"):
        write_dicom_series(tmp_path / "b", volume, modality="CT", sample_id="s", model="m")
    assert [p.name for p in tmp_path.iterdir()] == ["a"] and (tmp_path / "a" / "0001.dcm").read_bytes() == before


def test_what_cannot_be_dicom_is_refused(tmp_path: Path) -> None:
    good = noise((4, 4, 2)).astype(np.float32)
    sheared = axial_affine()
    sheared[0, 1] = 0.3
    bad = good.copy()
    bad[0, 0, 0] = np.nan
    for volume in (
        Volume(good, sheared),
        Volume(bad, axial_affine()),
        Volume(np.stack([good] * 2, -1), axial_affine()),
    ):
        with pytest.raises(DataError, match="nifti"):
            write_dicom_series(tmp_path / "out", volume, modality="CT", sample_id="s", model="m")
    assert not (tmp_path / "out").exists()


# Segmentations


def blobs(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    labels = np.random.default_rng(5).integers(0, 4, shape)
    labels[:, :, 2] = 0  # an empty slice, which has no frames
    labels[:, :, 0][labels[:, :, 0] == 3] = 0
    return labels


@pytest.mark.parametrize("affine", [axial_affine(), turned_affine(7)], ids=["axial", "oblique"])
def test_label_maps_come_back_with_names_and_colours(tmp_path: Path, affine: np.ndarray) -> None:
    schema = LabelSchema.from_names(["liver", "Lunge, übrige", "bone", "never there"])
    labels = canonical(Volume(blobs(), affine))
    image = Volume(noise(labels.grid), labels.affine)
    files = write_dicom_series(tmp_path / "image", image, modality="CT", sample_id="s", model="m")
    write_dicom_seg(tmp_path / "labels.dcm", labels, schema, files, model="m")
    [series], [file] = scan(tmp_path)
    assert file.labels == schema.names and file.series == (series.uid,)
    read_back = read_series(files, tmp_path)
    got = canonical(read_dicom_seg([file], read_back, series.uid, schema.names))
    check_same(got, labels.array, labels.affine)
    header = pydicom.dcmread(tmp_path / "labels.dcm")
    from highdicom.color import CIELabColor

    for item, known in zip(header.SegmentSequence, schema.classes, strict=True):
        rgb = CIELabColor.from_dicom_value(list(item.RecommendedDisplayCIELabValue)).to_rgb(clip=True)
        wanted = bytes.fromhex(known.colour[1:])
        assert max(abs(a - b) for a, b in zip(rgb, wanted, strict=True)) <= 2
    assert (str(header.PatientName), header.PatientID, header.SyntheticData) == ("SYNTHETIC^ANATOGEN", "s", "YES")


def test_free_classes_can_be_left_out(tmp_path: Path) -> None:
    schema = LabelSchema.from_names(["a", "b", "c"])
    files = write_dicom_series(
        tmp_path / "i", Volume(noise(SHAPE), axial_affine()), modality="CT", sample_id="s", model="m"
    )
    write_dicom_seg(tmp_path / "l.dcm", Volume(blobs(), axial_affine()), schema, files, model="m", classes=["a", "c"])
    [series], [file] = scan(tmp_path)
    assert file.labels == ("a", "c")
    got = read_dicom_seg([file], read_series(files, tmp_path), series.uid, schema.names)
    assert np.array_equal(got.array, np.where(blobs() == 2, 0, blobs()))
    with pytest.raises(DataError, match=r"got \(12, 10, 5\)"):
        write_dicom_seg(tmp_path / "m.dcm", Volume(blobs()[..., 1:], axial_affine()), schema, files, model="m")


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_segmentations_of_others(tmp_path: Path, kind: str) -> None:
    files = write_series(tmp_path / "s", noise(SHAPE), turned_affine(8))
    labels = blobs()
    write_seg(tmp_path / "seg.dcm", files, {"x": labels == 1, "y": labels == 2, "z": labels == 3}, kind)
    [series], [file] = scan(tmp_path)
    assert file.labels == ("x", "y", "z")
    got = read_dicom_seg([file], read_series(files, tmp_path), series.uid, ["z", "other", "x", "y"])
    assert np.array_equal(got.array, np.array([0, 3, 4, 1])[labels])


def _seg_case(folder: Path, how: str) -> tuple[str, list[str]]:
    """Write a series and a broken segmentation; the message and the classes."""
    files = write_series(folder / "s", noise(SHAPE), axial_affine(), uid="1.2.3")
    masks = {"x": blobs() == 1, "y": blobs() == 2}
    path, names = folder / "seg.dcm", ["x", "y"]
    if how == "overlap":
        masks["y"] = blobs() >= 1
        message = "seg.dcm: segments 'x' and 'y' overlap"
    elif how == "other series":
        files = write_series(folder / "t", noise(SHAPE), axial_affine(), uid="1.2.4")
        message = "seg.dcm: refers to series 1.2.4, not to 1.2.3"
    elif how == "other place":
        write_seg(path, write_series(folder / "t", noise(SHAPE), turned_affine(2), uid="1.2.3"), masks)
        return "seg.dcm: axes or voxel sizes differ", names
    elif how == "beyond the image":
        moved = axial_affine()
        moved[2, 3] += 6.0
        write_seg(path, write_series(folder / "t", noise(SHAPE), moved, uid="1.2.3"), masks)
        return "seg.dcm: 12 x 10 x 1 voxels do not cover", names
    elif how == "between the slices":
        moved = axial_affine()
        moved[2, 3] += 1.0
        write_seg(path, write_series(folder / "t", noise(SHAPE), moved, uid="1.2.3"), masks)
        return "seg.dcm: voxels do not coincide", names
    elif how == "unknown segment":
        names, message = ["x"], "seg.dcm: has a segment 'y' that is not a class"
    elif how == "fractional":
        write_seg(path, files, masks, "FRACTIONAL")
        return "seg.dcm: contains fractional segments", names
    else:
        message = "seg.dcm: cannot be read as DICOM"
    write_seg(path, files, masks)
    return message, names


@pytest.mark.parametrize(
    "how",
    ["overlap", "other series", "other place", "beyond the image", "between the slices", "unknown segment",
     "fractional", "truncated"],
)  # fmt: skip
def test_broken_segmentations_are_named(tmp_path: Path, how: str) -> None:
    message, names = _seg_case(tmp_path, how)
    image = read(tmp_path / "s")
    header = tmp_path / "seg.dcm"
    if how == "truncated":
        header.write_bytes(header.read_bytes()[:-40])
        files = [SegmentationFile(header, ("1.2.3",), ("x", "y"))]
    else:
        (tmp_path / "only").mkdir()
        files = scan(header.rename(tmp_path / "only" / "seg.dcm").parent)[1]
    with pytest.raises(DataError, match=message):
        read_dicom_seg(files, image, "1.2.3", names)


# NRRD


@pytest.mark.parametrize("space", ["left-posterior-superior", "LAS", "right-anterior-superior"])
def test_nrrd_geometry(tmp_path: Path, space: str) -> None:
    array = noise(SHAPE)
    write_nrrd(tmp_path / "a.nrrd", array, turned_affine(9), space)
    check_same(read_nrrd(tmp_path / "a.nrrd"), array, turned_affine(9))


def test_nrrd_layers_become_channels_and_segments_masks(tmp_path: Path) -> None:
    layers = np.zeros((2, *SHAPE), np.uint8)
    layers[0, 3:6] = 1
    layers[1, 4:8] = 7
    write_nrrd(
        tmp_path / "a.seg.nrrd", layers, axial_affine(), **segment_headers(["Dense", "Vessels"], [7, 1], layers=[1, 0])
    )
    volume, segments = read_seg_nrrd(tmp_path / "a.seg.nrrd")
    assert volume.array.shape == (*SHAPE, 2) and list(segments) == ["Dense", "Vessels"]
    assert np.array_equal(segments["Dense"], layers[1] == 7) and np.array_equal(segments["Vessels"], layers[0] == 1)


def _nrrd_case(path: Path, how: str) -> str:
    array = noise(SHAPE)
    if how == "missing":
        return "does not exist"
    if how == "two of one name":
        write_nrrd(path, array, axial_affine(), **segment_headers(["a", "a"]))
        return "two segments have the name 'a'"
    if how == "layer past the end":
        write_nrrd(path, array, axial_affine(), **segment_headers(["a"], layers=[3]))
        return "segment 'a' has no valid label or layer"
    write_nrrd(path, array, axial_affine())
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[:-300])
        return "cannot be read as NRRD"
    if how == "wrong magic":
        path.write_bytes(b"PNG" + data)
        return "cannot be read as NRRD"
    if how == "no space":
        path.write_bytes(data.replace(b"space: left-posterior-superior", b"spacename: left"))
        return "cannot be read as NRRD|has no patient space"
    assert how == "no directions"
    path.write_bytes(b"\n".join(line for line in data.split(b"\n") if not line.startswith(b"space directions")))
    return "cannot be read as NRRD|has no patient space"


@pytest.mark.parametrize(
    "how",
    ["missing", "truncated", "wrong magic", "no space", "no directions", "two of one name", "layer past the end"],
)
def test_broken_nrrd_are_named(tmp_path: Path, how: str) -> None:
    message = _nrrd_case(tmp_path / "a.nrrd", how)
    with pytest.raises(DataError, match=message) as caught:
        read_seg_nrrd(tmp_path / "a.nrrd")
    assert "a.nrrd" in str(caught.value)


# Placing


@given(
    order=st.permutations(range(3)),
    flips=st.lists(st.booleans(), min_size=3, max_size=3),
    cuts=st.lists(st.integers(0, 3), min_size=6, max_size=6),
)
def test_a_turned_and_cropped_map_is_put_back(order: list[int], flips: list[bool], cuts: list[int]) -> None:
    """Against nibabel's reorientation as the source of turned volumes."""
    image = Volume(noise((9, 8, 10)), turned_affine(11))
    cropped = tuple(slice(a, n - b) for n, a, b in zip(image.grid, cuts[:3], cuts[3:], strict=True))
    affine = image.affine.copy()
    affine[:3, 3] += image.affine[:3, :3] @ cuts[:3]
    turn = np.array([[axis, -1 if flip else 1] for axis, flip in zip(order, flips, strict=True)], dtype=float)
    part = nibabel.Nifti1Image(image.array[cropped], affine).as_reoriented(turn)
    array, place = on_grid(Volume(np.asarray(part.dataobj), part.affine), image, Path("m.nrrd"))
    assert place == cropped and np.array_equal(array, image.array[cropped])
