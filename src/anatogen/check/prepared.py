"""A prepared data set as a source, so that the same checks run on it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from anatogen.check.findings import CheckReport, Finding
from anatogen.check.patients import leak_findings
from anatogen.check.run import Progress, check_source
from anatogen.data.sources.base import Source, SourceCase
from anatogen.data.store import PreparedDataset, Row
from anatogen.errors import DataError
from anatogen.labels import LabelSchema
from anatogen.volume import Volume

_FLAT = np.diag([-1.0, -1.0, -1.0, 1.0])


def prepared_source(dataset: PreparedDataset) -> Source:
    """The cases of `dataset`, its stacked slices or its volumes, on a grid of unit spacing, as the model sees them."""
    rows: dict[tuple[str, str], list[Row]] = {}
    for row in dataset.rows:
        rows.setdefault((row.case, row.split), []).append(row)
    cases = [
        SourceCase(
            case,
            own[0].patient,
            partial(_load, dataset, own),
            (),
            own[0].annotated,
            own[0].split,
        )
        for (case, _), own in rows.items()
    ]
    return Source(
        "prepared",
        str(dataset.folder),
        dataset.schema,
        tuple(dataset.info.channels),
        tuple(cases),
        dataset.info.notice,
        patients_from="layout",
    )


def _load(dataset: PreparedDataset, rows: list[Row]) -> tuple[Volume, Volume]:
    batch = dataset.load(rows)
    images, labels = batch.images.numpy(), batch.labels.numpy()
    if labels.ndim == 4:  # volumes, one per row of the index, concatenated
        images = np.concatenate(list(images), axis=1).swapaxes(0, 1)  # (D, C, H, W)
        labels = np.concatenate(list(labels))
    array = images.transpose(3, 2, 0, 1)  # (W, H, slices, C)
    return Volume(array, _FLAT), Volume(labels.transpose(2, 1, 0), _FLAT)


def _skipped(dataset: PreparedDataset) -> list[Finding]:
    """Cases that could not be read and were left out."""
    hint = "names.csv lists the files; fix them and prepare again, or leave them out"
    return [Finding("note", "case-skipped", left.case, left.problem.rstrip("."), hint) for left in dataset.info.skipped]


def check_prepared(folder: Path, *, progress: Progress | None = None) -> CheckReport:
    """Check the prepared data set in `folder`. Damage is a finding, not an exception."""
    try:
        dataset = PreparedDataset.open(folder)
    except DataError as error:
        finding = Finding("error", "damaged", str(folder), error.problem, error.hint or "")
        return CheckReport(str(folder), "prepared", 0, 0, LabelSchema(()), (finding,))
    report = check_source(prepared_source(dataset), progress=progress)
    report = replace(
        report, real=dataset.info.real, findings=(*leak_findings(dataset), *_skipped(dataset), *report.findings)
    )
    # The number of slices kept of a case is no property of the data.
    return replace(
        report, findings=tuple(f for f in report.findings if f.code not in ("shape-differs", "empty-slices"))
    )
