"""A pair of folders of pictures: images/ and masks/ or labels/.

    DATA/images/scan_1.png   DATA/masks/scan_1.png

A multi-page TIFF is a volume (`read_stack`), and so is its label map. Label maps may be RGB with a colour table
(`colours`). The folders may have any name in IMAGE_FOLDERS and MASK_FOLDERS (`listing`), ignoring case. Images are PNG,
TIFF, JPEG or NPY (channels last); label maps gray or palette PNG, TIFF or NPY. An image and its label map have the same
name, except for the suffix and words such as _mask. Each picture is a case and, without further information, a patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.data.sources.base import Source, SourceCase
from anatogen.data.sources.colours import ColourTable, colour_table, require_no_colours
from anatogen.data.sources.listing import (
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    NIFTI,
    Pair,
    ending,
    files,
    find_schema,
    has_files,
    pair,
    subfolders,
    the_subfolder,
)
from anatogen.errors import DataError
from anatogen.io.npy import read_label_npy, read_npy_picture
from anatogen.io.pictures import read_colours, read_label_picture, read_picture
from anatogen.io.tiff_stack import pages, read_stack
from anatogen.volume import Volume

ENDINGS = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".npy")


def detect(location: str) -> bool:
    """Whether there is a folder of images beside a folder of label maps, without NIfTI files."""
    images = subfolders(Path(location), IMAGE_FOLDERS)
    return bool(images and subfolders(Path(location), MASK_FOLDERS)) and not has_files(images[0], NIFTI)


def open_source(location: str, classes: Sequence[str] | None = None) -> Source:
    """The pictures in the two folders of `location`. Raises DataError for unpaired files."""
    folder = Path(location)
    pairs = pairs_in(the_subfolder(folder, IMAGE_FOLDERS), the_subfolder(folder, MASK_FOLDERS))
    return picture_source("folders", location, [(None, p) for p in pairs], classes)


def pairs_in(images: Path, masks: Path) -> list[Pair]:
    """The pairs of pictures in two folders. Raises DataError if there are none, and for unpaired files."""
    pairs = pair(files(images, ENDINGS), files(masks, ENDINGS))
    if not pairs:
        raise DataError("contains no pictures (PNG, TIFF, JPEG or NPY)", path=images, hint="Put the images there")
    return pairs


def picture_source(
    layout: str, location: str, pairs: Sequence[tuple[str | None, Pair]], classes: Sequence[str] | None
) -> Source:
    """A source of (split, picture) pairs, all with the number of channels of the first.

    A case has the name of its picture, prefixed with its split if names occur in two splits.
    """
    table = colour_table(Path(location), classes)
    if table is None:
        if classes is None:
            require_no_colours(p.labels for _, p in pairs if pages(p.labels) == 1)
        schema = find_schema(classes, (p.labels for _, p in pairs), read_labels)
    else:
        schema = table.schema
    first = pairs[0][1].image
    channels = _channels(read_stack(first).array, 3) if pages(first) > 1 else _channels(read_image(first)[0])
    ambiguous = len({p.id for _, p in pairs}) < len(pairs)
    cases = []
    for split, p in pairs:
        name = f"{split}_{p.id}" if ambiguous else p.id
        load = partial(_load, p, channels, first, table)
        cases.append(SourceCase(name, name, load, files=(p.image, p.labels), split=split))
    return Source(layout, location, schema, _channel_names(channels), tuple(cases))


def read_image(path: Path) -> tuple[NDArray[Any], tuple[float, float] | None]:
    """The image (H, W) or (H, W, channels) in `path`, and its spacing (rows, columns) in millimetres, if known."""
    return (read_npy_picture(path), None) if ending(path) == ".npy" else read_picture(path)


def read_labels(path: Path, table: ColourTable | None = None) -> NDArray[np.integer]:
    """The label values (H, W) in `path`, or (X, Y, Z) of a stack.

    `table`: the classes of the colours of RGB pictures.
    """
    if pages(path) > 1:
        array = read_stack(path).array
        if array.dtype.kind not in "iu" or array.ndim != 3:
            what = f"contains pages of {array.dtype} with {_channels(array, 3)} channels, which are not labels"
            raise DataError(what, path=path, hint="Save label values 0, 1, 2, ... as gray pages")
        return array.view(array.dtype)
    if table is not None and (colours := read_colours(path)) is not None:
        return table.labels(colours, path)
    return read_label_npy(path) if ending(path) == ".npy" else read_label_picture(path)


def _load(p: Pair, channels: int, first: Path, table: ColourTable | None = None) -> tuple[Volume, Volume]:
    if pages(p.image) > 1 or pages(p.labels) > 1:
        return _load_stack(p, channels, first)
    image, spacing = read_image(p.image)
    if _channels(image) != channels:
        raise DataError(
            f"expected {channels} channels as in {first.name}, got {_channels(image)}",
            path=p.image,
            hint="Convert all images to gray, or all to RGB",
        )
    rows_mm, columns_mm = spacing or (1.0, 1.0)
    affine = np.diag([-columns_mm, -rows_mm, -1.0, 1.0])
    return as_volume(image, affine), as_volume(read_labels(p.labels, table), affine)


def _load_stack(p: Pair, channels: int, first: Path) -> tuple[Volume, Volume]:
    sizes = pages(p.image), pages(p.labels)
    if sizes[0] != sizes[1]:
        what = f"has {sizes[0]} pages, but its label map {sizes[1]}"
        raise DataError(what, path=p.image, hint="Save one page of labels per page of the image")
    image = read_stack(p.image)
    if _channels(image.array, 3) != channels:
        what = f"expected {channels} channels as in {first.name}, got {_channels(image.array, 3)}"
        raise DataError(what, path=p.image, hint="Convert all images to the same channels")
    labels = read_stack(p.labels)
    read_labels(p.labels)  # rejects what is not a label map
    known = not labels.remarks  # without a voxel size it has its image's
    return image, Volume(labels.array, labels.affine if known else image.affine)


def as_volume(picture: NDArray[Any], affine: NDArray[np.float64]) -> Volume:
    """A picture (H, W) or (H, W, channels) as a volume (W, H, 1) or (W, H, 1, channels): one axial slice."""
    return Volume(np.swapaxes(picture, 0, 1)[:, :, None], affine)


def _channels(image: NDArray[Any], axes: int = 2) -> int:
    """The number of channels of an image with `axes` spatial axes, channels last."""
    return 1 if image.ndim == axes else int(image.shape[axes])


def _channel_names(count: int) -> tuple[str, ...]:
    return ("image",) if count == 1 else tuple(f"channel {number}" for number in range(1, count + 1))
