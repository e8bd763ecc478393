"""The layout of the paper's reference implementation (mazurowski-lab/segmentation-guided-diffusion).

    DATA/images/{train,val,test}/tr_1.png   DATA/masks/all/{train,val,test}/tr_1.png

The masks may also be in masks/{train,val,test}; names of folders and kinds of files are those of the layout `folders`.
The layout's own splits are kept. They lack **heldout**, on which the segmenter of the evaluation is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from anatogen.data.sources.base import Source
from anatogen.data.sources.folders import pairs_in, picture_source
from anatogen.data.sources.listing import IMAGE_FOLDERS, MASK_FOLDERS, subfolders, the_subfolder
from anatogen.errors import DataError

SPLITS = ("train", "val", "test")


def detect(location: str) -> bool:
    """Whether a folder of images and one of masks each contain a folder of a split."""
    images = subfolders(Path(location), IMAGE_FOLDERS)
    masks = subfolders(Path(location), MASK_FOLDERS)
    return bool(images and masks and subfolders(images[0], SPLITS) and _mask_splits(masks[0]))


def open_source(location: str, classes: Sequence[str] | None = None) -> Source:
    """The pictures of every split, in the order train, val, test. Raises DataError for unpaired files."""
    folder = Path(location)
    images, masks = the_subfolder(folder, IMAGE_FOLDERS), the_subfolder(folder, MASK_FOLDERS)
    image_splits = {p.name.lower(): p for p in subfolders(images, SPLITS)}
    mask_splits = _mask_splits(masks)
    for name in sorted(image_splits.keys() ^ mask_splits.keys()):
        there, missing = (image_splits, masks) if name in image_splits else (mask_splits, images)
        raise DataError(
            f"has no counterpart in {missing.name}/", path=there[name], hint="Add the folder, or move this one away"
        )
    if not image_splits:
        raise DataError("has no folder train/", path=images, hint="Use --layout folders for pictures without splits")
    pairs = [(split, p) for split, there in image_splits.items() for p in pairs_in(there, mask_splits[split])]
    return picture_source("segguided", location, pairs, classes)


def _mask_splits(masks: Path) -> dict[str, Path]:
    """The folder of each split in masks/all, or else in masks."""
    everything = subfolders(masks, ("all",))
    found = subfolders(everything[0], SPLITS) if everything else []
    return {p.name.lower(): p for p in found or subfolders(masks, SPLITS)}
