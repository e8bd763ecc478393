"""Label maps from another data set (the cross-modality use of Konz et al. 2024), brought to a model's classes and geometry."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

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
    """Where a grid of `size` lies on a grid of `shape`: along each axis, pixel j has its centre at scale j + offset."""

    shape: tuple[int, ...]
    size: tuple[int, ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]

    @classmethod
    def plan(
        cls,
        drawn: NDArray[Any],
        spacing_mm: tuple[float, ...] | None,
        size: tuple[int, ...],
        to_spacing_mm: tuple[float, ...] | None,
        *,
        fit: Literal["crop", "pad"] = "crop",
        most_cut: float = MOST_CUT,
    ) -> Window:
        """The window of `size` pixels of `to_spacing_mm` on a grid of pixels of `spacing_mm` that shows what is drawn.

        drawn: how much anatomy each pixel of the grid has (bool, or counts over several maps of one grid). The window lies
        around the grid's middle or, where more is kept so, around the middle of what is drawn. Raises DataError where more
        than the share `most_cut` of that would still be cut; `fit` "pad" shrinks it instead, the aspect ratio kept. Where a
        spacing is None (unknown), the whole grid is shrunk where it is too large, and filled up, the aspect ratio kept.
        """
        if drawn.ndim != len(size):
            raise DataError(
                f"the label map has {drawn.ndim} axes where the model's have {len(size)}",
                hint="Prepare the label maps again with the --dim of the model's data",
            )
        if spacing_mm is None or to_spacing_mm is None:
            scale, offset = zip(*Fitting.plan(drawn.shape, size, "pad").to_original(), strict=True)
            return cls(drawn.shape, size, scale, offset)
        if not all(0 < s < math.inf for s in (*spacing_mm, *to_spacing_mm)):
            raise DataError(f"pixels of {_by(spacing_mm)} mm make no sense", hint="Mend the header's affine")
        steps = [_ratio(to, own) for own, to in zip(spacing_mm, to_spacing_mm, strict=True)]
        box = [_extent(drawn, axis) for axis in range(drawn.ndim)]
        needed = max((stop - first) / (n * step) for (first, stop), n, step in zip(box, size, steps, strict=True))
        if fit == "pad" and needed > 1:
            steps = [step * needed for step in steps]
        middle = cls._around([n / 2 for n in drawn.shape], drawn.shape, size, steps)
        shifted = cls._around(
            [
                n / 2 if low - 1e-6 <= first and stop <= high + 1e-6 else (first + stop) / 2
                for n, (low, high), (first, stop) in zip(drawn.shape, middle.reach, box, strict=True)
            ],
            drawn.shape,
            size,
            steps,
        )
        window = min(middle, shifted, key=lambda candidate: candidate.cut(drawn))
        if window.cut(drawn) > most_cut:
            anatomy = _by((stop - first) * own for (first, stop), own in zip(box, spacing_mm, strict=True))
            view = _by(n * to for n, to in zip(size, to_spacing_mm, strict=True))
            raise DataError(
                f"the labelled anatomy measures {anatomy} mm and the model's images {view} mm, so that "
                f"{100 * window.cut(drawn):.1f} % of it would be cut ({100 * most_cut:g} % may be)",
                hint="Shrink it with --fit pad, or use a model of a larger field of view",
            )
        return window

    @classmethod
    def _around(
        cls, centre: Sequence[float], shape: tuple[int, ...], size: tuple[int, ...], steps: Sequence[float]
    ) -> Window:
        """The window whose middle is at `centre`, in pixels from the grid's edge; to whole pixels where none is resampled."""
        edges = [c - n * step / 2 for c, n, step in zip(centre, size, steps, strict=True)]
        edges = [float(math.trunc(e)) if step == 1 else e for e, step in zip(edges, steps, strict=True)]
        offset = tuple(edge + step / 2 - 0.5 for edge, step in zip(edges, steps, strict=True))
        return cls(shape, size, tuple(steps), offset)

    @property
    def reach(self) -> list[tuple[float, float]]:
        """From where to where the window reaches along each axis of the grid, in pixels from the grid's edge."""
        edges = [o + 0.5 - s / 2 for o, s in zip(self.offset, self.scale, strict=True)]
        return [(edge, edge + n * s) for edge, n, s in zip(edges, self.size, self.scale, strict=True)]

    def cut(self, drawn: NDArray[Any]) -> float:
        """The share of what is drawn (see `plan`) that lies outside the window, 0 to 1."""
        inside = []
        for n, (low, high) in zip(self.shape, self.reach, strict=True):
            centre = np.arange(n) + 0.5
            inside.append(np.flatnonzero((low - 1e-6 <= centre) & (centre <= high + 1e-6)))
        total = float(drawn.sum())
        return 1 - float(drawn[np.ix_(*inside)].sum()) / total if total else 0.0

    def apply(self, labels: NDArray[Any]) -> NDArray[np.int64]:
        """The label map (*shape) as the window shows it (*size), background beyond the grid.

        Each pixel takes the class with the largest share, interpolated linearly between the grid's pixels, and the nearest
        pixel's class where shares are equal. On shapes with a known outline that is closer to it than nearest neighbours.
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
    """A label map (H, W) or (D, H, W) with pixels of `spacing_mm`, item axis by item axis, on a model's grid.

    Returns the map (*size) with pixels of `to_spacing_mm`, and where it lies on the old grid. See `Window.plan` for what is
    kept where it does not fit or a spacing is None, and for the DataError; `Window.apply` for the resampling.
    """
    window = Window.plan(labels > 0, spacing_mm, size, to_spacing_mm, fit=fit, most_cut=most_cut)
    return window.apply(labels), window


def maps_from_dataset(
    dataset: PreparedDataset,
    rows: Sequence[Row],
    ours: LabelSchema,
    size: tuple[int, ...],
    axis: str | None,
    spacing_mm: tuple[float, ...] | None,
    renames: Mapping[str, str] | None = None,
    *,
    fit: Literal["crop", "pad"] = "crop",
    most_cut: float = MOST_CUT,
    keep_empty: bool = False,
) -> Iterator[tuple[Row, NDArray[np.int64], ClassStates]]:
    """Each row's label map (*size) with the values of `ours`, and which of those classes are given there, in order.

    size, axis ("volume" for whole volumes), spacing_mm: the geometry of the model's items; axis and spacing None where
    unknown. All slices of a case are cut alike. Classes that are free in a case are left out of its maps, and maps
    that then show nothing are left out unless `keep_empty`. Raises SettingsError where classes or axes do not match, and,
    as the maps are read, DataError where anatomy does not fit (see `Window.plan`) or no map is left.
    """
    match = match_classes(ours, dataset.schema, renames)
    _check_axis(dataset, rows, axis, size)
    plan = partial(Window.plan, size=size, to_spacing_mm=spacing_mm, fit=fit, most_cut=most_cut)
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
            drawn = np.zeros(dataset.size, np.int64)
            for other in of_case[row.case]:  # all of them: a map does not depend on which others are asked for
                drawn += _given_labels(dataset, other, match) > 0
            spacing = None if is_picture(dataset, row.case) else item_spacing(dataset, row)
            try:
                windows[row.case] = plan(drawn, spacing)
            except DataError as error:
                problem = f"case {dataset.called(row.case)}: {error.problem}"
                raise DataError(problem, path=dataset.folder, hint=error.hint) from error
        labels = windows[row.case].apply(_given_labels(dataset, row, match))
        if keep_empty or labels.any():
            shown = True
            yield row, labels, given_states(match, row.annotated)
    if not shown:
        raise DataError(
            f"none of the label maps shows {some(match.matched, 'or')}",
            path=dataset.folder,
            hint="Choose another split, or match other classes with --rename",
        )


def _given_labels(dataset: PreparedDataset, row: Row, match: ClassMatch) -> NDArray[np.int64]:
    """The label map of `row` with our values, without what is free there."""
    labels = match.apply(dataset.load([row]).labels[0].numpy())
    given = np.array([False, *given_states(match, row.annotated).given])
    return np.where(given[labels], labels, 0)


def _check_axis(dataset: PreparedDataset, rows: Sequence[Row], axis: str | None, size: tuple[int, ...]) -> None:
    theirs, volumes = dataset.info.axis, len(size) == 3
    if (theirs == "volume") != volumes:
        kinds = ("slices", "whole volumes") if volumes else ("whole volumes", "slices")
        raise SettingsError(
            f"holds {kinds[0]}, and the model makes {kinds[1]}",
            path=dataset.folder,
            hint=f"Prepare it again with --dim {len(size)}",
        )
    pictures = all(is_picture(dataset, case) for case in {row.case for row in rows})
    if axis is not None and axis != theirs and not pictures:
        raise SettingsError(
            f"holds {theirs} slices, and the model makes {axis} ones",
            path=dataset.folder,
            hint=f"Prepare it again with --axis {axis}",
        )


def _ratio(to_mm: float, own_mm: float) -> float:
    """Pixels of theirs in a pixel of ours; 1 where they differ by less than one in a thousand, so as not to resample."""
    return 1.0 if math.isclose(to_mm, own_mm, rel_tol=1e-3) else to_mm / own_mm


def _extent(drawn: NDArray[Any], axis: int) -> tuple[int, int]:
    """From which to before which pixel along `axis` something is drawn; nothing is (0, 0) wide, in the middle."""
    along = np.flatnonzero(drawn.any(axis=tuple(a for a in range(drawn.ndim) if a != axis)))
    return (int(along[0]), int(along[-1]) + 1) if along.size else (drawn.shape[axis] // 2,) * 2


def _by(lengths: Iterable[float]) -> str:
    return " x ".join(f"{length:.4g}" for length in lengths)
