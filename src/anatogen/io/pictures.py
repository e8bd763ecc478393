"""Pictures: PNG, TIFF and JPEG for input images and label maps, PNG for generated ones; by Pillow.

Pillow reduces 16-bit colour to 8 bits and drops channels that it has no name for. tifffile reads such TIFF files; such
PNG files are rejected.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from anatogen.errors import DataError
from anatogen.files import writing

Pixels = NDArray[np.generic]

_FORMATS = ("PNG", "TIFF", "JPEG")
_GRAY = ("1", "L", "I", "I;16", "I;16B", "F")
# Pillow and tifffile raise these for damaged files (found by changing random bytes).
_DAMAGED = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError, MemoryError, struct.error, zlib.error,  # noqa: E501
)  # fmt: skip
_AGAIN = "Export or copy the file again"
_GRAY_HINT = "Save the label values 0, 1, 2, ... as gray or palette pixels of a PNG"
# Default resolutions that programs write without a measurement.
_DEFAULT_DPI = (1, 72, 75, 90, 96, 100, 120, 144, 150, 180, 200, 240, 300, 350, 400, 600, 1200, 2400)
# Pillow stretches gray values of 2 and 4 bits to 0..255.
_SPREAD = {"L;2": 85, "L;4": 17}
_PHOTOMETRIC, _SAMPLES, _ORIENTATION = 262, 277, 274  # TIFF tags; the last one is EXIF's too
_WHITE_IS_ZERO = 0


def read_picture(path: Path) -> tuple[Pixels, tuple[float, float] | None]:
    """The image (H, W) or (H, W, channels) in a PNG, TIFF or JPEG file, and its spacing.

    Gray images keep their type: uint8, uint16, in TIFF also int32 and float32; 1 bit is 0 and 1. Colours are uint8, in
    TIFF also uint16, in the file's channel order; a palette becomes RGB; an opaque alpha channel is dropped.

    Returns:
        The image, and its spacing (rows, columns) in millimetres; None if the file has none, or only a default
            resolution (72 dpi and the like).

    Raises:
        DataError: The file is missing, damaged, too large, or another kind of picture.
    """
    if (array := _read_many_channels(path)) is not None:
        return array, None
    with _opened(path) as (picture, raw_mode):
        if picture.getexif().get(_ORIENTATION, 1) != 1:
            raise DataError("is stored rotated or mirrored (EXIF)", path=path, hint="Save it upright")
        if ";16" in raw_mode and picture.mode not in _GRAY:
            raise DataError("has 16-bit colours", path=path, hint="Save it as TIFF without transparency, or as NPY")
        spacing = _spacing_mm(picture)
        if picture.mode in ("P", "PA"):
            array = np.asarray(picture.convert("RGBA" if picture.has_transparency_data else "RGB"))
        elif picture.mode in (*_GRAY, "LA", "RGB", "RGBA"):
            array = np.asarray(picture)
        else:
            raise DataError(
                f"is a {picture.mode} picture, expected gray or RGB", path=path, hint="Convert it to gray or RGB"
            )
    if array.ndim == 3 and array.shape[2] in (2, 4):
        if (array[..., -1] != 255).any():
            raise DataError("has transparent pixels", path=path, hint="Save it without transparency")
        array = array[..., 0] if array.shape[2] == 2 else array[..., :3]
    return _native(array), spacing


def read_label_picture(path: Path) -> NDArray[np.integer]:
    """The label values (H, W) of a gray or palette PNG or TIFF, as uint8, uint16 or int32.

    The labels are a palette's indices, not its colours. Gray values of 1, 2 and 4 bits are read as stored.

    Raises:
        DataError: `read_picture` rejects the file, or it is RGB or JPEG, which do not preserve label values.
    """
    with _opened(path) as (picture, raw_mode):
        if picture.format not in ("PNG", "TIFF"):
            raise DataError(
                "is a JPEG, whose compression changes label values", path=path, hint="Export the masks as PNG"
            )
        if picture.mode not in ("1", "L", "P", "I", "I;16", "I;16B"):
            raise DataError(
                f"is a picture of mode {picture.mode}, whose values are not labels", path=path, hint=_GRAY_HINT
            )
        if _tiff_tag(picture, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO and picture.mode != "P":
            raise DataError("stores white as 0, so its values are ambiguous", path=path, hint=_GRAY_HINT)
        if _tiff_tag(picture, _SAMPLES, 1) != 1:
            raise DataError("has more than one channel", path=path, hint=_GRAY_HINT)
        spread = _SPREAD.get(raw_mode.removesuffix("R"), 1)
        values: NDArray[np.integer] = np.asarray(_native(np.asarray(picture)))
    return values // values.dtype.type(spread)


def read_colours(path: Path) -> NDArray[np.uint8] | None:
    """The colours (H, W, 3) of an 8-bit RGB PNG or TIFF; None for any other file, including palettes and NPY.

    Raises:
        DataError: `read_picture` rejects the file, or it is a JPEG, whose compression changes colours.
    """
    if path.suffix.lower() not in (".png", ".tif", ".tiff", ".jpg", ".jpeg"):
        return None
    with _opened(path) as (picture, _):
        if picture.format == "JPEG":
            raise DataError(
                "is a JPEG, whose compression changes label values", path=path, hint="Export the masks as PNG"
            )
        if picture.mode not in ("RGB", "RGBA"):
            return None
        pixels = np.asarray(picture, dtype=np.uint8)
    if pixels.shape[2] == 4 and (pixels[..., 3] != 255).any():
        raise DataError("has transparent pixels", path=path, hint="Save it without transparency")
    return pixels[..., :3]


def write_png(path: Path, image: NDArray[np.float32], *, colours: bool = True) -> None:
    """Write image (C, H, W) in [-1, 1]: three channels with `colours` as 8-bit RGB, others as 16-bit gray.

    Several gray channels are stacked vertically, (C H, W).
    """
    unit = (np.clip(image, -1, 1) + 1) / 2
    if image.shape[0] == 3 and colours:
        Image.fromarray(np.rint(unit.transpose(1, 2, 0) * 255).astype(np.uint8)).save(path, format="PNG")
    else:
        gray = np.rint(unit.reshape(-1, image.shape[-1]) * 65535).astype(np.uint16)
        Image.fromarray(gray).save(path, format="PNG")


def read_png(path: Path, channels: int = 1) -> NDArray[np.float32]:
    """The image (C, H, W) in [-1, 1] in a file that `write_png` wrote.

    Args:
        channels: The number of gray channels in the file.

    Raises:
        DataError: `read_picture` rejects the file, or its height does not fit the number of channels.
    """
    pixels, _ = read_picture(path)
    largest = 65535 if pixels.dtype == np.uint16 else 255
    if pixels.ndim == 3:
        planes = pixels.transpose(2, 0, 1)
    elif pixels.shape[0] % channels:
        raise DataError(f"has {pixels.shape[0]} rows, which {channels} channels do not divide", path=path, hint=_AGAIN)
    else:
        planes = pixels.reshape(channels, -1, pixels.shape[1])
    return planes.astype(np.float32) * np.float32(2 / largest) - np.float32(1)


def write_animation(path: Path, frames: Sequence[NDArray[np.uint8]], *, milliseconds: int = 120) -> None:
    """Write RGB frames (H, W, 3) of one size as a GIF that repeats.

    Raises:
        OutputError: It cannot be written.
    """
    pictures = [Image.fromarray(frame) for frame in frames]
    with writing(path) as partial:
        pictures[0].save(
            partial, format="GIF", save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0
        )


def as_png(colours: NDArray[np.uint8]) -> bytes:
    """The PNG file of a picture (H, W, 3)."""
    buffer = io.BytesIO()
    # Level 6, Pillow's own, takes three times as long for a little space.
    Image.fromarray(colours).save(buffer, format="png", compress_level=3)
    return buffer.getvalue()


def resized(colours: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture (H, W, 3) in another size, (height, width), by the nearest pixel."""
    return np.asarray(Image.fromarray(colours).resize(size[::-1], Image.Resampling.NEAREST))


