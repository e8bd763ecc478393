"""Changes to the classes and patients of a source: rename, merge or drop classes; group cases into patients."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anatogen.data.label_values import whole_labels
from anatogen.data.sources.base import Source
from anatogen.errors import DataError, SettingsError, nearest
from anatogen.labels import LabelClass, LabelSchema, default_colour
from anatogen.volume import Volume


def relabelled(source: Source, merges: Sequence[str] = (), drop: Sequence[str] = ()) -> Source:
    """`source` with classes merged, renamed and dropped; the others keep their names and their order.

    A merged class counts as annotated in a case only if all its parts are. Undeclared label values are kept, so that
    later checks find them. A class that was only renamed keeps its colour and its value in the files.

    Args:
        merges: Texts "NEW=OLD" or "NEW=OLD+OLD2"; the new class takes the position of its first part.
        drop: Names of classes that become background.

    Raises:
        SettingsError: A name is unknown or repeated.
    """
    new_name = {name: name for name in source.schema.names}
    for text in merges:
        new, _, parts = text.partition("=")
        olds = [part.strip() for part in parts.split("+") if part.strip()]
        if not new.strip() or not olds:
            raise SettingsError(
                f"expected NEW=OLD, got '{text}'", hint="Use for instance kidneys=left kidney+right kidney"
            )
        for old in olds:
            if old not in new_name:
                raise SettingsError(f"unknown class '{old}'", hint=nearest(old, new_name))
            new_name[old] = new.strip()
    for old in drop:
        if old not in new_name:
            raise SettingsError(f"unknown class '{old}'", hint=nearest(old, new_name))
        del new_name[old]
    names = list(dict.fromkeys(new_name.values()))
    if not names:
        raise SettingsError("no class is left", hint="Drop fewer classes")
    place = {name: index for index, name in enumerate(names, start=1)}
    table = np.array([0, *(place.get(new_name.get(old, ""), 0) for old in source.schema.names)], dtype=np.int64)
    schema = LabelSchema(
        tuple(_class(source.schema, name, new_name, i) for name, i in place.items()), source.schema.ignore
    )
    unknown = {source.schema.ignored or 0: schema.ignored or 0}
    parts_of = {name: {old for old in source.schema.names if new_name.get(old) == name} for name in names}

    def annotated(listed: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if listed is None else tuple(name for name in names if parts_of[name] <= set(listed))

    cases = tuple(
        replace(case, load=_Relabel(case.load, table, unknown), annotated=annotated(case.annotated))
        for case in source.cases
    )
    return replace(source, schema=schema, cases=cases)


def _class(old: LabelSchema, name: str, new_name: Mapping[str, str], index: int) -> LabelClass:
    """The class `name` of the new schema."""
    parts = [c for c in old.classes if new_name.get(c.name) == name]
    if len(parts) > 1:
        return LabelClass(index, name, default_colour(index))
    value = parts[0].index if parts[0].value is None else parts[0].value
    named = parts[0].colour if parts[0].colour != default_colour(parts[0].index) else default_colour(index)
    same = value == index
    return LabelClass(index, name, named, None if same else value, parts[0].regions)


@dataclass(frozen=True)
class _Relabel:
    """Load a case and map its labels by `table`; a class, so that it can be sent to another process.

    Attributes:
        unknown: The old and the new value of unknown voxels.
    """

    load: Callable[[], tuple[Volume, Volume]]
    table: NDArray[np.int64]
    unknown: Mapping[int, int]

    def __call__(self) -> tuple[Volume, Volume]:
        image, labels = self.load()
        try:
            labels = whole_labels(labels, "")
        except DataError:
            return image, labels  # not label values: left for the check to reject
        whole = labels.array.astype(np.int64)
        known = (whole >= 0) & (whole < len(self.table))
        ours = np.where(known, self.table[np.where(known, whole, 0)], whole)
        for before, now in self.unknown.items():
            if before:
                ours[whole == before] = now
        return image, replace(labels, array=ours)


def with_patients(source: Source, *, pattern: str | None = None, table: Path | None = None) -> Source:
    """`source` with the patient of each case from a regular expression or a table.

    Args:
        pattern: Searched in the case id; its first group (or the whole match) is the patient.
        table: A CSV file with the columns case and patient.

    Raises:
        SettingsError: The pattern is invalid.
        DataError: A case has no patient.
    """
    if pattern is not None and table is not None:
        raise SettingsError("--patient-pattern and --patients cannot be combined")
    if pattern is not None:
        find = _by_pattern(pattern)
    elif table is not None:
        find = _by_table(table)
    else:
        return source
    cases = []
    for case in source.cases:
        patient = find(case.id)
        if not patient:
            where = table if table is not None else source.location
            hint = "Add a line for it" if table is not None else f"Change the pattern {pattern!r}"
            raise DataError(f"case {case.id} has no patient", path=where, hint=hint)
        cases.append(replace(case, patient=patient))
    return replace(source, cases=tuple(cases), patients_from="pattern" if pattern is not None else "table")


def _by_pattern(pattern: str) -> Callable[[str], str]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise SettingsError(f"--patient-pattern {pattern!r} is not a regular expression ({error})") from error

    def find(case: str) -> str:
        match = expression.search(case)
        return "" if match is None else (match[1] if expression.groups else match[0]) or ""

    return find


def _by_table(path: Path) -> Callable[[str], str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot be read as a table ({error})", path=path) from error
    if not lines or not {"case", "patient"} <= lines[0].keys():
        raise DataError("has no columns case and patient", path=path, hint="Add a first line: case,patient")
    patients: dict[str, str] = {}
    for line in lines:
        if patients.setdefault(line["case"], line["patient"]) != line["patient"]:
            raise DataError(f"case {line['case']} has two patients", path=path)
    return lambda case: patients.get(case, "")
