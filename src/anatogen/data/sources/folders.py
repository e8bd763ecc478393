"""A plain pair of folders of pictures: images/ beside masks/ or labels/.

    DATA/images/scan_1.png   DATA/masks/scan_1.png

The folders may have any name of IMAGE_FOLDERS and MASK_FOLDERS (`listing`), in whatever case of letters. Images are
PNG, TIFF, JPEG or NPY (channels last); label maps gray or palette PNG, TIFF or NPY. An image and its label map bear
the same name, but for the ending and words such as _mask. Each picture is a case and, as nothing else is known, a
patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.data.sources.base import Source, SourceCase
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
from anatogen.io.pictures import read_label_picture, read_picture
from anatogen.volume import Volume

ENDINGS = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".npy")


def detect(location: str) -> bool:
    """Whether a folder of images lies beside a folder of label maps, and they do not hold NIfTI."""
    images = subfolders(Path(location), IMAGE_FOLDERS)
    return bool(images and subfolders(Path(location), MASK_FOLDERS)) and not has_files(images[0], NIFTI)


def open_source(location: str, classes: Sequence[str] | None = None) -> Source:
    """The pictures in the two folders of `location`. Raises DataError for files without a counterpart."""
    folder = Path(location)
    pairs = pairs_in(the_subfolder(folder, IMAGE_FOLDERS), the_subfolder(folder, MASK_FOLDERS))
    return picture_source("folders", location, [(None, p) for p in pairs], classes)


def pairs_in(images: Path, masks: Path) -> list[Pair]:
    """The pictures in two folders. Raises DataError where there are none, and for files without a counterpart."""
    pairs = pair(files(images, ENDINGS), files(masks, ENDINGS))
    if not pairs:
        raise DataError("holds no pictures (PNG, TIFF, JPEG or NPY)", path=images, hint="Put the images there")
    return pairs


def picture_source(
    layout: str, location: str, pairs: Sequence[tuple[str | None, Pair]], classes: Sequence[str] | None
) -> Source:
    """A source of (split, picture) pairs; all have as many channels as the first. A case is named after its picture,
    with its split before it where names occur in two splits."""
    schema = find_schema(classes, (p.labels for _, p in pairs), read_labels)
    first = pairs[0][1].image
    channels = _channels(read_image(first)[0])
    ambiguous = len({p.id for _, p in pairs}) < len(pairs)
    cases = []
    for split, p in pairs:
        name = f"{split}_{p.id}" if ambiguous else p.id
        load = partial(_load, p, channels, first)
        cases.append(SourceCase(name, name, load, files=(p.image, p.labels), split=split))
    return Source(layout, location, schema, _channel_names(channels), tuple(cases))


def read_image(path: Path) -> tuple[NDArray[Any], tuple[float, float] | None]:
    """The image (H, W) or (H, W, channels) in `path`, and its spacing (rows, columns) in millimetres where known."""
    return (read_npy_picture(path), None) if ending(path) == ".npy" else read_picture(path)


def read_labels(path: Path) -> NDArray[np.integer]:
    """The label values (H, W) in `path`."""
    return read_label_npy(path) if ending(path) == ".npy" else read_label_picture(path)


def _load(p: Pair, channels: int, first: Path) -> tuple[Volume, Volume]:
    image, spacing = read_image(p.image)
    if _channels(image) != channels:
        raise DataError(
            f"number of channels is {_channels(image)}, but {channels} in {first.name}",
            path=p.image,
            hint="Convert all images to gray, or all to RGB",
        )
    rows_mm, columns_mm = spacing or (1.0, 1.0)
    affine = np.diag([-columns_mm, -rows_mm, -1.0, 1.0])
    return as_volume(image, affine), as_volume(read_labels(p.labels), affine)


def as_volume(picture: NDArray[Any], affine: NDArray[np.float64]) -> Volume:
    """A picture (H, W) or (H, W, channels) as a volume (W, H, 1) or (W, H, 1, channels): one axial slice."""
    return Volume(np.swapaxes(picture, 0, 1)[:, :, None], affine)


def _channels(image: NDArray[Any]) -> int:
    return 1 if image.ndim == 2 else int(image.shape[2])


def _channel_names(count: int) -> tuple[str, ...]:
    return ("image",) if count == 1 else tuple(f"channel {number}" for number in range(1, count + 1))