def write_label_png(path: Path, labels: NDArray[np.integer]) -> None:
    """Write labels (H, W) as gray pixels whose values are the labels (8 bits, or 16 above 255)."""
    kind = np.uint8 if labels.max(initial=0) < 256 else np.uint16
    Image.fromarray(labels.astype(kind)).save(path, format="PNG")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[ImageFile.ImageFile, str]]:
    """The one picture in a file, decoded, and its raw mode. Pillow's errors become a DataError."""
    if not path.is_file():
        raise DataError("does not exist", path=path)
    try:
        with path.open("rb") as file:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # damaged metadata, and sizes that are rejected below
                picture, raw_mode = _decoded(file, path)
            yield picture, raw_mode
    except Image.DecompressionBombError as error:
        raise DataError(
            f"is too large to be one slice ({error})", path=path, hint="Split it into smaller pictures"
        ) from error
    except _DAMAGED as error:
        raise DataError(
            f"cannot be read as PNG, TIFF or JPEG ({_first_line(error)})", path=path, hint=_AGAIN
        ) from error


def _decoded(file: BinaryIO, path: Path) -> tuple[ImageFile.ImageFile, str]:
    picture = Image.open(file, formats=_FORMATS)
    if picture.width * picture.height > (Image.MAX_IMAGE_PIXELS or 0):
        raise Image.DecompressionBombError(f"{picture.width} x {picture.height} pixels")
    if getattr(picture, "n_frames", 1) != 1:
        raise DataError("contains more than one picture", path=path, hint="Save each page or frame as a separate file")
    raw_mode = _raw_mode(picture)  # not available after loading
    picture.load()
    return picture, raw_mode


