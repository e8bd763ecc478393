from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from anatogen.errors import DataError
from anatogen.io.npy import read_label_npy, read_npy_picture
from anatogen.io.pictures import read_label_picture, read_picture, read_png, write_label_png, write_png

RNG = np.random.default_rng(3)
GRAY8 = RNG.integers(0, 256, (7, 5), dtype=np.uint8)
GRAY16 = RNG.integers(0, 65536, (7, 5), dtype=np.uint16)
RGB8 = RNG.integers(0, 256, (7, 5, 3), dtype=np.uint8)
RGB16 = RNG.integers(0, 65536, (7, 5, 3), dtype=np.uint16)


def png_of_rows(path: Path, rows: list[bytes], width: int, bits: int, kind: int, palette: bytes = b"") -> Path:
    """A PNG of a kind that Pillow itself does not write. kind: 0 gray, 2 colour, 3 palette, 4 gray with alpha."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), bits, kind, 0, 0, 0))
    middle = chunk(b"PLTE", palette) if palette else b""
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + middle + body + chunk(b"IEND", b""))
    return path


def png_of_bits(path: Path, values: np.ndarray, bits: int, kind: int = 0, palette: bytes = b"") -> Path:
    """A PNG of gray or palette pixels of 1, 2 or 4 bits."""
    per_byte = 8 // bits
    padded = np.pad(values, ((0, 0), (0, -values.shape[1] % per_byte))).reshape(len(values), -1, per_byte)
    shifts = np.arange(per_byte - 1, -1, -1) * bits
    rows = [row.tobytes() for row in (padded << shifts).sum(axis=-1).astype(np.uint8)]
    return png_of_rows(path, rows, values.shape[1], bits, kind, palette)


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("array", [GRAY8, GRAY16, RGB8], ids=["gray8", "gray16", "rgb8"])
def test_pictures_keep_values_and_type(tmp_path: Path, array: np.ndarray, ending: str) -> None:
    Image.fromarray(array).save(tmp_path / f"a.{ending}")
    read, spacing = read_picture(tmp_path / f"a.{ending}")
    assert read.dtype == array.dtype and np.array_equal(read, array) and spacing is None


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize(
    "array",
    [GRAY16, RGB16, np.concatenate([RGB16, RGB16[..., :2]], -1), np.concatenate([RGB8, RGB8[..., :2]], -1), RGB8[..., :2]],
    ids=["gray16", "rgb16", "five channels", "five channels of 8 bits", "two channels"],
)  # fmt: skip
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_tiff_keeps_what_pillow_would_cut(tmp_path: Path, array: np.ndarray, byteorder: str, planes: str) -> None:
    photometric = "rgb" if array.ndim == 3 and array.shape[2] == 3 else "minisblack"
    stored = np.moveaxis(array, -1, 0) if planes == "separate" and array.ndim == 3 else array
    layout = {} if array.ndim == 2 else {"planarconfig": planes}
    tifffile.imwrite(tmp_path / "a.tif", stored, byteorder=byteorder, photometric=photometric, **layout)
    read, _ = read_picture(tmp_path / "a.tif")
    assert read.dtype == array.dtype and read.dtype.isnative and np.array_equal(read, array)


def test_jpeg_is_read_as_an_image(tmp_path: Path) -> None:
    smooth = np.tile(np.arange(0, 160, 10, dtype=np.uint8), (16, 1))
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    read, _ = read_picture(tmp_path / "a.jpg")
    assert read.shape == (16, 16) and np.abs(read.astype(int) - smooth).max() < 8


def test_an_opaque_alpha_channel_is_dropped_and_another_refused(tmp_path: Path) -> None:
    alpha = np.full((7, 5, 1), 255, dtype=np.uint8)
    Image.fromarray(np.concatenate([RGB8, alpha], -1)).save(tmp_path / "rgba.png")
    Image.fromarray(np.concatenate([GRAY8[..., None], alpha], -1)).save(tmp_path / "la.png")
    assert np.array_equal(read_picture(tmp_path / "rgba.png")[0], RGB8)
    assert np.array_equal(read_picture(tmp_path / "la.png")[0], GRAY8)
    alpha[2, 2] = 254
    Image.fromarray(np.concatenate([RGB8, alpha], -1)).save(tmp_path / "rgba.png")
    with pytest.raises(DataError, match=r"rgba\.png: has transparent pixels"):
        read_picture(tmp_path / "rgba.png")


def test_a_palette_is_colours_in_an_image_and_numbers_in_a_label_map(tmp_path: Path) -> None:
    labels = np.array([[0, 1], [2, 3]], dtype=np.uint8)
    colours = [[0, 0, 0], [230, 159, 0], [86, 180, 233], [0, 158, 115]]
    picture = Image.fromarray(labels)
    picture.putpalette([c for colour in colours for c in colour])
    for name in ("p.png", "p.tif"):
        picture.save(tmp_path / name)
        assert np.array_equal(read_label_picture(tmp_path / name), labels)
        assert np.array_equal(read_picture(tmp_path / name)[0], np.array(colours, np.uint8)[labels])


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_labels_of_few_bits_are_not_spread_over_the_gray_range(tmp_path: Path, bits: int) -> None:
    labels = RNG.integers(0, 2**bits, (6, 9))
    assert labels.max() == 2**bits - 1
    gray = png_of_bits(tmp_path / "gray.png", labels, bits)
    palette = png_of_bits(tmp_path / "palette.png", labels, bits, 3, bytes(range(3 * 2**bits)))
    assert np.array_equal(read_label_picture(gray), labels)
    assert np.array_equal(read_label_picture(palette), labels)


def test_labels_past_255(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 300]], dtype=np.int64)
    write_label_png(tmp_path / "a.png", labels)
    read = read_label_picture(tmp_path / "a.png")
    assert read.dtype == np.uint16 and np.array_equal(read, labels)


def test_a_tiff_label_map_with_white_as_zero_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GRAY8, photometric="miniswhite")
    with pytest.raises(DataError, match=r"a\.tif: stores white as 0"):
        read_label_picture(tmp_path / "a.tif")


@pytest.mark.parametrize("ending", ["png", "tif", "jpg"])
def test_spacing_is_read_where_it_was_measured(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    Image.fromarray(GRAY8).save(path, dpi=(51, 34))  # columns, rows
    spacing = read_picture(path)[1]
    assert spacing == pytest.approx((25.4 / 34, 25.4 / 51), rel=1e-3)
    Image.fromarray(GRAY8).save(path, dpi=(72, 72))
    assert read_picture(path)[1] is None


def test_generated_images_survive_the_png(tmp_path: Path) -> None:
    for channels, step in ((1, 2 / 65535), (3, 2 / 255)):
        image = RNG.uniform(-1, 1, (channels, 6, 4)).astype(np.float32)
        write_png(tmp_path / "a.png", image)
        assert np.abs(read_png(tmp_path / "a.png") - image).max() <= step / 2 + 1e-6


def _save(path: Path, how: str) -> None:
    picture = Image.fromarray(RGB8)
    if how in ("16-bit colour", "16-bit gray with alpha"):
        channels, kind = (3, 2) if how == "16-bit colour" else (2, 4)
        png_of_rows(path, [row[:, :channels].astype(">u2").tobytes() for row in RGB16], RGB16.shape[1], 16, kind)
    elif how == "cmyk":
        picture.convert("CMYK").save(path, "JPEG")
    elif how == "lab":
        picture.convert("LAB").save(path, "TIFF")
    elif how == "pages":
        tifffile.imwrite(path, np.stack([GRAY8, GRAY8]), photometric="minisblack")
    elif how == "pages of channels":
        tifffile.imwrite(path, np.stack([RGB16, RGB16]), photometric="rgb")
    elif how == "animated":
        picture.save(path, save_all=True, append_images=[Image.fromarray(255 - RGB8)])
    elif how == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.save(path, "JPEG", exif=exif)
    elif how == "gif":
        picture.save(path, "GIF")
    elif how == "text":
        path.write_text("not a picture")
    elif how == "empty":
        path.touch()
    elif how == "truncated":
        noise = Image.fromarray(RNG.integers(0, 256, (200, 200), dtype=np.uint8))
        noise.save(path)
        path.write_bytes(path.read_bytes()[:9000])
    elif how == "truncated 16-bit colour":
        tifffile.imwrite(path, np.tile(RGB16, (30, 30, 1)), photometric="rgb")
        path.write_bytes(path.read_bytes()[:9000])
    elif how == "bomb":
        Image.fromarray(GRAY8).save(path)
        data = bytearray(path.read_bytes())
        data[16:24] = struct.pack(">II", 60000, 60000)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
        path.write_bytes(data)
    elif how == "large":
        png_of_rows(path, [bytes(1250)] * 10000, 10000, 1, 0)
    elif how == "bomb in tiff":
        tifffile.imwrite(path, RGB16, photometric="rgb")
        data = path.read_bytes()
        for tag, value in ((256, 5), (257, 7)):
            entry = struct.pack("<HHII", tag, 4, 1, value), struct.pack("<HHIH", tag, 3, 1, value)
            for old in entry:
                data = data.replace(old, struct.pack("<HHII", tag, 4, 1, 60000)[: len(old)])
        path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "how", "message"),
    [
        ("a.png", "16-bit colour", "has 16-bit colours"),
        ("a.png", "16-bit gray with alpha", "has 16-bit colours"),
        ("a.jpg", "cmyk", "is a CMYK picture"),
        ("a.tif", "lab", "is a LAB picture"),
        ("a.tif", "pages", "contains more than one picture"),
        ("a.tif", "pages of channels", "contains more than one picture"),
        ("a.png", "animated", "contains more than one picture"),
        ("a.jpg", "turned", "is stored rotated or mirrored"),
        ("a.png", "gif", "cannot be read as PNG, TIFF or JPEG"),
        ("a.png", "text", "cannot be read as PNG, TIFF or JPEG"),
        ("a.tif", "text", "cannot be read as PNG, TIFF or JPEG"),
        ("a.png", "empty", "cannot be read as PNG, TIFF or JPEG"),
        ("a.png", "truncated", "cannot be read as PNG, TIFF or JPEG"),
        ("a.tif", "truncated", "cannot be read as PNG, TIFF or JPEG"),
        ("a.jpg", "truncated", "cannot be read as PNG, TIFF or JPEG"),
        ("a.tif", "truncated 16-bit colour", "cannot be read as"),
        ("a.png", "bomb", "is too large to be one slice"),
        ("a.png", "large", "is too large to be one slice"),
        ("a.tif", "bomb in tiff", "is too large to be one slice"),
        ("a.png", "nothing", "does not exist"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, name: str, how: str, message: str) -> None:
    _save(tmp_path / name, how)
    with pytest.raises(DataError) as caught:
        read_picture(tmp_path / name)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / name}: {message}") and "\n" not in text


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("a.png", RGB8, "mode RGB, whose values are not labels. Save the label values 0, 1, 2"),
        ("a.tif", RGB8, "mode RGB, whose values are not labels"),
        ("a.jpg", GRAY8, "is a JPEG, whose compression changes label values. Export the masks as PNG"),
        ("a.tif", GRAY8.astype(np.float32), "mode F, whose values are not labels"),
    ],
)
def test_what_keeps_no_labels_is_refused(tmp_path: Path, name: str, array: np.ndarray, message: str) -> None:
    Image.fromarray(array).save(tmp_path / name)
    with pytest.raises(DataError) as caught:
        read_label_picture(tmp_path / name)
    assert f"{name}: is a" in str(caught.value) and message in str(caught.value)


def test_a_jpeg_in_disguise_is_no_label_map(tmp_path: Path) -> None:
    Image.fromarray(GRAY8).save(tmp_path / "a.png", "JPEG")
    with pytest.raises(DataError, match="is a JPEG"):
        read_label_picture(tmp_path / "a.png")


def test_npy_pictures(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    for array, wanted in (
        (GRAY16, GRAY16),
        (RGB8, RGB8),
        (GRAY8[..., None], GRAY8),
        (GRAY8 > 99, (GRAY8 > 99).astype(np.uint8)),
        (GRAY8.astype(np.float64), GRAY8.astype(np.float32)),
    ):
        np.save(path, array)
        read = read_npy_picture(path)
        assert read.dtype == wanted.dtype and np.array_equal(read, wanted)
    np.save(path, (GRAY8 > 99)[..., None])
    assert np.array_equal(read_label_npy(path), GRAY8 > 99)


def _npy_claiming(path: Path, shape: tuple[int, ...]) -> None:
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})


def test_other_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    for array, message in (
        (np.moveaxis(RGB8, -1, 0), "looks like channels first"),
        (np.zeros((2, 3, 4, 5)), "expected (H, W) or (H, W, channels)"),
        (np.zeros((0, 5)), "expected (H, W) or (H, W, channels)"),
        (np.zeros((4, 4), complex), "contains values of type complex128"),
    ):
        np.save(path, array)
        with pytest.raises(DataError) as caught:
            read_npy_picture(path)
        assert f"{path}: " in str(caught.value) and message in str(caught.value)
    for array, message in ((RGB8, "expected (H, W)"), (np.zeros((4, 4)), "contains values of type float64")):
        np.save(path, array)
        with pytest.raises(DataError) as caught:
            read_label_npy(path)
        assert message in str(caught.value)


@pytest.mark.parametrize("how", ["objects", "archive", "claims too much", "text", "missing", "damaged header"])
def test_npy_files_that_are_none(tmp_path: Path, how: str) -> None:
    path = tmp_path / "a.npy"
    if how == "objects":
        np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    elif how == "archive":
        with path.open("wb") as file:
            np.savez(file, a=GRAY8)
    elif how == "claims too much":
        _npy_claiming(path, (1 << 22, 1 << 22))
    elif how == "text":
        path.write_text("not an array")
    elif how == "damaged header":  # NumPy answers with a TokenError
        np.save(path, GRAY8)
        path.write_bytes(path.read_bytes().replace(b"}", b"("))
    with pytest.raises(DataError, match=r"a\.npy: "):
        read_npy_picture(path)


@pytest.mark.parametrize("ending", ["png", "tif", "jpg", "npy"])
def test_no_damage_makes_a_traceback(tmp_path: Path, ending: str) -> None:
    """Bytes changed at random: a file is read or refused, whatever the library beneath makes of it."""
    rng, path = np.random.default_rng(5), tmp_path / f"a.{ending}"
    if ending == "npy":
        np.save(path, RGB16)
    elif ending == "tif":
        tifffile.imwrite(path, RGB16, photometric="rgb", compression="zlib")
    else:
        Image.fromarray(RGB8).save(path)
    whole, refused = path.read_bytes(), 0
    for _ in range(150):
        data = np.frombuffer(whole, np.uint8).copy()
        places = rng.integers(0, min(len(data), 400), rng.integers(1, 8))
        data[places] = rng.integers(0, 256, len(places))
        path.write_bytes(data.tobytes())
        for read in (read_npy_picture, read_label_npy) if ending == "npy" else (read_picture, read_label_picture):
            try:
                read(path)
            except DataError as error:
                refused += 1
                assert str(path) in str(error) and "\n" not in str(error)
    assert refused > 50
