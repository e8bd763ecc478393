"""The prepared data set: dataset.json, index.csv, images.b2nd and labels.b2nd (Blosc2, as nnU-Net v2 stores its data).

Readable without this package: `blosc2.open("images.b2nd")[i]` is the image (C, H, W) of row i of index.csv as int16;
dataset.json gives, for each case and channel, the slope and intercept back to the scanner's units. The column "annotated" of
index.csv is a JSON list of class names. `blosc2.open("labels.b2nd")[i]` is its label map: 0 background, 1 and more the "index"
of a class in dataset.json ("value" is what the files of the source had for it), and "ignored" there, where it is not null,
what stands for voxels whose class is unknown.
"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anatogen.data.intensity import IntensityMapping
from anatogen.errors import DataError, SettingsError, nearest
from anatogen.labels import ClassStates, LabelClass, LabelSchema

FORMAT = 1
_INDEX_FIELDS = ("row", "case", "patient", "slice", "split", "annotated")


@dataclass(frozen=True)
class CaseRecord:
    """One case: its patient and split, the geometry of its canonical volume, and a mapping for each channel.

    affine: from voxel (x, y, z) of the volume, whose axes run to left, posterior, inferior, to RAS millimetres.
    source_axes: where the axes of the file ran, for instance "RAS". crop: the volume's first voxel in the whole scan, where
    it was cut out of one. remarks: what its files made their reader say. attributes: of the patient, as the source has them.
    """

    patient: str
    split: str
    affine: list[list[float]]
    grid: list[int]
    intensity: list[IntensityMapping]
    annotated: list[str]
    source_axes: str = ""
    crop: list[int] | None = None
    remarks: list[str] = field(default_factory=list)
    attributes: dict[str, str] = field(default_factory=dict)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of voxel centres along x, y and z."""
        x, y, z = np.linalg.norm(np.asarray(self.affine)[:3, :3], axis=0)
        return float(x), float(y), float(z)


@dataclass(frozen=True)
class DatasetInfo:
    """dataset.json. axis: the slices' direction, or "volume". size: (H, W) or (D, H, W). notice: a caution.

    fit, spacing_mm, intensity_rule, field_of_view: how the items were made. ignored: what stands in the label maps for
    voxels whose class is unknown, which no class has.
    """

    classes: list[LabelClass]
    channels: list[str]
    axis: str
    size: list[int]
    fit: str
    intensity_rule: dict[str, Any]
    split_seed: int
    source: dict[str, Any]
    version: str
    cases: dict[str, CaseRecord]
    notice: str = ""
    spacing_mm: list[float] | None = None
    format: int = FORMAT
    field_of_view: list[int] | None = None
    ignored: int | None = None


@dataclass(frozen=True)
class Row:
    """One line of index.csv: one image and label map of the store."""

    row: int
    case: str
    patient: str
    slice: int
    split: str
    annotated: tuple[str, ...]

    @property
    def id(self) -> str:
        """A name for files: case and slice."""
        return f"{self.case}_{self.slice:04d}"


@dataclass(frozen=True)
class Batch:
    """images: float32 (B, C, *spatial) in [-1, 1]. labels: int64 (B, *spatial). annotated: bool (B, C-1), drawn classes.

    ignored: bool (B, *spatial), where the class is unknown (labels are 0 there); None where a data set has no such voxels.
    """

    images: Tensor
    labels: Tensor
    annotated: Tensor
    rows: tuple[Row, ...]
    ignored: Tensor | None = None


