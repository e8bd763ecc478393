"""Label values: validation as whole numbers, and the mapping from the source's values to classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.errors import DataError
from anatogen.volume import Remark, Volume

# A scale factor in a header changes whole numbers by less than this; linear resampling does not.
MOST_OFF = 0.05


def whole_labels(volume: Volume, path: Path | str) -> Volume:
    """The label map `volume` as integers: labels that a scale factor turned into 0.996 are rounded, with a remark.

    Raises:
        DataError: A label is between two classes; names the value farthest from a whole number.
    """
    values: NDArray[Any] = volume.array
    if values.dtype.kind == "b":
        return replace(volume, array=values.astype(np.uint8))
    if values.dtype.kind != "f":
        return volume
    if not np.isfinite(values).all():
        raise DataError(
            "contains labels that are NaN or infinite", path=path, hint="Replace them with 0, the background"
        )
    nearest = np.rint(values)
    off = np.abs(values - nearest)
    worst = int(off.argmax())
    if off.flat[worst] > MOST_OFF:
        raise DataError(
            f"label {float(values.flat[worst]):.4g} is not a whole number but between two classes",
            path=path,
            hint="Resample labels by nearest neighbour",
        )
    rounded = replace(volume, array=nearest.astype(np.int32 if np.abs(nearest).max() < 2**31 else np.int64))
    if off.flat[worst] < 1e-6:
        return rounded
    what = f"contains labels that are not exact integers ({float(values.flat[worst]):.6g}) and were rounded"
    hint = "Caused by a scale factor in the header; save label maps as integers without one"
    return rounded.remarked(Remark("note", "labels-rounded", what, hint))


def to_classes(volume: Volume, table: Mapping[int, int], path: Path | str) -> Volume:
    """The label map `volume` of whole numbers, mapped by `table` from the source's values to ours.

    Raises:
        DataError: A value is not in `table`.
    """
    found, place = np.unique(volume.array, return_inverse=True)
    unknown = [int(value) for value in found if int(value) not in table]
    if unknown:
        listed = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        raise DataError(
            f"contains label {listed}, but only {', '.join(map(str, sorted(table)))} are declared",
            path=path,
            hint="Declare the missing classes, or relabel the map",
        )
    ours = np.array([table[int(value)] for value in found], np.uint8 if max(table.values()) < 256 else np.uint16)
    return replace(volume, array=ours[place].reshape(volume.array.shape))


@dataclass(frozen=True)
class SourceLabels:
    """The label values in the source files, for writing such files again.

    Attributes:
        values: Of the classes 0..C-1.
        regions: For each class that belongs to regions, their names from the largest to the smallest.
        ignore: The value of voxels of unknown class.
    """

    values: tuple[int, ...]
    regions: Mapping[str, tuple[str, ...]]
    ignore: int | None

    @classmethod
    def of(cls, recorded: Mapping[str, Any] | None) -> SourceLabels | None:
        """From the record in dataset.json; None if the values are the class indices."""
        if not recorded:
            return None
        regions = {name: tuple(inside) for name, inside in recorded["regions"].items()}
        return cls(tuple(recorded["values"]), regions, recorded["ignore"])

    def restored(self, labels: Volume) -> Volume:
        """The label map `labels` of classes with the values of the source files."""
        table = np.array(self.values)
        kind = np.uint8 if max(self.values) < 256 else np.uint16
        return replace(labels, array=table[labels.array.astype(np.intp)].astype(kind))

    def nnunet(self, names: Sequence[str]) -> dict[str, Any]:
        """The keys of nnU-Net's dataset.json that declare these labels. `names`: of the classes 1..C-1."""
        ignore = {"ignore": self.ignore} if self.ignore is not None else {}
        if not self.regions:
            return {"labels": {"background": 0, **dict(zip(names, self.values[1:], strict=True)), **ignore}}
        value_of = dict(zip(names, self.values[1:], strict=True))
        regions = list(dict.fromkeys(region for inside in self.regions.values() for region in inside))
        members = {r: sorted(value_of[n] for n, inside in self.regions.items() if r in inside) for r in regions}
        regions.sort(key=lambda region: -len(members[region]))
        own = {
            r: min(((len(i), value_of[n]) for n, i in self.regions.items() if i[-1] == r), default=(0, members[r][0]))[
                1
            ]
            for r in regions
        }
        declared = {r: members[r] if len(members[r]) > 1 else members[r][0] for r in regions}
        order = [own[r] for r in regions]
        return {"labels": {"background": 0, **declared, **ignore}, "regions_class_order": order}
