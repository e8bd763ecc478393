"""The completed maps of a sample set: labelled, summarised by label map, measured and drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anatogen import __version__
from anatogen.conditioning.complete import completed
from anatogen.data.store import PreparedDataset, Row
from anatogen.distributed import Shard
from anatogen.errors import DataError
from anatogen.evaluation.completion import CompletionTally, MapTruth, Recalibrated, calibrations
from anatogen.files import locked, remove_partial, safe_name, writing
from anatogen.generation.completion import CompletedMaps, by_label_map, complete_samples
from anatogen.generation.header import DatasetName
from anatogen.generation.manifest import Line
from anatogen.generation.map_summaries import ARRAYS, MAPS, MODEL_SCALE, SCAN_SCALE, MapLine, MapSummary, write_maps
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
from anatogen.workflows.complete import CALIBRATION, FITTED_ON, Judge

OVERVIEW, RELIABILITY = "overview.png", "calibration.png"
OVERVIEW_ROWS = 8
_WAIT_S = 7 * 24 * 3600.0  # for a shard that completes the label maps; a killed one releases its lock


@dataclass(frozen=True)
class Whole:
    """What is made of a whole set: completed maps, summaries of label maps, a calibration, pictures, measures.

    One process makes it, under a lock; completion.json is written last, and tells what it was made of.

    Attributes:
        folder: The sample set.
        judge: Makes the segmenter, which may have to be trained.
        annotated: The data set of its label maps, where they can be compared with their annotations.
        calibrated: Whether frequencies are calibrated on the set in the folder `CALIBRATION`.
        command: For the record; by default that of this process.
    """

    folder: Path
    judge: Callable[[], Judge]
    annotated: PreparedDataset | None
    calibrated: bool = False
    command: str = ""

    @property
    def overview(self) -> Path:
        """The file of the overview."""
        return self.folder / OVERVIEW

    def finished(self, shard: Shard) -> tuple[SampleSet, Completion]:
        """The set and what completing it came to.

        For the whole it is made anew, with the completed maps that are there. For a shard it is made where it is
        missing, damaged or of other images; where another process is making it, the call waits.

        Raises OutputError where another process is making it (for the whole), or it cannot be written.
        """
        with self._alone(shard):
            samples = SampleSet.open(self.folder)  # now: others may have extended it while this one waited
            fitted = SampleSet.open(self.folder / CALIBRATION) if self.calibrated else None
            judge = self.judge()
            made_of = _digest_of([each for each in (samples, fitted) if each is not None], judge.digest)
            if shard.count > 1 and (there := _read_completion(self.folder)) is not None and there.made_of == made_of:
                return samples, there
            with suppress(OSError):
                (self.folder / COMPLETION).unlink()  # it would speak of files that are made anew
            remove_partial(self.folder / ARRAYS)
            remove_partial(self.folder, MAPS, OVERVIEW, RELIABILITY, COMPLETION)
            recalibrated = None
            if fitted is not None:
                recalibrated = Recalibrated.fitted(tally_of(fitted, judge, judge.dataset), FITTED_ON)
            return samples, self._made(samples, judge, recalibrated, made_of)

    @contextmanager
    def _alone(self, shard: Shard) -> Iterator[None]:
        """Hold the lock of all this; a shard waits for it."""
        with ExitStack() as held:
            with stage("waiting for another process to complete the label maps", 1):
                held.enter_context(locked(self.folder, "completion", wait_s=_WAIT_S if shard.count > 1 else 0.0))
            yield

    def _made(self, samples: SampleSet, judge: Judge, recalibrated: Recalibrated | None, made_of: str) -> Completion:
        """Complete every image, summarise every label map, measure where there are annotations."""
        _label(samples, judge)
        work = _Maps(samples, judge, self.annotated, recalibrated)
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
        write_maps(self.folder, lines)
        with writing(self.overview) as path:
            path.write_bytes(overview(pictures, samples.schema))
        completion = work.completion(lines, self.command or command_of_process(), made_of)
        if completion.calibration:
            with writing(self.folder / RELIABILITY) as path:
                path.write_bytes(reliability(completion.calibration))
        completion.write(self.folder / COMPLETION)
        return completion


def _digest_of(sets: Sequence[SampleSet], segmenter: str) -> str:
    """Tells what a completion was made of: the model, the images of all `sets`, and the segmenter."""
    digest = hashlib.sha256(segmenter.encode())
    for each in sets:
        digest.update(each.header.model.encode())
        for line in each.entries:
            digest.update(f"{line.id} {line.seed}\n".encode())
    return digest.hexdigest()[:16]


def _read_completion(folder: Path) -> Completion | None:
    with suppress(DataError):
        return Completion.read(folder / COMPLETION)
    return None


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
        drawn, spacing = np.where(np.isin(asked, given), asked, 0), samples.header.about_model.spacing_mm
        picture = MapPicture(name, drawn, images, full, summary.std, summary.frequency, real, spacing)
        line = line.model_copy(update={"picture": f"{ARRAYS}/{line.id}/picture.png"})
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

    def completion(self, lines: Sequence[MapLine], command: str, made_of: str) -> Completion:
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
            made_of=made_of,
            free=tuple(free),
            label_maps=len(lines),
            images=len(samples.entries),
            patients=len({line.patient for line in lines}),
            scale=SCAN_SCALE if placed else MODEL_SCALE,
            measured=self.tally.measures(),
            calibration=calibrations(self.tally.counts(), free, self.recalibrated),
        )
