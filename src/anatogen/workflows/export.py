"""Exporting: a sample set or a run in, what another program reads out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anatogen.errors import DataError, SettingsError, nearest
from anatogen.progress import Monitor, stage, watched_by

if TYPE_CHECKING:
    from anatogen.generation.sample_set import SampleSet

TARGETS = ("nnunet", "diffusers")
LABELS = ("asked", "completed")


@dataclass(frozen=True)
class ExportRequest:
    """What `anatogen export` is asked for.

    Args:
        to: "nnunet" for a sample set, "diffusers" for a run.
        dataset: what the model was trained on, to look for copies in where no report has looked yet, and for the place
            and the units of images whose sample set does not know them.
        stack: join the slices of one map volume to one case.
        accept_copies: export a sample set in which more training patients are copied than by chance.
        labels: "asked", the label maps that were asked for, or "completed", those of `anatogen complete`.
    """

    source: Path
    out: Path
    to: str
    dataset: Path | None = None
    accept_copies: bool = False
    stack: bool = False
    labels: str = "asked"

    def __post_init__(self) -> None:
        if self.labels not in LABELS:
            raise SettingsError(f"there are no label maps '{self.labels}'", hint=nearest(self.labels, LABELS))
        if self.to not in TARGETS:
            raise SettingsError(f"there is no export to '{self.to}'", hint=nearest(self.to, TARGETS))


@dataclass(frozen=True)
class ExportResult:
    """Where it lies, how many cases and images it holds (0 for a model), of which classes, and what the user should be
    told.
    """

    out: Path
    cases: int
    images: int
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def export(request: ExportRequest, *, monitor: Monitor | None = None) -> ExportResult:
    """Write the export.

    Raises DataError where the sample set copies training patients, or its maps are not its images' truth.
    """
    from anatogen.data.store import PreparedDataset
    from anatogen.generation.sample_set import SampleSet, require_synthetic
    from anatogen.interop.diffusers import export_checkpoint
    from anatogen.interop.nnunet_export import export_nnunet, require_exportable

    if request.to == "diffusers":
        export_checkpoint(request.source, request.out)
        return ExportResult(request.out, 0, 0, (), ())
    opened = SampleSet.open(request.source)
    require_synthetic(opened)
    completed = request.labels == "completed"
    require_exportable(opened, request.out, completed=completed)
    with watched_by(monitor):
        known = _require_no_copies(opened, request.dataset, request.accept_copies)
        with stage("exporting", len(opened.entries), "images") as bar:
            dataset = PreparedDataset.open(request.dataset) if request.dataset is not None else None
            done = export_nnunet(
                opened,
                request.out,
                dataset=dataset,
                stack=request.stack,
                completed=completed,
                progress=lambda done, total: bar.update(done),
            )
    known += [f"left out: {each}" for each in done.left_out]
    return ExportResult(done.out, done.cases, done.images, tuple(opened.schema.names), tuple(known))


def _require_no_copies(samples: SampleSet, dataset: Path | None, accepted: bool) -> list[str]:
    """What is known of copies. Raises DataError where there are more than by chance."""
    from anatogen.data.store import PreparedDataset
    from anatogen.evaluation.copies import copies_of, read_privacy, write_privacy

    found = read_privacy(samples)
    if found is None and dataset is not None:
        opened = PreparedDataset.open(dataset)
        with stage("looking for copies", 1.0, "s") as bar:  # in shares: how many images it takes is not known yet
            measured = copies_of(samples, opened, progress=lambda done, total: bar.update(done / total))
        found = write_privacy(samples, measured.rate)
    if found is None:
        warning = (
            "warning: copies of training patients were not looked for: "
            "give --dataset with what the model was trained on, or run anatogen evaluate first"
        )
        return [] if accepted else [warning]
    if found.above_chance and not accepted:
        raise DataError(
            found.verdict.rstrip("."),
            path=samples.folder,
            hint="Sample with --reject-copies, or export the copies all the same with --accept-copies",
        )
    return [found.verdict]
