"""One field of view for all cases, centred on what is labelled in each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.errors import DataError, SettingsError
from anatogen.labels import LabelSchema
from anatogen.volume import Volume, crop

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
_SPACINGS_APART = 0.01  # beyond which cases are resampled to one spacing, so that none is shown larger than another


def labelled_box(labels: Volume, schema: LabelSchema) -> Box | None:
    """From which to before which voxel along x, y and z something is labelled (unknown voxels are not); None for nothing."""
    array: NDArray[Any] = labels.array
    drawn = array > 0
    if schema.ignored is not None:
        drawn &= array != schema.ignored
    along = [np.flatnonzero(drawn.any(axis=tuple(b for b in range(3) if b != a))) for a in range(3)]
    if not along[0].size:
        return None
    x, y, z = ((int(a[0]), int(a[-1]) + 1) for a in along)
    return x, y, z


@dataclass(frozen=True)
class Extent:
    """What a case says to the common field of view: its spacing, and the sides of its labelled box (None without one), in mm."""

    spacing_mm: tuple[float, float, float]
    box_mm: tuple[float, float, float] | None

    @classmethod
    def of(cls, labels: Volume, schema: LabelSchema) -> Extent:
        """The extent of a label map in canonical orientation."""
        box = labelled_box(labels, schema)
        if box is None:
            return cls(labels.spacing_mm, None)
        x, y, z = ((stop - first) * step for (first, stop), step in zip(box, labels.spacing_mm, strict=True))
        return cls(labels.spacing_mm, (x, y, z))


@dataclass(frozen=True)
class FieldOfView:
    """voxels of spacing_mm along x, y and z that show what is labelled in every case, with the margin.

    resampled: whether the cases have to be resampled to that spacing.
    """

    voxels: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    resampled: bool

    @classmethod
    def common(
        cls, extents: Iterable[Extent], margin_mm: float, spacing_mm: tuple[float, float, float] | None = None
    ) -> FieldOfView:
        """The smallest that holds the labelled box of each of `extents` with `margin_mm` on every side.

        spacing_mm: to which cases are resampled first; by default the median of theirs, where they differ by more than
        1 %. Raises SettingsError for a margin that is not 0 or more, DataError where nothing is labelled.
        """
        if not 0 <= margin_mm <= 1000:
            raise SettingsError(f"--crop-to-labels {margin_mm:g} is out of range", hint="Give a margin of 0 to 1000 mm")
        every = list(extents)
        boxes = np.array([extent.box_mm for extent in every if extent.box_mm is not None]).reshape(-1, 3)
        if not len(boxes):
            raise DataError(
                "no case has a label to crop to", hint="Leave --crop-to-labels out, or check the label maps"
            )
        spacings = np.array([extent.spacing_mm for extent in every])
        apart = (spacings.max(axis=0) / spacings.min(axis=0)).max() > 1 + _SPACINGS_APART
        target = np.median(spacings, axis=0) if spacing_mm is None else np.asarray(spacing_mm)
        resampled = spacing_mm is not None or bool(apart)
        finest = target if resampled else spacings.min(axis=0)
        # Resampling moves the edge of a label by up to half a voxel on either side.
        count = np.ceil((boxes.max(axis=0) + 2 * margin_mm) / finest - 1e-6).astype(int) + resampled
        (a, b, c), (x, y, z) = count.tolist(), (round(float(s), 5) for s in target)
        return cls((a, b, c), (x, y, z), resampled)

    @property
    def sides_mm(self) -> tuple[float, float, float]:
        """Its sides."""
        x, y, z = (n * s for n, s in zip(self.voxels, self.spacing_mm, strict=True))
        return x, y, z


@dataclass(frozen=True)
class Window:
    """The voxels that are cut out of one case: the first one (it may lie outside the scan), and how many along x, y, z."""

    start: tuple[int, int, int]
    size: tuple[int, int, int]

    @classmethod
    def around(cls, box: Box | None, grid: tuple[int, int, int], size: tuple[int, int, int]) -> Window:
        """The window of `size` voxels around the middle of `box`, or of the scan where there is none.

        Where box and window differ in parity, the window lies half a voxel to the lower side.
        """
        edges = box or tuple((0, n) for n in grid)
        x, y, z = ((first + stop - n) // 2 for (first, stop), n in zip(edges, size, strict=True))
        return cls((x, y, z), size)

    def cut(self, volume: Volume, *, labels: bool = False) -> Volume:
        """What the window shows of `volume`; beyond the scan the darkest value of each channel, and background."""
        return crop(volume, self.start, self.size, np.zeros(()) if labels else volume.array.min(axis=(0, 1, 2)))
