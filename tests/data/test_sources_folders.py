from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import blosc2
import nibabel
import numpy as np
import pytest
from PIL import Image

from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import ct_org, open_source
from anatogen.data.sources.base import Source
from anatogen.data.store import PreparedDataset
from anatogen.errors import AnatogenError, DataError

SETTINGS = PrepareSettings(size=(16, 16), fit="crop", keep_names=True)
SHARES = {"train": 1.0}


def picture(seed: int, shape: tuple[int, int] = (16, 16)) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image with an off-centre box (class 1) and a core (class 2)."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, dtype=np.uint8)
    labels[2:10, 4:14], labels[4:7, 6:10] = 1, 2
    return (labels * 80 + rng.integers(0, 40, shape)).astype(np.uint8), labels


def write_folders(folder: Path, count: int = 4, images: str = "images", masks: str = "masks", seed: int = 0) -> Path:
    (folder / images).mkdir(parents=True)
    (folder / masks).mkdir(parents=True)
    for number in range(count):
        image, labels = picture(seed + number)
        Image.fromarray(image).save(folder / images / f"scan_{number}.png")
        Image.fromarray(labels).save(folder / masks / f"scan_{number}.png")
    return folder


def write_nifti(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([-1.0, -1.0, 2.0, 1.0])), path)


def volume(seed: int) -> tuple[np.ndarray, np.ndarray]:
    image, labels = picture(seed)
    stack = lambda plane: np.repeat(plane.T[:, :, None], 3, axis=2)  # noqa: E731
    return stack(image).astype(np.int16), stack(labels)


def write_pair(image: Path, labels: Path, seed: int) -> None:
    for path, array in zip((image, labels), volume(seed), strict=True):
        write_nifti(path, array)


def prepared(folder: Path, out: Path, **settings: object) -> PreparedDataset:
    return prepare(open_source(str(folder)), out, PrepareSettings((16, 16), fit="crop", shares=SHARES, **settings))


def ids(source: Source) -> list[str]:
    return [case.id for case in source.cases]


# ---- folders


def test_pictures_come_out_the_same_way_up(tmp_path: Path) -> None:
    source = open_source(str(write_folders(tmp_path / "raw")))
    assert source.layout == "folders" and source.channels == ("image",)
    assert source.schema.names == ("class 1", "class 2")
    dataset = prepare(source, tmp_path / "out", SETTINGS)
    images, labels = (blosc2.open(str(tmp_path / "out" / f"{name}.b2nd")) for name in ("images", "labels"))
    for number, row in enumerate(dataset.rows):
        image, truth = picture(number)
        assert row.case == row.patient == f"scan_{number}"
        assert np.array_equal(images[row.row][0], image) and np.array_equal(labels[row.row], truth)


@pytest.mark.parametrize(
    ("images", "masks"), [("IMAGES", "Labels"), ("imgs", "annotations"), ("img", "mask"), ("images", "segmentations")]
)
def test_names_of_the_folders(tmp_path: Path, images: str, masks: str) -> None:
    source = open_source(str(write_folders(tmp_path, images=images, masks=masks)))
    assert source.layout == "folders" and len(source.cases) == 4


def test_natural_order_and_files_that_systems_leave(tmp_path: Path) -> None:
    folder = write_folders(tmp_path, count=12)
    for name in (".DS_Store", "._scan_1.png", "Thumbs.db", "desktop.ini"):
        (folder / "images" / name).write_bytes(b"junk")
        (folder / "masks" / name).write_bytes(b"junk")
    (folder / "images" / "notes.txt").write_text("read by nobody")
    assert ids(open_source(str(folder))) == [f"scan_{n}" for n in range(12)]


def test_spaces_accents_and_mask_words_in_names(tmp_path: Path) -> None:
    folder = write_folders(tmp_path / "raw", count=0)
    image, labels = picture(0)
    for name, mask in (("Größe 1", "Gro\u0308ße 1"), ("左 肺.v2", "左 肺.v2_mask"), ("b_img", "b-Segmentation")):
        Image.fromarray(image).save(folder / "images" / f"{name}.PNG")
        Image.fromarray(labels).save(folder / "masks" / f"{mask}.png")
    dataset = prepared(folder, tmp_path / "out", keep_names=True)
    assert {row.case for row in dataset.rows} == {"Größe 1", "左 肺.v2", "b"}


