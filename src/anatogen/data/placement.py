"""The position of a generated item: from the model's [-1, 1] back to a scan's grid and units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.data.intensity import IntensityMapping
from anatogen.data.slicing import SliceSettings, item_volume
from anatogen.data.store import PreparedDataset, Row
from anatogen.volume import Fit, Volume


@dataclass(frozen=True)
class Placement:
    """The grid and the units of one item of a prepared data set."""

    affine: NDArray[np.float64]
    grid: tuple[int, int, int]
    cut: SliceSettings
    position: int
    intensity: tuple[IntensityMapping, ...]
    modality: str

    @classmethod
    def of(cls, dataset: PreparedDataset, row: Row) -> Placement:
        """The placement of `row`."""
        info, record = dataset.info, dataset.info.cases[row.case]
        axis = info.axis if info.axis != "volume" else "axial"
        cut = SliceSettings(size=tuple(info.size), axis=axis, fit=info.fit)  # type: ignore[arg-type]
        x, y, z = record.grid
        affine = np.asarray(record.affine, dtype=np.float64)
        return cls(affine, (x, y, z), cut, row.slice, tuple(record.intensity), info.channels[0])

    @classmethod
    def at(
        cls,
        affine: Sequence[Sequence[float]],
        grid: tuple[int, int, int],
        cut: tuple[str, tuple[int, ...], Fit],
        position: int,
        intensity: Sequence[IntensityMapping],
        modality: str,
    ) -> Placement:
        """A placement from the fields of a file. `cut`: (axis, or "volume"; size; fit)."""
        axis, size, fit = cut
        settings = SliceSettings(size=size, axis=axis if axis != "volume" else "axial", fit=fit)
        return cls(np.asarray(affine, dtype=np.float64), grid, settings, position, tuple(intensity), modality)

    @property
    def axis(self) -> str:
        """The slice direction, or "volume"."""
        return self.cut.axis if self.cut.sliced is not None else "volume"

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """The pixel size of the item along each of its axes, (H, W) or (D, H, W), after any resizing."""
        spacing = self.labels(np.zeros(self.cut.size, np.uint8)).spacing_mm
        return tuple(spacing[axis] for axis in (2, 1, 0) if axis != self.cut.sliced)

    def image(self, item: NDArray[np.float32]) -> Volume:
        """Image (C, *spatial) in [-1, 1] as a volume (x, y, z[, C]) in the scanner's units.

        int16 if the scan had whole numbers in that range, else float32.
        """
        units = np.stack([mapping.from_model(c) for mapping, c in zip(self.intensity, item, strict=True)])
        whole = all(mapping.slope == 1 for mapping in self.intensity)
        if whole and units.min() >= -32768 and units.max() <= 32767:
            units = np.rint(units).astype(np.int16)
        volume = item_volume(units, self.affine, self.grid, self.cut, self.position)
        return Volume(volume.array[..., 0], volume.affine) if len(units) == 1 else volume

    def labels(self, item: NDArray[Any]) -> Volume:
        """Label map (*spatial) as a volume (x, y, z)."""
        kind = np.uint8 if item.max(initial=0) < 256 else np.uint16
        return item_volume(item.astype(kind), self.affine, self.grid, self.cut, self.position)


def stacked(slices: Sequence[Volume], axis: int) -> Volume:
    """Join adjacent slices, each a volume of one voxel along `axis`, to one volume."""
    return Volume(np.concatenate([each.array for each in slices], axis=axis), slices[0].affine)


def item_spacing(dataset: PreparedDataset, row: Row) -> tuple[float, ...]:
    """The pixel size in mm of the item `row` along each of its axes, (H, W) or (D, H, W).

    It is that of the stored item, after any resizing by the data set's fit, and may differ from case to case.
    """
    return Placement.of(dataset, row).spacing_mm


def item_of(volume: Volume, axis: str) -> NDArray[Any]:
    """The item (C, *spatial) of `volume`: the inverse of `Placement.image` except for the units."""
    array = volume.array.reshape(*volume.grid, -1).transpose(3, 2, 1, 0)
    if axis == "volume":
        return array
    return array.squeeze({"axial": 1, "coronal": 2, "sagittal": 3}[axis])


def to_model(item: NDArray[Any], low: Sequence[float], high: Sequence[float]) -> NDArray[np.float32]:
    """Image (C, *spatial) in the scanner's units as [-1, 1]."""
    shape = (-1, *(1,) * (item.ndim - 1))
    bottom, top = np.reshape(low, shape), np.reshape(high, shape)
    return np.clip((item - bottom) / (top - bottom) * 2 - 1, -1, 1).astype(np.float32)


def typical_spacing(dataset: PreparedDataset) -> tuple[float, ...] | None:
    """The median pixel size in mm of the items along (H, W) or (D, H, W), one value per training case; None if unknown.

    Uses all cases if a data set has none for training.
    """
    rows = {row.case: row for row in dataset.rows if row.split == "train"} or {row.case: row for row in dataset.rows}
    if any(is_picture(dataset, case) for case in rows):
        return None
    spacings = [item_spacing(dataset, row) for row in rows.values()]
    return tuple(median(along) for along in zip(*spacings, strict=True))


def is_picture(dataset: PreparedDataset, case: str) -> bool:
    """Whether a case is a picture without a pixel size, to which sources of pictures assign 1 mm (`as_volume`)."""
    record = dataset.info.cases[case]
    return record.grid[2] == 1 and np.array_equal(record.affine, np.diag([-1.0, -1.0, -1.0, 1.0]))
