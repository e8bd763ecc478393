"""Label maps from another data set (the cross-modality use of Konz et al. 2024) for a model's classes and grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anatogen.data.matching import ClassMatch, given_states, match_classes, some
from anatogen.data.placement import is_picture, item_spacing
from anatogen.data.store import PreparedDataset, Row
from anatogen.errors import DataError, SettingsError
from anatogen.labels import ClassStates, LabelSchema
from anatogen.volume import Fitting

MOST_CUT = 0.01


@dataclass(frozen=True)
class Window:
    """The position of a grid of `size` on a grid of `shape`: pixel j of an axis has its centre at scale j + offset."""

    shape: tuple[int, ...]
    size: tuple[int, ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]

    @classmethod
    def plan(
        cls,
        labelled: NDArray[Any],
        spacing_mm: tuple[float, ...] | None,
        size: tuple[int, ...],
        to_spacing_mm: tuple[float, ...] | None,
        *,
        fit: Literal["crop", "pad"] = "crop",
        most_cut: float = MOST_CUT,
    ) -> Window:
        """The window of `size` pixels of `to_spacing_mm` that contains what is labelled on a grid of `spacing_mm`.

        It is centred on the grid or, if that keeps more, on what is labelled. If a spacing is None (unknown), the whole
        grid is shrunk to fit, if necessary, and padded, keeping the aspect ratio.

        Args:
            labelled: How much anatomy each pixel of the grid has (bool, or counts over several maps of one grid).
            spacing_mm: The pixel size of the grid, in mm.
            size: The model's size.
            to_spacing_mm: The model's pixel size, in mm.
            fit: "pad" shrinks anatomy that is too large, keeping the aspect ratio.
            most_cut: The largest share of the labelled pixels that may be cut off, 0 to 1.

        Raises:
            DataError: More than `most_cut` would be cut off, or the axes do not match.
        """
        if labelled.ndim != len(size):
            raise DataError(
                f"expected label maps with {len(size)} axes, got {labelled.ndim}",
                hint="Prepare the label maps again with the --dim of the model's data",
            )
        if spacing_mm is None or to_spacing_mm is None:
            scale, offset = zip(*Fitting.plan(labelled.shape, size, "pad").to_original(), strict=True)
            return cls(labelled.shape, size, scale, offset)
        if not all(0 < s < math.inf for s in (*spacing_mm, *to_spacing_mm)):
            raise DataError(f"invalid pixel size of {_by(spacing_mm)} mm", hint="Fix the affine in the header")
        steps = [_ratio(to, own) for own, to in zip(spacing_mm, to_spacing_mm, strict=True)]
        box = [_extent(labelled, axis) for axis in range(labelled.ndim)]
        needed = max((stop - first) / (n * step) for (first, stop), n, step in zip(box, size, steps, strict=True))
        if fit == "pad" and needed > 1:
            steps = [step * needed for step in steps]
        middle = cls._around([n / 2 for n in labelled.shape], labelled.shape, size, steps)
        shifted = cls._around(
            [
                n / 2 if low - 1e-6 <= first and stop <= high + 1e-6 else (first + stop) / 2
                for n, (low, high), (first, stop) in zip(labelled.shape, middle.reach, box, strict=True)
            ],
            labelled.shape,
            size,
            steps,
        )
        window = min(middle, shifted, key=lambda candidate: candidate.cut(labelled))
        if window.cut(labelled) > most_cut:
            anatomy = _by((stop - first) * own for (first, stop), own in zip(box, spacing_mm, strict=True))
            view = _by(n * to for n, to in zip(size, to_spacing_mm, strict=True))
            raise DataError(
                f"the labelled anatomy measures {anatomy} mm, but the model's images {view} mm, so "
                f"{100 * window.cut(labelled):.1f} % of it would be cut off (at most {100 * most_cut:g} % may be)",
                hint="Shrink it with --fit pad, or use a model with a larger field of view",
            )
        return window

    @classmethod
    def _around(
        cls, centre: Sequence[float], shape: tuple[int, ...], size: tuple[int, ...], steps: Sequence[float]
    ) -> Window:
        """The window centred on `centre`, in pixels from the grid's edge; whole pixels along axes without
        resampling.
        """
        edges = [c - n * step / 2 for c, n, step in zip(centre, size, steps, strict=True)]
        edges = [float(math.trunc(e)) if step == 1 else e for e, step in zip(edges, steps, strict=True)]
        offset = tuple(edge + step / 2 - 0.5 for edge, step in zip(edges, steps, strict=True))
        return cls(shape, size, tuple(steps), offset)

    @property
    def reach(self) -> list[tuple[float, float]]:
        """The range of the window along each axis of the grid, in pixels from the grid's edge."""
        edges = [o + 0.5 - s / 2 for o, s in zip(self.offset, self.scale, strict=True)]
        return [(edge, edge + n * s) for edge, n, s in zip(edges, self.size, self.scale, strict=True)]

    def cut(self, labelled: NDArray[Any]) -> float:
        """The share of what is labelled (see `plan`) that is outside the window, 0 to 1."""
        inside = []
        for n, (low, high) in zip(self.shape, self.reach, strict=True):
            centre = np.arange(n) + 0.5
            inside.append(np.flatnonzero((low - 1e-6 <= centre) & (centre <= high + 1e-6)))
        total = float(labelled.sum())
        return 1 - float(labelled[np.ix_(*inside)].sum()) / total if total else 0.0

    def apply(self, labels: NDArray[Any]) -> NDArray[np.int64]:
        """The label map (*shape) in the window (*size), with background outside the grid.

        Each pixel gets the class with the largest share, interpolated linearly between the grid's pixels; ties go to
        the nearest pixel's class. On shapes with a known outline this is more accurate than nearest neighbour.
        """
        at = [s * np.arange(n) + o for n, s, o in zip(self.size, self.scale, self.offset, strict=True)]
        near = [np.floor(a + 0.5 + 1e-6).astype(int) for a in at]
        result = labels[np.ix_(*(i.clip(0, n - 1) for i, n in zip(near, self.shape, strict=True)))].astype(np.int64)
        if any(s != 1 for s in self.scale):
            nearest_value, largest = result.copy(), np.zeros(self.size, np.float32)
            for value in np.unique(labels):
                share = ndimage.affine_transform(
                    (labels == value).astype(np.float32),
                    np.diag(self.scale),
                    self.offset,
                    output_shape=self.size,
                    order=1,
                    mode="nearest",
                )
                share += 1e-4 * (nearest_value == value)
                result[share > largest] = value
                np.maximum(share, largest, out=largest)
        for axis, (i, n) in enumerate(zip(near, self.shape, strict=True)):
            np.moveaxis(result, axis, 0)[(i < 0) | (i >= n)] = 0
        return result


