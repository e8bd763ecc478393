"""Prepare a data set of any layout as slices or volumes split by patient."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from anatogen import __version__
from anatogen.progress import Monitor, stage, watched_by

if TYPE_CHECKING:
    from anatogen.data.prepare import PrepareSettings
    from anatogen.data.store import PreparedDataset


@dataclass(frozen=True)
class PrepareRequest:
    """The request of `anatogen prepare`.

    Args:
        source: A folder of scans with label maps, or the name of a built-in source ("phantom:ct-organ",
            "brain-template").
        layout: The folder's layout; "auto" detects it.
        classes: Names of the classes 1, 2, ... if the layout has none.
        merge: "new=a+b" merges classes, "new=a" renames one.
        drop: Classes that become background.
        patient_pattern: Regular expression that matches the patient in a case name.
        patients: CSV file with the columns case and patient; for a phantom, the number of patients.
        undrawn: The axis across which a slice without a label was not drawn, so that it is unknown.
        attributes: CSV file with the column case or patient and one for each attribute.
        command: The command as typed; paths are reduced to their last part before it is recorded.
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
    attributes: Path | None = None
    undrawn: str | None = None
    command: str = ""


@dataclass(frozen=True)
class PrepareResult:
    """The prepared data set, the source's notice, and remarks on what was grouped, kept together and left out."""

    dataset: PreparedDataset
    notice: str
    remarks: tuple[str, ...] = ()


def prepare(request: PrepareRequest, *, monitor: Monitor | None = None) -> PrepareResult:
    """Prepare the data set of `request`; run it again to resume.

    Raises:
        DataError, SettingsError, OutputError, Interrupted: As `anatogen.data.prepare.prepare`.
    """
    from anatogen.data.attribute_table import with_attributes
    from anatogen.data.prepare import prepare as run
    from anatogen.data.relabel import relabelled, with_patients
    from anatogen.data.sources import open_source
    from anatogen.data.summary import preparation_remarks
    from anatogen.data.undrawn import with_undrawn_slices

    source, settings = request.source, request.settings
    table = Path(request.patients) if request.patients is not None else None
    if source.startswith("phantom:") and "?" not in source:
        source, table = f"{source}?patients={request.patients or 40}&seed={settings.seed}", None
    opened = open_source(source, request.layout, list(request.classes) if request.classes is not None else None)
    opened = relabelled(opened, list(request.merge), request.drop)
    opened = with_undrawn_slices(opened, request.undrawn)
    opened = with_patients(opened, pattern=request.patient_pattern, table=table)
    opened = with_attributes(opened, request.attributes)
    with watched_by(monitor), stage("preparing", len(opened.cases), "cases") as bar:
        dataset = run(
            opened,
            request.out,
            settings,
            command=without_paths(request) or "anatogen.workflows.prepare.prepare, from Python",
            version=__version__,
            progress=lambda done, total: bar.update(done),
        )
    return PrepareResult(dataset, opened.notice, tuple(preparation_remarks(dataset)))


def without_paths(request: PrepareRequest) -> str:
    """The command of `request` with each path reduced to its last part, because a path can reveal names."""
    given = (request.source, request.out, request.patients, request.attributes)
    paths = {PurePath(path) for path in given if path is not None}
    words = []
    for word in shlex.split(request.command):
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        is_path = PurePath(value) in paths or re.match(r"[/~]|[A-Za-z]:[/\\]", value)
        last = re.split(r"[/\\]", value.rstrip("/"))[-1]
        words.append(f"{option}{equals}{last}" if value and is_path else word)
    return shlex.join(words)
