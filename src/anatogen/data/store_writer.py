"""Writing a prepared data set case by case. After a crash, only complete cases count."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from anatogen.data.documents import INDEX, NAMES, CaseRecord, DatasetInfo, OriginalName, Row, write_index, write_names
from anatogen.errors import DataError
from anatogen.files import LOCK_ENDING

_CHUNK = 1 << 20  # bytes
_LARGE = 1 << 21  # values of an item that is cut, at least: 128 x 128 x 128
_CUBE, _BLOCK = 64, 32  # voxels a side: of what is compressed together, and of what is decompressed at a time


@dataclass(frozen=True)
class Entry:
    """A case of the store, or one that was left out.

    Attributes:
        record: Its geometry, without patient and split; None if left out.
        positions: The slice of each item.
        digest: Of its pixels, with the prefix "blank" if they are all equal.
        checksums: Of its stored items.
        problem, message: Why it was left out, without and with the file.
    """

    case: str
    record: CaseRecord | None
    positions: list[int]
    digest: str = ""
    checksums: tuple[int, int] = (0, 0)
    problem: str = ""
    message: str = ""


_ENTRY = TypeAdapter(Entry)


class StoreWriter:
    """Append cases to a store in `folder`/data, with a journal of the complete ones.

    The caller must hold the lock of `folder`. `finish` returns the complete data set, to be moved into place.
    """

    def __init__(self, folder: Path, images: Any, labels: Any, entries: Sequence[Entry] = ()) -> None:
        self.folder, self._images, self._labels = folder, images, labels
        self.entries = list(entries)

    @property
    def items(self) -> int:
        """The number of images."""
        return sum(len(entry.positions) for entry in self.entries)

    @classmethod
    def resume_or_create(
        cls, folder: Path, channels: int, size: tuple[int, ...], largest_label: int, recipe: dict[str, Any]
    ) -> StoreWriter:
        """A writer that resumes after the last complete case in `folder`, if it was started with the same `recipe`."""
        try:
            return cls._resume(folder, recipe)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError):
            clear(folder)
        data = folder / "data"
        data.mkdir(parents=True)
        images = _create(data / "images.b2nd", (channels, *size), np.int16, len(size))
        labels = _create(data / "labels.b2nd", size, np.uint8 if largest_label <= 255 else np.uint16, len(size))
        (folder / "journal.jsonl").touch()
        (folder / "recipe.json").write_text(json.dumps(recipe), encoding="utf-8")
        return cls(folder, images, labels)

    @classmethod
    def _resume(cls, folder: Path, recipe: dict[str, Any]) -> StoreWriter:
        if json.loads((folder / "recipe.json").read_text(encoding="utf-8")) != recipe:
            raise ValueError("another recipe")
        images, labels = (blosc2.open(str(folder / "data" / f"{name}.b2nd"), mode="a") for name in ("images", "labels"))
        *lines, _ = (
            (folder / "journal.jsonl").read_text(encoding="utf-8").split("\n")
        )  # the last line is empty or incomplete
        whole: list[str] = []
        entries: list[Entry] = []
        first = 0
        for line in lines:
            entry = _ENTRY.validate_json(line)
            end = first + len(entry.positions)
            if len(images) < end or len(labels) < end or _sums(images[first:end], labels[first:end]) != entry.checksums:
                break  # the crash lost data that the journal lists
            first = end
            whole.append(f"{line}\n")
            entries.append(entry)
        for array in (images, labels):  # drop the incomplete next case
            array.resize((first, *array.shape[1:]))
        (folder / "journal.jsonl").write_text("".join(whole), encoding="utf-8")
        return cls(folder, images, labels, entries)

    def append(self, entry: Entry, images: NDArray[np.int16], labels: NDArray[Any]) -> None:
        """Add a case: images (N, C, *spatial) and labels (N, *spatial), one for each of its N positions."""
        labels = labels.astype(self._labels.dtype)
        for array, block in ((self._images, images), (self._labels, labels)) if entry.positions else ():
            start = array.shape[0]
            array.resize((start + len(block), *array.shape[1:]))
            array[start:] = np.ascontiguousarray(block)
        self._note(replace(entry, checksums=_sums(images, labels)))

    def skip(self, case: str, error: DataError) -> None:
        """Record that a case was left out, and why."""
        self._note(Entry(case, None, [], problem=error.problem, message=str(error)))

    def _note(self, entry: Entry) -> None:
        with (self.folder / "journal.jsonl").open("a", encoding="utf-8") as file:
            file.write(_ENTRY.dump_json(entry).decode() + "\n")
        self.entries.append(entry)

    def finish(self, info: DatasetInfo, rows: Sequence[Row], names: Sequence[OriginalName]) -> Path:
        """Write the text files, and return the folder of the complete data set, which is not in place yet."""
        data = self.folder / "data"
        write_index(data / INDEX, rows)
        write_names(data / NAMES, names)
        info.write(data / "dataset.json")
        return data


def clear(folder: Path) -> None:
    """Remove everything in `folder` except its lock."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != LOCK_ENDING:
            path.unlink(missing_ok=True)


def _sums(images: NDArray[Any], labels: NDArray[Any]) -> tuple[int, int]:
    return zlib.crc32(np.ascontiguousarray(images).data), zlib.crc32(np.ascontiguousarray(labels).data)


def _create(path: Path, item: tuple[int, ...], kind: type[np.generic], dim: int) -> Any:
    """An empty array that grows along its first axis, in blocks of one item, so that items can be read singly.

    Items of 128 x 128 x 128 and more are cut into cubes, so that a crop can be read without the rest: see
    `benchmarks/store_throughput.py` for their sides.

    Args:
        path: Of the file.
        item: The shape of an item, with channels or without.
        kind: Of its values.
        dim: Of its axes, how many are spatial.
    """
    bytes_each = int(np.prod(item)) * np.dtype(kind).itemsize
    chunks, blocks = (max(1, _CHUNK // bytes_each), *item), (1, *item)
    if np.prod(item) >= _LARGE:
        channels, sides = item[: len(item) - dim], item[len(item) - dim :]
        chunks, blocks = ((1, *channels, *(min(side, most) for side in sides)) for most in (_CUBE, _BLOCK))
    parameters = blosc2.CParams(codec=blosc2.Codec.LZ4, clevel=5, nthreads=2)
    return blosc2.empty(
        (0, *item),
        dtype=kind,
        chunks=chunks,
        blocks=blocks,
        urlpath=str(path),
        mode="w",
        cparams=parameters,
    )
