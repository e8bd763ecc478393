"""Nearest-map retrieval: the training image whose label map is nearest.

Nothing is learned; a learned model must follow maps better.

Its images are those of real patients: its sample sets say so, and are never exported.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anatogen.baselines.document import about_unlearned
from anatogen.data.store import PreparedDataset, Row
from anatogen.errors import DataError, ModelError
from anatogen.model import AboutModel, ModelSpec, Q, Query, RunDocument

RETRIEVAL = "retrieval"
_BLOCK_PIXELS = 1 << 24
"""Pixels of training maps that are compared at a time."""


class RetrievalDocument(RunDocument):
    """model.json of nearest-map retrieval.

    Attributes:
        dataset: Where the prepared data set lies, from the run's folder.
    """

    HINT: ClassVar[str] = "Make it again: anatogen train DATASET --out RUN --model retrieval"

    kind: Literal["retrieval"] = "retrieval"
    dataset: str


class NearestMap:
    """Answers each query with the training image whose label map is nearest to the query's.

    Near is the mean Dice over the given classes that either map shows; maps that both show none of them agree. Classes
    that are left free do not count, nor does the seed. Of maps that are equally near, the first of the training split
    is taken. A class that a training map was not annotated for counts as absent there.

    Args:
        dataset: The prepared data set; its split "train" is searched.
        about: What is known of it.
        run: The name of its folder.
    """

    def __init__(self, dataset: PreparedDataset, about: AboutModel, *, run: str = "") -> None:
        self.dataset, self.about, self.run = dataset, about, run
        self.rows: list[Row] = dataset.split("train")
        self.digest = hashlib.sha256(f"{RETRIEVAL} {about.trained_on}".encode()).hexdigest()[:16]

    @classmethod
    def load(cls, run: str | Path, *, device: str = "auto") -> NearestMap:  # noqa: ARG003
        """The retrieval in a run folder. Raises ModelError where it, or its data set, is missing or another."""
        run = Path(run)
        try:
            document = RetrievalDocument.read(run / "model.json")
        except DataError as error:
            raise ModelError(error.problem, path=error.path, hint=error.hint) from error
        folder = Path(os.path.normpath(run.resolve() / document.dataset))
        try:
            dataset = PreparedDataset.open(folder)
        except DataError as error:
            raise ModelError(
                f"its data set cannot be opened ({folder}: {error.problem})", path=run, hint=document.HINT
            ) from error
        if dataset.digest_of("train") != document.about.trained_on:
            raise ModelError(f"the data set {folder} has another training split now", path=run, hint=document.HINT)
        return cls(dataset, document.about, run=run.resolve().name)

    @classmethod
    def of(cls, dataset: PreparedDataset) -> NearestMap:
        """The retrieval in a data set."""
        return cls(dataset, about_unlearned(dataset))

    @property
    def spec(self) -> ModelSpec:
        """What it takes and gives."""
        origin = self.about.dataset
        return ModelSpec(
            self.dataset.schema,
            self.dataset.size,
            self.about.axis,
            self.about.spacing_mm,
            origin.label_values if origin is not None else None,
            channels=self.dataset.channels,
            seeds_vary=False,
            real_patients=True,
        )

    def describe(self) -> AboutModel:
        """What is known of it."""
        return self.about

    def generate(self, asked: Iterable[Q], *, batch_size: int = 16) -> Iterator[tuple[Q, NDArray[np.float32]]]:
        """Each query with the nearest map's image (C, *spatial) in [-1, 1], in their order."""
        remaining = iter(asked)
        while batch := list(islice(remaining, batch_size)):
            images = self.dataset.load([self.rows[i] for i in self.nearest(batch)]).images.numpy()
            yield from zip(batch, images, strict=True)

    def nearest(self, batch: list[Query] | list[Q]) -> list[int]:
        """For each query, the place of the nearest map in the training split."""
        wanted = torch.from_numpy(np.stack([query.labels for query in batch])).flatten(1)  # (B, pixels)
        given = torch.tensor([query.states.given for query in batch])  # (B, C-1)
        best = torch.full((len(batch),), -1.0, dtype=torch.float64)
        found = torch.zeros(len(batch), dtype=torch.int64)
        size = max(1, _BLOCK_PIXELS // max(1, wanted.shape[1]))
        for start in range(0, len(self.rows), size):
            labels = self.dataset.load(self.rows[start : start + size]).labels.flatten(1)  # (N, pixels)
            scores = similarity_of_maps(wanted, labels, given)
            highest, places = scores.max(dim=1)
            nearer = highest > best
            best, found = torch.where(nearer, highest, best), torch.where(nearer, places + start, found)
        return [int(place) for place in found]


def similarity_of_maps(wanted: Tensor, labels: Tensor, given: Tensor) -> Tensor:
    """The mean Dice (B, N) of label maps over the given classes that either map shows, 1 where neither shows any.

    Args:
        wanted: int64 (B, pixels).
        labels: int64 (N, pixels).
        given: bool (B, C-1), the classes that count.
    """
    total = torch.zeros(len(wanted), len(labels), dtype=torch.float64)
    count = torch.zeros_like(total)
    for index in range(1, given.shape[1] + 1):
        ours, theirs = (wanted == index).float(), (labels == index).float()
        both = (ours @ theirs.T).double()
        sizes = ours.sum(1, dtype=torch.float64)[:, None] + theirs.sum(1, dtype=torch.float64)[None]
        counts = (sizes > 0) & given[:, index - 1][:, None]
        total += torch.where(counts, 2 * both / sizes.clamp(min=1), 0.0)
        count += counts
    return torch.where(count > 0, total / count.clamp(min=1), 1.0)


def make_retrieval(dataset: PreparedDataset, out: Path) -> AboutModel:
    """Write model.json of nearest-map retrieval in `dataset` to the folder `out`; no image is copied.

    Returns what is known of it.

    Raises OutputError where it cannot be written.
    """
    about = about_unlearned(dataset)
    place = os.path.relpath(dataset.folder.resolve(), out.resolve())
    RetrievalDocument(dataset=Path(place).as_posix(), about=about).write(out / "model.json")
    return about
