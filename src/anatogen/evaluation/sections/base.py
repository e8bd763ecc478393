"""What is judged, block by block, and what a section of the report is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from anatogen.data.store import Batch, PreparedDataset, Row
from anatogen.device import give_back_memory
from anatogen.generation.engine import Generator
from anatogen.generation.manifest import Line
from anatogen.generation.sample_set import SampleSet, patient_of
from anatogen.judges.segmenter import Segmenter
from anatogen.metrics.intervals import Interval, interval_entry, mean_interval
from anatogen.metrics.overlap import class_means
from anatogen.progress import stage
from anatogen.reporting.report import Figure

BLOCK = 256


@dataclass(frozen=True)
class Subject:
    """What is judged. entries: the lines of the manifest that are; rows: their rows in `dataset`, None where the label maps
    are from elsewhere. generator: that made them, where its run is still there.
    """

    dataset: PreparedDataset
    samples: SampleSet
    entries: list[Line]
    rows: list[Row] | None
    segmenter: Segmenter
    generator: Generator | None
    device: str = "auto"

    @property
    def test_rows(self) -> list[Row]:
        """The rows of the label maps, and the data set's own test rows where the maps are from elsewhere."""
        return self.rows if self.rows is not None else self.dataset.split("test")

    def patients(self) -> NDArray[np.str_]:
        """Whose label map each image follows, (N,)."""
        return np.array([patient_of(entry) for entry in self.entries])


@dataclass(frozen=True)
class Block:
    """Some of the images: generated (B, C, H, W) in [-1, 1], the label maps asked for and what the segmenter found (B, H, W).

    given, absent: (B, C-1), which classes were given, and which of them were erased from the map. real, found_in_real: the
    real images of the same maps, where there are any; known: (B, C-1), the classes that were drawn in them.
    """

    entries: list[Line]
    generated: NDArray[np.float32]
    asked: NDArray[np.int64]
    found: NDArray[np.int64]
    given: NDArray[np.bool_]
    absent: NDArray[np.bool_]
    known: NDArray[np.bool_]
    real: Batch | None
    found_in_real: NDArray[np.int64] | None


class Section(Protocol):
    """One question of the report."""

    def add(self, block: Block) -> None:
        """Take `block` into account."""

    def finish(self) -> tuple[dict[str, Any], list[Figure]]:
        """What report.json is to hold, and the figures."""


def blocks(subject: Subject, title: str = "judging", size: int = BLOCK) -> Iterator[Block]:
    """The images of `subject`, `size` at a time."""
    names = subject.dataset.schema.names
    total = len(subject.entries)
    with stage(title, total, "images") as bar:
        for start in range(0, total, size):
            entries = subject.entries[start : start + size]
            generated = np.stack([subject.samples.image(entry) for entry in entries])
            given = np.array([[name in entry.given for name in names] for entry in entries])
            real = subject.dataset.load(subject.rows[start : start + size]) if subject.rows is not None else None
            yield Block(
                entries,
                generated,
                np.stack([subject.samples.label_map(entry) for entry in entries]),
                subject.segmenter(generated),
                given,
                np.array([[name in entry.absent for name in names] for entry in entries]),
                given if real is None else real.annotated.numpy(),
                real,
                None if real is None else subject.segmenter(real.images),
            )
            give_back_memory()
            bar.update(start + len(entries))


def summary(
    names: Sequence[str],
    scores: NDArray[np.float64],
    patients: Sequence[str] | NDArray[np.str_] = (),
    *,
    within: Interval = (0, 1),
) -> dict[str, Any]:
    """Mean, 95 % interval and class means of `scores` (patients, classes), as report.json holds them.

    patients: their names, where the scores of each are to be held too. within: see `mean_interval`.
    """
    mean, interval, reason = mean_interval(scores, within)
    of_patients = {str(name): _by_name(names, line) for name, line in zip(patients, scores, strict=False)}
    return {
        "mean": mean,
        "per_class": _by_name(names, class_means(scores, axis=0)),
        **interval_entry("ci95", interval, "no_interval", reason),
        **({"per_patient": of_patients} if of_patients else {}),
    }


def _by_name(names: Sequence[str], values: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(names, map(float, values), strict=True))


def evenly(rows: Sequence[Row], most: int) -> list[Row]:
    """At most `most` of `rows`, at equal distances from the first to the last."""
    return [rows[i] for i in np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int)]


def spread(rows: Sequence[Row], count: int) -> list[int]:
    """Places of `count` rows, one patient after the other, each near the middle of its slices."""
    by_patient: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        by_patient.setdefault(row.patient, []).append(place)
    order = [places[len(places) * k // 8] for k in (4, 2, 6, 1, 5, 3, 7, 0) for places in by_patient.values()]
    return sorted(list(dict.fromkeys(order))[:count])
