"""Masks in colours, TIFF stacks, BIDS' table of participants, and formats that need a reader."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

import kinds
from anatogen.check import check, fix_labels
from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import open_source
from anatogen.data.store import PreparedDataset
from anatogen.errors import AnatogenError, DataError, SettingsError
from anatogen.io.nrrd import read_nrrd

NAMED = ["red=#FF0000", "green=#00ff00"]


def made(raw: Path, out: Path, classes: list[str] | None = None, **settings: object) -> PreparedDataset:
    how = {"size": (40, 40), "shares": {"train": 1.0}, "workers": 1, "keep_names": True, **settings}
    return prepare(open_source(str(raw), classes=classes), out, PrepareSettings(**how))  # type: ignore[arg-type]


def errors(location: Path, classes: list[str] | None = None) -> list[str]:
    found = check(str(location), classes=classes).findings
    return [f"{f.code} {f.file}: {f.what}" for f in found if f.severity == "error" and f.code != "few-patients"]


def described(raw: Path, **colours: object) -> Path:
    (raw / "dataset.json").write_text(json.dumps({"colours": colours}))
    return raw


# ---- colours


@pytest.mark.parametrize("how", ["dataset.json", "classes"])
def test_a_table_of_colours_turns_masks_into_classes(tmp_path: Path, how: str) -> None:
    raw = kinds.colour_masks(tmp_path / "raw")
    classes = NAMED if how == "classes" else None
    if how == "dataset.json":
        described(raw, red="#FF0000", green=[0, 255, 0])
    assert errors(raw, classes) == []
    dataset = made(raw, tmp_path / "out", classes)
    assert [(c.name, c.colour) for c in dataset.schema.classes] == [("red", "#FF0000"), ("green", "#00FF00")]
    for number, row in enumerate(dataset.rows):
        truth = kinds.blob(number, (40, 40, 1))[1][:, :, 0]
        assert np.array_equal(dataset.load([row]).labels[0].numpy(), truth)


def test_without_a_table_the_colours_that_occur_are_said(tmp_path: Path) -> None:
    raw = kinds.colour_masks(tmp_path / "raw")
    with pytest.raises(DataError) as caught:
        open_source(str(raw))
    said = str(caught.value)
    assert (
        "s0.png: is a colour picture" in said and "#000000 (8" in said and "#FF0000 (" in said and "#00FF00 (" in said
    )
    assert '--classes "name1=#FF0000,name2=#00FF00"' in said and "dataset.json" in said
    assert any("#FF0000" in line for line in errors(raw))


def test_fix_writes_masks_of_labels(tmp_path: Path) -> None:
    raw = kinds.colour_masks(tmp_path / "raw")
    with pytest.raises(SettingsError, match="nothing can be"):
        fix_labels(str(raw), tmp_path / "unnamed")
    assert fix_labels(str(raw), tmp_path / "fixed", NAMED).files == 6
    assert {f.name for f in (tmp_path / "fixed").iterdir()} == {"images", "masks", "dataset.json"}
    for number in range(6):
        mask = Image.open(tmp_path / "fixed" / "masks" / f"s{number}.png")
        assert mask.mode == "L"
        assert np.array_equal(np.asarray(mask), kinds.blob(number, (40, 40, 1))[1][:, :, 0])
    source = open_source(str(tmp_path / "fixed"))  # names and colours are still known
    assert source.schema.names == ("red", "green") and source.schema.classes[0].colour == "#FF0000"
    assert errors(tmp_path / "fixed") == []


def test_a_colour_that_no_class_has(tmp_path: Path) -> None:
    raw = kinds.colour_masks(tmp_path / "raw")
    mask = np.asarray(Image.open(raw / "masks" / "s4.png")).copy()
    mask[:2, :3] = (255, 0, 1)
    Image.fromarray(mask).save(raw / "masks" / "s4.png")
    assert errors(raw, NAMED)[0].startswith("mask-colour masks/s4.png: has 6 pixels of the undeclared colour #FF0001")
    with pytest.raises(DataError, match="s4.png: has 6 pixels of the undeclared colour #FF0001"):
        made(raw, tmp_path / "out", NAMED)


def test_smoothed_colours_are_no_label_maps(tmp_path: Path) -> None:
    raw = kinds.colour_masks(tmp_path / "raw", side=80)
    for path in (raw / "masks").iterdir():
        mask = Image.open(path).resize((160, 160), Image.Resampling.BICUBIC).resize((80, 80), Image.Resampling.BICUBIC)
        mask.save(path)
    with pytest.raises(DataError, match="colours: smoothed, or not label maps"):
        open_source(str(raw))


@pytest.mark.parametrize(
    ("classes", "colours", "message"),
    [
        (["red=#FF0000", "green"], {}, "only some of the classes have a colour"),
        (["red=#FF0000", "green=#FF0000"], {}, "two classes have the colour #FF0000"),
        (None, {"red": "crimson"}, "crimson is not a colour"),
        (None, {"red": [1, 2]}, r"\[1, 2\] is not a colour"),
        (None, {"background": "#000000"}, "declares no class"),
        (None, {"dark": "#000000"}, "two classes have the colour #000000"),
    ],
)
def test_tables_that_are_none(
    tmp_path: Path, classes: list[str] | None, colours: dict[str, object], message: str
) -> None:
    raw = kinds.colour_masks(tmp_path / "raw")
    if colours:
        described(raw, **colours)
    with pytest.raises(AnatogenError, match=message):
        open_source(str(raw), classes=classes)
    assert any(message.replace("\\", "") in line for line in errors(raw, classes))


def test_named_colours_are_noted_and_can_be_fixed(tmp_path: Path) -> None:
    raw = described(kinds.colour_masks(tmp_path / "raw"), red="#FF0000", green="#00FF00")
    notes = [f for f in check(str(raw)).findings if f.code == "mask-colours-named"]
    assert len(notes) == 6 and all(f.fixable and f.severity == "note" for f in notes)


# ---- stacks of TIFF pages


def stacks(folder: Path, *, imagej: bool = True, channels: int = 1) -> Path:
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(4):
        image, labels = (part.transpose(2, 1, 0) for part in kinds.blob(number))  # (z, y, x)
        about = (
            {"imagej": True, "resolution": (1 / 0.4, 1 / 0.5), "metadata": {"spacing": 2.5, "unit": "mm"}}
            if imagej
            else {}
        )
        pixels = image.clip(0).astype(np.uint16)
        if channels > 1:
            pixels = np.stack([pixels + 7 * c for c in range(channels)], axis=1)
            about = {**about, "metadata": {**about["metadata"], "axes": "ZCYX"}}
        tifffile.imwrite(folder / "images" / f"v{number}.tif", pixels, **about)
        tifffile.imwrite(folder / "masks" / f"v{number}.tif", labels, photometric="minisblack")
    return folder


def test_a_stack_is_a_volume_with_the_voxel_size_of_imagej(tmp_path: Path) -> None:
    raw = stacks(tmp_path / "raw")
    source = open_source(str(raw))
    image, labels = source.cases[1].load()
    assert source.schema.names == ("class 1", "class 2") and source.channels == ("image",)
    assert image.grid == kinds.SHAPE and image.spacing_mm == pytest.approx((0.4, 0.5, 2.5), rel=1e-4)
    assert np.array_equal(labels.array, kinds.blob(1)[1]) and np.array_equal(image.array, kinds.blob(1)[0].clip(0))
    assert np.allclose(labels.affine, image.affine)  # the label map states no size, and has its image's
    assert errors(raw) == [] and not [f for f in check(str(raw)).findings if f.code == "image-pages"]
    dataset = made(raw, tmp_path / "out", size=(32, 32))
    assert len({row.case for row in dataset.rows}) == 4 and len(dataset.rows) > 8
    assert len(made(raw, tmp_path / "volumes", size=(8, 32, 32)).rows) == 4


def test_a_stack_without_a_voxel_size_says_so(tmp_path: Path) -> None:
    raw = stacks(tmp_path / "raw", imagej=False)
    assert open_source(str(raw)).cases[0].load()[0].spacing_mm == (1, 1, 1)
    notes = {f.code: f for f in check(str(raw)).findings}
    assert "1 mm is assumed" in notes["spacing-unknown"].what and errors(raw) == []
    assert "1 mm is assumed" in made(raw, tmp_path / "out").info.cases["v0"].remarks[0]


def test_channels_of_a_hyperstack(tmp_path: Path) -> None:
    raw = stacks(tmp_path / "raw", channels=2)
    source = open_source(str(raw))
    image = source.cases[0].load()[0].array
    assert source.channels == ("channel 1", "channel 2") and image.shape == (*kinds.SHAPE, 2)
    assert np.array_equal(image[..., 1].astype(int), image[..., 0].astype(int) + 7) and errors(raw) == []


def test_a_mask_of_one_page_for_a_stack(tmp_path: Path) -> None:
    raw = stacks(tmp_path / "raw")
    Image.fromarray(kinds.blob(2)[1][:, :, 3].T).save(raw / "masks" / "v2.tif")
    assert any("image-pages images/v2.tif: has 6 pages, but its mask has not" in line for line in errors(raw))
    with pytest.raises(DataError, match="v2.tif: has 6 pages, but its label map 1"):
        made(raw, tmp_path / "out")


def test_a_stack_in_time_is_refused(tmp_path: Path) -> None:
    raw = stacks(tmp_path / "raw")
    movie = np.zeros((3, 6, 26, 24), np.uint16)
    tifffile.imwrite(raw / "images" / "v1.tif", movie, imagej=True, metadata={"axes": "TZYX"})
    with pytest.raises(DataError, match="v1.tif: .*(pages of one volume|pages, but its label map)"):
        made(raw, tmp_path / "out")


# ---- BIDS' participants.tsv


def test_participants_name_the_patients_and_what_is_known_of_them(tmp_path: Path) -> None:
    raw = kinds.nnunet(tmp_path / "raw", cases=4)
    for number, name in enumerate(("sub-01_ses-m00", "sub-01_ses-m12", "sub-02_ses-m00", "other")):
        (raw / "imagesTr" / f"c{number}_0000.nii.gz").rename(raw / "imagesTr" / f"{name}_0000.nii.gz")
        (raw / "labelsTr" / f"c{number}.nii.gz").rename(raw / "labelsTr" / f"{name}.nii.gz")
    (raw / "participants.tsv").write_text("participant_id\tage\tsex\nsub-01\t61\tF\nsub-02\tn/a\tM\n")
    source = open_source(str(raw))
    assert {case.id: case.patient for case in source.cases} == {
        "sub-01_ses-m00": "sub-01", "sub-01_ses-m12": "sub-01", "sub-02_ses-m00": "sub-02", "other": "other",
    }  # fmt: skip
    assert [dict(case.attributes) for case in source.cases] == [
        {},
        {"age": "61", "sex": "F"},
        {"age": "61", "sex": "F"},
        {"sex": "M"},
    ]
    assert "1 of 4 cases match no participant in participants.tsv: other." in source.notice
    dataset = made(raw, tmp_path / "out")
    assert sorted(map(str, (r.attributes for r in dataset.info.cases.values()))) == sorted(
        map(str, (dict(case.attributes) for case in source.cases))
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("participant_id,age\nsub-01,3\n", "no column participant_id"),
        ("participant_id\tage\nsub-01\t3\nsub-01\t4\n", "lists the participant sub-01 twice"),
    ],
)
def test_bad_participants(tmp_path: Path, text: str, message: str) -> None:
    raw = kinds.nnunet(tmp_path / "raw", cases=4)
    (raw / "participants.tsv").write_text(text)
    with pytest.raises(DataError, match=f"participants.tsv: .*{message}"):
        open_source(str(raw))


# ---- other formats in nnU-Net's layout


@pytest.mark.parametrize("ending", [".nii", ".nrrd"])
def test_other_endings_of_nnunet(tmp_path: Path, ending: str) -> None:
    import nrrd

    raw = kinds.nnunet(tmp_path / "raw", file_ending=ending)
    for path in [*(raw / "imagesTr").iterdir(), *(raw / "labelsTr").iterdir()]:
        image = nibabel.load(path)
        other = path.with_name(path.name.removesuffix(".nii.gz") + ending)
        if ending == ".nii":
            nibabel.save(image, other)
        else:
            space = {
                "space": "right-anterior-superior",
                "space directions": np.diag([0.8, 0.8, 3]),
                "space origin": [0, 0, 0],
            }
            nrrd.write(str(other), np.asarray(image.dataobj), space)
            assert np.allclose(read_nrrd(other).affine, kinds.AFFINE)
        path.unlink()
    assert errors(raw) == []
    plain = made(kinds.nnunet(tmp_path / "plain"), tmp_path / "expected")
    dataset = made(raw, tmp_path / "out")
    assert bool((dataset.load(dataset.rows).images == plain.load(plain.rows).images).all())


def test_metaimage_names_the_extra_that_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    raw = kinds.nnunet(tmp_path / "raw", file_ending=".mha")
    for path in [*(raw / "imagesTr").iterdir(), *(raw / "labelsTr").iterdir()]:
        path.rename(path.with_name(path.name.replace(".nii.gz", ".mha")))
    with pytest.raises(DataError, match=r"pip install 'anatogen\[itk\]'"):
        made(raw, tmp_path / "out")


def test_metaimage_is_read_with_its_place(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    raw = kinds.nnunet(tmp_path / "raw", file_ending=".mha")
    for path in [*(raw / "imagesTr").iterdir(), *(raw / "labelsTr").iterdir()]:
        sitk.WriteImage(sitk.ReadImage(str(path)), str(path).replace(".nii.gz", ".mha"))
        path.unlink()
    assert errors(raw) == []
    assert np.allclose(open_source(str(raw)).cases[0].load()[0].affine, kinds.AFFINE)
