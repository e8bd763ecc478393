"""The nearest training image of any image, and the same for real images of unseen patients as the reference."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from functools import cached_property
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from anatogen.data.store import PreparedDataset, Row
from anatogen.errors import DataError, OutputError
from anatogen.files import writing
from anatogen.metrics.neighbours import Neighbours, coarsening, nearest_neighbours

Images = NDArray[np.float32]


Progress = Callable[[int, int], None]


UNSEEN = ("heldout", "val", "test")


"""The splits that the generator never sees."""


_BLOCK = 256


_MOST_BYTES = 2 << 30


_SHIFTS = 2


class CopySearch:
    """Finds the nearest training image of any image, and knows how close images of unseen patients come to one.

    If the training images exceed `most_bytes`, all images are averaged over squares (or cubes) first.

    Args:
        dataset: A prepared data set.
        most_bytes: The most memory for the training images as float32.

    Raises:
        SettingsError: `dataset` has no split "train".
        DataError: `dataset` has no patients besides it.
    """

    def __init__(self, dataset: PreparedDataset, *, most_bytes: int = _MOST_BYTES) -> None:
        self.dataset = dataset
        self.train_rows = dataset.split("train")
        self.heldout_rows = [row for row in dataset.rows if row.split in UNSEEN]
        if not self.heldout_rows:
            raise DataError(
                "has no patients outside the training split, which the copy search needs for comparison",
                path=dataset.folder,
                hint="Prepare it again with --split train=70,heldout=15,val=7.5,test=7.5 --ignore-split",
            )
        most_pixels = most_bytes // (4 * len(self.train_rows) * dataset.channels)
        self.factor = coarsening(dataset.size, most_pixels)
        size = tuple(n // self.factor for n in dataset.size)
        self._train = np.empty((len(self.train_rows), dataset.channels, *size), np.float32)
        self._shifts = min(math.ceil(_SHIFTS / self.factor), (min(size) - 1) // 2)
        start = 0
        for block in _blocks(dataset, self.train_rows):
            self._train[start : start + len(block)] = _pooled(block, self.factor)
            start += len(block)

    def nearest(self, images: Images) -> Neighbours:
        """The nearest training images of `images` (N, C, *spatial); indices are places in `train_rows`."""
        return nearest_neighbours(_pooled(images, self.factor), self._train, shifts=self._shifts)

    @cached_property
    def digest(self) -> str:
        """A digest of the training and held-out images and of how they are compared."""
        digest = hashlib.sha256(f"1 {self._train.shape} {self.factor} {self._shifts}".encode())
        digest.update(self._train.data)
        for block in _blocks(self.dataset, self.heldout_rows):
            digest.update(np.ascontiguousarray(_pooled(block, self.factor)).data)
        return digest.hexdigest()[:16]

    @property
    def heldout_patients(self) -> NDArray[np.str_]:
        """The patient of each held-out image, (K,)."""
        return np.array([row.patient for row in self.heldout_rows])

    @property
    def _cache(self) -> Path:
        return self.dataset.folder / f"copies-{self.digest}.npz"

    def kept(self) -> Neighbours | None:
        """The result of an earlier `heldout` from the data set's folder, or None."""
        try:
            with np.load(self._cache, allow_pickle=False) as file:
                found = Neighbours(**{f.name: file[f.name] for f in fields(Neighbours)})
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return None
        return found if found.distance.shape == (len(self.heldout_rows),) else None

    def heldout(self, progress: Progress | None = None) -> Neighbours:
        """The nearest training images of the held-out images, cached in the data set's folder if it is writable."""
        if (found := self.kept()) is not None:
            return found
        found = self.nearest_of(_blocks(self.dataset, self.heldout_rows), len(self.heldout_rows), progress)
        if os.access(self.dataset.folder, os.W_OK):
            with suppress(OutputError), writing(self._cache) as path:  # losing the cache costs only time
                np.savez(path, **asdict(found))
        return found

    def nearest_of(self, blocks: Iterable[Images], total: int, progress: Progress | None = None) -> Neighbours:
        """As `nearest`, for `total` images in blocks."""
        found: list[Neighbours] = []
        done = 0
        for block in blocks:
            found.append(self.nearest(block))
            done += len(block)
            if progress is not None:
                progress(done, total)
        return Neighbours.joined(found)


def _blocks(dataset: PreparedDataset, rows: Sequence[Row]) -> Iterator[Images]:
    """The images of `rows` as float32 (B, C, *spatial), in blocks."""
    return (batch.images.numpy() for batch in dataset.batches(rows, _BLOCK))


def _pooled(images: Images, factor: int) -> Images:
    """Means over squares or cubes of `factor` pixels; a remainder at the far borders is dropped."""
    if factor == 1:
        return images
    pool = functional.avg_pool2d if images.ndim == 4 else functional.avg_pool3d
    return pool(torch.from_numpy(np.ascontiguousarray(images)), factor).numpy()
