"""Is an edited label map still a plausible anatomy? Limits learned from the label maps of training patients.

Of every class: its volume, the position of its centre in the field of view and relative to that of each other class,
and the shares of its border that touch each other class and the background. A value is plausible if it lies within the
range of the training maps, widened at both ends by a share of its length (see `margin`), or for a volume by that share
of the end itself. A class that never touches another one in training may touch it with at most 5 % of its border; a
class that every training map shows may not be missing; a map may be empty only if a training map is. Each value is
judged for itself, so an unusual combination of usual values is not found.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anatogen.conditioning.edit import LabelMap, Spacing
from anatogen.errors import DataError

FEWEST_PATIENTS = 5
FEWEST_MAPS = 10
_SHARE_OF_BORDER = 0.05
_LEAST = 1.0  # mm or pixels by which positions are widened at least

Array = NDArray[np.float64]


def margin(patients: int) -> float:
    """By which share of its length a range is widened at each end: 0.25, and 2/P more for P patients.

    Of P patients a new one lies outside their range with a chance of 2 / (P + 1), and a range of few is too short.
    """
    return 0.25 + 2 / patients


@dataclass(frozen=True)
class Measures:
    """What limits are about, of one map with C - 1 classes and d axes. Classes that are absent are nan.

    Attributes:
        volume: (C-1,), in the unit of the spacing to the power of d (mm², mm³, or pixels).
        position: (C-1, d), the centre from the middle of the field of view.
        relative: (C-1, C-1, d), the centre from that of each other class; nan where one of them is absent.
        border: (C-1, C), the share of the border that touches each class, 0 the background; the map's own edge is none.
    """

    volume: Array
    position: Array
    relative: Array
    border: Array

    @property
    def shown(self) -> NDArray[np.bool_]:
        """(C-1,), the classes that the map shows."""
        return np.isfinite(self.volume)


def measure(labels: LabelMap, class_count: int, spacing_mm: Spacing = None) -> Measures:
    """The measures of a map (*spatial) with classes 0 to `class_count` - 1."""
    spacing = np.ones(labels.ndim) if spacing_mm is None else np.asarray(spacing_mm, dtype=np.float64)
    pixels = np.bincount(labels.ravel(), minlength=class_count)[1:].astype(np.float64)
    pixels[pixels == 0] = np.nan
    sums = np.empty((class_count - 1, labels.ndim))
    at = np.flatnonzero(labels)
    classes = labels.ravel()[at]
    for axis, index in enumerate(np.unravel_index(at, labels.shape)):
        from_middle = (index - (labels.shape[axis] - 1) / 2) * spacing[axis]
        sums[:, axis] = np.bincount(classes, from_middle, minlength=class_count)[1:]
    position = sums / pixels[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = position[:, None] - position[None]
        touching = _borders(labels, class_count, spacing)[1:]
        border = touching / touching.sum(axis=1, keepdims=True)
    return Measures(pixels * np.prod(spacing), position, relative, border)


def _borders(labels: LabelMap, count: int, spacing: Array) -> Array:
    """The area of the faces between each two classes, (C, C), symmetric."""
    found = np.zeros(count * count)
    for axis, step in enumerate(spacing):
        along = np.moveaxis(labels, axis, 0)
        a, b = along[:-1], along[1:]
        differ = a != b
        found += np.bincount(a[differ] * count + b[differ], minlength=count * count) * (np.prod(spacing) / step)
    table = found.reshape(count, count)
    summed: Array = table + table.T
    return summed


@dataclass(frozen=True)
class Limits:
    """Plausible ranges, learned by `learn_limits`.

    Attributes:
        classes: The names of the classes 1 to C-1.
        low, high: The ranges with their margins; nan where nothing was learned.
        always: (C-1,), the classes that every training map shows.
        learned: (C-1,), the classes that enough training maps show.
        may_be_empty: Whether a training map is.
        unit: "mm" or "px".
        patients, maps: What they were learned from.
    """

    classes: tuple[str, ...]
    low: Measures
    high: Measures
    always: NDArray[np.bool_]
    learned: NDArray[np.bool_]
    may_be_empty: bool
    unit: str
    patients: int
    maps: int

    def faults(self, labels: LabelMap, spacing_mm: Spacing = None, *, removed: Collection[int] = ()) -> tuple[str, ...]:
        """What is implausible in a map, a sentence each; empty if nothing is.

        Args:
            labels: int64 (*spatial).
            spacing_mm: Pixel size along each axis, where the limits are in mm.
            removed: Classes that were removed on purpose: they may be missing, and what is relative to other classes
                is not judged.
        """
        gone = {self.classes[index - 1] for index in removed}
        found = measure(labels, len(self.classes) + 1, spacing_mm if self.unit == "mm" else None)
        if not found.shown.any():
            return () if self.may_be_empty or gone else ("the map is empty",)
        faults: list[str] = []
        for place, name in enumerate(self.classes):
            if not found.shown[place]:
                if self.always[place] and name not in gone:
                    faults.append(f"{name} is missing, and all {self.maps} training maps show it")
            elif self.learned[place]:
                faults += self._of_class(place, found, relations=not gone)
        return tuple(faults)

    def _of_class(self, place: int, found: Measures, *, relations: bool) -> list[str]:
        name, low, high = self.classes[place], self.low, self.high
        power = {1: "", 2: "²", 3: "³"}[found.position.shape[1]]
        unit = f" {self.unit}{power}" if self.unit == "mm" else " pixels"
        faults = []
        volume, least, most = found.volume[place], low.volume[place], high.volume[place]
        if not least <= volume <= most:
            what = "area" if power == "²" else "volume"
            faults.append(f"{what} of {name} is {_shown(volume)}{unit}, plausible is {_shown(least)} to {_shown(most)}")
        if beyond := _beyond(found.position[place], low.position[place], high.position[place]):
            faults.append(f"{name} lies {beyond:.1f} {self.unit} outside its plausible places in the field of view")
        if not relations:
            return faults
        beside = [
            _beyond(*ends)
            for ends in zip(found.relative[place], low.relative[place], high.relative[place], strict=True)
        ]
        if beyond := max(beside):
            partner = self.classes[beside.index(beyond)]
            faults.append(f"{name} lies {beyond:.1f} {self.unit} outside its plausible places beside {partner}")
        for other, share in enumerate(found.border[place]):
            least, most = low.border[place, other], high.border[place, other]
            if share < least or share > most:
                called = "the background" if other == 0 else self.classes[other - 1]
                faults.append(
                    f"{100 * share:.0f} % of the border of {name} touch {called}, "
                    f"plausible is {100 * max(0, least):.0f} to {100 * min(1, most):.0f} %"
                )
        return faults


def learn_limits(
    maps: Iterable[tuple[LabelMap, Spacing, str]], classes: Sequence[str], *, known: Collection[int] | None = None
) -> Limits:
    """Limits from the label maps of training patients.

    Args:
        maps: Label map (*spatial), its spacing (None for all, or for none: then limits are in pixels), its patient.
        classes: The names of the classes 1 to C-1.
        known: The classes that are annotated in every map, which alone may be called missing; None for all.

    Returns:
        The limits of classes that at least 10 maps of 5 patients show (of whole volumes, one a patient, 5 maps);
        classes that fewer show are not judged.

    Raises:
        DataError: Fewer than 5 patients, from whom no limits can be learned.
    """
    ranges, patients, of_class = _Ranges(), list[str](), [set[str]() for _ in classes]
    in_mm = set[bool]()
    for labels, spacing_mm, patient in maps:
        found = measure(labels, len(classes) + 1, spacing_mm)
        ranges.add(found)
        in_mm.add(spacing_mm is not None)
        patients.append(patient)
        for place in np.flatnonzero(found.shown):
            of_class[place].add(patient)
    count = len(set(patients))
    if count < FEWEST_PATIENTS:
        raise DataError(
            f"plausibility limits cannot be learned from the maps of {count} training patients",
            hint=f"They take {FEWEST_PATIENTS} or more; --implausible keep edits without them",
        )
    if len(in_mm) > 1:
        raise DataError("some training maps have a pixel size and others have none", hint="Use --implausible keep")
    shown = ranges.counts["volume"]
    fewest = FEWEST_PATIENTS if len(patients) == count else FEWEST_MAPS
    named = np.ones(len(classes), bool) if known is None else np.isin(np.arange(len(classes)) + 1, list(known))
    low, high = ranges.widened(np.array([margin(max(1, len(own))) for own in of_class]), fewest)
    return Limits(
        tuple(classes),
        low,
        high,
        always=(shown == len(patients)) & named,
        learned=np.array([len(own) >= FEWEST_PATIENTS for own in of_class]) & (shown >= fewest),
        may_be_empty=ranges.empty > 0,
        unit="mm" if in_mm == {True} else "px",
        patients=count,
        maps=len(patients),
    )


class _Ranges:
    """The smallest and the largest of every measure, and how many maps have it; empty: how many show no class."""

    def __init__(self) -> None:
        self.low: dict[str, Array] = {}
        self.high: dict[str, Array] = {}
        self.counts: dict[str, NDArray[np.int64]] = {}
        self.empty = 0

    def add(self, found: Measures) -> None:
        self.empty += int(not found.shown.any())
        for name in ("volume", "position", "relative", "border"):
            value: Array = getattr(found, name)
            self.low[name] = np.fmin(self.low.get(name, value), value)
            self.high[name] = np.fmax(self.high.get(name, value), value)
            self.counts[name] = self.counts.get(name, np.zeros(value.shape, np.int64)) + np.isfinite(value)

    def widened(self, widths: Array, fewest: int) -> tuple[Measures, Measures]:
        """The ranges with margins of the share `widths` (C-1,); nan where fewer than `fewest` maps have a measure."""
        low, high = {"volume": self.low["volume"] / (1 + widths)}, {"volume": self.high["volume"] * (1 + widths)}
        for name, least in {"position": _LEAST, "relative": _LEAST, "border": _SHARE_OF_BORDER}.items():
            shape = (-1, *(1,) * (self.low[name].ndim - 1))
            more = np.maximum(least, (self.high[name] - self.low[name]) * widths.reshape(shape))
            unknown = self.counts[name] < fewest
            low[name] = np.where(unknown, np.nan, self.low[name] - more)
            high[name] = np.where(unknown, np.nan, self.high[name] + more)
        return Measures(**low), Measures(**high)


def _beyond(value: Array, low: Array, high: Array) -> float:
    """How far a point lies outside a box; 0 inside, or where either is unknown."""
    outside = np.nan_to_num(np.maximum(np.maximum(low - value, value - high), 0))
    return float(np.linalg.norm(outside))


def _shown(size: float) -> str:
    return f"{size:,.0f}" if size >= 100 else f"{size:.2g}"
