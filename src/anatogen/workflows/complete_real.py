"""The missing classes of real images, which are a segmenter's task: it sees the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anatogen import __version__
from anatogen.conditioning.complete import completed
from anatogen.data.placement import Placement
from anatogen.data.store import PreparedDataset, Row
from anatogen.errors import SettingsError
from anatogen.evaluation.completion import CompletionTally, MapTruth
from anatogen.evaluation.sections.base import evenly
from anatogen.files import append, is_empty, locked, safe_name, writing
from anatogen.generation.completion import COMPLETED, CompletedLine, kept_lines, voxels_of, write_map
from anatogen.generation.header import DatasetName
from anatogen.generation.ledger import HEADER
from anatogen.progress import Monitor, stage, watched_by
from anatogen.reporting.completion import COMPLETION, Completion, MapPicture, overview
from anatogen.settings import command_of_process
from anatogen.workflows.complete import CompleteResult, Judge

_MEASURED = 400
_SHOWN = 8
_SEEN = ("heldout", "val")
"""Splits whose patients the segmenter learned from, or was chosen by."""


@dataclass(frozen=True)
class CompleteRealRequest:
    """What `anatogen complete --of-real` is asked for.

    Attributes:
        dataset: Of the real images.
        split: Which of them; only those with a missing class are completed.
        free: Classes that are completed in every image; empty: those that it was not annotated for.
        judge: The prepared data set of the segmenter; None: `dataset`.
        count: At most so many images, spread; None: all.
    """

    dataset: Path
    out: Path
    split: str = "test"
    free: tuple[str, ...] = ()
    judge: Path | None = None
    count: int | None = None
    device: str = "auto"
    command: str = ""


def complete_real(request: CompleteRealRequest, *, monitor: Monitor | None = None) -> CompleteResult:
    """Label the missing classes of real images with a segmenter; maps that are there are kept.

    The annotated classes stay as they are. The result holds label maps and pictures of real patients.

    Raises:
        SettingsError: No class is missing, or the segmenter does not know it or is of other images.
        DataError: The data set cannot be read.
        OutputError: The maps cannot be written.
    """
    dataset = PreparedDataset.open(request.dataset)
    of_judge = dataset if request.judge is None else PreparedDataset.open(request.judge)
    _require_same(dataset, of_judge)
    named = [dataset.schema.names[dataset.schema.index_of(name) - 1] for name in request.free]
    missing = {row.id: _missing(row, dataset, named) for row in dataset.rows}
    rows = [row for row in dataset.split(request.split) if missing[row.id]]
    if not rows:
        raise SettingsError(
            f"no image of the split {request.split} lacks a class", path=dataset.folder, hint="Name some: --free A,B"
        )
    out = request.out
    if (out / HEADER).exists() or not ((out / COMPLETED).exists() or is_empty(out)):
        problem = "already exists and holds no completed label maps of real images"
        raise SettingsError(problem, path=out, hint="Choose another folder")
    rows = evenly(rows, request.count or len(rows))
    free = [name for name in dataset.schema.names if any(name in missing[row.id] for row in rows)]
    with watched_by(monitor):
        judge = Judge.of(of_judge, free, request.device)
        return _Real(request, dataset, judge, missing, free).complete(rows)


def _missing(row: Row, dataset: PreparedDataset, named: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in dataset.schema.names if name in named or name not in row.annotated)


def _require_same(dataset: PreparedDataset, judge: PreparedDataset) -> None:
    parts = [(each.schema.names, each.size, each.channels, each.info.axis) for each in (dataset, judge)]
    if parts[0] != parts[1]:
        raise SettingsError(
            f"has other classes, another size or other channels than {dataset.folder}",
            path=judge.folder,
            hint="Prepare both with the same classes, --size and --axis",
        )


@dataclass
class _Real:
    """The real images of a data set on their way to full label maps."""

    request: CompleteRealRequest
    dataset: PreparedDataset
    judge: Judge
    missing: dict[str, tuple[str, ...]]
    free: list[str]
    _pictures: list[MapPicture] = field(default_factory=list)

    def complete(self, rows: list[Row]) -> CompleteResult:
        """Write everything; what it came to."""
        out, source = self.request.out, self.judge.dataset.info.source
        with locked(out):
            self._write(rows)
            with writing(out / "overview.png") as path:
                path.write_bytes(overview(self._pictures, self.dataset.schema))
            tally, notes = self._measured()
            completion = Completion(
                version=__version__,
                command=self.request.command or command_of_process(),
                of="real",
                judge=DatasetName(name=source.get("name"), fingerprint=source.get("fingerprint")),
                segmenter=self.judge.digest,
                free=tuple(self.free),
                label_maps=len(rows),
                images=len(rows),
                patients=len({row.patient for row in rows}),
                measured=tally.measures(),
                notes=("note: these are label maps and pictures of real patients: keep them as private", *notes),
            )
            completion.write(out / COMPLETION)
        return CompleteResult(out, completion, out / "overview.png", completion.notes)

    def _write(self, rows: list[Row]) -> None:
        """The label maps that are missing, and the pictures of some."""
        out, schema, there = self.request.out, self.dataset.schema, kept_lines(self.request.out, self.judge.digest)
        shown = {rows[(2 * i + 1) * len(rows) // (2 * _SHOWN)].id for i in range(_SHOWN)}
        with stage("completing label maps", len(rows), "images") as bar:
            for row in rows:
                free, old = self.missing[row.id], there.get(row.id)
                is_there = old is not None and old.free == free
                if not is_there or row.id in shown:
                    given = np.array([name not in free for name in schema.names])
                    image, asked, full = self._full_map(row, given)
                    if row.id in shown:
                        drawn = np.where(np.isin(asked, np.flatnonzero(given) + 1), asked, 0)
                        spacing = Placement.of(self.dataset, row).spacing_mm
                        self._pictures.append(
                            MapPicture(row.id, drawn, image[None], full[None], real=image, spacing_mm=spacing)
                        )
                    if not is_there:
                        line = self._line(row, full)
                        write_map(out / line.file, full, Placement.of(self.dataset, row))
                        append(out / COMPLETED, f"{line.text_on_disk()}\n".encode())
                bar.advance()

    def _full_map(
        self, row: Row, given: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
        """Image (C, *spatial), annotation and completed map (*spatial) of one row."""
        batch = self.dataset.load([row])
        images, asked = batch.images.numpy(), batch.labels[0].numpy()
        return images[0], asked, completed(asked, given.tolist(), self.judge.segment(images))[0]

    def _line(self, row: Row, full: NDArray[np.int64]) -> CompletedLine:
        free = self.missing[row.id]
        return CompletedLine(
            id=row.id,
            file=f"completed/{safe_name(row.id)}{'.png' if full.ndim == 2 else '.nii.gz'}",
            free=free,
            voxels=voxels_of(full, free, self.dataset.schema),
            segmenter=self.judge.digest,
            case=row.case,
            patient=row.patient,
            slice=row.slice,
        )

    def _measured(self) -> tuple[CompletionTally, list[str]]:
        """The segmenter on annotated images of patients whom it did not see; and why not, where there are none."""
        tally = CompletionTally(tuple(self.dataset.schema.names))
        own, theirs = (each.info.source.get("fingerprint") for each in (self.dataset, self.judge.dataset))
        same = self.dataset.folder.resolve() == self.judge.dataset.folder.resolve()
        if own == theirs and not same:
            return tally, ["note: not measured: the segmenter may have seen these patients, under another division"]
        seen = _SEEN if same else ()
        rows = [row for row in self.dataset.rows if row.split not in seen and set(self.free) & set(row.annotated)]
        if not rows:
            return tally, ["note: not measured: no patient whom the segmenter did not see has the completed classes"]
        chosen = evenly([row for row in rows if row.split == self.request.split] or rows, _MEASURED)
        is_free = np.array([name in self.free for name in self.dataset.schema.names])
        with stage("measuring the segmenter", len(chosen), "images") as bar:
            for row in chosen:
                batch = self.dataset.load([row])
                annotated = batch.annotated[0].numpy()
                *_, full = self._full_map(row, annotated & ~is_free)
                truth = MapTruth(row.patient, batch.truth[0].numpy(), annotated & is_free, full)
                tally.add(np.zeros((0, *full.shape), np.int64), truth)
                bar.advance()
        return tally, []
