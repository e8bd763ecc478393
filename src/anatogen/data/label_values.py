"""The values in label maps: whole numbers, which are classes of the source, and the classes that they become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.errors import DataError
from anatogen.volume import Remark, Volume

# A scale factor in a header leaves whole numbers this near to one; a map that was resampled linearly does not.
MOST_OFF = 0.05


def whole_labels(volume: Volume, path: Path | str) -> Volume:
    """The label map `volume` as integers: labels that a scale factor turned into 0.996 are rounded, with a remark.

    Raises DataError, naming the value that is farthest from a whole number, where a label lies between two classes.
    """
    values: NDArray[Any] = volume.array
    if values.dtype.kind == "b":
        return replace(volume, array=values.astype(np.uint8))
    if values.dtype.kind != "f":
        return volume
    if not np.isfinite(values).all():
        raise DataError("holds labels that are NaN or infinite", path=path, hint="Replace them by the background's 0")
    nearest = np.rint(values)
    off = np.abs(values - nearest)
    worst = int(off.argmax())
    if off.flat[worst] > MOST_OFF:
        raise DataError(
            f"label {float(values.flat[worst]):.4g} is not a whole number, but between two classes",
            path=path,
            hint="Resample labels by nearest neighbour",
        )
    rounded = replace(volume, array=nearest.astype(np.int32 if np.abs(nearest).max() < 2**31 else np.int64))
    if off.flat[worst] < 1e-6:
        return rounded
    what = f"holds labels that are not quite whole ({float(values.flat[worst]):.6g}), and were rounded"
    hint = "A scale factor in the header does that; save label maps as integers without one"
    return rounded.remarked(Remark("note", "labels-rounded", what, hint))


def to_classes(volume: Volume, table: Mapping[int, int], path: Path | str) -> Volume:
    """The label map `volume` of whole numbers with every value as `table` has it: the source's value to ours.

    Raises DataError for a value that is not in `table`.
    """
    found, place = np.unique(volume.array, return_inverse=True)
    unknown = [int(value) for value in found if int(value) not in table]
    if unknown:
        listed = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        raise DataError(
            f"holds label {listed}, but {', '.join(map(str, sorted(table)))} are declared",
            path=path,
            hint="Declare the missing classes, or relabel the map",
        )
    ours = np.array([table[int(value)] for value in found], np.uint8 if max(table.values()) < 256 else np.uint16)
    return replace(volume, array=ours[place].reshape(volume.array.shape))


@dataclass(frozen=True)
class SourceLabels:
    """What stood for the classes in the files of the source: for who writes such files again.

    values: of the classes 0..C-1. regions: of each class that is a part of any, the names of those, from the largest to the
    smallest. ignore: the value of voxels whose class is unknown.
    """

    values: tuple[int, ...]
    regions: Mapping[str, tuple[str, ...]]
    ignore: int | None

    @classmethod
    def of(cls, recorded: Mapping[str, Any] | None) -> SourceLabels | None:
        """As `describe` wrote it into dataset.json; None where the classes' own numbers stood for them."""
        if not recorded:
            return None
        regions = {name: tuple(inside) for name, inside in recorded["regions"].items()}
        return cls(tuple(recorded["values"]), regions, recorded["ignore"])

    def restored(self, labels: Volume) -> Volume:
        """The label map `labels` of classes with the values that the files of the source had."""
        table = np.array(self.values)
        kind = np.uint8 if max(self.values) < 256 else np.uint16
        return replace(labels, array=table[labels.array.astype(np.intp)].astype(kind))

    def nnunet(self, names: Sequence[str]) -> dict[str, Any]:
        """The keys of nnU-Net's dataset.json that declare these labels. names: of the classes 1..C-1."""
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
