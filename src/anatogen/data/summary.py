"""What was grouped, kept together and left out when a data set was prepared, in words for its owner."""

from __future__ import annotations

from anatogen.data.documents import NAMES
from anatogen.data.grouping import group_by_name
from anatogen.data.store import PreparedDataset

_LISTED = 5
_KNOWN_BY = {"layout": "as the layout has them", "pattern": "by --patient-pattern", "table": "by --patients"}


def preparation_remarks(dataset: PreparedDataset) -> list[str]:
    """A line for each; none where every case is a patient of its own and nothing was left out.

    With the names of cases, which names.csv has: not for those who are given the data set.
    """
    return [*_grouped(dataset), *_together(dataset), *_left_out(dataset), *_private(dataset)]


def _grouped(dataset: PreparedDataset) -> list[str]:
    grouping = dataset.info.grouping
    if grouping is None or grouping.patients == grouping.cases:
        return []
    if grouping.by in _KNOWN_BY:
        return [f"{grouping.cases} cases are {grouping.patients} patients, {_KNOWN_BY[grouping.by]}"]
    found = group_by_name(line.case for line in dataset.names.values())
    said = found.said() or (
        f"{grouping.cases} cases are {grouping.patients} patients, by their names ({', '.join(grouping.words)})"
    )
    return [f"{said}. --patient-pattern or --patients says otherwise"]


def _together(dataset: PreparedDataset) -> list[str]:
    same = [[dataset.called(case) for case in cases] for cases in dataset.info.same_images]
    lines = [
        f"{' and '.join(cases)} have exactly the same pixels: they count as one patient" for cases in same[:_LISTED]
    ]
    return lines + [f"and {len(same) - _LISTED} more groups of equal images"] * (len(same) > _LISTED)


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


def _private(dataset: PreparedDataset) -> list[str]:
    if not dataset.names or dataset.info.names_kept:
        return []
    return [
        f"Cases and patients are numbered; only {NAMES} has their names. Keep it to yourself when you share the folder"
    ]