def bring(
    labels: NDArray[Any],
    spacing_mm: tuple[float, ...] | None,
    size: tuple[int, ...],
    to_spacing_mm: tuple[float, ...] | None,
    *,
    fit: Literal["crop", "pad"] = "crop",
    most_cut: float = MOST_CUT,
) -> tuple[NDArray[np.int64], Window]:
    """Map a label map (H, W) or (D, H, W) with pixels of `spacing_mm`, given for each axis, to a model's grid.

    See `Window.plan` for the arguments and the DataError, `Window.apply` for the resampling.

    Returns:
        The map (*size) with pixels of `to_spacing_mm`, and its window on the old grid.
    """
    window = Window.plan(labels > 0, spacing_mm, size, to_spacing_mm, fit=fit, most_cut=most_cut)
    return window.apply(labels), window


class ItemGeometry(Protocol):
    """The classes and the geometry of a model's items; axis and spacing are None if unknown."""

    @property
    def schema(self) -> LabelSchema:
        """The classes."""

    @property
    def size(self) -> tuple[int, ...]:
        """(H, W) or (D, H, W)."""

    @property
    def axis(self) -> str | None:
        """The slice direction, or "volume"."""

    @property
    def spacing_mm(self) -> tuple[float, ...] | None:
        """The pixel size along the axes of `size`, in mm."""


