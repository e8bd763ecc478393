"""Remarks for the owner of a prepared data set: cases grouped, kept together and left out, and how files were read."""

from __future__ import annotations

from anatogen.data.documents import NAMES
from anatogen.data.store import PreparedDataset
from anatogen.naming.grouping import group_by_name

_LISTED = 5
_KNOWN_BY = {"layout": "from the layout", "pattern": "by --patient-pattern", "table": "by --patients"}


def preparation_remarks(dataset: PreparedDataset) -> list[str]:
    """One line per remark; empty if every case is a separate patient and none was left out.

    The remarks contain the names of cases from names.csv, so they are not for recipients of the data set.
    """
    parts = (_grouped, _together, _left_out, _field_of_view, _as_read, _private)
    return [line for part in parts for line in part(dataset)]


def _grouped(dataset: PreparedDataset) -> list[str]:
    grouping = dataset.info.grouping
    if grouping is None or grouping.patients == grouping.cases:
        return []
    if grouping.by in _KNOWN_BY:
        return [f"{grouping.cases} cases are {grouping.patients} patients, {_KNOWN_BY[grouping.by]}"]
    found = group_by_name(line.case for line in dataset.names.values())
    grouped = found.summary() or (
        f"{grouping.cases} cases are {grouping.patients} patients, by their names ({', '.join(grouping.words)})"
    )
    return [f"{grouped}. Override with --patient-pattern or --patients"]


def _together(dataset: PreparedDataset) -> list[str]:
    same = [[dataset.called(case) for case in cases] for cases in dataset.info.same_images]
    lines = [f"{' and '.join(cases)} have identical pixels and count as one patient" for cases in same[:_LISTED]]
    return lines + [f"and {len(same) - _LISTED} more groups of identical images"] * (len(same) > _LISTED)


def _left_out(dataset: PreparedDataset) -> list[str]:
    skipped = dataset.info.skipped
    if not skipped:
        return []
    total = len(skipped) + len(dataset.info.cases)
    notes = {
        left.case: dataset.names[left.case].note if left.case in dataset.names else left.problem for left in skipped
    }
    lines = [f"{dataset.called(case)}: {note}" for case, note in list(notes.items())[:_LISTED]]
    more = [f"and {len(skipped) - _LISTED} more, listed in {NAMES}"] * (len(skipped) > _LISTED)
    return [f"{len(skipped)} of {total:,} cases could not be read and were left out:", *lines, *more]


def _field_of_view(dataset: PreparedDataset) -> list[str]:
    voxels = dataset.info.field_of_view
    if voxels is None:
        return []
    case = next(iter(dataset.info.cases.values()))
    sides = " x ".join(f"{n * s:.0f}" for n, s in zip(voxels, case.spacing_mm, strict=True))
    count = " x ".join(map(str, voxels))
    return [f"Field of view of every case, centred on its labels: {sides} mm ({count} voxels)"]


def _as_read(dataset: PreparedDataset) -> list[str]:
    """The readers' remarks, one line for all cases with the same remark."""
    by_remark: dict[str, list[str]] = {}
    for case, record in dataset.info.cases.items():
        for remark in record.remarks:
            by_remark.setdefault(remark, []).append(case)
    lines = []
    for remark, cases in list(by_remark.items())[:_LISTED]:
        others = f" and {len(cases) - 1} more" if len(cases) > 1 else ""
        lines.append(f"{dataset.called(cases[0])}{others}: {remark}")
    return lines + ["and more remarks, listed by anatogen check"] * (len(by_remark) > _LISTED)


def _private(dataset: PreparedDataset) -> list[str]:
    if not dataset.names or dataset.info.names_kept:
        return []
    return [f"Cases and patients are numbered; only {NAMES} has their names. Remove it before you share the folder"]