def test_sizes_may_differ_and_16_bits_are_kept(tmp_path: Path) -> None:
    folder = write_folders(tmp_path / "raw")
    image, labels = picture(9, (24, 20))
    deep = image.astype(np.uint16) * 257
    Image.fromarray(deep).save(folder / "images" / "large.png")
    Image.fromarray(labels).save(folder / "masks" / "large.png")
    source = open_source(str(folder))
    loaded = next(case for case in source.cases if case.id == "large").load()[0].array
    assert loaded.dtype == np.uint16 and np.array_equal(loaded[:, :, 0], deep.T)
    assert len(prepared(folder, tmp_path / "out").rows) == 5


@pytest.mark.parametrize("kind", ["rgb.png", "channels.npy", "rgb.jpg"])
def test_channels(tmp_path: Path, kind: str) -> None:
    folder = write_folders(tmp_path / "raw", count=0)
    image, labels = picture(0)
    array = np.stack([image, 255 - image, image // 2] + [image] * (2 if kind.endswith("npy") else 0), axis=-1)
    ending = kind.rpartition(".")[2]
    if ending == "npy":
        np.save(folder / "images" / "a.npy", array)
        np.save(folder / "masks" / "a.npy", labels)
    else:
        Image.fromarray(array).save(folder / "images" / f"a.{ending}")
        Image.fromarray(labels).save(folder / "masks" / "a.png")
    source = open_source(str(folder))
    assert source.channels == tuple(f"channel {n}" for n in range(1, array.shape[2] + 1))
    dataset = prepare(source, tmp_path / "out", PrepareSettings((16, 16), fit="crop", shares=SHARES))
    stored = blosc2.open(str(tmp_path / "out" / "images.b2nd"))[0]
    assert dataset.channels == array.shape[2]
    if ending != "jpg":
        assert np.array_equal(stored, np.moveaxis(array, -1, 0))


def test_a_measured_spacing_reaches_the_affine(tmp_path: Path) -> None:
    folder = write_folders(tmp_path, count=0)
    image, labels = picture(0)
    Image.fromarray(image).save(folder / "images" / "a.png", dpi=(50.8, 33.0))  # columns, rows
    Image.fromarray(labels).save(folder / "masks" / "a.png")
    loaded, truth = open_source(str(folder)).cases[0].load()
    assert loaded.spacing_mm == pytest.approx((0.5, 25.4 / 33, 1), rel=1e-3)
    assert np.array_equal(loaded.affine, truth.affine)


# ---- classes that nobody named


def test_palette_indices_are_the_classes(tmp_path: Path) -> None:
    folder = write_folders(tmp_path / "raw")
    for path in (folder / "masks").iterdir():
        mask = Image.open(path).convert("P")
        mask.putdata(list(np.array(Image.open(path)).ravel()))
        mask.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        mask.save(path)
    dataset = prepared(folder, tmp_path / "out")
    assert set(np.unique(dataset.load(dataset.rows).labels)) == {0, 1, 2}


def test_given_names_are_used_without_reading(tmp_path: Path) -> None:
    folder = write_folders(tmp_path)
    (folder / "masks" / "scan_2.png").write_bytes(b"broken")
    assert open_source(str(folder), classes=["box", "core"]).schema.names == ("box", "core")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            [0, 255],
            "scan_1.png: contains only 0 and 255, which are not class numbers. Run anatogen check; --fix remaps",
        ),
        ([0, 128, 255], "scan_1.png: contains label 255, but only 3 values occur in total: gray levels"),
    ],
)
def test_gray_levels_are_not_taken_for_classes(tmp_path: Path, values: list[int], message: str) -> None:
    folder = write_folders(tmp_path)
    for number, path in enumerate(sorted((folder / "masks").iterdir())):
        labels = np.zeros((16, 16), dtype=np.uint8)
        if number:
            labels.flat[: len(values)] = values
        Image.fromarray(labels).save(path)
    with pytest.raises(DataError) as caught:
        open_source(str(folder))
    assert message in str(caught.value)


