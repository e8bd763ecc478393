"""Edited label maps at a glance: before, after, and what changed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from anatogen.labels import LabelSchema
from anatogen.reporting import figures

_TO_BACKGROUND = (1.0, 1.0, 1.0)


def edits_overview(
    edits: Sequence[tuple[str, str, NDArray[np.int64], NDArray[np.int64]]],
    schema: LabelSchema,
    *,
    title: str = "",
    spacing_mm: tuple[float, ...] | None = None,
) -> bytes:
    """PNG with a line for each edit, two edits a line for slices: its map before, after, and the pixels that changed.

    The difference shows changed pixels in the colour of their new class, white where the background came, on the dimmed
    map of before. Volumes show the three planes with most labelled voxels.

    Args:
        edits: The map's name, what was done, the map before and after.
        schema: The classes.
        title: Above all of it.
        spacing_mm: Of the pixels, where it is known.
    """
    rows: list[list[figures.Picture]] = []
    for name, done, before, after in edits:
        view, changed = figures.view_of(before, spacing_mm), before != after
        picture, *planes = (view.flat(each, before.ndim) for each in (changed, before, after))
        difference = figures.coloured(planes[0], schema) * 0.3
        difference[picture] = figures.coloured(planes[1], schema)[picture]
        difference[picture & (planes[1] == 0)] = _TO_BACKGROUND
        rows.append(
            [
                (name, figures.coloured(planes[0], schema)),
                (done or "nothing to do", figures.coloured(planes[1], schema)),
                (f"{int(changed.sum()):,} of {int((before > 0).sum()):,} changed", difference),
            ]
        )
    if edits and edits[0][2].ndim == 2 and len(rows) > 1:
        rows = [[*rows[i], *(rows[i + 1] if i + 1 < len(rows) else [])] for i in range(0, len(rows), 2)]
    return figures.grid(rows, cell=2.0, title=title)
