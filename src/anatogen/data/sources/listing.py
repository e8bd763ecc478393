"""Shared by the folder layouts: listing files, pairing images with label maps, and classes without names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.data.label_values import MOST_OFF
from anatogen.errors import DataError
from anatogen.labels import LabelSchema

IMAGE_FOLDERS = ("images", "image", "imgs", "img")
MASK_FOLDERS = (
    "masks", "mask", "labels", "label", "annotations", "annotation", "segmentations", "segmentation",
)  # fmt: skip
NIFTI = (".nii.gz", ".nii")

# Words at the end of a file name, after _ - . or a space, that distinguish an image from its label map.
IMAGE_WORDS = (
    "image", "img", "imaging", "ct", "mr", "mri", "t1", "t1w", "t2", "t2w", "flair", "orig", "0000",
)  # fmt: skip
LABEL_WORDS = ("label", "labels", "seg", "segm", "segmentation", "mask", "masks", "gt")

_REFUSED = (".gif", ".bmp", ".webp", ".jp2", ".svg", ".pdf")
_SYSTEM_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx")


@dataclass(frozen=True)
class Pair:
    """One case: its name, its image file and its label map file."""

    id: str
    image: Path
    labels: Path


def ending(path: Path) -> str:
    """The suffix in lower case, including ".nii.gz"."""
    return ".nii.gz" if path.name.lower().endswith(".nii.gz") else path.suffix.lower()


def stem(path: Path) -> str:
    """The name without its suffix, in Unicode NFC, because file systems normalise accents differently."""
    return unicodedata.normalize("NFC", path.name[: len(path.name) - len(ending(path))])


def natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    """A sort key that puts slice_2 before slice_10."""
    parts = re.split(r"([0-9]+)", path.name)
    return [(int(p), "") if i % 2 else (0, p.casefold()) for i, p in enumerate(parts)], path.name


def entries(folder: Path) -> list[Path]:
    """The entries of `folder` in natural order, without hidden and system files (.DS_Store, ._x, Thumbs.db, ...).

    Empty if there is no such folder. Raises DataError if it cannot be listed.
    """
    if not folder.is_dir():
        return []
    try:
        found = [p for p in folder.iterdir() if not p.name.startswith(".") and p.name.lower() not in _SYSTEM_FILES]
    except OSError as error:
        raise DataError(f"cannot be listed ({error.strerror})", path=folder, hint="Check its permissions") from error
    return sorted(found, key=natural)


def files(folder: Path, endings: Sequence[str]) -> list[Path]:
    """The files in `folder` with one of `endings`. Other kinds of files are ignored, except other pictures.

    Raises:
        DataError: For pictures of unsupported formats, and for folders and broken links named like a file.
    """
    found = []
    for path in entries(folder):
        if ending(path) in _REFUSED:
            raise DataError(f"pictures of format {ending(path)} are not supported", path=path, hint="Save it as PNG")
        if ending(path) not in endings:
            continue
        if not path.is_file():
            what = "is a folder named like a file" if path.is_dir() else "is a broken or circular link"
            raise DataError(what, path=path, hint="Rename or remove it")
        found.append(path)
    return found


def has_files(folder: Path, endings: Sequence[str]) -> bool:
    """Whether any entry of `folder` has one of `endings`."""
    return any(ending(path) in endings for path in entries(folder))


def subfolders(folder: Path, names: Sequence[str]) -> list[Path]:
    """The folders in `folder` with one of `names`, ignoring case, in the order of `names`."""
    found = [p for p in entries(folder) if p.name.lower() in names and p.is_dir()]
    return sorted(found, key=lambda p: names.index(p.name.lower()))


def the_subfolder(folder: Path, names: Sequence[str]) -> Path:
    """The one folder in `folder` with one of `names`. Raises DataError if there is none or more than one."""
    found = subfolders(folder, names)
    if not found:
        raise DataError(f"has no folder {names[0]}/", path=folder, hint=f"Give it one of the names {', '.join(names)}")
    if len(found) > 1:
        both = " and ".join(f"{p.name}/" for p in found)
        raise DataError(f"contains {both}, but only one is allowed", path=folder, hint="Move one of them away")
    return found[0]


def without_word(name: str, words: Sequence[str]) -> str:
    """`name` without one of `words` at its end: "case_7_seg" becomes "case_7"."""
    return re.sub(rf"(?i)[-_. ](?:{'|'.join(words)})$", "", name)


def pair(images: Sequence[Path], masks: Sequence[Path]) -> list[Pair]:
    """Pair images and label maps of the same name, ignoring a word of IMAGE_WORDS or LABEL_WORDS at its end.

    Raises:
        DataError: A file has no counterpart, or two files have the same name.
    """
    image_of, mask_of = _by_name(images, stem), _by_name(masks, stem)
    pairs = {name: Pair(name, image, mask_of[name]) for name, image in image_of.items() if name in mask_of}
    left_images = _by_name([p for n, p in image_of.items() if n not in pairs], _image_name)
    left_masks = _by_name([p for n, p in mask_of.items() if n not in pairs], _mask_name)
    for name, image in left_images.items():
        if name not in left_masks:
            raise DataError(
                "has no label map of the same name", path=image, hint="Add the label map, or move the image away"
            )
        if name in pairs:
            raise DataError(
                f"and {pairs[name].image.name} would both be case '{name}'", path=image, hint="Rename one of them"
            )
        pairs[name] = Pair(name, image, left_masks.pop(name))
    for mask in left_masks.values():
        raise DataError("has no image of the same name", path=mask, hint="Add the image, or move the label map away")
    return sorted(pairs.values(), key=lambda p: natural(p.image))


def _image_name(path: Path) -> str:
    return without_word(stem(path), IMAGE_WORDS)


def _mask_name(path: Path) -> str:
    return without_word(stem(path), LABEL_WORDS)


def _by_name(paths: Iterable[Path], name_of: Callable[[Path], str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        first = found.setdefault(name_of(path), path)
        if first is not path:
            raise DataError(
                f"and {first.name} are two files of one case", path=path, hint="Keep one of them in this folder"
            )
    return found


def find_schema(
    classes: Sequence[str] | None, label_files: Iterable[Path], read: Callable[[Path], NDArray[Any]]
) -> LabelSchema:
    """The classes named `classes`; if None, "class 1" up to the highest value in any label map.

    Unreadable files are skipped here and reported when their case is read.

    Raises:
        DataError: No file can be read, or values cannot be class numbers: fractions, negative values, 0 and 255 alone,
            and gray levels (values above 63 of which most in between never occur). Names the file.
    """
    if classes is not None:
        return LabelSchema.from_names(classes)
    first_file: dict[int, Path] = {}
    unread: DataError | None = None
    for path in label_files:
        try:
            labels = read(path)
        except DataError as error:
            unread = unread or error
            continue
        for value in _whole_values(labels, path):
            first_file.setdefault(value, path)
    if unread is not None and not first_file:
        raise unread
    highest, lowest = max(first_file, default=0), min(first_file, default=0)
    if lowest < 0:
        raise DataError(f"contains label {lowest}", path=first_file[lowest], hint="Number the classes 1, 2, ...")
    if set(first_file) <= {0, 255} and highest:
        raise DataError(
            "contains only 0 and 255, which are not class numbers",
            path=first_file[255],
            hint="Run anatogen check; --fix remaps 0/255",
        )
    if highest > 63 and len(first_file) - 1 < highest / 4:
        raise DataError(
            f"contains label {highest}, but only {len(first_file)} values occur in total: gray levels, not class "
            "numbers",
            path=first_file[highest],
            hint="Relabel the maps 0, 1, 2, ..., or name the classes",
        )
    return LabelSchema.from_names(f"class {value}" for value in range(1, highest + 1))


def _whole_values(labels: NDArray[Any], path: Path) -> list[int]:
    if labels.dtype.kind == "u" and labels.dtype.itemsize <= 2:
        return [int(v) for v in np.flatnonzero(np.bincount(labels.ravel()))]  # much faster than sorting
    values = np.unique(labels)
    off = np.where(np.isfinite(values), np.abs(values - np.rint(values)), np.inf)
    if off.max() > MOST_OFF:
        raise DataError(
            f"label {values[off.argmax()]:.4g} is not a whole number but between two classes",
            path=path,
            hint="Resample labels by nearest neighbour",
        )
    return [int(v) for v in np.unique(np.rint(values))]