def _first_line(error: BaseException) -> str:
    """The first line of a library's message, without the path, which our message has already."""
    if isinstance(error, UnidentifiedImageError):
        return "not one of these formats, or damaged"
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _raw_mode(picture: ImageFile.ImageFile) -> str:
    """The pixel layout in the file by Pillow's names, such as "L;2" or "RGB;16B"."""
    arguments = picture.tile[0].args if picture.tile else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _tiff_tag(picture: Image.Image, tag: int, otherwise: int) -> int:
    tags = getattr(picture, "tag_v2", None)
    value = otherwise if tags is None else tags.get(tag, otherwise)
    return int(value[0] if isinstance(value, tuple) else value)


def _spacing_mm(picture: Image.Image) -> tuple[float, float] | None:
    columns, rows = (float(v) for v in picture.info.get("dpi", (0, 0)))
    measured = all(v > 0 and min(abs(v - usual) for usual in _DEFAULT_DPI) > 0.02 for v in (columns, rows))
    return (25.4 / rows, 25.4 / columns) if measured else None


def _native(array: Pixels) -> Pixels:
    """The same values in native byte order, booleans as 0 and 1."""
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _read_many_channels(path: Path) -> Pixels | None:
    """The array (H, W, channels) of a TIFF file whose channels Pillow would drop; None for all other files."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return None
    from tifffile import PHOTOMETRIC, PLANARCONFIG, TiffFile, TiffFileError

    try:
        with TiffFile(path) as tiff:
            page = tiff.pages.first
            channels, alpha = page.samplesperpixel, {1, 2} & set(page.extrasamples)
            gray_or_rgb = page.photometric in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB)
            eight_bit_rgb = channels == 3 and page.bitspersample == 8 and page.photometric == PHOTOMETRIC.RGB
            if channels == 1 or alpha or eight_bit_rgb or not gray_or_rgb or len(tiff.pages) != 1:
                return None
            if page.imagewidth * page.imagelength > (Image.MAX_IMAGE_PIXELS or 0):
                return None
            array = np.asarray(page.asarray())
    except TiffFileError:
        return None  # Pillow reports the error
    except _DAMAGED as error:
        raise DataError(
            f"cannot be read as TIFF ({_first_line(error)})", path=path, hint="Save it uncompressed or as NPY"
        ) from error
    return _native(np.moveaxis(array, 0, -1) if page.planarconfig == PLANARCONFIG.SEPARATE else array)
