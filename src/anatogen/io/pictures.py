"""PNG pictures of generated images and label maps, by Pillow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anatogen.errors import DataError


def write_png(path: Path, image: NDArray[np.float32]) -> None:
    """Write image (C, H, W) in [-1, 1] as 16-bit gray (C = 1) or 8-bit RGB (C = 3)."""
    unit = (np.clip(image, -1, 1) + 1) / 2
    if image.shape[0] == 1:
        Image.fromarray(np.rint(unit[0] * 65535).astype(np.uint16)).save(path, format="PNG")
    elif image.shape[0] == 3:
        Image.fromarray(np.rint(unit.transpose(1, 2, 0) * 255).astype(np.uint8)).save(path, format="PNG")
    else:
        raise DataError(f"an image of {image.shape[0]} channels cannot be a PNG", remedy="Use --format npy")


def read_png(path: Path) -> NDArray[np.float32]:
    """The image (C, H, W) in [-1, 1] in a file that `write_png` wrote."""
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture)
    except OSError as error:
        raise DataError(f"cannot be read as PNG ({error})", path=path, remedy="Sample it again") from error
    largest = 65535 if pixels.dtype in (np.uint16, np.int32) else 255
    channels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return channels.astype(np.float32) * np.float32(2 / largest) - np.float32(1)


def write_label_png(path: Path, labels: NDArray[np.integer]) -> None:
    """Write labels (H, W) as gray pixels that are the label values (8 bits, or 16 above 255)."""
    kind = np.uint8 if labels.max(initial=0) < 256 else np.uint16
    Image.fromarray(labels.astype(kind)).save(path, format="PNG")


def read_label_png(path: Path) -> NDArray[np.int64]:
    """The label values (H, W) of a gray or palette PNG. A palette's indices are the labels, its colours are not."""
    try:
        with Image.open(path) as picture:
            if picture.mode not in ("L", "P", "I", "I;16", "1"):
                raise DataError(
                    f"is a picture of mode {picture.mode}", path=path, remedy="Save label values as gray pixels"
                )
            return np.asarray(picture).astype(np.int64)
    except OSError as error:
        raise DataError(f"cannot be read as PNG ({error})", path=path) from error
