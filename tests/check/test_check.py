"""Every kind of finding is provoked by a small data set that the test writes; clean data gives none that matters."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

import anatogen.check
from anatogen.check import CheckReport, Finding, check, check_prepared, check_source, fix_labels
from anatogen.check.files import check_pictures
from anatogen.check.findings import shown
from anatogen.check.samples import check_samples
from anatogen.check.text import as_text
from anatogen.check.values import mapping_to_classes, stretched
from anatogen.data.sources.base import Source, SourceCase
from anatogen.data.store import PreparedDataset
from anatogen.errors import DataError, SettingsError
from anatogen.generation.plan import requests_from_dataset
from anatogen.generation.sample_set import write_sample_set
from anatogen.labels import LabelSchema
from anatogen.volume import Volume
from cohorts import RealImages
from conftest import write_nnunet

AFFINE = np.diag([-1.0, -1.0, 2.5, 1.0])


# Cases in memory, for what only depends on arrays.


def arrays(seed: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.zeros((16, 16, 6), np.int16)
    labels[4:12, 4:12, 1:5] = 1
    labels[6:10, 6:10, 2:4] = 2
    return np.random.default_rng(seed).integers(-1000, 1500, labels.shape).astype(np.int16), labels


def memory_source(count: int = 24, change: Callable[[int, dict[str, Any]], None] | None = None, **more: Any) -> Source:
    """A clean source; change(number, parts) alters the case `number`: image, labels, image_affine, labels_affine, and
    patient, split, annotated."""
    cases = []
    for number in range(count):
        image, labels = arrays(number)
        parts: dict[str, Any] = {
            "image": image, "labels": labels, "image_affine": AFFINE, "labels_affine": AFFINE,
            "patient": f"p{number}", "split": None, "annotated": None,
        }  # fmt: skip
        if change is not None:
            change(number, parts)
        volumes = (Volume(parts["image"], parts["image_affine"]), Volume(parts["labels"], parts["labels_affine"]))
        cases.append(
            SourceCase(
                f"c{number}",
                parts["patient"],
                lambda volumes=volumes: volumes,
                annotated=parts["annotated"],
                split=parts["split"],
            )
        )
    schema = LabelSchema.from_names(["organ", "core"])
    return Source("test", "memory", more.get("schema", schema), more.get("channels", ("CT",)), tuple(cases))


def named_source(form: str) -> Source:
    """A clean source of two scans each of patients whom only the names of their cases tell, "{p}" and "{s}" in
    `form`.
    """
    source = memory_source()
    names = [form.format(p=number // 2, s=number % 2) for number in range(len(source.cases))]
    cases = tuple(replace(case, id=name, patient=name) for case, name in zip(source.cases, names, strict=True))
    return replace(source, cases=cases)


def one(**parts: Any) -> Callable[[int, dict[str, Any]], None]:
    """Case 3 gets other parts; a function is applied to the part."""

    def change(number: int, old: dict[str, Any]) -> None:
        if number == 3:
            old.update({key: value(old[key]) if callable(value) else value for key, value in parts.items()})

    return change


def all_of(function: Callable[[int], dict[str, Any]]) -> Callable[[int, dict[str, Any]], None]:
    def change(number: int, old: dict[str, Any]) -> None:
        old.update({k: v(old[k]) if callable(v) else v for k, v in function(number).items()})

    return change


def hole(image: np.ndarray) -> np.ndarray:
    image = image.astype(np.float32)
    image[0, 0, :2] = np.nan, np.inf
    return image


def moved(**how: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[:3, 3] += how.get("by", 0.0)
    affine[2, 2] *= how.get("stretch", 1.0)
    affine[0, 0] *= how.get("flip", 1.0)
    return affine


def turned(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]) @ AFFINE


SINGULAR = np.diag([1.0, 1.0, 0.0, 1.0])
SPLITS = ("train", "heldout", "val", "test")
same_as_first = arrays(0)[0]


def split_of(number: int) -> dict[str, Any]:
    return {"split": SPLITS[number % 4]}


def leak(number: int) -> dict[str, Any]:
    return {"split": SPLITS[number % 4], "patient": f"p{number // 2}"}


def dot(labels: np.ndarray) -> np.ndarray:
    labels = np.kron(np.where(labels == 2, 1, labels), np.ones((4, 4, 1), np.int16))
    labels[20, 20, 3] = 2
    return labels


def big(image: np.ndarray) -> np.ndarray:
    return np.kron(image, np.ones((4, 4, 1), np.int16))


# code: (severity, what changes, what the message must say)
IN_MEMORY: dict[str, tuple[str, Source, str]] = {
    "image-not-finite": ("error", memory_source(change=one(image=hole)), "2 of 1,536 values are NaN or infinite"),
    "image-constant": ("error", memory_source(change=one(image=np.zeros_like)), "every value is 0"),
    "image-channels": (
        "error",
        memory_source(change=one(image=lambda a: np.stack([a, a], -1))),
        "expected 1 channel(s), got 2",
    ),
    "shape-mismatch": ("error", memory_source(change=one(labels=lambda a: a[1:])), "15 x 16 x 6 voxels"),
    "affine-singular": ("error", memory_source(change=one(image_affine=SINGULAR, labels_affine=SINGULAR)), "singular"),
    "orientation-mismatch": (
        "error",
        memory_source(change=one(labels_affine=moved(flip=-1))),
        "label map has orientation RPS, its image LPS",
    ),
    "spacing-mismatch": ("error", memory_source(change=one(labels_affine=moved(stretch=2))), "1 x 1 x 5 mm"),
    "place-mismatch": ("error", memory_source(change=one(labels_affine=moved(by=3))), "5.2 mm apart"),
    "oblique": ("note", memory_source(change=one(image_affine=turned(20), labels_affine=turned(20))), "20 degrees"),
    "labels-fractional": (
        "error",
        memory_source(change=one(labels=lambda a: a * np.float32(0.5))),
        "label 0.5 is not a whole number",
    ),
    "labels-negative": ("error", memory_source(change=one(labels=lambda a: a - 1)), "negative label -1"),
    "labels-past-count": (
        "error",
        memory_source(change=one(labels=lambda a: a * 2)),
        "contains label 4, but only classes 0 to 2 are declared",
    ),
    "labels-stretched": (
        "error",
        memory_source(change=all_of(lambda n: {"labels": lambda a: a * 127 + (a == 2)})),
        "contains label 127, 255, but only classes 0 to 2",
    ),
    "duplicate-image": ("warning", memory_source(change=one(image=same_as_first)), "the same pixels as c0, of another patient"),
    "patients-grouped": ("note", named_source("patient{p:03d}_frame{s}"), "24 cases are 12 patients, by their names (frame)"),
    "patients-unclear": ("warning", named_source("prefix_{p:02d}_{s}"), "prefix_00_0 and prefix_00_1 may be one patient or two"),
    "patient-in-two-splits": ("error", memory_source(change=all_of(leak)), "splits heldout, train"),
    "case-without-split": ("error", memory_source(change=all_of(lambda n: split_of(n) if n else {})), "in no split"),
    "split-missing": (
        "warning",
        memory_source(change=all_of(lambda n: {"split": "train" if n else "test"})),
        "no patient in heldout, val",
    ),
    "patients-unknown": (
        "warning",
        memory_source(change=all_of(lambda n: {"image": lambda a: a[..., 2:3], "labels": lambda a: a[..., 2:3]})),
        "every slice counts as a separate patient",
    ),
    "few-patients": ("error", memory_source(3), "3 patients cannot fill the splits"),
    "class-absent": (
        "warning",
        memory_source(schema=LabelSchema.from_names(["organ", "core", "vein"])),
        "1 of 3 classes never occur: vein",
    ),
    "labels-gaps": (
        "warning",
        memory_source(
            change=all_of(lambda n: {"labels": lambda a: a * 5}),
            schema=LabelSchema.from_names(f"class {i}" for i in range(1, 11)),
        ),
        "of the values up to 10, only 0, 5, 10 occur",
    ),
    "no-labels": ("error", memory_source(change=all_of(lambda n: {"labels": np.zeros_like})), "no label map contains any"),
    "class-lacking": (
        "note",
        memory_source(change=one(labels=lambda a: np.minimum(a, 1))),
        "class 'core' is absent from 1 of 24 patients: p3",
    ),
    "class-not-annotated": (
        "note",
        memory_source(change=one(labels=lambda a: np.minimum(a, 1), annotated=("organ",))),
        "class 'core' was not annotated in 1 of 24 patients: p3",
    ),
    "class-tiny": (
        "warning",
        memory_source(change=all_of(lambda n: {"labels": dot, "image": big})),
        "class 'core' is tiny: 1 pixels",
    ),
    "labels-empty": ("warning", memory_source(change=one(labels=np.zeros_like)), "the label map is empty"),
    "label-not-annotated": ("warning", memory_source(change=one(annotated=("organ",))), "contains core, which"),
    "empty-slices": ("note", memory_source(), "48 of 144 slices (33%) have no label"),
    "spacing-differs": (
        "warning",
        memory_source(change=one(image_affine=moved(stretch=2), labels_affine=moved(stretch=2))),
        "from 1 x 1 x 2.5 to 1 x 1 x 5 mm",
    ),
    "orientation-differs": (
        "note",
        memory_source(change=one(image_affine=moved(flip=-1), labels_affine=moved(flip=-1))),
        "LPS (23), RPS (1)",
    ),
    "shape-differs": (
        "note",
        memory_source(change=one(image=lambda a: a[1:], labels=lambda a: a[1:])),
        "from 15 x 16 x 6 to 16 x 16 x 6",
    ),
    "dtype-differs": (
        "note",
        memory_source(change=one(image=lambda a: a.astype(np.float32))),
        "int16 (23), float32 (1)",
    ),
    "hounsfield": ("note", memory_source(), "look like Hounsfield units"),
    "ct-not-hounsfield": (
        "warning",
        memory_source(change=all_of(lambda n: {"image": lambda a: (a % 256).astype(np.uint8)})),
        "from 0 to 255: not Hounsfield units",
    ),
    "scale-differs": (
        "note",
        memory_source(
            change=all_of(lambda n: {"image": lambda a: np.abs(a.astype(np.float32)) * (1000 if n == 3 else 1)}),
            channels=("T1",),
        ),
        "scales differ between cases",
    ),
}  # fmt: skip


@pytest.mark.parametrize("code", IN_MEMORY)
def test_each_fault_of_cases_is_found(code: str) -> None:
    severity, source, says = IN_MEMORY[code]
    found = check_source(source).of(code)
    assert found and found[0].severity == severity and says in found[0].what


def test_a_clean_source_has_no_errors_and_no_warnings() -> None:
    report = check_source(memory_source(change=all_of(split_of)))
    assert {f.severity for f in report.findings} == {"note"} and report.fit
    assert {f.code for f in report.findings} == {"empty-slices", "hounsfield"}
    organ, core = report.classes
    assert organ.share == pytest.approx((8 * 8 * 4 - 4 * 4 * 2) / 1536) and core.patients == core.annotated == 24
    assert report.class_voxels["p7"] == {"organ": 224, "core": 32}
    assert len(report.examples) == 6


def test_duplicates_are_graver_across_patients_and_splits() -> None:
    def severity(**parts: Any) -> str:
        return check_source(memory_source(change=one(image=same_as_first, **parts))).of("duplicate-image")[0].severity

    # Before a split, prepare sees to it that such a pair shares one.
    assert severity() == "warning" and severity(patient="p0") == "warning"
    assert severity(split="test") == "error" and severity(patient="p0", split="test") == "error"
    pair = memory_source(change=one(image=same_as_first))
    assert check_source(pair, splits=False).of("duplicate-image")[0].severity == "error"
    # The same values in another integer type are the same image; constant images are no duplicates of each other.
    other_type = memory_source(change=one(image=same_as_first.astype(np.int32)))
    assert len(check_source(other_type).of("duplicate-image")) == 1
    constant = memory_source(change=all_of(lambda n: {"image": np.zeros_like}))
    assert not check_source(constant).of("duplicate-image")


def test_a_reader_that_breaks_is_a_finding() -> None:
    def broken() -> tuple[Volume, Volume]:
        raise IndexError("list index out of range")

    source = memory_source()
    cases = (*source.cases[:5], replace(source.cases[5], load=broken), *source.cases[6:])
    report = check_source(replace(source, cases=cases))
    assert [(f.file, f.severity) for f in report.of("unreadable")] == [("c5", "error")]
    assert report.cases == 24 and report.patients == 23


# Folders of pictures, as the reference implementation has them.


def write_pictures(folder: Path, count: int = 24, values: tuple[int, ...] = (0, 1, 2)) -> Path:
    """IMAGES/{train,val,test} and MASKS/all/{train,val,test}; masks hold `values` in bands."""
    for number in range(count):
        split = ("train", "val", "test")[number % 3]
        image, mask = folder / "IMAGES" / split, folder / "MASKS" / "all" / split
        image.mkdir(parents=True, exist_ok=True)
        mask.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (20, 24)).astype(np.uint8)
        bands = np.array(values, np.uint8)[np.arange(20) * len(values) // 20]
        Image.fromarray(pixels).save(image / f"s{number:03d}.png")
        Image.fromarray(np.repeat(bands[:, None], 24, axis=1)).save(mask / f"s{number:03d}.png")
    return folder


IMAGE, MASK = "IMAGES/train/s003.png", "MASKS/all/train/s003.png"


def edit(name: str, change: Callable[[Image.Image], Image.Image], **save: Any) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        with Image.open(folder / name) as picture:
            changed = change(picture.copy())
        changed.save(folder / name, **save)

    return apply


def as_palette(picture: Image.Image) -> Image.Image:
    picture = Image.fromarray(np.asarray(picture)).convert("L")
    result = Image.new("P", picture.size)
    result.putdata(list(np.asarray(picture).ravel().tolist()))
    result.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0] + [0] * 759)
    return result


def as_jpeg(folder: Path) -> None:
    bands = np.repeat((np.arange(20) // 7 * 100).astype(np.uint8)[:, None], 24, axis=1)
    noisy = np.clip(bands + np.random.default_rng(0).integers(0, 3, bands.shape), 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(folder / MASK.replace(".png", ".jpg"), quality=60)
    (folder / MASK).unlink()


def wide(picture: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(picture).astype(np.uint16) * 200)


def deep_colour(folder: Path) -> None:
    """A PNG of 16 bits a channel, which Pillow reads but cannot write: header and pixels by hand."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(range(144)) for _ in range(20))
    header = struct.pack(">IIBBBBB", 24, 20, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (folder / IMAGE).write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def pages(folder: Path) -> None:
    page = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 24)).astype(np.uint8))
    page.save(folder / IMAGE.replace(".png", ".tif"), save_all=True, append_images=[page, page])
    (folder / IMAGE).unlink()


