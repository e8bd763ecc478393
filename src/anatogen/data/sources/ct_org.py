"""CT-ORG as published by The Cancer Imaging Archive: 140 CT scans, volume-N.nii.gz with labels-N.nii.gz.

Rister et al. 2020, doi:10.1038/s41597-020-00715-8; data doi:10.7937/tcia.2019.tt7f4v7o. The files are in `location`, in
its OrganSegmentations/, or in several folders in it, as the archive's parts are unpacked. Label maps are stored as
32-bit floats: 1 liver, 2 bladder, 3 lungs, 4 kidneys, 5 bone, and in the few scans that show it 6 brain. As in the
paper there are five classes, and the brain becomes background. A case is a patient.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from anatogen.data.label_values import whole_labels
from anatogen.data.sources.base import Source, SourceCase
from anatogen.data.sources.listing import NIFTI, entries, files
from anatogen.errors import DataError
from anatogen.io.nifti import read_nifti
from anatogen.labels import LabelSchema
from anatogen.volume import Volume

CLASSES = ("liver", "bladder", "lungs", "kidneys", "bone")
# The paper uses 40 of the 140 patients (unspecified): 24 train, 8 held out, 8 test, halved here for val.
PAPER_PATIENTS = {"train": 24, "heldout": 8, "val": 4, "test": 4}

_BRAIN = 6
_NAME = re.compile(r"(volume|labels)-([0-9]+)\.nii(?:\.gz)?", re.IGNORECASE)


def detect(location: str) -> bool:
    """Whether `location` contains a labels-N.nii.gz."""
    for folder in (Path(location), *entries(Path(location))):
        matches = (_NAME.fullmatch(path.name) for path in entries(folder))
        if any(match and match[1].lower() == "labels" for match in matches):
            return True
    return False


def open_source(location: str, classes: Sequence[str] | None = None) -> Source:
    """The scans with their label maps, by number. `classes`: other names for the five.

    Raises:
        DataError: A scan has no label map or vice versa, or a number occurs twice.
    """
    found: dict[str, dict[int, Path]] = {"volume": {}, "labels": {}}
    for folder in (Path(location), *entries(Path(location))):
        for path in files(folder, NIFTI):
            if match := _NAME.fullmatch(path.name):
                first = found[match[1].lower()].setdefault(int(match[2]), path)
                if first is not path:
                    raise DataError(f"and {first} have the same number", path=path, hint="Keep one of them")
    scans, label_maps = found["volume"], found["labels"]
    if not scans and not label_maps:
        raise DataError(
            "contains no volume-N.nii.gz and labels-N.nii.gz", path=location, hint="Choose the folder with both"
        )
    for number in sorted(scans.keys() ^ label_maps.keys()):
        here, other = (scans, "labels") if number in scans else (label_maps, "volume")
        raise DataError(
            f"has no {other}-{number}.nii.gz", path=here[number], hint="Download it as well, or move this file away"
        )
    cases = (
        SourceCase(f"volume-{n}", str(n), partial(_load, scans[n], label_maps[n]), files=(scans[n], label_maps[n]))
        for n in sorted(scans)
    )
    return Source(
        "ct-org", location, LabelSchema.from_names(classes or CLASSES), ("CT",), tuple(cases), patients_from="layout"
    )


def _load(scan: Path, label_map: Path) -> tuple[Volume, Volume]:
    labels = read_nifti(label_map)
    try:
        labels = whole_labels(labels, label_map)
    except DataError:
        return read_nifti(scan), labels  # the label check reports wrong values
    return read_nifti(scan), replace(labels, array=np.where(labels.array == _BRAIN, 0, labels.array))
