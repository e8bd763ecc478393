"""The prepared data set: dataset.json, index.csv, names.csv, images.b2nd and labels.b2nd (Blosc2, as in nnU-Net v2).

It can be read without this package. `blosc2.open("images.b2nd")[i]` is the image (C, H, W) of row i of index.csv as
int16; dataset.json has the slope and intercept to the scanner's units for each case and channel. The column "annotated"
of index.csv is a JSON list of class names. `blosc2.open("labels.b2nd")[i]` is the label map: 0 background, 1 and above
the "index" of a class in dataset.json ("value" is its value in the source files); "ignored" in dataset.json, if not
null, is the value of voxels of unknown class. Cases and patients have running numbers; names.csv, which is private and
may be removed, maps them to names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import blosc2
import numpy as np

from anatogen.data.documents import INDEX, NAMES, CaseRecord, DatasetInfo, OriginalName, Row, read_index, read_names
from anatogen.data.split import SPLITS
from anatogen.errors import DataError, SettingsError, nearest
from anatogen.labels import ClassStates, LabelSchema

if TYPE_CHECKING:  # PyTorch is loaded with the first images; writing a data set does not need it
    from torch import Tensor

__all__ = ["Batch", "CaseRecord", "DatasetInfo", "PreparedDataset", "Row"]


@dataclass(frozen=True)
class Batch:
    """A batch of items.

    Attributes:
        images: float32 (B, C, *spatial) in [-1, 1].
        labels: int64 (B, *spatial).
        annotated: bool (B, C-1), the annotated classes.
        ignored: bool (B, *spatial), where the class is unknown (labels are 0 there); None if a data set has no such
            voxels.
        origins: int64 (B, d), where the items are crops: the first voxel of each in the whole.
    """

    images: Tensor
    labels: Tensor
    annotated: Tensor
    rows: tuple[Row, ...]
    ignored: Tensor | None = None
    origins: Tensor | None = None

    @property
    def truth(self) -> Tensor:
        """The labels for metrics and segmenters: -1 where the class is unknown."""
        return self.labels if self.ignored is None else self.labels.masked_fill(self.ignored, -1)

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, start: int, stop: int) -> Batch:
        """Items start to stop - 1 as a separate batch."""
        whole: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        parts: dict[str, Any] = {name: each if each is None else each[start:stop] for name, each in whole.items()}
        return Batch(**parts)


class PreparedDataset:
    """A prepared data set on disk: images, label maps, classes, splits.

    `hold` loads a small set into memory; otherwise items are read from disk.
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
        """The data set in `folder`. Raises DataError if there is none, or it is damaged."""
        folder = Path(folder)
        if not all((folder / name).is_file() for name in ("dataset.json", INDEX, "images.b2nd", "labels.b2nd")):
            what = "is not a prepared data set" if folder.exists() else "does not exist"
            raise DataError(what, path=folder, hint="Create one with anatogen prepare SOURCE OUT")
        info, rows = DatasetInfo.read(folder / "dataset.json"), read_index(folder / INDEX)
        try:
            return cls(folder, info, rows)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise DataError(f"is damaged ({error})", path=folder, hint="Prepare the data again") from error

    @property
    def size(self) -> tuple[int, ...]:
        """The spatial shape of an image."""
        return tuple(self.info.size)

    @property
    def channels(self) -> int:
        """The number of channels of an image."""
        return len(self.info.channels)

    @property
    def split_names(self) -> list[str]:
        """The splits that have rows, in their usual order."""
        there = {row.split for row in self.rows}
        return [*(name for name in SPLITS if name in there), *sorted(there - set(SPLITS))]

    def split(self, name: str) -> list[Row]:
        """The rows of one split. Raises SettingsError for an unknown or empty one."""
        rows = [row for row in self.rows if row.split == name]
        if not rows:
            there = sorted({row.split for row in self.rows})
            raise SettingsError(f"the data set has no split '{name}'", hint=nearest(name, there))
        return rows

    def digest_of(self, split: str) -> str:
        """A digest of the items of a split by case and slice, which distinguishes two splits of a source; "" if empty.

        It includes the seed, because pseudonyms stand for other cases with another seed.
        """
        items = sorted(f"{row.case}\t{row.slice}" for row in self.rows if row.split == split)
        if items and not self.info.names_kept:
            items.append(f"seed {self.info.split_seed}")
        return hashlib.sha256("\n".join(items).encode()).hexdigest()[:16] if items else ""

    def hold(self, limit_bytes: int = 4 << 30) -> bool:
        """Keep everything in memory from now on if it needs at most `limit_bytes`. Returns whether it does."""
        if isinstance(self._images, np.ndarray):
            return True
        if self._images.nbytes + self._labels.nbytes > limit_bytes:
            return False
        self._images, self._labels = self._images[:], self._labels[:]
        return True

    def load(self, rows: Sequence[Row], crops: Sequence[tuple[slice, ...]] | None = None) -> Batch:
        """The images and label maps of `rows`, in their order.

        Args:
            rows: Of this data set.
            crops: The part of each that is wanted, of equal size, along each spatial axis; None for the whole. Of a
                volume on disk, only the chunks that it touches are read.

        Raises:
            DataError: They cannot be read any more.
        """
        import torch

        index = [row.row for row in rows]
        images, labels = self._read(index) if crops is None else self._read_crops(index, crops)
        gain, offset = self._to_model[:, index]
        spatial = (1,) * len(self.size)
        x = torch.from_numpy(images).float()
        x = torch.addcmul(offset.reshape(*offset.shape, *spatial), x, gain.reshape(*gain.shape, *spatial)).clamp_(-1, 1)
        classes, ignored = torch.from_numpy(labels).long(), None
        if self.info.ignored is not None:
            ignored = classes == self.info.ignored
            classes = classes.masked_fill(ignored, 0)
        origins = None if crops is None else torch.tensor([[part.start for part in crop] for crop in crops])
        return Batch(x, classes, self._annotated[index], tuple(rows), ignored, origins)

    def _read_crops(self, index: list[int], crops: Sequence[tuple[slice, ...]]) -> tuple[np.ndarray, np.ndarray]:
        with self._readable():
            places = list(zip(index, crops, strict=True))
            images = [self._images[(i, slice(None), *crop)] for i, crop in places]
            labels = [self._labels[(i, *crop)] for i, crop in places]
            return np.stack(images), np.stack(labels)

    def _read(self, index: list[int]) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(self._images, np.ndarray):
            return self._images[index], self._labels[index]
        with self._readable():
            return np.stack([self._images[i] for i in index]), np.stack([self._labels[i] for i in index])

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError, ValueError) as error:  # Blosc2 raises RuntimeError
            hint = "Make the folder available again, or prepare the data again"
            raise DataError(f"cannot be read any more ({error})", path=self.folder, hint=hint) from error

    def batches(self, rows: Sequence[Row], size: int = 256) -> Iterator[Batch]:
        """`rows` in their order, `size` at a time, for data that does not fit into memory at once."""
        for start in range(0, len(rows), size):
            yield self.load(rows[start : start + size])

    def states(self, row: Row) -> ClassStates:
        """The annotated classes of `row` as given."""
        return ClassStates(tuple(name in row.annotated for name in self.schema.names))

    def attributes_of(self, row: Row) -> dict[str, str | float]:
        """The known attributes of `row` by name: those of its case, and the built-in `position` of a slice.

        The position is that among the slices of the case in this data set (labelled ones, unless empty slices were
        kept), from 0 for the first to 1 for the last.
        """
        first, last = self._extents[row.case]
        place = {} if first == last else {"position": (row.slice - first) / (last - first)}
        return {**place, **self.info.cases[row.case].attributes}

    @cached_property
    def _extents(self) -> dict[str, tuple[int, int]]:
        """The first and the last slice of each case; the same for a volume."""
        found: dict[str, tuple[int, int]] = {}
        for row in self.rows:
            first, last = found.get(row.case, (row.slice, row.slice))
            found[row.case] = min(first, row.slice), max(last, row.slice)
        return found

    @cached_property
    def names(self) -> Mapping[str, OriginalName]:
        """The original names of cases, by their pseudonym; empty if names.csv was removed."""
        return read_names(self.folder / NAMES)

    def called(self, case: str) -> str:
        """The name of a case for its owner: "case_0007 (hippocampus_017)", or the pseudonym alone without names.csv."""
        name = self.names[case].case if case in self.names else case
        return case if name == case else f"{case} ({name})"

    @cached_property
    def _to_model(self) -> Tensor:
        """Gain and offset of each row and channel, (2, rows, C)."""
        import torch

        by_case = {name: [m.to_model() for m in case.intensity] for name, case in self.info.cases.items()}
        return torch.tensor([by_case[row.case] for row in self.rows], dtype=torch.float32).movedim(-1, 0)

    @cached_property
    def _annotated(self) -> Tensor:
        import torch

        return torch.tensor([self.states(row).given for row in self.rows], dtype=torch.bool)