def renumber(folder: Path) -> None:
    for place in ("IMAGES", "MASKS/all"):
        (folder / place / "train" / "s003.png").rename(folder / place / "train" / "s_10.png")
        (folder / place / "train" / "s006.png").rename(folder / place / "train" / "s_2.png")


def noise(picture: Image.Image) -> Image.Image:
    return Image.fromarray(np.arange(480).reshape(20, 24).astype(np.uint8))


# code: (severity, what breaks the folder, the file that is named, what the message must say, fixable)
IN_FILES: dict[str, tuple[str, Callable[[Path], Any], str, str, bool]] = {
    "junk-file": ("warning", lambda f: (f / "IMAGES/train/.DS_Store").touch(), "IMAGES/train/.DS_Store", "not data", False),
    "unsorted-names": ("note", renumber, "IMAGES/train/", "s_10.png before s_2.png", False),
    "unmatched-image": ("error", lambda f: (f / MASK).unlink(), IMAGE, "no mask of the same name", False),
    "unmatched-mask": ("error", lambda f: (f / IMAGE).unlink(), MASK, "no image of the same name", False),
    "unreadable": ("error", lambda f: (f / MASK).write_bytes((f / MASK).read_bytes()[:40]), MASK, "cannot be read", False),
    "image-palette": ("warning", edit(IMAGE, as_palette), IMAGE, "indices into a colour table", False),
    "image-16-bit": ("note", edit(IMAGE, wide), IMAGE, "is 16-bit, values", False),
    "image-16-bit-colour": ("warning", deep_colour, IMAGE, "16 bits per colour", False),
    "image-gray-as-colour": ("note", edit(IMAGE, lambda p: p.convert("RGB")), IMAGE, "three equal channels", False),
    "image-pages": ("error", pages, IMAGE.replace(".png", ".tif"), "has 3 pages", False),
    "image-constant": ("warning", edit(IMAGE, lambda p: p.point(lambda v: 7)), IMAGE, "every value is 7", False),
    "mask-jpeg": ("error", as_jpeg, MASK.replace(".png", ".jpg"), "lossy JPEG", False),
    "mask-colour": ("error", edit(MASK, lambda p: as_palette(p).convert("RGB")), MASK, "with 3 colours", False),
    "mask-palette": ("warning", edit(MASK, as_palette), MASK, "with the indices 0, 1, 2", True),
    "mask-many-values": ("error", edit(MASK, noise), MASK, "256 different values", False),
    "shape-mismatch": ("error", edit(MASK, lambda p: p.resize((12, 10))), MASK, "12 x 10", False),
    "mixed-modes": ("warning", edit(IMAGE, lambda p: p.convert("RGB")), IMAGE, "RGB, but 23 images have L", False),
}  # fmt: skip


