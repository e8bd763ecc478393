"""The attributes of the items of a prepared data set: those of their cases, and those that are computed.

Computed are `position`, the place of a slice in its case (`PreparedDataset.attributes_of`), and `volume:CLASS`, the
volume of a class in the item's label map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from anatogen.conditioning.attributes import AttributeSchema, Value, learned
from anatogen.data.placement import item_spacing
from anatogen.data.store import PreparedDataset, Row
from anatogen.errors import DataError, SettingsError, nearest
from anatogen.labels import ClassStates, LabelSchema

POSITION, VOLUME = "position", "volume:"
_AT_A_TIME = 16


def volumes(
    labels: NDArray[np.integer], schema: LabelSchema, states: ClassStates, spacing_mm: Sequence[float] | None
) -> dict[str, Value]:
    """The volume of each given class of a label map (*spatial), as `volume:CLASS`.

    Args:
        states: The volumes of free classes are left out.
        spacing_mm: The pixel size along each axis, for volumes in mm^3 (areas of slices in mm^2); nothing is known
            without it.
    """
    if spacing_mm is None:
        return {}
    counts = np.bincount(labels.ravel(), minlength=schema.count)
    pixel = math.prod(spacing_mm)
    given = zip(schema.classes, states.given, strict=True)
    return {f"{VOLUME}{each.name}": float(counts[each.index] * pixel) for each, is_given in given if is_given}


def known_attributes(dataset: PreparedDataset) -> tuple[str, ...]:
    """The names of the attributes that `dataset` has or that can be computed of its items."""
    of_cases = {name for case in dataset.info.cases.values() for name in case.attributes}
    place = {POSITION} if dataset.info.axis != "volume" else set()
    return (*sorted(of_cases | place), *(f"{VOLUME}{name}" for name in dataset.schema.names))


def item_attributes(dataset: PreparedDataset, rows: Sequence[Row], names: Sequence[str]) -> list[dict[str, Value]]:
    """The known values of `names` for each of `rows`; label maps are read only where a volume is among them.

    The volume of a class that was not annotated is unknown, as are all volumes of a map with voxels of unknown class.
    """
    found = [{name: value for name, value in dataset.attributes_of(row).items() if name in names} for row in rows]
    if not any(name.startswith(VOLUME) for name in names):
        return found
    place = 0
    for batch in dataset.batches(rows, _AT_A_TIME):
        for number, row in enumerate(batch.rows):
            if batch.ignored is None or not batch.ignored[number].any():
                labels, spacing = batch.labels[number].numpy(), item_spacing(dataset, row)
                measured = volumes(labels, dataset.schema, dataset.states(row), spacing)
                found[place] |= {name: value for name, value in measured.items() if name in names}
            place += 1
    return found


def learn_attributes(dataset: PreparedDataset, names: Sequence[str]) -> AttributeSchema:
    """The attributes `names` with the levels and statistics of the training split.

    Raises:
        SettingsError: A name is not known or given twice, or there is nothing to learn from it.
        DataError: Its values are numbers and texts.
    """
    known = known_attributes(dataset)
    for place, name in enumerate(names):
        if name not in known:
            raise SettingsError(
                f"the data set has no attribute '{name}'", path=dataset.folder, hint=nearest(name, known)
            )
        if name in names[:place]:
            raise SettingsError(f"attribute '{name}' is given twice", hint="Give it once")
    items = item_attributes(dataset, dataset.split("train"), names)
    try:
        return AttributeSchema(attributes=tuple(learned(name, [item.get(name) for item in items]) for name in names))
    except (DataError, SettingsError) as error:
        raise type(error)(error.problem, path=dataset.folder, hint=error.hint) from error


class AttributeTable:
    """The values of `rows` as the codes of a schema."""

    def __init__(self, dataset: PreparedDataset, schema: AttributeSchema, rows: Sequence[Row]) -> None:
        self._codes = schema.codes(item_attributes(dataset, rows, schema.names))
        self._places = {row.row: place for place, row in enumerate(rows)}

    def codes(self, rows: Sequence[Row]) -> Tensor:
        """The codes (B, A) of some of the rows, nan where unknown."""
        return self._codes[[self._places[row.row] for row in rows]]