def test_gaps_below_the_highest_class_are_kept(tmp_path: Path) -> None:
    folder = write_folders(tmp_path)
    Image.fromarray(picture(0)[1] * 3).save(folder / "masks" / "scan_3.png")
    assert open_source(str(folder)).schema.names == tuple(f"class {n}" for n in range(1, 7))


# ---- the reference implementation's layout


def write_segguided(folder: Path, masks: str, counts: dict[str, int] | None = None) -> Path:
    for seed, (split, count) in enumerate((counts or {"train": 11, "val": 2, "test": 3}).items()):
        write_folders(folder, count, f"IMAGES/{split}", f"{masks}/{split}", 100 * seed)
    return folder


@pytest.mark.parametrize("masks", ["MASKS/all", "masks"])
def test_the_reference_layout_keeps_its_splits(tmp_path: Path, masks: str) -> None:
    folder = write_segguided(tmp_path / "raw", masks)
    (folder / "IMAGES" / "train" / ".DS_Store").write_bytes(b"junk")
    source = open_source(str(folder))
    assert source.layout == "segguided"
    assert ids(source)[:11] == [f"train_scan_{n}" for n in range(11)]  # as names occur in two splits
    dataset = prepare(source, tmp_path / "out", SETTINGS)
    assert {s: len(dataset.split(s)) for s in ("train", "val", "test")} == {"train": 11, "val": 2, "test": 3}


def test_names_of_one_split_stay_as_they_are(tmp_path: Path) -> None:
    assert ids(open_source(str(write_segguided(tmp_path, "masks/all", {"train": 2})))) == ["scan_0", "scan_1"]


@pytest.mark.parametrize("missing", ["IMAGES/val", "MASKS/all/val"])
def test_a_split_without_counterpart(tmp_path: Path, missing: str) -> None:
    folder = write_segguided(tmp_path, "MASKS/all")
    (folder / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="val: has no counterpart in"):
        open_source(str(folder))


# ---- NIfTI pairs


NIFTI_NAMES = {
    "two folders": ("images/{}.nii.gz", "labels/{}.nii.gz"),
    "two folders, words": ("imgs/{}_0000.nii", "masks/{}_seg.nii.gz"),
    "one folder": ("{}.nii.gz", "{}_seg.nii.gz"),
    "one folder, words": ("{}_image.nii.gz", "{}_labels.nii"),
    "one folder, sequence": ("{}_T1.nii.gz", "{}-mask.nii.gz"),
    "a folder a case": ("{}/image.nii.gz", "{}/label.nii.gz"),
    "a folder a case, KiTS": ("{}/imaging.nii.gz", "{}/segmentation.nii.gz"),
    "a folder a case, names": ("{0}/{0}_ct.nii", "{0}/{0}_seg.nii.gz"),
}


@pytest.mark.parametrize(("image", "labels"), NIFTI_NAMES.values(), ids=NIFTI_NAMES)
def test_nifti_pairs(tmp_path: Path, image: str, labels: str) -> None:
    for seed, case in enumerate(("case_1", "case_2", "case_10")):
        write_pair(tmp_path / "raw" / image.format(case), tmp_path / "raw" / labels.format(case), seed)
    (tmp_path / "raw" / ".DS_Store").write_bytes(b"junk")
    source = open_source(str(tmp_path / "raw"))
    assert source.layout == "nifti-pairs" and ids(source) == ["case_1", "case_2", "case_10"]
    assert source.schema.names == ("class 1", "class 2")
    loaded, truth = source.cases[2].load()
    assert np.array_equal(loaded.array, volume(2)[0]) and np.array_equal(truth.array, volume(2)[1])
    assert len(prepared(tmp_path / "raw", tmp_path / "out").rows) == 9


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("case_1/t2.nii.gz", "case_1: expected one image and one label map, got 2 and 1"),
        ("case_3/image.nii.gz", "case_3: expected one image and one label map, got 1 and 0"),
    ],
)
def test_folders_of_a_case_hold_one_pair(tmp_path: Path, extra: str, message: str) -> None:
    write_pair(tmp_path / "case_1" / "image.nii.gz", tmp_path / "case_1" / "seg.nii.gz", 0)
    write_nifti(tmp_path / extra, volume(1)[0])
    with pytest.raises(DataError) as caught:
        open_source(str(tmp_path))
    assert message in str(caught.value)


