"""BIDS participants.tsv: patients and their attributes.

A case belongs to the participant whose id ("sub-01") is in its name or in that of a folder of its files, or is a prefix
of its name. Columns other than participant_id become attributes of the case; "n/a" is unknown and left out.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from anatogen.data.sources.base import Source, SourceCase
from anatogen.errors import DataError

NAME = "participants.tsv"
_SUBJECT = re.compile(r"(?<![A-Za-z0-9])sub-[A-Za-z0-9]+")
_UNKNOWN = ("n/a", "")


def read_participants(path: Path) -> dict[str, dict[str, str]]:
    """{participant_id: {column: value}}. Raises DataError if the table is damaged or lists a participant twice."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = list(csv.DictReader(file, delimiter="\t"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot be read as a table ({error})", path=path, hint="Save it as UTF-8 with tabs") from error
    if lines and "participant_id" not in lines[0]:
        raise DataError("has no column participant_id", path=path, hint="Separate columns by tabs, not by commas")
    found: dict[str, dict[str, str]] = {}
    for line in lines:
        name = (line.pop("participant_id") or "").strip()
        if not name:
            continue
        if name in found:
            raise DataError(f"lists the participant {name} twice", path=path, hint="Keep one line for each")
        cells = {key.strip(): value.strip() for key, value in line.items() if key and isinstance(value, str)}
        found[name] = {key: value for key, value in cells.items() if value not in _UNKNOWN}
    return found


def with_participants(source: Source) -> Source:
    """`source` with the patients and attributes of the participants.tsv in its folder; unchanged without one."""
    path = Path(source.location) / NAME
    if not path.is_file():
        return source
    known = read_participants(path)
    cases = [_of_participant(case, known, Path(source.location)) for case in source.cases]
    strangers = [new.id for new in cases if new.patient not in known]
    if not strangers:
        return replace(source, cases=tuple(cases), patients_from="layout")
    some = ", ".join(strangers[:3]) + (", ..." if len(strangers) > 3 else "")
    notice = f"{len(strangers)} of {len(cases)} cases match no participant in {NAME}: {some}."
    return replace(source, cases=tuple(cases), notice=f"{source.notice} {notice}".strip())


def _of_participant(case: SourceCase, known: Mapping[str, dict[str, str]], root: Path) -> SourceCase:
    parts = [case.id, *(part for path in case.files for part in _below(path, root).parts)]
    named = next((match[0] for part in parts if (match := _SUBJECT.search(part))), None)
    begins = [name for name in known if re.match(re.escape(name) + r"(?![A-Za-z0-9])", case.id)]
    patient = named if named in known else max(begins, key=len, default=named)
    if patient is None:
        return case
    return replace(case, patient=patient, attributes={**case.attributes, **known.get(patient, {})})


def _below(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path
