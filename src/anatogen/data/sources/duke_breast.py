"""Duke Breast Cancer MRI: the fat-saturated T1 pre-contrast sequence of the 100 patients with published masks.

Images: the collection Duke-Breast-Cancer-MRI of The Cancer Imaging Archive (doi:10.7937/TCIA.e3sv-re93, CC BY-NC 4.0),
downloaded with descriptive folder names. Masks of breast, blood vessels and fibroglandular (dense) tissue: "3D Breast
and FGT MRI Segmentation Supplemental Data" on the page of that collection (Lew et al. 2024,
doi:10.1038/s41598-024-54048-2). Both up to two folders below LOCATION:

    Breast_MRI_001/STUDY/SERIES/*.dcm
    Breast_MRI_001/Segmentation_Breast_MRI_001_Breast.seg.nrrd
    Breast_MRI_001/Segmentation_Breast_MRI_001_Dense_and_Vessels.seg.nrrd

The pre-contrast series is the one that the collection's table Breast-Cancer-MRI-filepath_filename-mapping.csv (saved as
CSV in LOCATION) names "pre"; without the table, the one series whose folder or description has the word pre, or of
several the dynamic one (dyn). As in the masks' authors' own code
(mazurowski-lab/3D-Breast-FGT-and-Blood-Vessel-Segmentation, preprocessing.py), vessels and dense tissue are identified
by the names of the segments, not by their values, which vary and may be in two layers; where they overlap, dense tissue
wins. The NRRD headers are assumed to give the position of the masks (that code flips the arrays by rules instead); if
they do not, the case is rejected.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from anatogen.data.sources.base import Source, SourceCase
from anatogen.data.split import split_patients
from anatogen.errors import DataError
from anatogen.io.dicom import read_series
from anatogen.io.dicom_find import Series, scan
from anatogen.io.nrrd import read_seg_nrrd
from anatogen.io.regrid import on_grid
from anatogen.labels import LabelSchema
from anatogen.volume import Volume

CLASSES = ("breast", "blood vessels", "fibroglandular tissue")  # in the paper's order

# Konz et al. 2024: 70 patients train the generator, 15 are held out for the segmenter, 15 test. The authors list the 70
# in issue 22 of mazurowski-lab/segmentation-guided-diffusion; the split of the other 30 is ours.
PAPER_PATIENTS = {"train": 70, "heldout": 15, "test": 15}
PAPER_TRAIN = tuple(
    f"Breast_MRI_{number:03d}"
    for number in (
        6, 18, 21, 23, 25, 41, 76, 80, 87, 105, 112, 124, 141, 143, 148, 166, 186, 204, 229, 230, 238, 272, 280, 286,
        287, 290, 334, 339, 354, 359, 370, 392, 440, 464, 466, 489, 492, 495, 497, 501, 503, 530, 553, 561, 572, 575,
        587, 602, 612, 618, 652, 670, 681, 686, 688, 693, 723, 726, 727, 741, 762, 773, 781, 788, 797, 819, 832, 876,
        888, 902,
    )
)  # fmt: skip
_OTHERS = {"heldout": 15.0, "val": 7.5, "test": 7.5}  # the paper's 15 test patients, halved

_PATIENT = re.compile(r"Breast_MRI_\d{3}")
_PRE = re.compile(r"(?<![a-z])pre(?![a-z])|pre[\s_-]?contrast", re.IGNORECASE)
_TABLE = "*filepath_filename-mapping*.csv"


def detect(location: str) -> bool:
    """Whether there are folders named like Breast_MRI_001."""
    return next(_patient_folders(Path(location)), None) is not None


def open_source(location: str, classes: Sequence[str] | None = None) -> Source:
    """A case for each patient with images and masks; the classes are always `CLASSES`.

    If all patients of `PAPER_TRAIN` are present, the split is the paper's; otherwise there is none.

    Raises:
        DataError: No patient has both, a mask of the pair is missing, or the pre-contrast series is ambiguous.
    """
    root = Path(location)
    images: dict[str, Path] = {}
    masks: dict[str, tuple[Path, Path]] = {}
    for folder in _patient_folders(root):
        pair = _mask_files(folder)
        if pair[0].is_file() or pair[1].is_file():
            masks[folder.name] = pair
        if any(entry.is_dir() for entry in folder.iterdir()):
            images[folder.name] = folder
    patients = sorted(images.keys() & masks.keys())
    if not patients:
        raise DataError(
            f"{len(images)} patients with images and {len(masks)} with masks, none with both",
            path=root,
            hint="Get the series and Segmentation_Masks_NRRD from doi:10.7937/TCIA.e3sv-re93 into this folder",
        )
    table = _table(root)
    splits = _paper_split(patients)
    cases = []
    for patient in patients:
        for file in masks[patient]:
            if not file.is_file():
                raise DataError("does not exist", path=file, hint="Download the masks again")
        series = _pre_contrast(images[patient], table.get(patient))
        cases.append(
            SourceCase(
                id=patient,
                patient=patient,
                load=partial(_load, series, *masks[patient]),
                files=(*series.files, *masks[patient]),
                split=splits.get(patient),
            )
        )
    missing = len(masks) - len(patients)
    notice = f"{missing} patients have masks but no images and were left out." if missing else ""
    return Source(
        "duke-breast", location, LabelSchema.from_names(CLASSES), ("MR",), tuple(cases), notice, patients_from="layout"
    )


def _patient_folders(root: Path) -> Iterator[Path]:
    for above in ("", "*/", "*/*/"):
        for folder in sorted(root.glob(f"{above}Breast_MRI_*")):
            if _PATIENT.fullmatch(folder.name) and folder.is_dir():
                yield folder


def _mask_files(folder: Path) -> tuple[Path, Path]:
    start = f"Segmentation_{folder.name}"
    return folder / f"{start}_Breast.seg.nrrd", folder / f"{start}_Dense_and_Vessels.seg.nrrd"


def _paper_split(patients: Sequence[str]) -> dict[str, str]:
    others = set(patients) - set(PAPER_TRAIN)
    if not set(PAPER_TRAIN) <= set(patients) or len(others) < len(_OTHERS):
        return {}
    return dict.fromkeys(PAPER_TRAIN, "train") | split_patients(others, _OTHERS, seed=0)


def _table(root: Path) -> dict[str, str]:
    """The folder name of each patient's pre-contrast series, from the collection's table if present."""
    found: dict[str, str] = {}
    for file in sorted(root.glob(_TABLE)):
        try:
            with file.open(newline="", encoding="utf-8-sig") as lines:
                for row in csv.DictReader(lines):
                    original = row["original_path_and_filename"].split("/")  # DICOM_Images/Breast_MRI_001/pre/...dcm
                    if len(original) > 2 and original[2] == "pre":
                        found.setdefault(original[1], row["descriptive_path"].replace("//", "/").split("/")[-2])
        except (KeyError, IndexError, AttributeError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"is not the collection's table ({error!r})", path=file, hint="Export it again") from error
    return found


def _pre_contrast(folder: Path, named: str | None) -> Series:
    below = [place for place in sorted(folder.glob("**/")) if any(entry.is_file() for entry in place.iterdir())]
    if named is not None:
        chosen = [place for place in below if place.name == named]
    else:
        chosen = [place for place in below if _PRE.search(place.name)]
    series = [found for place in chosen or below for found in scan(place)[0]]
    if not chosen:
        series = [found for found in series if _PRE.search(found.description)]
    if len(series) > 1:
        series = [s for s in series if "dyn" in f"{s.folder.name} {s.description}".lower()] or series
    if len(series) != 1:
        names = ", ".join(s.folder.name for s in series)
        raise DataError(
            f"the pre-contrast series is one of: {names}" if series else "no series has the word pre in its name",
            path=folder,
            hint="Put Breast-Cancer-MRI-filepath_filename-mapping.csv beside it, or keep only the pre-contrast series",
        )
    return series[0]


def _load(series: Series, breast_file: Path, dense_and_vessels_file: Path) -> tuple[Volume, Volume]:
    image = read_series(series.files, series.folder)
    labels = np.zeros(image.grid, np.uint8)
    breast, _ = read_seg_nrrd(breast_file)
    inside, place = on_grid(breast, image, breast_file)
    labels[place][inside.reshape(*inside.shape[:3], -1).any(axis=-1)] = 1
    volume, segments = read_seg_nrrd(dense_and_vessels_file)
    by_name = {name.lower(): mask for name, mask in segments.items()}
    if not by_name:  # the numbers of the masks' authors
        by_name = {"vessels": volume.array == 1, "dense": volume.array == 2}
    for name, value in (("vessels", 2), ("dense", 3)):
        if name not in by_name:
            raise DataError(
                f"has no segment '{name}', but {', '.join(segments)}",
                path=dense_and_vessels_file,
                hint="Download the masks again",
            )
        mask, place = on_grid(Volume(by_name[name], volume.affine), image, dense_and_vessels_file)
        labels[place][mask.astype(bool)] = value
    return image, Volume(labels, image.affine)
