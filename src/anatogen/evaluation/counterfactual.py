"""An edit of a label map and the image that follows, side by side."""

from __future__ import annotations

import numpy as np

from anatogen.conditioning.edit import enlarge, innermost_component
from anatogen.data.store import PreparedDataset, Row
from anatogen.errors import DataError, SettingsError
from anatogen.generation.engine import Generator
from anatogen.generation.request import Request
from anatogen.reporting import figures
from anatogen.reporting.report import Figure


def enlarged_cavity(
    dataset: PreparedDataset, generator: Generator, rows: list[Row], class_name: str, what: str, *, seed: int = 0
) -> Figure:
    """The row whose inner part of `class_name` is largest, with that part enlarged by 1, 2 and 3 pixels.

    Every image starts from the same noise, so that what differs is what the edit did. what: the part's name in text.
    """
    schema, index = dataset.schema, dataset.schema.index_of(class_name)
    maps = dataset.load(rows).labels.numpy()

    def cavity(place: int) -> int:
        try:
            return int(innermost_component(maps[place], index).sum())
        except DataError:
            return 0

    sizes = [cavity(place) for place in range(len(rows))]
    chosen = int(np.argmax(sizes))
    if not sizes[chosen]:
        raise SettingsError(f"no label map has {what} to enlarge", path=dataset.folder)
    region = innermost_component(maps[chosen], index)
    edits = [maps[chosen], *(enlarge(maps[chosen], region, pixels) for pixels in (1, 2, 3))]
    titles = ["as drawn", *(f"{what} +{n} px" for n in (1, 2, 3))]
    states = schema.states()
    images = [
        image
        for _, image in generator.generate([Request(t, m, states, seed) for t, m in zip(titles, edits, strict=True)])
    ]
    change = [np.abs(image - images[0]) - 1 for image in images]
    lines = [
        [(title, figures.coloured(m, schema)) for title, m in zip(titles, edits, strict=True)],
        [("generated", figures.gray(image)) for image in images],
        [("change" if i else "", figures.gray(c)) for i, c in enumerate(change)],
    ]
    caption = (
        f"{rows[chosen].id}, a held-out slice: {what} enlarged in the label map, and the image generated from each map. "
        "All start from the same noise; the last line is the absolute difference to the first image."
    )
    return Figure("edit", "What if the anatomy were different?", figures.grid(lines, cell=2.0), caption)