def test_two_images_for_one_label_map(tmp_path: Path) -> None:
    write_pair(tmp_path / "a_t1.nii.gz", tmp_path / "a_seg.nii.gz", 0)
    write_nifti(tmp_path / "a_t2.nii.gz", volume(1)[0])
    with pytest.raises(DataError, match=r"a_t2\.nii\.gz: and a_t1\.nii\.gz are two files of one case"):
        open_source(str(tmp_path))


# ---- CT-ORG


@pytest.mark.parametrize(
    "folders", [("", ""), ("OrganSegmentations", "OrganSegmentations"), ("volumes 0-49", "labels")]
)
def test_ct_org_as_published(tmp_path: Path, folders: tuple[str, str]) -> None:
    """32-bit floats, six organs of which the paper takes five."""
    raw = tmp_path / "raw"
    for number in (0, 2, 10):
        labels = np.zeros((16, 16, 2), dtype=np.float32)
        labels[2:9, 2:9, 0] = np.arange(49).reshape(7, 7) % 7
        labels[8, 8] = 5
        image = np.full((16, 16, 2), -1000.0, dtype=np.float32)
        image[3, 4] = number
        write_nifti(raw / folders[0] / f"volume-{number}.nii.gz", image)
        write_nifti(raw / folders[1] / f"labels-{number}.nii.gz", labels)
    (raw / folders[0] / "README.txt").write_text("Organs are encoded as follows")
    source = open_source(str(raw))
    assert source.layout == "ct-org" and source.channels == ("CT",)
    assert source.schema.names == ("liver", "bladder", "lungs", "kidneys", "bone")
    assert [(c.id, c.patient) for c in source.cases] == [("volume-0", "0"), ("volume-2", "2"), ("volume-10", "10")]
    image, truth = source.cases[2].load()
    assert image.array[3, 4, 1] == 10 and image.array.min() == -1000
    assert set(np.unique(truth.array)) == {0, 1, 2, 3, 4, 5} and truth.array[8, 8, 1] == 5
    assert truth.array[2, 8, 0] == 0 and labels[2, 8, 0] == 6  # the brain
    dataset = prepare(source, tmp_path / "out", PrepareSettings((16, 16), fit="crop", shares=SHARES))
    assert len(dataset.rows) == 6


def test_the_papers_ct_patients() -> None:
    assert sum(ct_org.PAPER_PATIENTS.values()) == 40
    counted = [ct_org.PAPER_PATIENTS[s] for s in ("train", "heldout", "val", "test")]
    assert counted == [24, 8, 4, 4]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("volume-7.nii.gz", "volume-7.nii.gz: has no labels-7.nii.gz"),
        ("labels-7.nii.gz", "labels-7.nii.gz: has no volume-7.nii.gz"),
        ("more/volume-1.nii.gz", "volume-1.nii.gz: and "),
    ],
)
def test_ct_org_incomplete(tmp_path: Path, extra: str, message: str) -> None:
    write_pair(tmp_path / "volume-1.nii.gz", tmp_path / "labels-1.nii.gz", 0)
    write_nifti(tmp_path / extra, volume(0)[0])
    with pytest.raises(DataError) as caught:
        open_source(str(tmp_path))
    assert message in str(caught.value)


