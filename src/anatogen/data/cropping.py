"""A common field of view for all cases, centred on the labels of each."""

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
_SPACINGS_APART = 0.01  # relative difference above which cases are resampled to one spacing


def labelled_box(labels: Volume, ignored: int | None) -> Box | None:
    """The half-open voxel range of the labels along each array axis; None without labels.

    Args:
        ignored: The value of unknown voxels, which are excluded.
    """
    array: NDArray[Any] = labels.array
    labelled = array > 0
    if ignored is not None:
        labelled &= array != ignored
    along = [np.flatnonzero(labelled.any(axis=tuple(b for b in range(3) if b != a))) for a in range(3)]
    if not along[0].size:
        return None
    x, y, z = ((int(a[0]), int(a[-1]) + 1) for a in along)
    return x, y, z


@dataclass(frozen=True)
class Extent:
    """The geometry of a case for the field of view: spacing and sides of its labelled box (None without one), in mm."""

    spacing_mm: tuple[float, float, float]
    box_mm: tuple[float, float, float] | None

    @classmethod
    def of(cls, labels: Volume, schema: LabelSchema) -> Extent:
        """The extent of a label map in canonical orientation."""
        box = labelled_box(labels, schema.ignored)
        if box is None:
            return cls(labels.spacing_mm, None)
        x, y, z = ((stop - first) * step for (first, stop), step in zip(box, labels.spacing_mm, strict=True))
        return cls(labels.spacing_mm, (x, y, z))


@dataclass(frozen=True)
class FieldOfView:
    """`voxels` of `spacing_mm` along x, y and z that contain the labels of every case, with the margin.

    Attributes:
        resampled: Whether the cases have to be resampled to that spacing.
    """

    voxels: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    resampled: bool

    @classmethod
    def common(
        cls, extents: Iterable[Extent], margin_mm: float, spacing_mm: tuple[float, float, float] | None = None
    ) -> FieldOfView:
        """The smallest field of view that contains the labelled box of each of `extents` with a margin on every side.

        Args:
            extents: Of all cases.
            margin_mm: The margin, 0 to 1000 mm.
            spacing_mm: The spacing to which cases are resampled first; by default their median, if they differ by more
                than 1 %.

        Raises:
            SettingsError: The margin is out of range.
            DataError: Nothing is labelled.
        """
        if not 0 <= margin_mm <= 1000:
            raise SettingsError(
                f"--crop-to-labels must be 0 to 1000 mm, got {margin_mm:g}", hint="Choose another margin"
            )
        every = list(extents)
        boxes = np.array([extent.box_mm for extent in every if extent.box_mm is not None]).reshape(-1, 3)
        if not len(boxes):
            raise DataError("no case has a label to crop to", hint="Omit --crop-to-labels, or check the label maps")
        spacings = np.array([extent.spacing_mm for extent in every])
        apart = (spacings.max(axis=0) / spacings.min(axis=0)).max() > 1 + _SPACINGS_APART
        target = np.median(spacings, axis=0) if spacing_mm is None else np.asarray(spacing_mm)
        resampled = spacing_mm is not None or bool(apart)
        finest = target if resampled else spacings.min(axis=0)
        # Resampling moves the edge of a label by up to half a voxel on each side.
        count = np.ceil((boxes.max(axis=0) + 2 * margin_mm) / finest - 1e-6).astype(int) + resampled
        (a, b, c), (x, y, z) = count.tolist(), (round(float(s), 5) for s in target)
        return cls((a, b, c), (x, y, z), resampled)

    @property
    def sides_mm(self) -> tuple[float, float, float]:
        """The side lengths along x, y and z, in mm."""
        x, y, z = (n * s for n, s in zip(self.voxels, self.spacing_mm, strict=True))
        return x, y, z


@dataclass(frozen=True)
class Window:
    """The voxels to crop from one case: the first one (possibly outside the scan), and the number along x, y, z."""

    start: tuple[int, int, int]
    size: tuple[int, int, int]

    @classmethod
    def around(cls, box: Box | None, grid: tuple[int, int, int], size: tuple[int, int, int]) -> Window:
        """The window of `size` voxels around the centre of `box`, or of the scan without one.

        If box and window differ in parity, the window is half a voxel towards the lower side.
        """
        edges = box or tuple((0, n) for n in grid)
        x, y, z = ((first + stop - n) // 2 for (first, stop), n in zip(edges, size, strict=True))
        return cls((x, y, z), size)

    def cut(self, volume: Volume, *, labels: bool = False) -> Volume:
        """The window of `volume`, padded outside the scan with the darkest value of each channel, or with
        background.
        """
        return crop(volume, self.start, self.size, np.zeros(()) if labels else volume.array.min(axis=(0, 1, 2)))
