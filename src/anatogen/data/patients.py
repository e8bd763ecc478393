"""The patients of a source: from the layout, a pattern or table of the user, or the case names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from anatogen.data.documents import PatientGrouping
from anatogen.data.sources.base import Source
from anatogen.errors import SettingsError
from anatogen.naming.grouping import Question, group_by_name


@dataclass(frozen=True)
class KnownPatients:
    """A source whose cases have their patients.

    Attributes:
        summary: What was grouped, in words, or "".
        question: An ambiguity in the names.
    """

    source: Source
    grouping: PatientGrouping
    summary: str = ""
    question: Question | None = None

    def require(self) -> KnownPatients:
        """Return this, or raise SettingsError with the two patterns to choose from if the names are ambiguous."""
        if self.question is not None:
            raise SettingsError(self.question.problem, path=self.source.location, hint=self.question.hint)
        return self


def with_known_patients(source: Source) -> KnownPatients:
    """`source` with the patient of each case: unchanged if the source or the user names them, else from the case names.

    Ambiguous names of cases with given splits are accepted, because whoever made the splits knew the patients.
    """
    cases = source.cases
    known = source.patients_from or ("layout" if any(case.patient != case.id for case in cases) else "")
    if known:
        return KnownPatients(source, PatientGrouping(known, len(cases), len({case.patient for case in cases})))
    found = group_by_name(case.id for case in cases)
    question = None if all(case.split is not None for case in cases) else found.question
    grouped = replace(source, cases=tuple(replace(case, patient=found.patients[case.id]) for case in cases))
    patients = len(set(found.patients.values()))
    return KnownPatients(
        grouped, PatientGrouping("names", len(cases), patients, list(found.words)), found.summary(), question
    )


def joined_by_pixels(patients: Mapping[str, str], digests: Mapping[str, str]) -> tuple[dict[str, str], list[list[str]]]:
    """The patient of each case after merging the patients of cases with identical pixels, and the groups of such cases.

    Args:
        patients: The patient of each case.
        digests: A digest of the pixels of each case; cases without one are unique.
    """
    root = {patient: patient for patient in patients.values()}

    def find(patient: str) -> str:
        while root[patient] != patient:
            patient = root[patient]
        return patient

    same: dict[str, list[str]] = {}
    for case in patients:
        if digest := digests.get(case):
            same.setdefault(digest, []).append(case)
    same_pixels = [cases for cases in same.values() if len(cases) > 1]
    for cases in same_pixels:
        first, *others = sorted({find(patients[case]) for case in cases})
        root.update(dict.fromkeys(others, first))
    return {case: find(patient) for case, patient in patients.items()}, same_pixels


def suspected_leak(cases: Iterable[tuple[str, str, str]]) -> str:
    """A sentence if the names of (case, patient, split) suggest that a patient is in two splits; else "".

    Only for data sets in which each case counted as a patient.
    """
    cases = list(cases)
    if any(case != patient for case, patient, _ in cases):
        return ""
    split = {case: split for case, _, split in cases}
    found = group_by_name(split)
    question = found.question
    if question is None and (apart := _across(found.patients, split)):
        a, b = apart[0]
        return (
            f"{len(apart)} {'patients seem' if len(apart) > 1 else 'patient seems'} to be in two splits, by the names "
            f"of the cases: {a} is in {split[a]}, {b} in {split[b]}"
        )
    if question is not None and question.together and (apart := _across(_by_pattern(question.together, split), split)):
        a, b = apart[0]
        return f"the names are ambiguous: {a} ({split[a]}) and {b} ({split[b]}) may be one patient in two splits"
    return ""


def _by_pattern(pattern: str, cases: Iterable[str]) -> dict[str, str]:
    """The patient of each case by a pattern that matches all of them."""
    matches = {case: re.search(pattern, case) for case in cases}
    return {case: match[match.re.groups] for case, match in matches.items() if match is not None}


def _across(patients: Mapping[str, str], split: Mapping[str, str]) -> list[tuple[str, str]]:
    """A pair of cases for each patient who is in two splits."""
    first: dict[str, str] = {}
    pairs: dict[str, tuple[str, str]] = {}
    for case, patient in patients.items():
        other = first.setdefault(patient, case)
        if split[other] != split[case]:
            pairs.setdefault(patient, (other, case))
    return list(pairs.values())
