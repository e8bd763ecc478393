"""The labels declared in a dataset.json, nnU-Net's or the Decathlon's: gaps, regions, the ignore label, colours."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anatogen.data.label_values import to_classes, whole_labels
from anatogen.errors import DataError
from anatogen.labels import LabelClass, LabelSchema, default_colour
from anatogen.volume import Volume

IGNORE = "ignore"
_EXAMPLE = 'Expected for instance "labels": {"background": 0, "liver": 1, "tumour": 2}'


def read_description(path: Path) -> dict[str, Any]:
    """The object in a dataset.json. Raises DataError if it is missing, not JSON, or has no "labels"."""
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError("does not exist", path=path, hint="Choose the folder that contains dataset.json") from error
    except ValueError as error:
        raise DataError(f"is not valid JSON ({error})", path=path) from error
    if not isinstance(description, dict) or not isinstance(description.get("labels"), dict):
        raise DataError('has no "labels" object', path=path, hint='Add "labels": {"background": 0, ...}')
    return description


def channel_names(description: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """The names of the channels 0, 1, ... ("channel_names", or the Decathlon's "modality")."""
    channels = description.get("channel_names") or description.get("modality") or {"0": "image"}
    try:
        return tuple(str(channels[key]) for key in sorted(channels, key=int))
    except (TypeError, ValueError) as error:
        raise DataError(
            "channels are not numbered 0, 1, ...", path=path, hint='Expected "channel_names": {"0": "CT"}'
        ) from error


def terms_of(description: Mapping[str, Any]) -> dict[str, str]:
    """Licence and reference, if stated."""
    return {key: str(description[key]) for key in ("licence", "license", "reference") if description.get(key)}


def schema_of(description: Mapping[str, Any], path: Path) -> LabelSchema:
    """The classes of "labels" in ascending order of their values (gaps allowed), or the parts that regions form.

    Regions are nnU-Net's: lists of values, which may overlap; a class consists of the values that are in the same
    regions. A label named "ignore" is not a class.

    Raises:
        DataError: The labels are neither.
    """
    labels: dict[str, Any] = dict(description["labels"])
    if all(str(key).isdigit() for key in labels) and all(isinstance(name, str) for name in labels.values()):
        names = list(labels.values())  # the Decathlon maps numbers to names
        if len(set(names)) < len(names):
            raise DataError("two labels have the same name", path=path, hint="Rename one of them")
        labels = {name: int(key) for key, name in labels.items()}
    ignore = labels.pop(IGNORE, None)
    values = {name: _values(name, value, path) for name, value in labels.items()}
    background = [name for name, own in values.items() if 0 in own]
    if ignore is not None and (isinstance(ignore, bool) or not isinstance(ignore, int) or ignore <= 0):
        raise DataError(f'"{IGNORE}" must be one positive whole number, got {ignore}', path=path, hint="Correct it")
    if len(background) != 1 or values[background[0]] != (0,):
        raise DataError("declares no background", path=path, hint=_EXAMPLE)
    del values[background[0]]
    if not values:
        raise DataError("declares no class except the background", path=path, hint=_EXAMPLE)
    if ignore is not None and any(ignore in own for own in values.values()):
        raise DataError(
            f'label {ignore} is both a class and "{IGNORE}"', path=path, hint="Give one of them another value"
        )
    if any(isinstance(value, list) for value in labels.values()):
        return LabelSchema(_parts(values), ignore)
    ordered = sorted((own[0], name) for name, own in values.items())
    if len({value for value, _ in ordered}) < len(ordered):
        raise DataError("two classes have the same value", path=path, hint="Give each class its own value")
    return LabelSchema(
        tuple(
            LabelClass(i, name, default_colour(i), None if value == i else value)
            for i, (value, name) in enumerate(ordered, start=1)
        ),
        ignore,
    )


def _values(name: str, value: Any, path: Path) -> tuple[int, ...]:
    several = value if isinstance(value, list) else [value]
    if not several or any(isinstance(v, bool) or not isinstance(v, int) or v < 0 for v in several):
        raise DataError(f"label '{name}' must be a whole number, got {value}", path=path, hint=_EXAMPLE)
    return tuple(sorted(set(several)))


def _parts(regions: Mapping[str, tuple[int, ...]]) -> tuple[LabelClass, ...]:
    """The classes into which `regions` divide their values, ordered by their lowest values."""
    every = sorted({value for own in regions.values() for value in own})
    by_membership: dict[tuple[str, ...], list[int]] = {}
    for value in every:
        inside = sorted((n for n, own in regions.items() if value in own), key=lambda n: (-len(regions[n]), n))
        by_membership.setdefault(tuple(inside), []).append(value)
    classes = []
    for index, (member_of, values) in enumerate(by_membership.items(), start=1):
        lowest = None if values[0] == index else values[0]
        classes.append(LabelClass(index, _part_name(member_of, regions), default_colour(index), lowest, member_of))
    return tuple(classes)


def _part_name(inside: Sequence[str], regions: Mapping[str, tuple[int, ...]]) -> str:
    """The name of a part: "core", or "whole without core" if a region of another name excludes some of it."""
    smallest = inside[-1]
    taken = [n for n, own in regions.items() if n not in inside and set(own) & set(regions[smallest])]
    largest = [n for n in taken if not any(set(regions[n]) < set(regions[other]) for other in taken)]
    joined = " and ".join(n for n in inside if not set(regions[smallest]) < set(regions[n]))
    return f"{joined} without {' and '.join(largest)}" if largest else joined


@dataclass(frozen=True)
class LabelReader:
    """Convert the values in files to classes.

    Attributes:
        plain: They are the class indices, so undeclared values are left for the check.
    """

    table: Mapping[int, int]
    plain: bool

    @classmethod
    def of(cls, schema: LabelSchema, description: Mapping[str, Any] | None = None) -> LabelReader:
        """The reader of the label maps declared by `description` (or `schema` without one)."""
        table = {value: index for index, value in enumerate(schema.values)}
        for value, inside in _memberships(description).items():
            table.setdefault(value, next((c.index for c in schema.classes if set(c.regions) == inside), 0))
        if schema.ignore is not None and schema.ignored is not None:
            table[schema.ignore] = schema.ignored
        return cls(table, all(value == index for value, index in table.items()))

    def __call__(self, volume: Volume, path: Path) -> Volume:
        """The label map `volume` in classes. Raises DataError for labels that are not whole or not declared.

        Plain labels are returned unchanged, for the check.
        """
        return volume if self.plain else to_classes(whole_labels(volume, path), self.table, path)


def _memberships(description: Mapping[str, Any] | None) -> dict[int, set[str]]:
    """The regions of each value in a description."""
    found: dict[int, set[str]] = {}
    for name, value in (description or {}).get("labels", {}).items():
        for v in value if isinstance(value, list) else [value] if isinstance(value, int) else []:
            if v and name != IGNORE:
                found.setdefault(v, set()).add(name)
    return found