class StoreWriter:
    """Appends cases to a store in `folder`, with a journal that says which of them are whole; `finish` ends it."""

    def __init__(self, folder: Path, images: Any, labels: Any) -> None:
        self.folder, self._images, self._labels = folder, images, labels
        self.rows: list[Row] = []
        self.records: dict[str, CaseRecord] = {}

    @classmethod
    def resume_or_create(
        cls, folder: Path, channels: int, size: tuple[int, ...], largest_label: int, recipe: dict[str, Any]
    ) -> StoreWriter:
        """A writer that goes on after the last whole case in `folder`, if that was begun with the same `recipe`."""
        try:
            return cls._resume(folder, recipe)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError):
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "recipe.json").write_text(json.dumps(recipe), encoding="utf-8")
        images = _create(folder / "images.b2nd", (channels, *size), np.int16)
        labels = _create(folder / "labels.b2nd", size, np.uint8 if largest_label <= 255 else np.uint16)
        return cls(folder, images, labels)

    @classmethod
    def _resume(cls, folder: Path, recipe: dict[str, Any]) -> StoreWriter:
        if json.loads((folder / "recipe.json").read_text(encoding="utf-8")) != recipe:
            raise ValueError("another recipe")
        images, labels = (blosc2.open(str(folder / f"{name}.b2nd"), mode="a") for name in ("images", "labels"))
        writer = cls(folder, images, labels)
        text = (folder / "journal.jsonl").read_text(encoding="utf-8")
        for line in text[: text.rfind("\n") + 1].splitlines():
            entry = json.loads(line)
            writer.records[entry["case"]] = _read_record(entry["record"])
            writer.rows += [Row(**{**row, "annotated": tuple(row["annotated"])}) for row in entry["rows"]]
        for array in (images, labels):  # what a crash left of the next case
            if len(array) < len(writer.rows):
                raise ValueError("less than the journal says")
            array.resize((len(writer.rows), *array.shape[1:]))
        (folder / "journal.jsonl").write_text(text[: text.rfind("\n") + 1], encoding="utf-8")
        return writer

    def append(
        self, case: str, record: CaseRecord, images: NDArray[np.int16], labels: NDArray[Any], rows: Sequence[Row]
    ) -> None:
        """Add a case: images (N, C, *spatial) and labels (N, *spatial), described by N rows."""
        for array, block in ((self._images, images), (self._labels, labels)) if rows else ():
            start = array.shape[0]
            array.resize((start + len(block), *array.shape[1:]))
            array[start:] = np.ascontiguousarray(block.astype(array.dtype))
        entry = {"case": case, "record": asdict(record), "rows": [asdict(row) for row in rows]}
        with (self.folder / "journal.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self.rows += rows
        self.records[case] = record

    def finish(self, info: DatasetInfo) -> None:
        """Write index.csv and dataset.json, and remove what was only needed to resume."""
        with (self.folder / "index.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(_INDEX_FIELDS)
            for r in self.rows:
                writer.writerow(
                    [r.row, r.case, r.patient, r.slice, r.split, json.dumps(r.annotated, ensure_ascii=False)]
                )
        text = json.dumps(asdict(info), indent=1, ensure_ascii=False)
        (self.folder / "dataset.json").write_text(text, encoding="utf-8")
        for name in ("recipe.json", "journal.jsonl"):
            (self.folder / name).unlink(missing_ok=True)


def _create(path: Path, item: tuple[int, ...], kind: type[np.generic]) -> Any:
    """An empty array that grows along its first axis. A block is one item, so that one item is read by itself."""
    bytes_each = int(np.prod(item)) * np.dtype(kind).itemsize
    chunk = max(1, (1 << 20) // bytes_each)
    parameters = blosc2.CParams(codec=blosc2.Codec.LZ4, clevel=5, nthreads=2)
    return blosc2.empty(
        (0, *item),
        dtype=kind,
        chunks=(chunk, *item),
        blocks=(1, *item),
        urlpath=str(path),
        mode="w",
        cparams=parameters,
    )


class PreparedDataset:
    """A prepared data set on disk: images, label maps, classes, splits.

    Small sets are held in memory once `hold` is called; others are read from disk, item by item.
    """

    def __init__(self, folder: Path, info: DatasetInfo, rows: tuple[Row, ...]) -> None:
        self.folder, self.info, self.rows = folder, info, rows
        self.schema = LabelSchema(tuple(info.classes))
        self._images: Any = blosc2.open(str(folder / "images.b2nd"), mode="r")
        self._labels: Any = blosc2.open(str(folder / "labels.b2nd"), mode="r")
        if not len(self._images) == len(self._labels) == len(rows):
            raise DataError(
                f"{len(self._images)} images, {len(self._labels)} label maps and {len(rows)} rows do not match",
                path=folder,
                hint="Prepare the data again",
            )

    @classmethod
    def open(cls, folder: str | Path) -> PreparedDataset:
        """The data set in `folder`. Raises DataError where there is none, or where it is damaged."""
        folder = Path(folder)
        if not all((folder / name).is_file() for name in ("dataset.json", "index.csv", "images.b2nd", "labels.b2nd")):
            what = "is not a prepared data set" if folder.exists() else "there is no such folder"
            raise DataError(what, path=folder, hint="Make one with: anatogen prepare SOURCE OUT")
        try:
            info = _read_info(folder / "dataset.json")
            with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
                rows = tuple(_read_row(line) for line in csv.DictReader(file))
            return cls(folder, info, rows)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise DataError(f"is damaged ({error})", path=folder, hint="Prepare the data again") from error

    @property
    def size(self) -> tuple[int, ...]:
        """The spatial shape of an image."""
        return tuple(self.info.size)

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return len(self.info.channels)

    def split(self, name: str) -> list[Row]:
        """The rows of one split. Raises SettingsError for an unknown or empty one."""
        rows = [row for row in self.rows if row.split == name]
        if not rows:
            there = sorted({row.split for row in self.rows})
            raise SettingsError(f"the data set has no split '{name}'", hint=nearest(name, there))
        return rows

    def digest_of(self, split: str) -> str:
        """Which items a split holds, by case and slice: it tells two divisions of one source apart. "" where it is empty."""
        items = sorted(f"{row.case}\t{row.slice}" for row in self.rows if row.split == split)
        return hashlib.sha256("\n".join(items).encode()).hexdigest()[:16] if items else ""

    def hold(self, limit_bytes: int = 4 << 30) -> bool:
        """Keep everything in memory from now on, where it takes at most `limit_bytes`. Returns whether it does."""
        if isinstance(self._images, np.ndarray):
            return True
        if self._images.nbytes + self._labels.nbytes > limit_bytes:
            return False
        self._images, self._labels = self._images[:], self._labels[:]
        return True

    def load(self, rows: Sequence[Row]) -> Batch:
        """The images and label maps of `rows`, in their order."""
        index = [row.row for row in rows]
        if isinstance(self._images, np.ndarray):
            images, labels = self._images[index], self._labels[index]
        else:
            images = np.stack([self._images[i] for i in index])
            labels = np.stack([self._labels[i] for i in index])
        gain, offset = self._to_model[:, index]
        spatial = (1,) * len(self.size)
        x = torch.from_numpy(images).float()
        x = torch.addcmul(offset.reshape(*offset.shape, *spatial), x, gain.reshape(*gain.shape, *spatial)).clamp_(-1, 1)
        classes, ignored = torch.from_numpy(labels).long(), None
        if self.info.ignored is not None:
            ignored = classes == self.info.ignored
            classes = classes.masked_fill(ignored, 0)
        return Batch(x, classes, self._annotated[index], tuple(rows), ignored)

    def batches(self, rows: Sequence[Row], size: int = 256) -> Iterator[Batch]:
        """`rows` in their order, `size` at a time: for what would not fit into memory at once."""
        for start in range(0, len(rows), size):
            yield self.load(rows[start : start + size])

    def states(self, row: Row) -> ClassStates:
        """Given are the classes that were annotated."""
        return ClassStates(tuple(name in row.annotated for name in self.schema.names))

    @cached_property
    def _to_model(self) -> Tensor:
        """Gain and offset of each row and channel, (2, rows, C)."""
        by_case = {name: [m.to_model() for m in case.intensity] for name, case in self.info.cases.items()}
        return torch.tensor([by_case[row.case] for row in self.rows], dtype=torch.float32).movedim(-1, 0)

    @cached_property
    def _annotated(self) -> Tensor:
        return torch.tensor([self.states(row).given for row in self.rows], dtype=torch.bool)


def _read_info(path: Path) -> DatasetInfo:
    raw = json.loads(path.read_text(encoding="utf-8"))
    if raw.get("format") != FORMAT:
        raise DataError(
            f"has format {raw.get('format')}, this version reads {FORMAT}", path=path, hint="Prepare the data again"
        )
    raw["classes"] = [LabelClass(**{**c, "regions": tuple(c.get("regions", ()))}) for c in raw["classes"]]
    raw["cases"] = {name: _read_record(case) for name, case in raw["cases"].items()}
    return DatasetInfo(**raw)


def _read_record(raw: dict[str, Any]) -> CaseRecord:
    return CaseRecord(**{**raw, "intensity": [IntensityMapping(**m) for m in raw["intensity"]]})


def _read_row(line: dict[str, str]) -> Row:
    annotated = tuple(str(name) for name in json.loads(line["annotated"]))
    return Row(int(line["row"]), line["case"], line["patient"], int(line["slice"]), line["split"], annotated)
