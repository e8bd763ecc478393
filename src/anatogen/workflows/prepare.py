"""Preparing: a data set of any layout in, slices or volumes split by patient out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anatogen import __version__
from anatogen.progress import Monitor, stage, watched_by

if TYPE_CHECKING:
    from anatogen.data.prepare import PrepareSettings
    from anatogen.data.store import PreparedDataset


@dataclass(frozen=True)
class PrepareRequest:
    """What `anatogen prepare` is asked for.

    Args:
        source: a folder of scans with label maps, or the name of a built-in source ("phantom:ct-organ", "brain-template").
        layout: the folder's layout; "auto" detects it.
        classes: names of the classes 1, 2, ... where the layout has none.
        merge: "new=a+b", merges classes or renames one.
        drop: classes that become background.
        patient_pattern: regular expression that finds the patient in a case's name.
        patients: CSV file with the columns case and patient; for a phantom, how many patients.
    """

    source: str
    out: Path
    settings: PrepareSettings
    layout: str = "auto"
    classes: tuple[str, ...] | None = None
    merge: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    patient_pattern: str | None = None
    patients: str | None = None


@dataclass(frozen=True)
class PrepareResult:
    """The prepared data set, and what its source wants to be said of it."""

    dataset: PreparedDataset
    notice: str


def prepare(request: PrepareRequest, *, monitor: Monitor | None = None) -> PrepareResult:
    """Prepare the data set of `request`; run again, it resumes. Raises DataError, SettingsError, OutputError or Interrupted."""
    from anatogen.data.prepare import prepare as run
    from anatogen.data.relabel import relabelled, with_patients
    from anatogen.data.sources import open_source

    source, settings = request.source, request.settings
    table = Path(request.patients) if request.patients is not None else None
    if source.startswith("phantom:") and "?" not in source:
        source, table = f"{source}?patients={request.patients or 40}&seed={settings.seed}", None
    opened = open_source(source, request.layout, list(request.classes) if request.classes is not None else None)
    opened = relabelled(opened, list(request.merge), request.drop)
    opened = with_patients(opened, pattern=request.patient_pattern, table=table)
    with watched_by(monitor), stage("preparing", len(opened.cases), "cases") as bar:
        dataset = run(opened, request.out, settings, version=__version__, progress=lambda done, total: bar.update(done))
    return PrepareResult(dataset, opened.notice)
