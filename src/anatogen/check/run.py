"""The whole check of a data set: its files, its cases one at a time, then comparisons across cases."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from anatogen.check import cohort
from anatogen.check.cases import CaseSummary, examine, place
from anatogen.check.files import MOST_CLASSES, check_pictures, picture_roots
from anatogen.check.findings import CheckReport, Example, Finding
from anatogen.check.geometry import small_findings
from anatogen.check.listing import listing_findings, nnunet_findings, unlisted_findings
from anatogen.check.patients import with_patients_by_name
from anatogen.check.values import stretched
from anatogen.data.documents import SYNTHETIC_LAYOUTS
from anatogen.data.sources import LAYOUTS, open_source
from anatogen.data.sources.base import Source
from anatogen.data.sources.colours import colour_table
from anatogen.errors import AnatogenError
from anatogen.labels import LabelSchema

Progress = Callable[[int, int], None]
_EXAMPLES = 6


def check(
    location: str, layout: str = "auto", classes: Sequence[str] | None = None, *, progress: Progress | None = None
) -> CheckReport:
    """Check everything at `location`, a path or the name of a built-in source. One case is in memory at a time.

    Args:
        location: A path or the name of a built-in source.
        layout: The layout; "auto" detects it.
        classes: Names of the classes 1, 2, ..., for layouts that do not name them.
        progress: Called as progress(done, all).

    Raises:
        DataError: `location` has no known layout. Everything else that is wrong, including unreadable files, is a
            finding.
        SettingsError: The layout is unknown.
    """
    candidates = LAYOUTS.values() if layout == "auto" else [LAYOUTS[layout]] if layout in LAYOUTS else []
    folder = Path(location)
    try:
        source = open_source(location, layout, classes)
    except AnatogenError as error:
        detected = any(candidate.detect(location) for candidate in candidates)
        if not detected and not (candidates and picture_roots(folder)):
            raise
        return _unopened(location, layout, classes, error, progress)
    findings = _file_findings(source)
    table = colour_table(folder, classes) if picture_roots(folder) else None
    pictures = check_pictures(location, table=table, progress=_part(progress, 0, 2))
    if pictures is not None:
        findings += pictures.findings
        progress = _part(progress, 1, 2)
    return _with(check_source(source, named=classes is not None, progress=progress), findings)


def _part(progress: Progress | None, part: int, parts: int) -> Progress | None:
    """The progress of one of several passes over the same cases."""
    if progress is None:
        return None
    return lambda done, total: progress(part * total + done, parts * total)


def check_source(
    source: Source, *, named: bool = False, splits: bool = True, progress: Progress | None = None
) -> CheckReport:
    """Check the cases of an opened source.

    Args:
        named: Whether the user named the classes, so that all of them should occur.
        splits: Whether the cases have to be split for training and evaluation.
    """
    cases, findings, examples = _read(source, progress)
    guessed = not named and all(c.name == f"class {c.index}" for c in source.schema.classes)
    by_name: list[Finding] = []
    if splits and not source.patients_from:
        cases, by_name = with_patients_by_name(cases, source.location)
    report = _across(source.location, source.schema, cases, examples, source.channels, guessed=guessed, splits=splits)
    findings += by_name
    return replace(
        _with(report, findings),
        layout=source.layout,
        cases=len(source.cases),
        real=source.layout not in SYNTHETIC_LAYOUTS,
    )


def _read(source: Source, progress: Progress | None) -> tuple[list[CaseSummary], list[Finding], list[Example]]:
    findings: list[Finding] = []
    cases: list[CaseSummary] = []
    examples: list[Example] = []
    stride = max(1, len(source.cases) // _EXAMPLES)
    for number, case in enumerate(source.cases):
        wanted = number % stride == 0 and len(examples) < _EXAMPLES
        summary, found, example = examine(
            case, source.location, len(source.channels), ignored=source.schema.ignored, example=wanted
        )
        findings += found
        cases += [summary] if summary is not None else []
        examples += [example] if example is not None else []
        if progress is not None:
            progress(number + 1, len(source.cases))
    return cases, findings, examples


def _across(
    location: str,
    schema: LabelSchema,
    cases: Sequence[CaseSummary],
    examples: Sequence[Example],
    channels: Sequence[str],
    *,
    guessed: bool,
    splits: bool = True,
) -> CheckReport:
    """The report on the cases that were read. `guessed`: whether the classes were named after the values that occur."""
    patients = len({case.patient for case in cases})
    if not cases:
        return CheckReport(location, "", 0, 0, schema, ())
    known = [case for case in cases if case.values is not None]
    uses, voxels = cohort.class_use(known, schema)
    values = cohort.label_findings(known, schema, declared=not guessed)
    classes = cohort.class_findings(known, schema, uses, location, guessed=guessed)
    if any(finding.code in ("labels-stretched", "labels-past-count") for finding in values):
        # Missing classes can only be reported once the values are right.
        classes = [f for f in classes if f.code not in ("no-labels", "class-absent", "class-lacking", "labels-gaps")]
    findings = [
        *values,
        *cohort.duplicate_findings(cases, splits=splits),
        *(cohort.split_findings(cases, location) if splits else ()),
        *classes,
        *cohort.geometry_findings(cases, location),
        *small_findings(known, location),
        *cohort.intensity_findings(cases, channels, location),
    ]
    return CheckReport(
        location, "", len(cases), patients, schema, tuple(findings), tuple(uses), voxels, tuple(examples)
    )


def _with(report: CheckReport, more: Iterable[Finding]) -> CheckReport:
    """`report` with additional findings, except those that it already has for the same file."""
    reported = {(finding.code, finding.file) for finding in report.findings}
    return replace(report, findings=(*(f for f in more if (f.code, f.file) not in reported), *report.findings))


def _file_findings(source: Source) -> list[Finding]:
    folder = Path(source.location)
    if not folder.is_dir():
        return []
    findings = listing_findings(folder)
    if source.layout == "nnunet":
        description = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        ending = description.get("file_ending", ".nii.gz")
        findings += nnunet_findings(folder, ending, len(source.channels), [case.id for case in source.cases])
    if source.layout == "decathlon":
        findings += unlisted_findings(folder, source)
    if source.layout in ("nnunet", "decathlon"):
        description = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        stated = description.get("numTraining")
        if isinstance(stated, int) and stated != len(source.cases):
            what = f"numTraining is {stated}, but there are {len(source.cases)} label maps"
            hint = "Look for missing files, or correct the number"
            findings.append(Finding("warning", "case-count", "dataset.json", what, hint))
    return findings


def _unopened(
    location: str, layout: str, classes: Sequence[str] | None, error: AnatogenError, progress: Progress | None
) -> CheckReport:
    """The report if the layout rejects the data: the reason, and findings on the files themselves."""
    folder = Path(location)
    findings = listing_findings(folder) if folder.is_dir() else []
    rejection = Finding("error", "cannot-open", place(error.path, location), error.problem, error.hint or "")
    try:
        table = colour_table(folder, classes)
    except AnatogenError:
        table = None  # the error says so
    pictures = check_pictures(location, table=table, wanted_examples=_EXAMPLES, progress=progress)
    channels: tuple[str, ...] = ("image",)
    if pictures is not None:
        cases, count, examples = pictures.cases, len(pictures.pairs), pictures.examples
        findings += pictures.findings
    else:
        try:  # if only the class names are missing, any name opens it
            source = open_source(location, layout, classes or ["class 1"])
        except AnatogenError:
            nothing = CheckReport(location, "", 0, 0, LabelSchema(()), ())
            return _with(nothing, [rejection, *findings])
        cases, found, examples = _read(source, progress)
        findings += found
        count, channels = len(source.cases), source.channels
    cases, by_name = with_patients_by_name(cases, location)
    findings += by_name
    schema = table.schema if table else LabelSchema.from_names(classes) if classes is not None else _guess(cases)
    report = _across(location, schema, cases, examples, channels, guessed=classes is None)
    report = replace(_with(report, findings), cases=count)
    named = "colour" in rejection.what  # the error lists the colours
    explained = not named and any(f.severity == "error" and f.file == rejection.file for f in report.findings)
    return report if explained else _with(report, [rejection])


def _guess(cases: Sequence[CaseSummary]) -> LabelSchema:
    """Classes named after the values that occur: up to the highest, or as many as are spread over 0..255."""
    values = {int(v) for case in cases for v in case.values or () if v == int(v)}
    highest = max(values, default=0)
    count = len(values) - 1 if stretched(values) or highest > MOST_CLASSES else highest
    return LabelSchema.from_names(f"class {i}" for i in range(1, count + 1))
