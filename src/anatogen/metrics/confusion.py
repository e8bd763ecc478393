"""Confusion counts of two label maps, class by class: the small numbers from which every overlap measure follows.

An evaluation of a hundred thousand images keeps these counts and discards the images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from anatogen.errors import SettingsError

Distances = NDArray[np.floating]
Box = tuple[slice, ...]
Groups = NDArray[np.generic]

STRAY_VOXELS, STRAY_SHARE = 4, 1e-3
"""An absent class counts as invented above both: this number of voxels, and this share of the image."""


@dataclass(frozen=True)
class Absence:
    """How one class behaves in the images in which it is absent.

    Attributes:
        images: Number of images in which the class is absent.
        groups: Number of groups (patients) of these images.
        invented: Share of these images in which the class was found beyond stray voxels, in [0, 1]; NaN without images.
        volume: Mean volume found in the images where it was invented, in mm to the power of the axes; NaN without any.
    """

    images: int
    groups: int
    invented: float
    volume: float


@dataclass(frozen=True)
class ConfusionCounts:
    """Confusion counts (N, C-1) of N images: voxels of each class; 0 where a class does not count.

    Absent classes have no Dice. A class that counts for an image but is not in its true map is absent there. If it is
    found on more than 4 voxels and on more than one voxel in a thousand, it is invented (`invented`); less is noise of
    the segmenter. The gate (`obeyed_by` of each image), the report and the segmenter's validation share this rule.

    All methods `..._by(groups)` take groups (N,), for instance patients, and return float64 (groups, C-1) in the order
    of `np.unique`, NaN where undefined.

    Attributes:
        both: Voxels in both maps.
        predicted: Voxels in the predicted map.
        truth: Voxels in the true map.
        counted: Whether a class counts for an image, bool (N, C-1).
        voxels: Voxels of an image, (N, 1).
        volume: Volume of a voxel in mm to the power of the axes, (N, 1).
        hd95: 95 % Hausdorff distance in mm; NaN where a map lacks the class or surfaces were not measured.
        near: Surface voxels of both maps within the tolerance of the other surface.
        surface: Surface voxels of both maps.
    """

    both: NDArray[np.float64]
    predicted: NDArray[np.float64]
    truth: NDArray[np.float64]
    counted: NDArray[np.bool_]
    voxels: NDArray[np.float64]
    volume: NDArray[np.float64]
    hd95: NDArray[np.float64]
    near: NDArray[np.float64]
    surface: NDArray[np.float64]

    @classmethod
    def joined(cls, parts: Sequence[ConfusionCounts]) -> ConfusionCounts:
        """Concatenate the images of all `parts`."""
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    def of(self, chosen: NDArray[np.generic]) -> ConfusionCounts:
        """The counts of some of the images, chosen by an index or a mask (N,)."""
        return ConfusionCounts(*(getattr(self, f.name)[chosen] for f in fields(self)))

    def where(self, counted: NDArray[np.bool_]) -> ConfusionCounts:
        """The same counts, restricted to the classes in `counted` (N, C-1)."""
        kept = {
            f.name: np.where(counted, getattr(self, f.name), 0)
            for f in fields(self)
            if f.name not in ("volume", "voxels")
        }
        kept |= {"hd95": np.where(counted, self.hd95, np.nan), "counted": self.counted & counted}
        return ConfusionCounts(**kept, volume=self.volume, voxels=self.voxels)

    @property
    def absent(self) -> NDArray[np.bool_]:
        """Classes that count for an image but are not in its true map, (N, C-1)."""
        return self.counted & (self.truth == 0)

    @property
    def invented(self) -> NDArray[np.bool_]:
        """Absent classes that were found beyond stray voxels, (N, C-1)."""
        return self.absent & (self.predicted > np.maximum(STRAY_VOXELS, STRAY_SHARE * self.voxels))

    def dice_by(self, groups: Groups) -> NDArray[np.float64]:
        """Dice coefficients; see `dice_by_group`."""
        return np.where(_sums(self.truth, groups) > 0, self.overlap_by(groups), np.nan)

    def overlap_by(self, groups: Groups) -> NDArray[np.float64]:
        """Dice coefficients where neither map is the true one: NaN only where both maps lack the class."""
        return _share(2 * _sums(self.both, groups), _sums(self.predicted + self.truth, groups))

    def obeyed_by(self, groups: Groups) -> NDArray[np.float64]:
        """Dice coefficients; 0 where the group's true maps lack the class and it was invented in one of its images."""
        return np.where(
            _sums(self.truth, groups) > 0, self.overlap_by(groups), _zero_where(_sums(self.invented, groups))
        )

    def absences(self, groups: Groups) -> list[Absence]:
        """For each class (C-1), what was found in the images in which it is absent."""
        shares = self.invented_by(np.zeros(len(self.truth))).reshape(-1, self.truth.shape[1])
        found = np.where(self.invented, self.predicted * self.volume, 0).sum(axis=0)
        number = self.invented.sum(axis=0)
        return [
            Absence(
                images=int(absent.sum()),
                groups=len(np.unique(groups[absent])),
                invented=float(share),
                volume=float(amount / count) if count else float("nan"),
            )
            for absent, share, amount, count in zip(
                self.absent.T,
                shares[0] if len(shares) else np.full(self.truth.shape[1], np.nan),
                found,
                number,
                strict=True,
            )
        ]

    def invented_by(self, groups: Groups) -> NDArray[np.float64]:
        """Share of images with an invented class among those in which it is absent: 0 is best."""
        return _share(_sums(self.invented, groups), _sums(self.absent, groups))

    def hd95_by(self, groups: Groups) -> NDArray[np.float64]:
        """95 % Hausdorff distances in mm; see `hd95_by_group`."""
        there = ~np.isnan(self.hd95)
        return _share(_sums(np.where(there, self.hd95, 0), groups), _sums(there, groups))

    def surface_dice_by(self, groups: Groups) -> NDArray[np.float64]:
        """Normalised surface Dice; see `surface_dice_by_group`."""
        shares = _share(_sums(self.near, groups), _sums(self.surface, groups))
        return np.where(_sums(self.truth, groups) > 0, shares, np.nan)

    def volume_error_by(self, groups: Groups) -> NDArray[np.float64]:
        """Relative volume errors; see `volume_error_by_group`."""
        truth = _sums(self.truth * self.volume, groups)
        return _share(_sums(self.predicted * self.volume, groups) - truth, truth)

    def missed_by(self, groups: Groups) -> NDArray[np.float64]:
        """Share of images whose class was not found; see `missed_by_group`."""
        asked = self.truth > 0
        return _share(_sums(asked & (self.predicted == 0), groups), _sums(asked, groups))