def maps_from_dataset(
    dataset: PreparedDataset,
    rows: Sequence[Row],
    model: ItemGeometry,
    renames: Mapping[str, str] | None = None,
    *,
    fit: Literal["crop", "pad"] = "crop",
    most_cut: float = MOST_CUT,
    keep_empty: bool = False,
) -> Iterator[tuple[Row, NDArray[np.int64], ClassStates]]:
    """The label maps of `rows` for a model, in order; all slices of a case are cropped alike.

    Args:
        dataset: The other data set.
        rows: Its rows to use.
        model: The classes and the geometry of the model's items.
        renames: See `match_classes`.
        fit, most_cut: See `Window.plan`.
        keep_empty: Whether to keep maps without any given class.

    Yields:
        The row, its label map (*size) with the model's classes, and the states of those. Classes that are free in a
        case are removed from its maps.

    Raises:
        SettingsError: Classes or axes do not match.
        DataError: While the maps are read: anatomy does not fit (see `Window.plan`), or no map is left.
    """
    match = match_classes(model.schema, dataset.schema, renames)
    _check_axis(dataset, rows, model.axis, model.size)
    plan = partial(Window.plan, size=model.size, to_spacing_mm=model.spacing_mm, fit=fit, most_cut=most_cut)
    return _maps(dataset, rows, match, plan, keep_empty)


def _maps(
    dataset: PreparedDataset, rows: Sequence[Row], match: ClassMatch, plan: Callable[..., Window], keep_empty: bool
) -> Iterator[tuple[Row, NDArray[np.int64], ClassStates]]:
    of_case: dict[str, list[Row]] = {}
    for row in dataset.rows:
        of_case.setdefault(row.case, []).append(row)
    windows: dict[str, Window] = {}
    shown = False
    for row in rows:
        if row.case not in windows:
            labelled = np.zeros(dataset.size, np.int64)
            for other in of_case[row.case]:  # all of them, so that a map does not depend on the other rows
                labelled += _given_labels(dataset, other, match) > 0
            spacing = None if is_picture(dataset, row.case) else item_spacing(dataset, row)
            try:
                windows[row.case] = plan(labelled, spacing)
            except DataError as error:
                problem = f"case {dataset.called(row.case)}: {error.problem}"
                raise DataError(problem, path=dataset.folder, hint=error.hint) from error
        labels = windows[row.case].apply(_given_labels(dataset, row, match))
        if keep_empty or labels.any():
            shown = True
            yield row, labels, given_states(match, row.annotated)
    if not shown:
        raise DataError(
            f"none of the label maps contains {some(match.matched, 'or')}",
            path=dataset.folder,
            hint="Choose another split, or match other classes with --rename",
        )


def _given_labels(dataset: PreparedDataset, row: Row, match: ClassMatch) -> NDArray[np.int64]:
    """The label map of `row` with our values, without free classes."""
    labels = match.apply(dataset.load([row]).labels[0].numpy())
    given = np.array([False, *given_states(match, row.annotated).given])
    return np.where(given[labels], labels, 0)


def _check_axis(dataset: PreparedDataset, rows: Sequence[Row], axis: str | None, size: tuple[int, ...]) -> None:
    theirs, volumes = dataset.info.axis, len(size) == 3
    if (theirs == "volume") != volumes:
        kinds = ("slices", "whole volumes") if volumes else ("whole volumes", "slices")
        raise SettingsError(
            f"contains {kinds[0]}, but the model generates {kinds[1]}",
            path=dataset.folder,
            hint=f"Prepare it again with --dim {len(size)}",
        )
    pictures = all(is_picture(dataset, case) for case in {row.case for row in rows})
    if axis is not None and axis != theirs and not pictures:
        raise SettingsError(
            f"contains {theirs} slices, but the model generates {axis} ones",
            path=dataset.folder,
            hint=f"Prepare it again with --axis {axis}",
        )


def _ratio(to_mm: float, own_mm: float) -> float:
    """Pixels of theirs per pixel of ours; 1 if they differ by less than one in a thousand, to avoid resampling."""
    return 1.0 if math.isclose(to_mm, own_mm, rel_tol=1e-3) else to_mm / own_mm


def _extent(labelled: NDArray[Any], axis: int) -> tuple[int, int]:
    """The half-open pixel range along `axis` that is labelled; empty and in the middle if nothing is."""
    along = np.flatnonzero(labelled.any(axis=tuple(a for a in range(labelled.ndim) if a != axis)))
    return (int(along[0]), int(along[-1]) + 1) if along.size else (labelled.shape[axis] // 2,) * 2


def _by(lengths: Iterable[float]) -> str:
    return " x ".join(f"{length:.4g}" for length in lengths)
