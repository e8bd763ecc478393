"""Findings on the patients that the case names imply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from anatogen.check.cases import CaseSummary
from anatogen.check.findings import Finding
from anatogen.data.patients import suspected_leak
from anatogen.data.store import PreparedDataset
from anatogen.naming.grouping import group_by_name


def with_patients_by_name(cases: Sequence[CaseSummary], location: str) -> tuple[list[CaseSummary], list[Finding]]:
    """`cases` with the patients that `prepare` would assign, and a finding on what it would group or ask."""
    cases = list(cases)
    if any(case.patient != case.case for case in cases):
        return cases, []  # the layout knows them
    found = group_by_name(case.case for case in cases)
    if found.question is not None:
        if all(case.split is not None for case in cases):
            return cases, []
        return cases, [
            Finding(
                "warning",
                "patients-unclear",
                location,
                found.question.problem,
                f"For anatogen prepare: {found.question.hint}",
            )
        ]
    if not found.joined:
        return cases, []
    hint = "prepare keeps the cases of a patient in one split; override with --patient-pattern or --patients"
    grouped = [replace(case, patient=found.patients[case.case]) for case in cases]
    return grouped, [Finding("note", "patients-grouped", location, found.summary(), hint)]


def leak_findings(dataset: PreparedDataset) -> list[Finding]:
    """Patients who seem to be in two splits of a prepared set that did not group its cases."""
    what = leak_in(dataset)
    hint = "Prepare the data again; cases of one patient are now kept in one split"
    return [Finding("warning", "patients-leak", str(dataset.folder), what, hint)] if what else []


def leak_in(dataset: PreparedDataset) -> str:
    """The text of `leak_findings`, "" if there is no leak."""
    if dataset.info.grouping is not None:
        return ""
    return suspected_leak((name, case.patient, case.split) for name, case in dataset.info.cases.items())