@pytest.mark.parametrize("code", IN_FILES)
def test_each_fault_of_files_is_found(code: str, tmp_path: Path) -> None:
    """The traps of the reference implementation are here: .DS_Store, unsorted names, 16-bit, palettes."""
    severity, break_it, file, says, fixable = IN_FILES[code]
    folder = write_pictures(tmp_path / "data with a space")
    break_it(folder)
    found = check(str(folder)).of(code)
    assert [(f.severity, f.file, f.fixable) for f in found if f.file == file] == [(severity, file, fixable)]
    assert says in found[0].what and (found[0].hint or code == "note")


def test_clean_pictures_have_no_findings(tmp_path: Path) -> None:
    folders = check_pictures(str(write_pictures(tmp_path / "data")))
    assert folders is not None and folders.findings == [] and len(folders.cases) == 24
    assert {case.values for case in folders.cases} == {(0, 1, 2)}
    assert {case.split for case in folders.cases} == {"train", "val", "test"}


def test_pairs_bear_the_words_that_labs_add(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "Labels").mkdir()
    gray = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    for name in ("images/a.png", "images/b_image.png", "Labels/a_mask.png", "Labels/b-seg.png"):
        gray.save(tmp_path / name)
    np.save(tmp_path / "images" / "c.npy", np.zeros((8, 8), np.float32))
    np.save(tmp_path / "Labels" / "c.npy", np.zeros((8, 8), np.uint8))
    found = check_pictures(str(tmp_path))
    assert found is not None and {f.code for f in found.findings} == {"image-constant"}
    assert [pair.name for pair in found.pairs] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("values", "classes", "says"),
    [
        ((0, 255), None, "0 to 0, 255 to 1"),
        ((0, 128, 255), None, "0 to 0, 128 to 1, 255 to 2"),
        ((0, 128, 255), ["a", "b"], "0 to 0, 128 to 1, 255 to 2"),
        ((0, 128, 255), ["a"], "name 2 with --classes"),
    ],
)
def test_stretched_masks(values: tuple[int, ...], classes: list[str] | None, says: str, tmp_path: Path) -> None:
    report = check(str(write_pictures(tmp_path / "data", values=values)), classes=classes)
    found = report.of("labels-stretched")
    assert len(found) == 24 and not report.fit and says in found[0].hint
    assert found[0].fixable == ("--fix OUT maps" in found[0].hint)


