"""Pairs of NIfTI files, an image and its label map, in one of three arrangements (.nii.gz or .nii):

    images/CASE.nii.gz   labels/CASE.nii.gz          two folders, named as in the layout `folders`
    CASE.nii.gz          CASE_seg.nii.gz             one folder
    CASE/image.nii.gz    CASE/label.nii.gz           a folder for each case, with one image and one label map

A label map has a word of LABEL_WORDS (`listing`) at the end of its name, after _ - . or a space, or as its whole name.
An image may have a word of IMAGE_WORDS there: CASE_image.nii.gz, CASE_t1.nii.gz. Each pair is a case and, without
further information, a patient. For images of several channels use nnU-Net's layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from anatogen.data.sources.base import Source, SourceCase
from anatogen.data.sources.listing import (
    IMAGE_FOLDERS,
    LABEL_WORDS,
    MASK_FOLDERS,
    NIFTI,
    Pair,
    ending,
    entries,
    files,
    find_schema,
    has_files,
    pair,
    stem,
    subfolders,
    the_subfolder,
    without_word,
)
from anatogen.errors import DataError
from anatogen.io.nifti import read_nifti
from anatogen.volume import Volume


def detect(location: str) -> bool:
    """Whether there are NIfTI files in one of the three arrangements."""
    folder = Path(location)
    images, masks = subfolders(folder, IMAGE_FOLDERS), subfolders(folder, MASK_FOLDERS)
    if images and masks:
        return has_files(images[0], NIFTI)
    return _has_label_map(folder) or any(_has_label_map(p) for p in entries(folder))


def open_source(location: str, classes: Sequence[str] | None = None) -> Source:
    """The pairs at `location`. Raises DataError for unpaired files and for several images in a case."""
    folder = Path(location)
    if subfolders(folder, IMAGE_FOLDERS):
        masks = the_subfolder(folder, MASK_FOLDERS)
        pairs = pair(files(the_subfolder(folder, IMAGE_FOLDERS), NIFTI), files(masks, NIFTI))
    elif _has_label_map(folder):
        there = files(folder, NIFTI)
        pairs = pair([p for p in there if not _is_label_map(p)], [p for p in there if _is_label_map(p)])
    else:
        pairs = [_pair_of_case(p) for p in entries(folder) if has_files(p, NIFTI)]
    if not pairs:
        raise DataError(
            "contains no pairs of NIfTI files", path=location, hint="Expected for instance CASE.nii.gz, CASE_seg.nii.gz"
        )
    schema = find_schema(classes, (p.labels for p in pairs), _read_labels)
    cases = (SourceCase(p.id, p.id, partial(_load, p), files=(p.image, p.labels)) for p in pairs)
    return Source("nifti-pairs", location, schema, ("image",), tuple(cases))


def _is_label_map(path: Path) -> bool:
    name = stem(path)
    return ending(path) in NIFTI and (name.lower() in LABEL_WORDS or without_word(name, LABEL_WORDS) != name)


def _has_label_map(folder: Path) -> bool:
    return any(_is_label_map(path) for path in entries(folder))


def _pair_of_case(folder: Path) -> Pair:
    there = files(folder, NIFTI)
    labels = [p for p in there if _is_label_map(p)]
    images = [p for p in there if not _is_label_map(p)]
    if len(labels) != 1 or len(images) != 1:
        raise DataError(
            f"expected one image and one label map, got {len(images)} and {len(labels)}",
            path=folder,
            hint="For several images (channels) of a case use nnU-Net's layout",
        )
    return Pair(folder.name, images[0], labels[0])


def _read_labels(path: Path) -> NDArray[Any]:
    return read_nifti(path).array


def _load(p: Pair) -> tuple[Volume, Volume]:
    return read_nifti(p.image), read_nifti(p.labels)