def confusion_counts(
    predicted: NDArray[np.integer],
    truth: NDArray[np.integer],
    class_count: int,
    spacing_mm: ArrayLike = 1.0,
    counted: NDArray[np.bool_] | None = None,
    *,
    tolerance_mm: float | None = None,
    surfaces: bool = True,
) -> ConfusionCounts:
    """Count the confusion of label maps.

    Args:
        predicted: Label maps (N, *spatial).
        truth: Label maps (N, *spatial). Voxels of unknown class, -1, are left out of both maps; no surface ends there.
        class_count: C, the background included.
        spacing_mm: Size of a voxel along each spatial axis: a number or (axes,) for all images, or (N, axes).
        counted: Bool (N, C-1), whether a class counts for an image (given and annotated); by default all do.
        tolerance_mm: Tolerance of the surface Dice; by default one pixel of each image, the larger of its last two
            axes.
        surfaces: Measure surface distances, which takes most of the time.

    Raises:
        SettingsError: Shapes do not match, a spacing is not above 0 or the tolerance is negative.
    """
    if tolerance_mm is not None and not 0 <= tolerance_mm < np.inf:
        raise SettingsError(
            f"the surface tolerance must be 0 mm or more, got {tolerance_mm:g}", hint="Set 0 mm or more"
        )
    spacing = _spacing_of_each(spacing_mm, predicted, truth)
    unknown = truth < 0
    if unknown.any():
        predicted, truth = np.where(unknown, 0, predicted), np.where(unknown, 0, truth)
    volume = spacing.prod(axis=1)[:, None]
    in_play = np.ones((len(truth), class_count - 1), bool) if counted is None else counted
    found, asked = (np.where(in_play, _voxel_counts(m, class_count), 0).astype(float) for m in (predicted, truth))
    agreed = np.where(predicted == truth, truth, 0)
    both = np.where(in_play, _voxel_counts(agreed, class_count), 0).astype(float)
    hd95, near, surface = np.full(both.shape, np.nan), np.zeros(both.shape), np.zeros(both.shape)
    if surfaces:
        tolerances = spacing[:, -2:].max(axis=1) if tolerance_mm is None else np.full(len(truth), tolerance_mm)
        tolerances = tolerances * (1 + 1e-6)  # distances are float32; the tolerance itself must stay within
        known = None if not unknown.any() else ~unknown
        for i, c, to_truth, to_predicted in _surface_distances(predicted, truth, class_count, spacing, in_play, known):
            if to_truth.size and to_predicted.size:
                hd95[i, c - 1] = max(np.percentile(to_truth, 95), np.percentile(to_predicted, 95))
            near[i, c - 1] = (to_truth <= tolerances[i]).sum() + (to_predicted <= tolerances[i]).sum()
            surface[i, c - 1] = to_truth.size + to_predicted.size
    voxels = np.full((len(truth), 1), float(math.prod(truth.shape[1:])))
    return ConfusionCounts(both, found, asked, in_play, voxels, volume, hd95, near, surface)


