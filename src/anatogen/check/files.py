"""Checks of picture files before a layout reads them: pairing, and the actual content of the files.

They see what a layout rejects (JPEG masks, colours instead of labels) and what it silently corrects (palettes).
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anatogen.check.cases import CaseSummary, example_of, summarise, without_labels
from anatogen.check.findings import Example, Finding, shown
from anatogen.check.listing import is_junk, natural_name
from anatogen.data.sources.base import SourceCase
from anatogen.data.sources.colours import ColourTable
from anatogen.data.sources.listing import IMAGE_FOLDERS, IMAGE_WORDS, LABEL_WORDS, MASK_FOLDERS
from anatogen.errors import DataError
from anatogen.io.inspect import PICTURE_ENDINGS, Picture, inspect_picture
from anatogen.io.npy import read_npy
from anatogen.volume import Volume

SPLIT_FOLDERS = ("train", "heldout", "val", "test")
MOST_CLASSES = 64  # a mask with more values than this is not a label map, unless so many classes are declared

# Name endings that distinguish an image from its mask.
_MASK_WORDS = re.compile(rf"[-_. ]({'|'.join(LABEL_WORDS)})$", re.IGNORECASE)
_IMAGE_WORDS = re.compile(rf"[-_. ]({'|'.join(IMAGE_WORDS)})$", re.IGNORECASE)
_FLAT = np.diag([-1.0, -1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Pair:
    """An image and a mask of one name; one of them may be missing."""

    name: str
    image: Path | None
    mask: Path | None
    split: str | None


@dataclass
class PictureFolders:
    """The content of a pair of folders: every case that can be read, even if a layout rejects it."""

    pairs: list[Pair]
    findings: list[Finding]
    cases: list[CaseSummary]
    examples: list[Example]


def picture_roots(location: str | Path) -> tuple[Path, Path] | None:
    """The folders of images and of masks in `location`, if at least one of them contains pictures.

    These are images/ and masks/ (or labels/ and similar, ignoring case) and the reference implementation's
    IMAGES/{train,val,test} with MASKS/all/{train,val,test}.
    """
    folder = Path(location)
    if not folder.is_dir():
        return None
    children = {child.name.lower(): child for child in sorted(folder.iterdir()) if child.is_dir()}
    image = next((children[name] for name in IMAGE_FOLDERS if name in children), None)
    mask = next((children[name] for name in MASK_FOLDERS if name in children), None)
    if image is None or mask is None or not any(True for root in (image, mask) for _ in _pictures(root)):
        return None
    below = [child for child in sorted(mask.iterdir()) if child.is_dir() and not is_junk(child)]
    if len(below) == 1 and below[0].name.lower() not in SPLIT_FOLDERS and not (image / below[0].name).is_dir():
        mask = below[0]
    return image, mask


def _pictures(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not is_junk(Path(name)))
        for name in sorted(files):
            if Path(name).suffix.lower() in (*PICTURE_ENDINGS, ".npy") and not name.startswith("."):
                yield Path(folder) / name


def pair_pictures(images: Path, masks: Path) -> list[Pair]:
    """Pair images and masks by relative path without suffix, in natural order."""
    image_of = {path.relative_to(images).with_suffix("").as_posix(): path for path in _pictures(images)}
    mask_of = {path.relative_to(masks).with_suffix("").as_posix(): path for path in _pictures(masks)}
    found: defaultdict[str, dict[str, Path]] = defaultdict(dict)
    for own, other, words, kind in (
        (image_of, mask_of, _IMAGE_WORDS, "image"),
        (mask_of, image_of, _MASK_WORDS, "mask"),
    ):
        for name, path in own.items():
            found[name if name in other else words.sub("", name)][kind] = path
    pairs = []
    for name in sorted(found, key=natural_name):
        parent = name.split("/")[0].lower() if "/" in name else ""
        split = parent if parent in SPLIT_FOLDERS else None
        pairs.append(Pair(name, found[name].get("image"), found[name].get("mask"), split))
    return pairs


def check_pictures(
    location: str,
    *,
    table: ColourTable | None = None,
    wanted_examples: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> PictureFolders | None:
    """Check every picture of a pair of folders, one at a time; None if `location` is not a pair of folders.

    Multi-page stacks are left to the reader of volumes.

    Args:
        table: The classes of the colours.
        wanted_examples: The number of example slices to return.
        progress: Called as progress(pairs done, pairs).
    """
    roots = picture_roots(location)
    if roots is None:
        return None
    pairs = pair_pictures(*roots)
    result = PictureFolders(pairs, [], [], [])
    modes: defaultdict[str, list[str]] = defaultdict(list)
    stride = max(1, len(pairs) // max(1, wanted_examples))
    for number, pair in enumerate(pairs):
        image = _open(pair.image, location, result.findings)
        mask = _open(pair.mask, location, result.findings)
        _unmatched(pair, location, result.findings)
        if image is not None and mask is not None and min(image.frames, mask.frames) > 1:
            image = mask = None
        if image is not None and pair.image is not None:
            file = _relative(pair.image, location)
            if image.format != "NPY":
                modes[image.mode].append(file)
            result.findings += _image_findings(image, file)
        if mask is not None and pair.mask is not None:
            result.findings += mask_findings(mask, _relative(pair.mask, location), table)
        if image is not None and mask is not None:
            show = number % stride == 0 and len(result.examples) < wanted_examples
            _summarise(pair, image, mask, location, result, table=table, example=show)
        if progress is not None:
            progress(number + 1, len(pairs))
    result.findings += _mixed_modes(modes)
    return result


def _relative(path: Path, location: str) -> str:
    return path.relative_to(location).as_posix()


def _open(path: Path | None, location: str, findings: list[Finding]) -> Picture | None:
    if path is None:
        return None
    try:
        if path.suffix.lower() == ".npy":
            array = read_npy(path)
            if array.ndim not in (2, 3):
                raise DataError(f"has shape {array.shape}", path=path, hint="Save (rows, columns[, channels])")
            return Picture(array, "NPY", "NPY", array.dtype.itemsize * 8, lossy=False)
        return inspect_picture(path)
    except DataError as error:
        findings.append(Finding("error", "unreadable", _relative(path, location), error.problem, error.hint or ""))
        return None


def _unmatched(pair: Pair, location: str, findings: list[Finding]) -> None:
    if pair.mask is None and pair.image is not None:
        file, what = _relative(pair.image, location), "has no mask of the same name"
        findings.append(Finding("error", "unmatched-image", file, what, "Add the mask, or remove the image"))
    if pair.image is None and pair.mask is not None:
        file, what = _relative(pair.mask, location), "has no image of the same name"
        findings.append(Finding("error", "unmatched-mask", file, what, "Add the image, or remove the mask"))


def _image_findings(picture: Picture, file: str) -> list[Finding]:
    """Properties of an image picture that matter for training."""
    findings = []
    if picture.palette:
        what = "is a palette picture: its pixels are indices into a colour table"
        findings.append(Finding("warning", "image-palette", file, what, "Save it as gray or RGB"))
    elif picture.bits == 16 and picture.mode in ("RGB", "RGBA"):
        what = "has 16 bits per colour, of which 8 are read"
        findings.append(Finding("warning", "image-16-bit-colour", file, what, "Save the channels as NPY to keep all"))
    elif picture.bits == 16 and picture.format != "NPY":
        what = f"is 16-bit, values {picture.pixels.min()} to {picture.pixels.max()}"
        hint = 'Read at full depth here; tools that call .convert("L") clip it at 255'
        findings.append(Finding("note", "image-16-bit", file, what, hint))
    elif picture.gray_in_colour:
        what = f"is gray but saved as {picture.mode}: three equal channels"
        findings.append(Finding("note", "image-gray-as-colour", file, what, "Save it as gray; one channel is enough"))
    if picture.frames > 1:
        what = f"has {picture.frames} pages, but its mask has not"
        findings.append(
            Finding("error", "image-pages", file, what, "Save a mask with as many pages, or each page as a file")
        )
    return findings


def mask_findings(picture: Picture, file: str, table: ColourTable | None = None) -> list[Finding]:
    """Why a picture is not a plain label map: lossy compression, colours, a palette."""
    if picture.lossy:
        what = f"is a lossy JPEG: {len(np.unique(picture.pixels))} different values instead of a few labels"
        return [Finding("error", "mask-jpeg", file, what, "Export the masks again as PNG; rounding would be a guess")]
    if picture.pixels.ndim == 3:
        if table is not None and picture.mode in ("RGB", "RGBA"):
            try:
                table.labels(picture.pixels, file)
            except DataError as error:
                return [Finding("error", "mask-colour", file, error.problem, error.hint or "")]
            what = f"is a colour picture ({picture.mode}), read with the colour table"
            return [
                Finding("note", "mask-colours-named", file, what, "--fix OUT saves label values as gray pixels", True)
            ]
        if picture.gray_in_colour:
            what = f"is gray but saved as {picture.mode}"
            return [Finding("error", "mask-colour", file, what, "Save label values as gray pixels: --fix OUT", True)]
        colours = np.unique(picture.pixels.reshape(-1, picture.pixels.shape[-1]), axis=0)
        what = f"is a colour picture ({picture.mode}) with {len(colours)} colours of unknown class"
        hint = (
            "Name the colours (--classes a=#FF0000,b=#00FF00, or dataset.json), or export label values as gray pixels"
        )
        return [Finding("error", "mask-colour", file, what, hint)]
    if picture.palette:
        used = np.unique(picture.pixels)
        what = f"is a palette picture with the indices {shown(used, 8)}"
        hint = (
            'The indices are read as labels here; .convert("L") would replace them with the brightness of their '
            "colours. --fix OUT saves them as gray pixels"
        )
        return [Finding("warning", "mask-palette", file, what, hint, True)]
    return []


def label_pixels(picture: Picture, table: ColourTable | None = None) -> NDArray[np.generic] | None:
    """The labels (H, W) of a mask, or None if its pixels are not labels. `table`: the classes of the colours."""
    if picture.lossy:
        return None
    if table is not None and picture.mode in ("RGB", "RGBA"):
        try:
            return table.labels(picture.pixels, "")
        except DataError:
            return None
    if picture.pixels.ndim == 3:
        return picture.pixels[..., 0] if picture.gray_in_colour else None
    return picture.pixels


def _summarise(
    pair: Pair,
    image: Picture,
    mask: Picture,
    location: str,
    result: PictureFolders,
    *,
    table: ColourTable | None,
    example: bool,
) -> None:
    assert pair.image is not None and pair.mask is not None
    file, image_file = _relative(pair.mask, location), _relative(pair.image, location)
    if image.pixels.shape[:2] != mask.pixels.shape[:2]:
        sizes = [f"{p.pixels.shape[1]} x {p.pixels.shape[0]}" for p in (mask, image)]
        what = f"mask of {sizes[0]} pixels for an image of {sizes[1]}"
        hint = "Resize the mask to the size of its image, by nearest neighbour"
        result.findings.append(Finding("error", "shape-mismatch", file, what, hint))
        return
    labels = label_pixels(mask, table)
    known = labels is not None
    if labels is None:
        labels = np.zeros(mask.pixels.shape[:2], np.uint8)
    volumes = Volume(_flat(image.pixels), _FLAT), Volume(_flat(labels), _FLAT)
    case = SourceCase(pair.name, pair.name, lambda: volumes, split=pair.split)
    summary = summarise(case, *volumes, image_file, file)
    if not known:
        summary = without_labels(summary)
    elif len(summary.values or ()) > MOST_CLASSES:
        what = f"contains {len(np.unique(labels))} different values: smoothed, or not a label map"
        hint = "Export label values 0, 1, 2, ...; resize masks by nearest neighbour"
        result.findings.append(Finding("error", "mask-many-values", file, what, hint))
        summary = without_labels(summary)
    result.cases.append(summary)
    if image.pixels.min() == image.pixels.max():
        what, hint = (
            f"is constant (every value is {image.pixels.flat[0]})",
            "Export the image again, or remove the case",
        )
        result.findings.append(Finding("warning", "image-constant", image_file, what, hint))
    picture = example_of(pair.name, *volumes) if example else None
    if picture is not None:
        result.examples.append(picture)


def _flat(pixels: NDArray[np.generic]) -> NDArray[np.generic]:
    """(H, W[, C]) as (W, H, 1[, C])."""
    return pixels.swapaxes(0, 1)[:, :, None]


def _mixed_modes(modes: dict[str, list[str]]) -> list[Finding]:
    if len(modes) < 2:
        return []
    counts = Counter({mode: len(files) for mode, files in modes.items()})
    usual = counts.most_common(1)[0][0]
    what = f"has mode {{}}, but {counts[usual]} images have {usual}"
    hint = "Save all images with the same channels and bit depth"
    return [
        Finding("warning", "mixed-modes", file, what.format(mode), hint)
        for mode, files in modes.items()
        if mode != usual
        for file in files
    ]
