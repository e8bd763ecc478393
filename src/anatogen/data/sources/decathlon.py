"""The Medical Segmentation Decathlon's layout: dataset.json with the list "training", imagesTr/ and labelsTr/.

"modality" names the channels, which are in the last axis of the images; "labels" are keyed by number. A listed file
that is missing is reported when its case is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from anatogen.data.sources.base import Source, SourceCase
from anatogen.data.sources.declared import LabelReader, channel_names, read_description, schema_of, terms_of
from anatogen.data.sources.listing import stem
from anatogen.errors import DataError
from anatogen.io.nifti import read_nifti
from anatogen.volume import Volume


def detect(location: str) -> bool:
    """Whether a dataset.json lists training images without a channel number, which nnU-Net's have."""
    folder = Path(location)
    if not (folder / "dataset.json").is_file():
        return False
    try:
        listed = read_description(folder / "dataset.json").get("training")
    except DataError:
        return False
    if not isinstance(listed, list) or not listed:
        return False
    return any((folder / str(entry["image"])).is_file() for entry in listed if _is_entry(entry))


def open_source(location: str, classes: Sequence[str] | None = None) -> Source:
    """The cases of the list "training". Raises DataError if dataset.json is invalid or lists a case twice."""
    folder = Path(location)
    path = folder / "dataset.json"
    description = read_description(path)
    schema, names = schema_of(description, path), channel_names(description, path)
    reader = LabelReader.of(schema, description)
    listed = description.get("training")
    if not isinstance(listed, list) or not listed or not all(map(_is_entry, listed)):
        hint = 'Expected "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}, ...]'
        raise DataError('has no list "training" of images with their label maps', path=path, hint=hint)
    cases: dict[str, SourceCase] = {}
    for entry in listed:
        image, labels = folder / entry["image"], folder / entry["label"]
        case = stem(image)
        if case in cases:
            raise DataError(f"lists the case {case} twice", path=path, hint="Remove one of the entries")
        load = partial(_load, image, labels, len(names), reader)
        cases[case] = SourceCase(case, case, load, files=(image, labels))
    return Source("decathlon", location, schema, names, tuple(cases.values()), terms=terms_of(description))


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("image"), str) and isinstance(entry.get("label"), str)


def _load(image: Path, labels: Path, channels: int, reader: LabelReader) -> tuple[Volume, Volume]:
    return read_nifti(image, channels), reader(read_nifti(labels), labels)