def _surface_distances(
    predicted: NDArray[np.integer],
    truth: NDArray[np.integer],
    class_count: int,
    spacing: NDArray[np.float64],
    counted: NDArray[np.bool_],
    known: NDArray[np.bool_] | None = None,
) -> Iterator[tuple[int, int, Distances, Distances]]:
    """Yield (image, class, mm from each voxel of the predicted surface to the true one, and back) where a class occurs.

    Distances to a missing surface are infinite; a missing surface has none. known: bool (N, *spatial), voxels of known
    class; no surface ends at their border.
    """
    for i in range(len(truth)):
        boxes = zip(_boxes(predicted[i], class_count), _boxes(truth[i], class_count), strict=True)
        for c, (a, b) in enumerate(boxes, start=1):
            box = _around(a, b)
            if box is not None and counted[i, c - 1]:
                whole = None if known is None or known[i].all() else _inside(known[i])[box]
                yield i, c, *_distances(predicted[i][box] == c, truth[i][box] == c, spacing[i], whole)


def _inside(known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The voxels of known class without an unknown face neighbour."""
    return np.asarray(ndimage.binary_erosion(known, border_value=1))


def _distances(
    a: NDArray[np.bool_], b: NDArray[np.bool_], spacing: NDArray[np.float64], counted: NDArray[np.bool_] | None = None
) -> tuple[Distances, Distances]:
    """From each surface voxel of `a` to the surface of `b`, and back. counted: voxels that can be surface."""
    from monai.metrics.utils import get_mask_edges, get_surface_distance

    of_a, of_b = get_mask_edges(a, b, crop=False)
    if counted is not None:
        of_a, of_b = of_a & counted, of_b & counted
    if not (of_a.any() and of_b.any()):  # MONAI would count the other surface twice
        return np.full(of_a.sum(), np.inf), np.full(of_b.sum(), np.inf)
    to_b = get_surface_distance(of_a, of_b, spacing=spacing)
    return to_b, get_surface_distance(of_b, of_a, spacing=spacing)


def _boxes(labels: NDArray[np.integer], class_count: int) -> list[Box | None]:
    """The bounding box of each class 1..C-1, None where it is absent."""
    return list(ndimage.find_objects(labels.astype(np.int32), max_label=class_count - 1))


def _around(a: Box | None, b: Box | None) -> Box | None:
    if a is None or b is None:
        return a or b
    return tuple(slice(min(p.start, q.start), max(p.stop, q.stop)) for p, q in zip(a, b, strict=True))


def _voxel_counts(maps: NDArray[np.integer], class_count: int) -> NDArray[np.int64]:
    """Voxels of each class (N, C-1)."""
    counts = np.zeros((len(maps), class_count - 1), np.int64)
    for i, labels in enumerate(maps):
        counts[i] = np.bincount(labels.astype(np.intp).ravel(), minlength=class_count)[1:class_count]
    return counts


def _sums(each: NDArray[np.generic], groups: Groups) -> NDArray[np.float64]:
    """The sums (groups, C-1) of numbers (N, C-1)."""
    names, which = np.unique(groups, return_inverse=True)
    result = np.zeros((len(names), each.shape[1]))
    np.add.at(result, which, each)
    return result


def _share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """part / whole, NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def _zero_where(number: NDArray[np.float64]) -> NDArray[np.float64]:
    """0 where `number` is above 0, else NaN."""
    return np.where(number > 0, 0.0, np.nan)


def _spacing_of_each(
    spacing_mm: ArrayLike, predicted: NDArray[np.integer], truth: NDArray[np.integer]
) -> NDArray[np.float64]:
    """The spacing of each image (N, axes)."""
    _require_one_shape(predicted, truth)
    count, axes = len(truth), truth.ndim - 1
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    if spacing.ndim == 0:
        spacing = np.broadcast_to(spacing, (axes,))
    if spacing.shape not in ((axes,), (count, axes)):
        problem = f"spacings of shape {spacing.shape} for {count} label maps of {axes} axes"
        raise SettingsError(problem, hint=f"Pass ({axes},), or ({count}, {axes}) for one per image")
    if not (np.isfinite(spacing) & (spacing > 0)).all():
        raise SettingsError("a spacing is not above 0 mm", hint="Pass the size of a voxel along each axis")
    return np.broadcast_to(spacing, (count, axes))


def _require_one_shape(predicted: NDArray[np.integer], truth: NDArray[np.integer]) -> None:
    if predicted.shape != truth.shape:
        raise SettingsError(
            f"label maps of shapes {predicted.shape} and {truth.shape} cannot be compared",
            hint="Pass one predicted map of the same size for each true one",
        )
