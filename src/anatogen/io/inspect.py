"""Properties of a picture file before any conversion: format, mode, bit depth, raw pixels. By Pillow."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anatogen.errors import DataError

PICTURE_ENDINGS = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg", ".gif", ".webp")

_DAMAGED = (OSError, EOFError, ValueError, SyntaxError, struct.error, zlib.error, Image.DecompressionBombError)


@dataclass(frozen=True)
class Picture:
    """A picture as stored in its file.

    Attributes:
        pixels: (H, W) or (H, W, channels); a palette's indices, not its colours.
        format: "PNG", "JPEG", ...
        mode: Pillow's mode ("L", "P", "RGB", "I;16", ...).
        bits: Bits per channel in the file, which Pillow reduces to 8 in colour pictures.
        lossy: Whether the compression changes values.
        frames: The number of pages of a TIFF or GIF.
    """

    pixels: NDArray[np.generic]
    format: str
    mode: str
    bits: int
    lossy: bool
    frames: int = 1

    @property
    def palette(self) -> bool:
        """Whether the pixels are indices into a colour table."""
        return self.mode in ("P", "PA")

    @property
    def gray_in_colour(self) -> bool:
        """Whether all colour channels are equal: a gray picture saved as RGB."""
        colours = self.pixels[..., :3] if self.mode in ("RGB", "RGBA") else self.pixels[..., :1]
        return self.mode in ("RGB", "RGBA", "LA") and bool((colours == colours[..., :1]).all())


def inspect_picture(path: Path) -> Picture:
    """The picture in `path`, unconverted.

    Raises:
        DataError: The file is missing, damaged, or implausibly large.
    """
    try:
        with Image.open(path) as picture:
            decoder = str(picture.tile[0].args) if picture.tile else ""
            compression = str(picture.info.get("compression", ""))
            facts = (str(picture.format), picture.mode, int(getattr(picture, "n_frames", 1)))
            pixels = np.asarray(picture)
    except FileNotFoundError as error:
        raise DataError("does not exist", path=path) from error
    except _DAMAGED as error:
        raise DataError(
            f"cannot be read as a picture ({error})", path=path, hint="Export or copy the file again"
        ) from error
    if not pixels.size:
        raise DataError("has no pixels", path=path, hint="Export the file again")
    kind, mode, frames = facts
    bits = 16 if "16" in decoder or "16" in mode else 1 if mode == "1" else pixels.dtype.itemsize * 8
    if mode == "I" and pixels.max() < 65536:  # Pillow widens some 16-bit files
        bits = 16
    return Picture(pixels, kind, mode, bits, kind == "JPEG" or "jpeg" in compression, frames)