def test_pictures_that_went_through_convert_l(tmp_path: Path) -> None:
    """Red, green and blue of a palette become 76, 150 and 29 by .convert("L"): no label map any more."""
    report = check(str(write_pictures(tmp_path / "data", values=(0, 29, 76, 150))))
    assert not report.fit and len(report.of("labels-past-count")) == 24
    assert "29, 76, 150: gray levels" in report.of("labels-past-count")[0].what
    assert not any(f.fixable for f in report.findings)


# nnU-Net


def test_nnunet_files(nnunet: Path) -> None:
    (nnunet / "labelsTr" / "ball_002.nii.gz").unlink()
    (nnunet / "imagesTr" / "ball_003_0000.nii.gz").unlink()
    whole = (nnunet / "labelsTr" / "ball_004.nii.gz").read_bytes()
    (nnunet / "labelsTr" / "ball_004.nii.gz").write_bytes(whole[: len(whole) // 2])
    (nnunet / "labelsTr" / "._ball_005.nii.gz").touch()
    report = check(str(nnunet))
    found = {(f.code, f.file): f for f in report.findings}
    assert found["unmatched-image", "imagesTr/ball_002_0000.nii.gz"].severity == "warning"
    assert found["unmatched-mask", "labelsTr/ball_003.nii.gz"].severity == "error"
    assert found["unreadable", "labelsTr/ball_004.nii.gz"].severity == "error"
    assert ("junk-file", "labelsTr/._ball_005.nii.gz") in found
    assert found["case-count", "dataset.json"].what == "numTraining is 8, but there are 7 label maps"
    assert report.patients == 5 and len(report.of("unreadable")) == 2


def test_what_a_layout_refuses_is_a_finding(tmp_path: Path) -> None:
    folder = write_nnunet(tmp_path / "raw", 2, annotated_classes={"ball_000": ["bal"]})
    (refused,) = check(str(folder)).of("cannot-open")
    assert "unknown class 'bal'" in refused.what and "'ball'" in refused.hint
    (folder / "dataset.json").write_text("{")
    (refused,) = check(str(folder)).of("cannot-open")
    assert refused.file == "dataset.json" and "not valid JSON" in refused.what


def test_nothing_there_is_refused(tmp_path: Path) -> None:
    for location, error in ((tmp_path / "nowhere", DataError), (tmp_path, DataError)):
        with pytest.raises(error):
            check(str(location))
    with pytest.raises(SettingsError, match="unknown layout 'nnnet'"):
        check(str(tmp_path), "nnnet")


def test_a_circle_of_links_is_left_alone(nnunet: Path) -> None:
    (nnunet / "again").symlink_to(nnunet, target_is_directory=True)
    assert check(str(nnunet)).fit


# Mending


def relabel(folder: Path, mapping: dict[int, int]) -> None:
    for path in sorted((folder / "labelsTr").glob("*.nii.gz")):
        image = nibabel.load(path)
        old = np.asarray(image.dataobj)
        new = old.astype(np.float32)
        for a, b in mapping.items():
            new[old == a] = b
        nibabel.save(nibabel.Nifti1Image(new, image.affine), path)


def digest(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_nnunet_is_mended_to_a_new_place(nnunet: Path, tmp_path: Path) -> None:
    right = {p.name: np.asarray(nibabel.load(p).dataobj) for p in (nnunet / "labelsTr").iterdir()}
    relabel(nnunet, {1: 128, 2: 255})
    (nnunet / ".DS_Store").touch()
    before = digest(nnunet)
    found = check(str(nnunet)).of("labels-stretched")
    assert len(found) == 8 and found[0].fixable
    fixed = fix_labels(str(nnunet), tmp_path / "out")
    assert fixed.mapping == {0: 0, 128: 1, 255: 2} and fixed.files == 8
    assert digest(nnunet) == before
    after = digest(tmp_path / "out")
    assert set(before) - set(after) == {".DS_Store"} and set(after) <= set(before)
    for name, labels in right.items():
        image = nibabel.load(tmp_path / "out" / "labelsTr" / name)
        assert (np.asarray(image.dataobj) == labels).all() and (image.affine == AFFINE).all()
    assert after["imagesTr/ball_001_0000.nii.gz"] == before["imagesTr/ball_001_0000.nii.gz"]
    assert check(str(tmp_path / "out")).fit


def test_pictures_are_mended_by_all_masks_together(tmp_path: Path) -> None:
    """A mask that holds only 0 and 255 is no mask of class 1 where others hold 128 too."""
    folder = write_pictures(tmp_path / "data", values=(0, 128, 255))
    edit(MASK, lambda p: p.point(lambda v: 255 if v == 255 else 0))(folder)
    other = "MASKS/all/val/s001.png"
    edit(other, lambda p: p.convert("RGB"))(folder)
    fixed = fix_labels(str(folder), tmp_path / "out")
    assert fixed.mapping == {0: 0, 128: 1, 255: 2} and fixed.files == 24
    assert set(np.unique(Image.open(tmp_path / "out" / MASK))) == {0, 2}
    with Image.open(tmp_path / "out" / other) as picture:
        assert picture.mode == "L" and set(np.unique(picture)) == {0, 1, 2}


def test_palettes_become_their_indices(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "data")
    right = np.asarray(Image.open(folder / MASK))
    edit(MASK, as_palette)(folder)
    assert fix_labels(str(folder), tmp_path / "out").files == 1
    with Image.open(tmp_path / "out" / MASK) as picture:
        assert picture.mode == "L" and (np.asarray(picture) == right).all()
    with Image.open(folder / MASK) as picture:
        assert picture.mode == "P"


def test_mending_refuses_what_would_be_a_guess(nnunet: Path, tmp_path: Path) -> None:
    def refused(source: Path, out: Path, why: str, **more: Any) -> None:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(SettingsError, match=why):
            fix_labels(str(source), out, **more)
        assert sorted(tmp_path.rglob("*")) == before

    refused(nnunet, tmp_path / "out", "nothing can be fixed")
    refused(nnunet, nnunet / "out", "is inside")
    (tmp_path / "there").mkdir()
    refused(nnunet, tmp_path / "there", "already exists")
    relabel(nnunet, {2: 7})
    pictures = write_pictures(tmp_path / "pictures", values=(0, 255))
    refused(pictures, tmp_path / "out", "nothing can be fixed", classes=["a", "b"])
    shutil.rmtree(pictures)
    write_pictures(pictures, values=(0, 29, 76))
    refused(pictures, tmp_path / "out", "nothing can be fixed")
    assert fix_labels(str(nnunet), tmp_path / "out").mapping == {0: 0, 1: 1, 7: 2}  # as many values as declared classes


def test_values() -> None:
    assert all(map(stretched, ([0, 255], [0, 127, 255], [0, 128, 255], [0, 85, 170, 255], [0, 65535])))
    assert not any(map(stretched, ([0, 1], [0], [255], [], [0, 100, 255], [1, 255], range(256))))
    assert mapping_to_classes([0, 255], 2) == mapping_to_classes({255, 0}, None) == {0: 0, 255: 1}
    assert mapping_to_classes([0, 1, 255], 2) is None and mapping_to_classes([0, 1, 2], 3) is None
    assert mapping_to_classes([0, 29, 76], None) is None and mapping_to_classes([], 2) is None
    assert mapping_to_classes([1, 2], 2) is None and mapping_to_classes([0, 2], 3) is None  # a class may be absent


# Prepared data sets, and the report


def test_a_prepared_data_set_is_checked_too(dataset_folder: Path, tmp_path: Path) -> None:
    report = check_prepared(dataset_folder)
    assert not {"shape-differs", "few-patients"} & {f.code for f in report.findings}
    assert report.fit and report.cases == 8 and [c.name for c in report.classes] == ["ball", "core"]
    shutil.copytree(dataset_folder, tmp_path / "copy")
    index = tmp_path / "copy" / "index.csv"
    lines = index.read_text().splitlines()
    index.write_text("\n".join(lines[:-2]) + "\n")
    (damaged,) = check_prepared(tmp_path / "copy").findings
    assert damaged.code == "damaged" and damaged.severity == "error" and "Prepare the data again" in damaged.hint
    leaking = lines[1].replace(",train,", ",leak,").replace(",test,", ",train,").replace(",leak,", ",test,")
    leaking = leaking.replace(",heldout,", ",train,").replace(",val,", ",train,")
    assert leaking != lines[1]
    index.write_text("\n".join([lines[0], leaking, *lines[2:]]) + "\n")
    report = check_prepared(tmp_path / "copy")
    assert not report.fit and report.of("patient-in-two-splits")


def test_the_report_folds_and_counts() -> None:
    report = check_source(memory_source(change=all_of(lambda n: {"labels": lambda a: a * 3})))
    text = as_text(report)
    assert "labels-past-count (24)" in text and "and 21 more" in text and text.count("contains label") == 3
    assert text.count("-> ") == len({f.hint for f in report.findings if f.hint})
    assert "NOT fit for training: 2" in text.splitlines()[-1] and len(text.splitlines()) < 40
    as_json = json.loads(json.dumps(report.as_dict()))
    assert as_json["fit"] is False and as_json["counts"]["error"] == report.count("error")
    assert {f["code"] for f in as_json["findings"]} == {f.code for f in report.findings}
    empty = CheckReport("here", "x", 0, 0, LabelSchema(()), (Finding("note", "a", "f", "w"),))
    assert "Fit for training: 1 note." in as_text(empty)
    assert shown("abcdefg") == "a, b, c, d, e and 2 more"


def test_a_prepared_set_tells_of_leaks_and_of_what_was_left_out(dataset_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(dataset_folder, tmp_path / "data")
    path = folder / "dataset.json"
    about = json.loads(path.read_text())
    about["skipped"] = [{"case": "case_0099", "problem": "is truncated"}]
    path.write_text(json.dumps(about))
    [left] = check_prepared(folder).of("case-skipped")
    assert (left.severity, left.file, left.what) == ("note", "case_0099", "is truncated")
    del about["grouping"]
    renamed = {name: f"patient{i // 2:03d}_frame{i % 2}" for i, name in enumerate(about["cases"])}
    about["cases"] = {renamed[name]: {**case, "patient": renamed[name]} for name, case in about["cases"].items()}
    path.write_text(json.dumps(about))
    index = (folder / "index.csv").read_text()
    for name, new in renamed.items():
        index = index.replace(name, new).replace(name.replace("case", "patient"), new)
    (folder / "index.csv").write_text(index)
    [leak] = check_prepared(folder).of("patients-leak")
    assert leak.severity == "warning" and "to be in two splits, by the names of the cases" in leak.what


def test_a_scan_that_is_missing_from_places(dataset: PreparedDataset, tmp_path: Path) -> None:
    requests = requests_from_dataset(dataset, dataset.split("test")[:1], dataset.schema.states())
    samples = write_sample_set(RealImages(dataset), requests, tmp_path / "s", image_format="npy")  # type: ignore[arg-type]
    assert "place-missing" not in {f.code for f in check_samples(samples.folder).findings}
    (samples.folder / "places.jsonl").write_text("")
    assert "place-missing" in {f.code for f in check_samples(samples.folder).findings}


def test_every_code_has_a_test() -> None:
    """A finding that no test provokes may be one that never comes."""
    folder = Path(anatogen.check.__file__).parent
    text = "\n".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    codes = set(re.findall(r'"((?:[a-z0-9]+-)+[a-z0-9]+|unreadable|damaged|oblique|hounsfield)"', text))
    codes -= {"utf-8", "sample-set", "thumbs-db"}
    mine = "\n".join(path.read_text(encoding="utf-8") for path in Path(__file__).parents[1].rglob("test_*.py"))
    assert len(codes) > 50
    assert {code for code in codes if f'"{code}"' not in mine} == set()
