"""The completed maps of a sample set: labelled, summarised by label map, measured and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anatogen import __version__
from anatogen.conditioning.complete import completed
from anatogen.data.store import PreparedDataset, Row
from anatogen.evaluation.completion import CompletionTally, MapTruth, Recalibrated, calibrations
from anatogen.files import safe_name, writing
from anatogen.generation.completion import CompletedMaps, by_label_map, complete_samples
from anatogen.generation.header import DatasetName
from anatogen.generation.manifest import Line
from anatogen.generation.map_summaries import MODEL_SCALE, SCAN_SCALE, MapLine, MapSummary, write_maps
from anatogen.generation.sample_set import SampleSet, states_of
from anatogen.io.pictures import write_png
from anatogen.progress import stage
from anatogen.reporting.completion import (
    COMPLETION,
    Completion,
    MapPicture,
    overview,
    reliability,
    row_of,
    strip,
)
from anatogen.settings import command_of_process
from anatogen.workflows.complete import Judge

OVERVIEW_ROWS = 8


def finish(
    samples: SampleSet,
    judge: Judge,
    annotated: PreparedDataset | None,
    recalibrated: Recalibrated | None,
    *,
    command: str = "",
) -> tuple[Completion, Path]:
    """Complete every image of `samples`, summarise every label map, measure where there are annotations.

    Args:
        samples: A sample set.
        judge: The segmenter.
        annotated: The data set of its label maps, where they can be compared with their annotations.
        recalibrated: What is done to frequencies.
        command: For the record; by default that of this process.

    Returns:
        What completion.json says, and the overview's file.
    """
    folder = samples.folder
    _label(samples, judge)
    work = _Maps(samples, judge, annotated, recalibrated)
    groups = by_label_map(samples)
    names = list(groups)
    rows = min(OVERVIEW_ROWS, len(names))
    shown = {names[(2 * i + 1) * len(names) // (2 * rows)] for i in range(rows)}
    pictures, lines = [], []
    with stage("summarising", len(groups), "label maps") as bar:
        for name, entries in groups.items():
            line, picture = work.write(name, entries)
            lines.append(line)
            if name in shown:
                pictures.append(picture)
            bar.advance()
    write_maps(folder, lines)
    with writing(folder / "overview.png") as path:
        path.write_bytes(overview(pictures, samples.schema))
    completion = work.completion(lines, command or command_of_process())
    if completion.calibration:
        with writing(folder / "calibration.png") as path:
            path.write_bytes(reliability(completion.calibration))
    completion.write(folder / COMPLETION)
    return completion, folder / "overview.png"


def tally_of(samples: SampleSet, judge: Judge, annotated: PreparedDataset) -> CompletionTally:
    """The completed maps of `samples` against the annotations of their data set."""
    _label(samples, judge)
    work = _Maps(samples, judge, annotated, None)
    for entries in by_label_map(samples).values():
        work.measure(entries, np.stack([work.maps(line) for line in entries]))
    return work.tally


def _label(samples: SampleSet, judge: Judge) -> None:
    with stage("completing label maps", len(samples.entries), "images") as bar:
        complete_samples(samples, judge.segment, judge.digest, progress=bar.update)


@dataclass
class _Maps:
    """The label maps of a set, one at a time."""

    samples: SampleSet
    judge: Judge
    annotated: PreparedDataset | None
    recalibrated: Recalibrated | None

    def __post_init__(self) -> None:
        self.maps = CompletedMaps(self.samples)
        self.tally = CompletionTally(tuple(self.samples.schema.names))
        rows = () if self.annotated is None else self.annotated.rows
        self._rows: dict[tuple[str | None, int | None], Row] = {(row.case, row.slice): row for row in rows}

    def write(self, name: str, entries: Sequence[Line]) -> tuple[MapLine, MapPicture]:
        """Write the files of one label map; its line, and what is drawn of it."""
        samples, schema = self.samples, self.samples.schema
        first = entries[0]
        images = np.stack([samples.image(line) for line in entries])
        full = np.stack([self.maps(line) for line in entries])
        summary = MapSummary.of(images, full, {free: schema.index_of(free) for free in first.free})
        if self.recalibrated is not None:
            change = self.recalibrated.maps
            summary = summary.with_calibrated({k: change[k](v) for k, v in summary.frequency.items() if k in change})
        real = self.measure(entries, full)
        line = MapLine(
            id=safe_name(name.replace(" ", "_")),
            label_map=name,
            patient=first.patient_or_map,
            images=tuple(entry.id for entry in entries),
            given=first.given,
            free=first.free,
            mean="",
            std="",
        )
        place = samples.placement(first) if samples.header.image_format in ("nifti", "dicom") else None
        line = summary.write(line, samples.folder, place)
        asked = samples.label_map(first)
        given = [schema.index_of(each) for each in first.given]
        picture = MapPicture(
            name, np.where(np.isin(asked, given), asked, 0), images, full, summary.std, summary.frequency, real
        )
        line = line.model_copy(update={"picture": f"maps/{line.id}/picture.png"})
        with writing(samples.folder / str(line.picture)) as path:
            write_png(path, strip(row_of(picture, schema)))
        return line, picture

    def measure(self, entries: Sequence[Line], full: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """Compare the completed maps (n, *spatial) of one label map with its annotation; its real image, if any."""
        first = entries[0]
        row = self._rows.get((first.case, first.slice)) if first.elsewhere is None else None
        if row is None or self.annotated is None:
            return None
        states = np.array(states_of(first, self.samples.schema).given)
        batch = self.annotated.load([row])
        labels, image = batch.truth[0].numpy(), batch.images.numpy()
        found = completed(batch.labels[0].numpy(), states.tolist(), self.judge.segment(image))
        self.tally.add(full, MapTruth(row.patient, labels, batch.annotated[0].numpy() & ~states, found[0]))
        return image[0]

    def completion(self, lines: Sequence[MapLine], command: str) -> Completion:
        """What all this came to."""
        samples, source = self.samples, self.judge.dataset.info.source
        free = [name for name in samples.schema.names if any(name in line.free for line in lines)]
        placed = samples.header.image_format in ("nifti", "dicom")
        return Completion(
            version=__version__,
            command=command,
            of="samples",
            model=samples.header.model,
            judge=DatasetName(name=source.get("name"), fingerprint=source.get("fingerprint")),
            segmenter=self.judge.digest,
            free=tuple(free),
            label_maps=len(lines),
            images=len(samples.entries),
            patients=len({line.patient for line in lines}),
            scale=SCAN_SCALE if placed else MODEL_SCALE,
            measured=self.tally.measures(),
            calibration=calibrations(self.tally.counts(), free, self.recalibrated),
        )