def test_ct_org_with_broken_labels_is_named(tmp_path: Path) -> None:
    write_pair(tmp_path / "raw" / "volume-1.nii.gz", tmp_path / "raw" / "labels-1.nii.gz", 0)
    write_nifti(tmp_path / "raw" / "labels-1.nii.gz", volume(0)[1] * np.float32(0.5))
    with pytest.raises(DataError, match=r"labels-1\.nii\.gz: label 0\.5 is not a whole number"):
        prepared(tmp_path / "raw", tmp_path / "out")


# ---- broken inputs: (what is done to a good data set, what the message must say, which file it must name)


def _claim_size(path: Path, width: int, height: int) -> None:
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)


def _replace(path: Path, name: str, save: Callable[[Path], object]) -> None:
    path.unlink()
    save(path.with_name(name))


def _as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _animated(path: Path) -> None:
    Image.fromarray(picture(0)[0]).save(path, save_all=True, append_images=[Image.fromarray(picture(1)[0])])


def _clear(*folders: Path) -> None:
    for folder in folders:
        for path in folder.iterdir():
            path.unlink()


IMAGE, LABELS = picture(2)
RGB = np.repeat(IMAGE[..., None], 3, axis=2)
Damage = Callable[[Path, Path], object]  # the image's file, the mask's file
BROKEN: dict[str, tuple[Damage, str, str]] = {
    "truncated image": (lambda i, m: i.write_bytes(i.read_bytes()[:150]), "cannot be read as PNG", "scan_2.png"),
    "truncated mask": (lambda i, m: m.write_bytes(m.read_bytes()[:60]), "cannot be read as PNG", "scan_2.png"),
    "image without bytes": (lambda i, m: i.write_bytes(b""), "cannot be read as PNG", "scan_2.png"),
    "mask without bytes": (lambda i, m: m.write_bytes(b""), "cannot be read as PNG", "scan_2.png"),
    "text as image": (lambda i, m: i.write_text("hello" * 99), "cannot be read as PNG", "scan_2.png"),
    "bomb as image": (lambda i, m: _claim_size(i, 60000, 60000), "is too large to be one slice", "scan_2.png"),
    "bomb as mask": (lambda i, m: _claim_size(m, 60000, 60000), "is too large to be one slice", "scan_2.png"),
    "JPEG mask": (
        lambda i, m: _replace(m, "scan_2.jpg", lambda p: Image.fromarray(LABELS).save(p)),
        "is a JPEG, whose compression changes label values",
        "scan_2.jpg",
    ),
    "RGB mask": (lambda i, m: Image.fromarray(RGB).save(m), "picture of mode RGB, whose values", "scan_2.png"),
    "palette image among gray": (
        lambda i, m: Image.fromarray(IMAGE).convert("P").save(i),
        "expected 1 channels as in scan_0.png, got 3",
        "scan_2.png",
    ),
    "RGB among gray": (lambda i, m: Image.fromarray(RGB).save(i), "expected 1 channels", "scan_2.png"),
    "mask of another size": (
        lambda i, m: Image.fromarray(LABELS[:12]).save(m),
        "label map of 16 x 12 x 1 voxels for an image of 16 x 16 x 1",
        "scan_2.png",
    ),
    "mask turned by 90 degrees": (
        lambda i, m: (Image.fromarray(IMAGE[:12]).save(i), Image.fromarray(LABELS[:12].T).save(m)),
        "label map of 12 x 16 x 1 voxels for an image of 16 x 12 x 1",
        "scan_2.png",
    ),
    "image without mask": (lambda i, m: m.unlink(), "has no label map of the same name", "images/scan_2.png"),
    "mask without image": (lambda i, m: i.unlink(), "has no image of the same name", "masks/scan_2.png"),
    "two endings of one name": (
        lambda i, m: Image.fromarray(IMAGE).save(i.with_suffix(".tif")),
        "and scan_2.png are two files of one case",
        "scan_2.tif",
    ),
    "one name but for a word": (
        lambda i, m: (Image.fromarray(IMAGE).save(i.with_name("scan_2_img.png")), Image.fromarray(LABELS).save(m.with_name("scan_2_seg.png"))),
        "and scan_2.png would both be case 'scan_2'",
        "scan_2_img.png",
    ),
    "folder named like an image": (lambda i, m: _as_folder(i), "is a folder named like a file", "scan_2.png"),
    "link in a circle": (lambda i, m: _loop(i), "is a broken or circular link", "scan_2.png"),
    "link to nothing": (lambda i, m: (m.unlink(), m.symlink_to("gone")), "is a broken or circular link", "scan_2.png"),
    "empty folders": (lambda i, m: _clear(i.parent, m.parent), "contains no pictures", "images"),
    "CMYK JPEG": (
        lambda i, m: _replace(i, "scan_2.jpg", lambda p: Image.fromarray(RGB).convert("CMYK").save(p)),
        "is a CMYK picture",
        "scan_2.jpg",
    ),
    "animated GIF": (
        lambda i, m: _replace(i, "scan_2.gif", _animated),
        "pictures of format .gif are not supported",
        "scan_2.gif",
    ),
    "animated PNG": (lambda i, m: _animated(i), "contains more than one picture", "scan_2.png"),
    "TIFF of two pages": (
        lambda i, m: _replace(i, "scan_2.tif", _animated),
        "has 2 pages, but its label map 1",
        "scan_2.tif",
    ),
    "pickled objects": (
        lambda i, m: _replace(i, "scan_2.npy", lambda p: np.save(p, np.array([{}]), allow_pickle=True)),
        "cannot be read as NPY",
        "scan_2.npy",
    ),
    "floats as mask": (
        lambda i, m: _replace(m, "scan_2.npy", lambda p: np.save(p, LABELS.astype(np.float32))),
        "contains values of type float32",
        "scan_2.npy",
    ),
    "negative labels": (
        lambda i, m: _replace(m, "scan_2.npy", lambda p: np.save(p, -LABELS.astype(np.int8))),
        "contains label -2",
        "scan_2.npy",
    ),
    "channels first": (
        lambda i, m: _replace(i, "scan_2.npy", lambda p: np.save(p, np.moveaxis(RGB, -1, 0))),
        "looks like channels first",
        "scan_2.npy",
    ),
    "NaN": (
        lambda i, m: _replace(i, "scan_2.npy", lambda p: np.save(p, np.full((16, 16), np.nan))),
        "the image contains NaN or infinite values",
        "scan_2.npy",
    ),
    "transparency": (
        lambda i, m: Image.fromarray(np.dstack([RGB, IMAGE])).save(i), "has transparent pixels", "scan_2.png"
    ),
    "both masks and labels": (
        lambda i, m: (m.parent.parent / "labels").mkdir(), "contains masks/ and labels/", "raw"
    ),
    "no labels at all": (
        lambda i, m: [Image.fromarray(LABELS * 0).save(p) for p in m.parent.iterdir()], "no slice has a label", "raw"
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", BROKEN)
def test_broken_inputs_are_named_and_leave_nothing_behind(tmp_path: Path, how: str) -> None:
    folder = write_folders(tmp_path / "raw")
    damage, message, file = BROKEN[how]
    damage(folder / "images" / "scan_2.png", folder / "masks" / "scan_2.png")
    with pytest.raises(AnatogenError) as caught:
        prepared(folder, tmp_path / "out")
    text = str(caught.value)
    assert f"{file}: " in text and message in text and "\n" not in text
    assert [p.name for p in tmp_path.iterdir()] == ["raw"]


def test_an_empty_folder_holds_no_layout(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no known layout"):
        open_source(str(tmp_path))


def test_a_truncated_nifti_in_a_pair(tmp_path: Path) -> None:
    write_pair(tmp_path / "raw" / "a.nii.gz", tmp_path / "raw" / "a_seg.nii.gz", 0)
    (tmp_path / "raw" / "a.nii.gz").write_bytes((tmp_path / "raw" / "a.nii.gz").read_bytes()[:200])
    with pytest.raises(DataError, match=r"a\.nii\.gz: cannot be read as NIfTI"):
        prepared(tmp_path / "raw", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["raw"]
