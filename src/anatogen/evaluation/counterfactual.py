"""An edit of a label map and the image that follows, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from anatogen.conditioning.edit import enlarge
from anatogen.data.placement import typical_spacing
from anatogen.data.store import PreparedDataset, Row
from anatogen.errors import DataError
from anatogen.generation.engine import Generator
from anatogen.judges.warping import warp_class
from anatogen.model import Query
from anatogen.reporting import figures
from anatogen.reporting.report import Figure

Segment = Callable[[NDArray[np.float32]], NDArray[np.int64]]


def grown_class(
    dataset: PreparedDataset,
    generator: Generator,
    rows: Sequence[Row],
    class_name: str,
    segment: Segment,
    *,
    pixels: Sequence[float] = (1, 2, 3),
    seed: int = 0,
) -> Figure:
    """The slice in which `class_name` is largest, with the class grown step by step, and the image that follows each
    map.

    Every image starts from the same noise, so that what differs is what the edit did. The caption says how many pixels
    of the class each map asks for, and how many an auxiliary segmenter finds in its image and in the real image, warped
    so that the class grows by as much: it may not know such shapes, and find less than is there.

    Args:
        dataset: The prepared data set (slices).
        generator: A model of its classes and size.
        rows: The slices to choose from; those that hold every class go first.
        class_name: The class that grows; the others and the background give way.
        segment: Label maps (N, H, W) from images (N, C, H, W) in [-1, 1].
        pixels: By how far its border moves outward, a picture each.
        seed: Of the noise.

    Raises:
        DataError: No slice holds the class.
        SettingsError: There is no class of that name.
    """
    schema, index = dataset.schema, dataset.schema.index_of(class_name)
    loaded = dataset.load(list(rows)) if rows else None
    maps = loaded.labels.numpy() if loaded is not None else np.zeros((0, *dataset.size), dtype=np.int64)
    areas = np.array([(m == index).sum() for m in maps])
    if loaded is None or not areas.any():
        raise DataError(f"no label map holds the class {class_name}", path=dataset.folder)
    whole = np.array([len(np.unique(m)) == schema.count for m in maps])
    chosen = int(np.argmax(areas + areas.max() * (whole & (areas > 0))))
    region = maps[chosen] == index
    edits = [maps[chosen], *(enlarge(maps[chosen], region, distance, into_background=True) for distance in pixels)]
    titles = ["as annotated", *(f"{class_name} +{distance:g} px" for distance in pixels)]
    requests = [Query(m, schema.states(), seed) for m in edits]
    images = np.stack([image for _, image in generator.generate(requests)])
    real = loaded.images[chosen].numpy()
    warped = np.stack([warp_class(real, maps[chosen], index, distance)[0] for distance in (0.0, *pixels)])
    found, of_warped = ([int((m == index).sum()) for m in segment(each)] for each in (images, warped))
    asked = [int((m == index).sum()) for m in edits]
    view = figures.view_of(region, typical_spacing(dataset))
    lines = [
        [(title, figures.coloured(m, schema, view)) for title, m in zip(titles, edits, strict=True)],
        [("generated" if i else "generated from the map above", figures.gray(x, view)) for i, x in enumerate(images)],
        [("with the map outlined", figures.outlined(x, m, schema, view)) for x, m in zip(images, edits, strict=True)],
        [("difference" if i else "", figures.gray(np.abs(x - images[0]) - 1, view)) for i, x in enumerate(images)],
    ]
    of_each = ", ".join(f"{a} ({f}; {w})" for a, f, w in zip(asked, found, of_warped, strict=True))
    caption = (
        f"A label map of the split {rows[chosen].split} that the model has not seen, as annotated and with the class "
        f"{class_name} grown step by step, and the image generated from each map. All images start from the same "
        "noise; the last line is the absolute difference to the first image. Pixels of the class asked for, and in "
        "brackets found by the auxiliary segmenter in the image and in the real image, warped so that the class grows "
        f"by as much: {of_each}. The segmenter learnt real shapes only, and may find less of larger ones."
    )
    return Figure("edit", "What if the anatomy were different?", figures.grid(lines, cell=2.0), caption)
