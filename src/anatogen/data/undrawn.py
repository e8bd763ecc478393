"""Cases of which only some slices were drawn: a slice without any label is unknown, not background."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from anatogen.data.label_values import whole_labels
from anatogen.data.sources.base import Source
from anatogen.errors import DataError, SettingsError, nearest
from anatogen.volume import Volume, axis_codes

_DIRECTIONS = {"sagittal": "LR", "coronal": "AP", "axial": "SI"}


def with_undrawn_slices(source: Source, axis: str | None) -> Source:
    """`source` with every voxel of slices without a label of unknown class, as nnU-Net's ignore label has it.

    Args:
        source: The cases.
        axis: Across which they were drawn: axial, coronal or sagittal; None: every slice was drawn.

    Raises:
        SettingsError: There is no such axis.
    """
    if axis is None:
        return source
    if axis not in _DIRECTIONS:
        raise SettingsError(f"there is no axis '{axis}'", hint=nearest(axis, _DIRECTIONS))
    schema = source.schema
    if schema.ignore is None:
        schema = replace(schema, ignore=max(schema.values) + 1)
    unknown = schema.ignored
    assert unknown is not None
    cases = (replace(case, load=_Undrawn(case.load, _DIRECTIONS[axis], unknown)) for case in source.cases)
    return replace(source, schema=schema, cases=tuple(cases), undrawn=axis)


@dataclass(frozen=True)
class _Undrawn:
    """Load a case and mark its slices without a label; a class, so that it can be sent to another process.

    Attributes:
        directions: The two ways along the axis that slices are counted on.
        unknown: The value of unknown voxels.
    """

    load: Callable[[], tuple[Volume, Volume]]
    directions: str
    unknown: int

    def __call__(self) -> tuple[Volume, Volume]:
        image, labels = self.load()
        try:
            labels = whole_labels(labels, "")
        except DataError:
            return image, labels  # not label values: left for the check to reject
        array = labels.array.astype(np.int64)
        others = tuple(i for i, code in enumerate(axis_codes(labels.affine)) if code not in self.directions)
        drawn = ((array != 0) & (array != self.unknown)).any(axis=others, keepdims=True)
        return image, replace(labels, array=np.where(drawn, array, self.unknown))
