"""A table of attributes from the user: `prepare --attributes FILE.csv`."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

from anatogen.conditioning.attributes import is_known, require_one_kind
from anatogen.data.patients import with_known_patients
from anatogen.data.sources.base import Source
from anatogen.errors import DataError

_KEYS = ("case", "patient")


def with_attributes(source: Source, table: Path | None) -> Source:
    """`source` with the attributes of each case from a CSV file; unchanged without one.

    The column case or patient names the line of a case; each other column is an attribute. An empty value, or "n/a", is
    unknown. They are added to those that the source has, and replace those of the same name.

    Raises:
        DataError: The table cannot be read, has no such column or none besides, lacks a case or has it twice, or a
            column has numbers and texts.
        SettingsError: The patients are needed, and the case names are ambiguous.
    """
    if table is None:
        return source
    key, lines = _read(table)
    if key == "patient":
        source = with_known_patients(source).require().source
    cases = []
    for case in source.cases:
        name = case.id if key == "case" else case.patient
        if name not in lines:
            raise DataError(
                f"has no line for {key} {name}", path=table, hint="Add one; a value that is not known may be empty"
            )
        cases.append(replace(case, attributes={**case.attributes, **lines[name]}))
    return replace(source, cases=tuple(cases))


def _read(path: Path) -> tuple[str, dict[str, dict[str, str]]]:
    """The name of the first column, case or patient, and the known values of each line."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            lines = list(reader)
            columns = [column.strip() for column in reader.fieldnames or ()]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot be read as a table ({error})", path=path, hint="Save it as CSV in UTF-8") from error
    key = next((name for name in _KEYS if name in columns), None)
    names = [name for name in columns if name and name not in _KEYS]
    if key is None or not names:
        problem = "has no column case or patient" if key is None else f"has no column besides {key}"
        raise DataError(problem, path=path, hint="Write a first line such as: case,sequence,age")
    if twice := [name for name in names if columns.count(name) > 1]:
        raise DataError(f"has two columns {twice[0]}", path=path, hint="Keep one of them")
    found: dict[str, dict[str, str]] = {}
    for number, raw in enumerate(lines, start=2):
        if None in raw:
            raise DataError(f"line {number} has more values than there are columns", path=path, hint="Check its commas")
        line = {name.strip(): (value or "").strip() for name, value in raw.items()}
        if not line[key]:
            raise DataError(f"line {number} has no {key}", path=path, hint="Name it, or remove the line")
        if line[key] in found:
            raise DataError(f"lists the {key} {line[key]} twice", path=path, hint="Keep one line for each")
        found[line[key]] = {name: line[name] for name in names if is_known(line[name])}
    for name in names:
        try:
            require_one_kind(name, [line[name] for line in found.values() if name in line])
        except DataError as error:
            raise DataError(error.problem, path=path, hint=error.hint) from error
    return key, found
